"""`ifpp pki`: certificates of the site, from a small CA of our own or listed as another CA made them; broker rights."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from ifpp.bus import rights
from ifpp.bus.topics import Topics
from ifpp.errors import CustodyError, SettingsError
from ifpp.settings import load_site
from ifpp.trust.expiry import SOON, Ending, endings
from ifpp.trust.site_pki import CLIENTS, SERVERS, SitePki


def issue(folder: Path, names: list[str], request: Path | None) -> None:
    """Issue or renew certificates; `request`: sign it under the only name. The revocation list is renewed too."""
    wanted = [_split(name) for name in names]
    if request is not None and len(wanted) != 1:
        raise SettingsError("COMMAND.INVALID", "a request is for one name", where="--csr")
    authority = SitePki(folder)
    for kind, name in wanted:
        if request is not None:
            certificate = authority.sign_request(request, kind, name)
        elif kind in SERVERS:
            certificate, _ = authority.issue_store(name, kind)
        else:
            certificate, _ = authority.issue_caller(kind, name)
        _print(f"issued   {certificate}")
    authority.revoke()
    _print(f"renewed  {authority.crl}")


def revoke(folder: Path, names: list[str]) -> None:
    """Revoke certificates, and renew the revocation list."""
    wanted = [_split(name) for name in names]
    authority = SitePki(folder)
    for kind, name in wanted:
        authority.revoke(authority.certificate(kind, name))
        _print(f"revoked  {authority.certificate(kind, name)}")
    authority.revoke()
    _print(f"renewed  {authority.crl}")


def rotate(folder: Path) -> None:
    """Make the next CA beside the present one."""
    authority = SitePki(folder)
    authority.rotate()
    _print(f"both     {authority.ca}: hand it to everybody before a certificate of the new CA is used")


def retire(folder: Path) -> None:
    """Trust the newest CA only."""
    authority = SitePki(folder)
    authority.retire()
    _print(f"one CA   {authority.ca}")


def broker(folder: Path, names: list[str], site_file: Path, out: Path) -> None:
    """Write mosquitto.conf and the list of rights, this line's part of it, for clients `<role>:<name>`."""
    clients = [_split(name) for name in names]
    if strange := [kind for kind, _ in clients if kind in SERVERS]:
        raise SettingsError("COMMAND.INVALID", "a server has no rights at the broker", where=strange[0])
    site = load_site(site_file)
    topics = Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix)
    folder, out = folder.resolve(), out.resolve()
    own = folder / f"broker-{site.broker.host.replace(':', '_')}.pem"
    acl, conf = out / "acl", out / "mosquitto.conf"
    files = rights.BrokerFiles(
        folder / "ca.pem", own, own.with_suffix(".key"), folder / "crl.pem", acl, out / "persistence"
    )
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        known = acl.read_text(encoding="utf-8") if acl.exists() else ""
        conf.write_text(rights.settings(site.broker.host, site.broker.port, files), encoding="utf-8")
        part = acl.with_name("acl.part")
        part.write_text(rights.put(known, rights.rights(topics, clients)), encoding="utf-8")
        part.chmod(0o600)
        part.replace(acl)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(out)) from error
    _print(f"written  {conf}, {acl}: {len(clients)} clients of {topics.base}; SIGHUP makes a running broker read it")


def show(folder: Path, *, as_json: bool) -> int:
    """Print what is in a folder and when it ends; return 1 when something ends soon."""
    now = datetime.now(UTC)
    found = [one for path in sorted(folder.glob("*.pem")) for one in endings(path)]
    if as_json:
        _print(json.dumps([_facts(one, now) for one in found], indent=2))
    else:
        for one in found:
            days = (one.ends - now).days
            mark = "  SOON" if one.ends - now < SOON else ""
            _print(f"{one.file.name:32} {one.kind:4} ends {one.ends:%F}, {days:5} days  {one.name}{mark}")
    return 1 if any(one.ends - now < SOON for one in found) else 0


def _facts(one: Ending, now: datetime) -> dict[str, object]:
    seconds = int((one.ends - now).total_seconds())
    return {"file": one.file.name, "kind": one.kind, "name": one.name, "ends": one.ends.isoformat(), "seconds": seconds}


def _split(text: str) -> tuple[str, str]:
    kind, _, name = text.partition(":")
    pattern = "[0-9A-Za-z.:-]{1,253}" if kind in SERVERS else "[A-Za-z0-9_-]{1,32}"
    if kind not in (*SERVERS, *CLIENTS) or not re.fullmatch(pattern, name):
        detail = "name certificates store:<host>, broker:<host> or <role>:<name>, role " + ", ".join(CLIENTS)
        raise SettingsError("COMMAND.INVALID", detail, where=text[:60])
    return kind, name


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
