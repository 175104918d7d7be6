"""`ifpp check`: the machine: clock, versions, limits, disks, and who may read what."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from re import match

from ifpp.roles.check import Finding, Level, Probe, Role, Subject
from ifpp.roles.runtime import beside
from ifpp.settings import Tls
from ifpp.station.look import SQLITE_NEEDED, sqlite_version

_MB = 1_000_000
_FEW_FILES = 1024
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def probes(subject: Subject) -> list[tuple[str, Probe]]:
    """Return what is looked at on any machine."""
    return [
        ("version", lambda: _versions(subject)),
        ("clock", _clock),
        ("limits", lambda: _limits(subject)),
        ("disk", lambda: _disks(subject)),
        ("mode", lambda: _modes(subject)),
    ]


def _versions(subject: Subject) -> Iterator[Finding]:
    python = platform.python_version()
    good = sys.version_info >= (3, 11)
    do = "" if good else "Install Python 3.11 or newer."
    yield Finding("version.python", Level.OK if good else Level.FAILURE, sys.executable, python, do)
    found, needed = (".".join(map(str, one)) for one in (sqlite_version(), SQLITE_NEEDED))
    old = sqlite_version() < SQLITE_NEEDED
    do = f"Install SQLite {needed} or newer." if old else ""
    yield Finding("version.sqlite", Level.FAILURE if old else Level.OK, "sqlite3", found, do)
    for name in _wanted_libraries(subject):
        try:
            yield Finding("version.library", Level.OK, name, version(name))
        except PackageNotFoundError:
            yield Finding(
                "version.library", Level.FAILURE, name, "is not installed", f"pip install {name}, or its extra."
            )


def _wanted_libraries(subject: Subject) -> list[str]:
    """What ifpp itself wants, and what the settings make it want."""
    names = [
        found.group() for one in requires("ifpp") or [] if "extra" not in one and (found := match(r"[\w.-]+", one))
    ]
    if subject.site is not None:
        names += ["psycopg"] if subject.site.store.database.startswith("postgresql") else []
        names += ["protobuf"] if subject.site.sparkplug.enabled else []
        names += ["python-pkcs11"] if subject.site.keys.provider == "pkcs11" else []
    kinds = {head.port.partition(":")[0] for station in subject.stations.values() for head in station.heads.values()}
    return sorted({*names, *(["pyscard"] if "pcsc" in kinds else []), *(["pyserial"] if "modem" in kinds else [])})


def _clock() -> Iterator[Finding]:
    now = datetime.now(UTC)
    if now < _BUILT:
        yield Finding(
            "clock", Level.FAILURE, "clock", f"it is {now:%F %T} UTC", "Set the clock: certificates depend on it."
        )
        return
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(256))
    if state == -1:
        why = os.strerror(ctypes.get_errno())  # a hardened unit may not ask the kernel
        yield Finding("clock", Level.NOTE, "clock", f"whether it is synchronised is not told here ({why})")
    elif state == _TIME_ERROR:
        do = "Install and start chrony or systemd-timesyncd: events of stations are put in order by their clocks."
        yield Finding("clock", Level.WARNING, "clock", "not synchronised with a time server", do)
    else:
        yield Finding("clock", Level.OK, "clock", f"synchronised, {now:%F %T} UTC")


def _limits(subject: Subject) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FEW_FILES + 8 * sum(len(station.heads) for station in subject.stations.values())
    seen = f"{soft} open files at most (hard limit {hard}), {wanted} wanted"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        yield Finding(
            "limits.files", Level.WARNING, "RLIMIT_NOFILE", seen, "Set LimitNOFILE= in the unit, or ulimit -n."
        )
    else:
        yield Finding("limits.files", Level.OK, "RLIMIT_NOFILE", seen)


# ---- disks ------------------------------------------------------------------------------------------------


def _disks(subject: Subject) -> Iterator[Finding]:
    for folder in sorted(_folders(subject)):
        if not folder.is_dir():
            do = f"Make it, for the user that ifpp runs as: install -d -m 750 {folder}"
            yield Finding("disk.folder", Level.FAILURE, str(folder), "there is no such folder", do)
            continue
        yield _space(folder)
        yield _writable(folder)


def _folders(subject: Subject) -> set[Path]:
    """Where processes keep what must not be lost."""
    folders = {beside(file, station.journal).parent for file, station in subject.stations.items()}
    factory = subject.is_for(Role.STORE, Role.SUPERVISOR)
    if factory and subject.site is not None and subject.site_file is not None:
        place = subject.site.store.database
        if place.startswith("sqlite:///"):
            folders.add(beside(subject.site_file, place.removeprefix("sqlite:///")).parent)
    return folders


def _space(folder: Path) -> Finding:
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    seen = f"{usage.free / _MB:,.0f} MB free, {100 * share:.0f} %"
    do = "Free room, or `ifpp store purge`: a full disk stops the line (nothing is lost)."
    if usage.free < 100 * _MB:
        return Finding("disk.space", Level.FAILURE, str(folder), seen, do)
    if usage.free < 1000 * _MB or share < 0.05:
        return Finding("disk.space", Level.WARNING, str(folder), seen, do)
    return Finding("disk.space", Level.OK, str(folder), seen)


def _writable(folder: Path) -> Finding:
    """A file without a name is written and synced: nothing is left."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"ifpp")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        do = "Give the folder to the user that ifpp runs as; check the disk."
        return Finding("disk.write", Level.FAILURE, str(folder), f"cannot be written and synced ({error.strerror})", do)
    return Finding("disk.write", Level.OK, str(folder), "can be written and synced")


# ---- who may read ----------------------------------------------------------------------------------------


def _modes(subject: Subject) -> Iterator[Finding]:
    for file in sorted(_secrets(subject)):
        yield from _mode(file, stat.S_IRWXG | stat.S_IRWXO, "others may use it", "chmod 600 {0}")
    files = [*subject.stations, *([subject.site_file] if subject.site_file else [])]
    for file in sorted(files):
        yield from _mode(file, stat.S_IWGRP | stat.S_IWOTH, "others may write it", "chmod go-w {0}")


def _secrets(subject: Subject) -> set[Path]:
    """Private keys and key files that the settings name."""
    found: set[Path] = set()
    if (site := subject.site) is not None and (file := subject.site_file) is not None:
        tables: list[Tls | None] = [site.store.tls] if subject.is_for(Role.STORE) else []
        if subject.is_for(Role.SUPERVISOR):
            tables += [site.broker.tls, *(one.tls for one in site.reports.smdp.values())]
            found |= {beside(file, site.courier.key)} if site.courier.key else set()
            found |= {beside(file, site.keys.file)} if site.keys.provider == "software" else set()
        found |= {beside(file, tls.key) for tls in tables if tls is not None}
    for file, station in subject.stations.items():
        found |= {beside(file, station.tls.key)} if station.tls is not None else set()
        found |= {beside(file, station.keys.file)} if station.keys.provider == "software" else set()
    return {file for file in found if file.exists()}


def _mode(file: Path, too_much: int, seen: str, do: str) -> Iterator[Finding]:
    found = file.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & too_much:
        yield Finding("mode", Level.FAILURE, str(file), f"mode {mode:04o}: {seen}", do.format(file))
    elif found.st_uid not in (0, os.geteuid()):
        seen = f"belongs to user {found.st_uid}, this is user {os.geteuid()}"
        yield Finding("mode", Level.WARNING, str(file), seen, f"chown it to root or to the user ifpp runs as: {file}")
    else:
        yield Finding("mode", Level.OK, str(file), f"mode {mode:04o}")
