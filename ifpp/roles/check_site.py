"""`ifpp check`: what the processes of a site share: trust, certificates, keys, database, ports, broker and store.

What is on this machine must be right before a start, so it is a failure. What is elsewhere may come later: stations and
supervisor wait for it by themselves, so it is a warning.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from ifpp.errors import ServiceError, SettingsError
from ifpp.roles.check import Finding, Level, Probe, Role, Subject
from ifpp.roles.recipes import check_recipes
from ifpp.roles.runtime import beside, load_trust
from ifpp.settings import Keys, Site, Tls
from ifpp.trust.expiry import SOON, endings
from ifpp.trust.tls import client_context

_WAIT_S = 5.0
_KEYS_S = 30.0
_SKEW_S = 2.0  # a second of the Date header, and the way of the answer
_RENEW = "Renew it: `ifpp pki issue`, or your own CA; processes read the new file by themselves."


def probes(subject: Subject) -> list[tuple[str, Probe]]:
    """Return what is looked at where there is a site file."""
    site, file = subject.site, subject.site_file
    if site is None or file is None:
        return []
    found: list[tuple[str, Probe]] = [
        ("certificate", lambda: _certificates(site, file, subject)),
        ("keys", lambda: _keys(site, file, subject)),
    ]
    if subject.is_for(Role.STATION, Role.SUPERVISOR):
        found.append(("trust", lambda: _trust(site, file)))
    if site.recipes and subject.is_for(Role.STATION):
        found.append(("recipes", lambda: _recipes(site, file)))
    if subject.is_for(Role.STORE, Role.SUPERVISOR):
        found.append(("database", lambda: _database(site, file)))
    if not subject.running:
        found.append(("port", lambda: _ports(site, subject)))
    for name, tls in _clients(site, file, subject):
        if subject.is_for(Role.STATION, Role.SUPERVISOR):
            found.append(("broker", lambda name=name, tls=tls: _broker(site, name, tls)))  # type: ignore[misc]
        if subject.is_for(Role.STATION):
            found.append(("store", lambda name=name, tls=tls: _store(site, name, tls)))  # type: ignore[misc]
    return found


Files = tuple[Path, Path, Path]


def _files(tls: Tls | None, settings_file: Path) -> Files | None:
    if tls is None:
        return None
    ca, cert, key = (beside(settings_file, name) for name in (tls.ca, tls.cert, tls.key))
    return ca, cert, key


def _clients(site: Site, file: Path, subject: Subject) -> list[tuple[str, Files | None]]:
    """Who connects, and with which certificate: each station, or the site's own."""
    if subject.is_for(Role.STATION) and subject.stations:
        return [(station.id, _files(station.tls, at)) for at, station in subject.stations.items()]
    return [("", _files(site.broker.tls, file))]


# ---- certificates -------------------------------------------------------------------------------------------


def _trust(site: Site, file: Path) -> Iterator[Finding]:
    load_trust(site, file)
    yield Finding("trust", Level.OK, str(beside(file, site.trust.roots)), "CI certificates can be read")


def _recipes(site: Site, file: Path) -> Iterator[Finding]:
    folder = beside(file, site.recipes)
    names = ", ".join(f"{recipe.name} {recipe.version}" for recipe in check_recipes(folder))
    yield Finding("recipes", Level.OK, str(folder), f"can work: {names}")


def _certificates(site: Site, file: Path, subject: Subject) -> Iterator[Finding]:
    tables = [(one, file) for one in (site.broker.tls, *(smdp.tls for smdp in site.reports.smdp.values()))]
    tables = tables if subject.is_for(Role.SUPERVISOR) else []  # the others may not read these keys
    tables += [(site.store.tls, file)] if subject.is_for(Role.STORE) else []
    tables += [(station.tls, at) for at, station in subject.stations.items()]
    looked: set[Path] = set()
    for table, at in tables:
        if (files := _files(table, at)) is not None:
            client_context(*files)
            looked |= set(files[:2])
    if site.store.tls is not None and site.store.tls.crl and subject.is_for(Role.STORE):
        looked.add(beside(file, site.store.tls.crl))
    for one in sorted(looked):
        yield from _endings(one)


def _endings(file: Path) -> Iterator[Finding]:
    now = datetime.now(UTC)
    for one in endings(file):
        seen = f"{one.name} ends at {one.ends:%F %T} UTC"
        if one.ends <= now:
            yield Finding("certificate", Level.FAILURE, str(file), f"{seen}: it has ended", _RENEW)
        elif one.ends - now < SOON:
            yield Finding("certificate", Level.WARNING, str(file), seen, _RENEW)
        else:
            yield Finding("certificate", Level.OK, str(file), seen)


# ---- keys -------------------------------------------------------------------------------------------------


def _keys(site: Site, file: Path, subject: Subject) -> Iterator[Finding]:
    if subject.is_for(Role.SUPERVISOR):
        yield from _keys_of(site.keys, file, ["--config", str(file)])
    if subject.is_for(Role.STATION):
        for at, station in subject.stations.items():
            yield from _keys_of(station.keys, at, ["--config", str(file), "--station", str(at)])


def _keys_of(keys: Keys, file: Path, place: list[str]) -> Iterator[Finding]:
    """Open the keys in a process of its own: a maker's library may hang, or end its process."""
    if keys.provider == "none":
        return
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not (credentials and (Path(credentials) / keys.pin_credential).is_file()):
        where = beside(file, keys.file if keys.provider == "software" else keys.module)
        there = where.is_file()
        do = "" if there else "Make the keys (deploy/KEYS.md), or name the right file."
        level = Level.NOTE if there else Level.FAILURE
        seen = f"not opened: no credential {keys.pin_credential}" if there else "there is no such file"
        yield Finding("keys", level, str(where), seen, do)
        return
    command = [sys.executable, "-m", "ifpp", "keys", "list", *place]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_KEYS_S, check=False)
    except subprocess.TimeoutExpired:
        do = "Look at the token: cable, power, its daemon. Then `ifpp keys list`."
        yield Finding("keys", Level.FAILURE, str(file), f"no answer in {_KEYS_S:g} s", do)
        return
    if told.returncode == 0:
        count = len(told.stdout.splitlines())
        yield Finding("keys", Level.OK, str(file), f"{keys.provider}: opened, {count} lines in `ifpp keys list`")
    else:
        seen = (told.stderr.strip().splitlines() or [f"ended with {told.returncode}"])[-1]
        yield Finding("keys", Level.FAILURE, str(file), seen, "See the code of this line in RUNBOOK.md.")


# ---- database and ports -------------------------------------------------------------------------------------


def _database(site: Site, file: Path) -> Iterator[Finding]:
    from ifpp.roles.factory_access import database_url
    from ifpp.store.look import look_at_database

    url = database_url(site, file)
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        yield Finding("database", Level.NOTE, url, "is not there yet: the first process makes it")
        return
    yield Finding("database", Level.OK, *look_at_database(url))


def _ports(site: Site, subject: Subject) -> Iterator[Finding]:
    """Try every port that a process here will listen at; a port 0 is any free one."""
    places: list[tuple[str, str, int]] = []
    if subject.is_for(Role.STORE):
        places += [("store.port", site.store.host, site.store.port)]
        places += [("store.metrics_port", site.store.metrics_host, site.store.metrics_port)]
    if subject.is_for(Role.SUPERVISOR):
        places += [("supervisor.metrics_port", site.supervisor.metrics_host, site.supervisor.metrics_port)]
    if subject.is_for(Role.STATION):
        for station in subject.stations.values():
            places += [(f"{station.id}: metrics_port", station.metrics_host, station.metrics_port)]
    for name, host, port in places:
        if port:
            yield _port(name, host, port)


def _port(name: str, host: str, port: int) -> Finding:
    where = f"{name} {host}:{port}"
    try:
        with socket.create_server((host, port)):
            return Finding("port", Level.OK, where, "is free")
    except OSError as error:
        do = f"See who has it (ss -ltnp 'sport = {port}'), or with --running if that is ifpp itself."
        return Finding("port", Level.FAILURE, where, f"cannot be listened at ({error.strerror})", do)


# ---- elsewhere ----------------------------------------------------------------------------------------------


def _broker(site: Site, name: str, files: Files | None) -> Iterator[Finding]:
    from ifpp.bus.client import BrokerAddress
    from ifpp.bus.topics import LINE_NODE, Topics
    from ifpp.bus.visit import visit

    where = f"{site.broker.host}:{site.broker.port}" + (f" as {name}" if name else "")
    if site.broker.tls is not None and files is None:
        raise SettingsError("SETTINGS.MISSING", "the broker speaks TLS: set [tls] ca, cert, key", where=name)
    context = (lambda: client_context(*files)) if site.broker.tls is not None and files is not None else None
    address = BrokerAddress(site.broker.host, site.broker.port, timeout_s=_WAIT_S, tls=context)
    topics = Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix)

    async def greet() -> None:
        async with visit(address, site.line, [topics.alarms(LINE_NODE)]):
            pass

    try:
        asyncio.run(greet())
    except ServiceError as error:
        do = "Start the broker, or mend [broker]; events wait in the journals until it answers."
        yield Finding("broker", Level.WARNING, where, error.detail, do)
    else:
        yield Finding("broker", Level.OK, where, "answers")


def _store(site: Site, name: str, files: Files | None) -> Iterator[Finding]:
    where = site.store.url + (f" as {name}" if name else "")
    secure = site.store.url.startswith("https:")
    if secure and files is None:
        raise SettingsError("SETTINGS.MISSING", "the store speaks TLS: set [tls] ca, cert, key", where=name)
    context: ssl.SSLContext | None = client_context(*files) if secure and files is not None else None
    try:
        with urllib.request.urlopen(f"{site.store.url}/readyz", timeout=_WAIT_S, context=context) as answer:  # noqa: S310
            told = answer.headers.get("Date", "")
    except (OSError, urllib.error.HTTPError) as error:
        do = "Start the store, or mend store.url; units wait, or are made from the station's [cache]."
        yield Finding("store", Level.WARNING, where, f"does not answer ({error})", do)
        return
    yield Finding("store", Level.OK, where, "answers, and so does its database")
    skew_s = abs((datetime.now(UTC) - parsedate_to_datetime(told)).total_seconds()) if told else 0.0
    if skew_s > _SKEW_S:
        do = "Set both clocks by the same time server: leases and certificates depend on them."
        yield Finding("clock.store", Level.WARNING, where, f"its clock is {skew_s:.0f} s apart from this one", do)
