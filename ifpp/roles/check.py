"""`ifpp check`: what is wrong with an installation, and what to do, before anything is started.

Every probe reads and asks; none changes anything, keeps a lock or waits for long. A probe that fails is a finding,
never an end. Under systemd it runs before each start: a failure keeps the process from starting, a warning does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from ifpp import __version__
from ifpp.errors import IfppError, SettingsError
from ifpp.model.clock import utc_ms_text
from ifpp.settings import Site, Station, load_site, load_station

FORMAT = "ifpp.check/1.0"


class Level(StrEnum):
    """How bad a finding is; only a FAILURE makes the command fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


class Role(StrEnum):
    """For which process is looked; ALL = whatever the files describe."""

    ALL = "all"
    STORE = "store"
    SUPERVISOR = "supervisor"
    STATION = "station"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `probe` as "disk.space", where, what was seen, and what to `do` ("" = nothing)."""

    probe: str
    level: Level
    where: str
    seen: str
    do: str = ""


Probe = Callable[[], Iterator[Finding]]
S = TypeVar("S", Site, Station)


@dataclass(frozen=True, slots=True)
class Subject:
    """The files of one installation, read; `running`: its processes may be up, so what they hold is no fault."""

    site_file: Path | None
    site: Site | None
    stations: dict[Path, Station]
    role: Role
    running: bool

    def is_for(self, *roles: Role) -> bool:
        """Whether one of these processes is looked at."""
        return self.role in (Role.ALL, *roles)


def check(paths: Sequence[Path], role: Role, *, running: bool, as_json: bool) -> int:
    """Look at everything, print what was found; return 1 when something must be mended before a start, else 0."""
    findings = list(look(paths, role, running=running))
    if as_json:
        sys.stdout.write(json.dumps(document(findings), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_text(findings)) + "\n")
    return 1 if any(one.level is Level.FAILURE for one in findings) else 0


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `--json` prints: the findings in order, and how many there are of each level."""
    counts = {level.value: sum(one.level is level for one in findings) for level in Level}
    told = [asdict(one) for one in findings]
    return {"format": FORMAT, "version": __version__, "at": utc_ms_text(datetime.now(UTC)), **counts, "findings": told}


def look(paths: Sequence[Path], role: Role, *, running: bool = False) -> Iterator[Finding]:
    """Give one finding after the other, settings first: what cannot be read cannot be looked into."""
    from ifpp.roles import check_machine, check_site, check_station

    site_files, station_files = _files(paths)
    yield from _none_found(site_files, station_files, role)
    sites: dict[Path, Site] = {}
    stations: dict[Path, Station] = {}
    for file in site_files:
        yield from _read(file, load_site, sites)
    for file in station_files:
        yield from _read(file, load_station, stations)
    yield from _twice(stations)
    site_file = next(iter(sites), None)
    subject = Subject(site_file, sites.get(site_file) if site_file else None, stations, role, running)
    for probes in (check_machine.probes(subject), check_site.probes(subject), check_station.probes(subject)):
        for name, probe in probes:
            yield from _safely(name, probe)


def _safely(name: str, probe: Probe) -> Iterator[Finding]:
    """Whatever a probe does, the others go on."""
    try:
        yield from probe()
    except IfppError as error:
        yield Finding(name, Level.FAILURE, error.where, f"{error.code}: {error.detail}", error.advice)
    except Exception as error:  # noqa: BLE001 - a look must not end the look
        yield Finding(name, Level.FAILURE, name, f"{type(error).__name__}: {error}", "Call engineering with this line.")


# ---- files ------------------------------------------------------------------------------------------------


def _files(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell site files and station files apart; a folder stands for config/site.toml and stations/*.toml in it."""
    sites: list[Path] = []
    stations: list[Path] = []
    for path in paths:
        if path.is_dir():
            sites += [one for one in (path / "config" / "site.toml", path / "site.toml") if one.is_file()][:1]
            stations += [one for one in sorted((path / "stations").glob("*.toml")) if one.name != "people.toml"]
        elif _is_station(path):
            stations.append(path)
        else:
            sites.append(path)
    return sites, stations


def _is_station(path: Path) -> bool:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return path.parent.name == "stations"
    return any(line.split("=")[0].strip() == "id" or line.startswith("[heads") for line in lines)


def _none_found(sites: Sequence[Path], stations: Sequence[Path], role: Role) -> Iterator[Finding]:
    if not sites:
        do = "Name the site file, or the folder that holds config/site.toml."
        yield Finding("settings", Level.FAILURE, "site", "no site file among the given paths", do)
    if not stations and role is Role.STATION:
        do = "Name the station file, stations/<id>.toml."
        yield Finding("settings", Level.FAILURE, "station", "no station file among the given paths", do)


def _read(file: Path, load: Callable[[Path], S], into: dict[Path, S]) -> Iterator[Finding]:
    try:
        into[file] = load(file)
    except SettingsError as error:
        yield Finding("settings", Level.FAILURE, error.where, f"{error.code}: {error.detail}", error.advice)
        return
    yield Finding("settings", Level.OK, str(file), "every key is known and in its range")


def _twice(stations: dict[Path, Station]) -> Iterator[Finding]:
    """Two files may not speak of one station or one port."""
    ids: dict[str, Path] = {}
    ports: dict[str, str] = {}
    for file, station in stations.items():
        if (other := ids.setdefault(station.id, file)) != file:
            do = "Give each station an id of its own: its events are counted by it."
            yield Finding("settings.unique", Level.FAILURE, str(file), f"{other} has the same id {station.id}", do)
        for head_id, head in station.heads.items():
            place = f"{station.id}/{head_id}"
            if (owner := ports.setdefault(head.port, place)) != place:
                do = "Name another port: a reader belongs to one head."
                yield Finding(
                    "settings.unique", Level.FAILURE, f"{file}: heads.{head_id}", f"{owner} has {head.port}", do
                )


# ---- words ------------------------------------------------------------------------------------------------

_MARKS = {Level.OK: "ok     ", Level.NOTE: "note   ", Level.WARNING: "WARNING", Level.FAILURE: "FAILURE"}


def _text(findings: Sequence[Finding]) -> Iterator[str]:
    for one in findings:
        yield f"{_MARKS[one.level]}  {one.probe:18} {one.where}: {one.seen}"
        if one.do:
            yield f"{'':29}{one.do}"
    counts = document(findings)
    yield f"{counts['failure']} failures, {counts['warning']} warnings, {counts['note']} notes, {counts['ok']} ok"
