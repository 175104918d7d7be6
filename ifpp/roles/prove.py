"""`ifpp station prove`: a signed document of what a station holds, and that no secret of a profile is among it.

What it can show: every key by name and kind, every file with its digest, every open socket of a running station, the
code and its libraries; and that none of the bytes looked at is a private key where none belongs, or a profile in plain
(GENS09, GENS10). What it cannot show is memory. There the argument is the code: a station's packages import nothing
that makes keys, decrypts or derives session keys (`imports`), and a profile package stays as the SM-DPf encrypted it
for the chip.
"""

from __future__ import annotations

import ast
import json
import re
import stat
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import ifpp
from ifpp.errors import CustodyError, VerificationError
from ifpp.model.clock import utc_ms_text
from ifpp.roles.key_access import using_keys
from ifpp.roles.runtime import beside
from ifpp.settings import Station, load_station
from ifpp.station.history import every_value
from ifpp.trust.keyring import KeyProvider, Purpose
from ifpp.trust.signer import VerificationKey, read_public_key
from ifpp.wire.audit import canonical

CONTEXT = b"ifpp station proof 1\n"
FORMAT, VERSION = "ifpp.station-proof", "1.0"
_SECRETS = {
    "private key in PEM": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "EC private key in DER": re.compile(rb"\x30[\x2e-\x8a][\x00-\xff]{0,2}?\x02\x01\x01\x04[\x1c-\x42]"),
    "profile in plain (SAIP header)": re.compile(rb"\xa0.{0,3}\x80\x01[\x02\x03]\x81\x01[\x00-\x09]\x82", re.DOTALL),
}
_STATION_CODE = ("station", "fpa", "wire", "hw", "bus")
_FOREIGN = re.compile(r"^(cryptography|Crypto|nacl|pkcs11)(\.|$)")


def prove(station_file: Path, out: Path) -> int:
    """Write and sign the document; return 1 when something was found that must not be there."""
    station = load_station(station_file)
    with using_keys(station.keys, station_file) as keys:
        statement = _statement(station, station_file, keys)
        signer = None if keys is None else keys.signer(Purpose.STATION)
        document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "statement": statement}
        if signer is not None:
            signature = signer.sign(CONTEXT + canonical(statement))
            document |= {"public_key": b64encode(signer.public).decode(), "signature": b64encode(signature).decode()}
    try:
        with out.open("x", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2, sort_keys=True)
            stream.write("\n")
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(out)) from error
    for one in statement["found"]:
        _print(f"FOUND    {one}")
    signed = "signed" if signer is not None else "NOT SIGNED: [keys] has no station key"
    _print(f"{out}: {len(statement['files'])} files, {len(statement['keys'])} keys, {signed}")
    return 1 if statement["found"] or signer is None else 0


def verify(file: Path, key: Path | None) -> int:
    """Check a document's signature, under `key` when it is given; return 1 when it says that something was found."""
    try:
        document = json.loads(file.read_bytes())
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            raise ValueError("another format")
        statement, public = document["statement"], b64decode(document["public_key"], validate=True)
        signature = b64decode(document["signature"], validate=True)
        message = CONTEXT + canonical(statement)
        station, made, found = str(statement["station"]), str(statement["at"]), list(statement["found"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationError("AUDIT.FORMAT", "no signed proof of a station", where=str(file)) from error
    signer = VerificationKey.from_der(public, where=str(file))
    if key is not None and read_public_key(key).key_id != signer.key_id:
        raise VerificationError("AUDIT.UNKNOWN_KEY", f"signed with key {signer.key_id}", where=str(file))
    signer.verify(signature, message, what="station proof")
    whose = "the key named" if key is not None else f"key {signer.key_id}: compare it, or name it with --key"
    _print(f"SIGNED   {station} at {made}, under {whose}")
    for one in found:
        _print(f"FOUND    {one}")
    return 1 if found else 0


def _statement(station: Station, station_file: Path, keys: KeyProvider | None) -> dict[str, Any]:
    files = sorted(set(_files(station, station_file)))
    allowed = {beside(station_file, station.tls.key)} if station.tls else set()
    contents = {path: path.read_bytes() for path in files}
    found = [
        f"{what} in {path}"
        for path, content in contents.items()
        for what, pattern in _SECRETS.items()
        if not (path in allowed and what == "private key in PEM")
        and (pattern.search(content) or any(pattern.search(value) for value in every_value(path)))
    ]
    imports = list(_forbidden_imports())
    return {
        "at": utc_ms_text(datetime.now(UTC)),
        "station": station.id,
        "keys": [] if keys is None else [_key(info, keys.kind) for info in keys.keys()],  # noqa: SIM118 - no dict
        "files": [_file(path, contents[path], path in allowed) for path in files],
        "sockets": _sockets({path for path in files if path.suffix == ".db"}),
        "looked_for": sorted(_SECRETS),
        "found": found + imports,
        "software": _software() | {"cryptography_reached_by": _reached()},
    }


def _files(station: Station, station_file: Path) -> Iterator[Path]:
    """Every file a station keeps: databases with what SQLite writes beside them, settings, certificates, keys."""
    names = [station.journal, station.cache.file, station.cache.eids, station.window.people]
    if station.tls is not None:
        names += [station.tls.ca, station.tls.cert, station.tls.key]
    if station.keys.provider == "software":
        names.append(station.keys.file)
    for path in [station_file.resolve(), *(beside(station_file, name) for name in names if name)]:
        for one in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
            if one.is_file():
                yield one
    for folder in {station_file.resolve().parent, beside(station_file, station.journal).parent}:
        yield from (one for one in folder.iterdir() if one.is_file())  # also what nobody expects there


def _file(path: Path, content: bytes, private: bool) -> dict[str, Any]:
    facts = path.stat()
    row: dict[str, Any] = {"path": str(path), "size": len(content), "sha256": sha256(content).hexdigest()}
    if private:
        row |= {"holds": "private key of this station's TLS", "sha256": ""}  # a digest of a key is of no use to anybody
    return row | {"mode": f"{stat.S_IMODE(facts.st_mode):04o}", "uid": facts.st_uid, "gid": facts.st_gid}


def _key(info: Any, kind: str) -> dict[str, Any]:
    return {
        "name": info.name,
        "provider": kind,
        "algorithm": info.algorithm,
        "key_id": info.key_id,
        "attributes": sorted(info.attributes),
    }


def _sockets(databases: set[Path]) -> list[str]:
    """Sockets of the processes that have one of these databases open, as Linux names them; [] when none runs."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*/fd"):
        links = list(_links(process))
        if any(Path(link) in databases for link in links):
            wanted = {link[8:-1] for link in links if link.startswith("socket:[")}
            found.update(_named(process.parent, wanted))
    return sorted(found)


def _links(descriptors: Path) -> Iterator[str]:
    """What a process has open; nothing where it ended, or is somebody else's."""
    with suppress(OSError):
        for one in descriptors.iterdir():
            with suppress(OSError):  # closed meanwhile
                yield str(one.readlink())


def _named(process: Path, inodes: set[str]) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        for row in _rows(process / "net" / name):
            if row[9] in inodes:
                state = "listens" if row[3] == "0A" else "connected"
                yield f"{name} {state} local port {int(row[1].rsplit(':', 1)[1], 16)}"
    for row in _rows(process / "net" / "unix"):
        if row[6] in inodes and len(row) > 7:
            yield f"unix {row[7]}"


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()[1:]]
    except OSError:
        return []


def _forbidden_imports() -> Iterator[str]:
    """Imports of cryptography in the code that touches chips and packages; `hw.hsm` alone may speak to a token."""
    root = Path(ifpp.__file__).parent
    for package in _STATION_CODE:
        for path in sorted((root / package).rglob("*.py")):
            if path.name == "hsm.py" or path.parent.name == "hsm":
                continue
            found = {name.split(".")[0] for name in _imported(path) if _FOREIGN.match(name)}
            yield from (f"{path.name} imports {name}" for name in sorted(found))


def _reached() -> list[str]:
    """Modules that use a library which could decrypt, and that the station's code imports, directly or not.

    None of them is given a session key or a one-time private key: they check signatures, hold the station's own keys
    and speak TLS. That they could be misused is what this list is for.
    """
    root = Path(ifpp.__file__).parent
    waiting = {f"ifpp.{package}" for package in _STATION_CODE}
    seen: set[str] = set()
    able: set[str] = set()
    for package in list(waiting):
        waiting |= {_module(root, path) for path in (root / package.removeprefix("ifpp.")).rglob("*.py")}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = root.parent / Path(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not file.is_file():
            continue
        for imported in _imported(file):
            if _FOREIGN.match(imported):
                able.add(name)
            elif imported.startswith("ifpp.") and imported not in seen:
                waiting.add(imported)
    return sorted(able)


def _module(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root.parent).with_suffix("").parts)


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _software() -> dict[str, Any]:
    """The version and one digest of the installed code, and every library that could decrypt."""
    root, whole = Path(ifpp.__file__).parent, sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(str(path.relative_to(root)).encode() + b"\0" + sha256(path.read_bytes()).digest())
    able = {f"{one.name} {one.version}" for one in distributions() if _FOREIGN.match(one.name.replace("python-", ""))}
    return {"version": ifpp.__version__, "sha256": whole.hexdigest(), "able_to_decrypt": sorted(able)}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
