"""`ifpp acceptance`: the plant's own line, copied, against simulated chips; what it does is judged, signed, written.

1. The plant's settings are read; a signer, an empty place for the report and one for the copy are there, or nothing
   is started.
2. A world is made and a copy of the line (`acceptance_copy`) opened over it, in a folder and on ports of its own.
3. Every unit is made while the acts of `acceptance_line` come to pass.
4. Everything is stopped in order; evidence of every chip is judged (`acceptance_judge`); the report is written at once.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ifpp import __version__
from ifpp.bus.broker import BrokerKind, mosquitto_path
from ifpp.errors import SettingsError
from ifpp.line import acceptance as report
from ifpp.model.clock import utc_ms_text, uuid7
from ifpp.model.recipe import IFPP_LOAD, Recipe, digest
from ifpp.roles.acceptance_copy import Plant
from ifpp.roles.acceptance_judge import Criterion, criteria, gather
from ifpp.roles.acceptance_line import AcceptanceLine, Act, Driver, Journey
from ifpp.roles.demo_recipe import make_of, needs_modem
from ifpp.roles.factory_access import database_url
from ifpp.roles.factory_floor import STORE, SUPERVISOR
from ifpp.roles.key_access import signer_for, using_keys
from ifpp.sim.doors import Ports
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.station.look import sqlite_version
from ifpp.store.witness import tables_in
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import Signer, SoftwareSigner

_FAULTS = ("contact", "small_memory", "contact", "tampered", "contact", "no_package")
_BAD = frozenset(_FAULTS) - {"contact"}
_QUICK_OF_HEAD, _OF_HEAD = 6, 24  # units for each head
_LEAST = 30
_JOB = JobPlan("ACCEPTANCE-1", "ACCEPTANCE", "EU")


@dataclass(frozen=True, slots=True)
class AcceptanceOptions:
    """What the command line asks for. `units` 0: as many as the acts need; `database`: an empty one for the copy."""

    out: Path
    seed: int = 1
    units: int = 0
    apdu_ms: float = 5.0
    quick: bool = False
    database: str = ""
    recipe: str = ""
    key: Path | None = None
    keep: Path | None = None


def accept(site_file: Path, station_files: list[Path], options: AcceptanceOptions) -> int:
    """Accept a line; returns 0 when it passed, 1 when not, 130 after Ctrl-C, which leaves no report.

    Raises SettingsError before anything is started, IfppError when the copy cannot be opened.
    """
    plant = Plant.read(site_file, station_files)
    _check(plant, options)
    plant.recipe(options.recipe)
    with _signer(plant, options) as signer:
        folder = options.keep or Path(tempfile.mkdtemp(prefix="ifpp-acceptance-"))
        try:
            document = asyncio.run(_Acceptance(plant, folder, options).run())
            report.write(document, options.out, signer)
        except (asyncio.CancelledError, KeyboardInterrupt):
            _say("stopped; every process has ended, no report was written")
            return 130
        finally:
            if options.keep is None:
                shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(report.as_text(document))
    _say(f"written to {options.out}, signed by key {signer.key_id}")
    return 0 if document["verdict"] == "pass" else 1


def _check(plant: Plant, options: AcceptanceOptions) -> None:
    """Refuse what would touch the plant or cannot end in a report; raises SettingsError COMMAND.INVALID."""
    for where, path in (("--out", options.out), ("--keep", options.keep)):
        if path is not None and path.exists():
            raise SettingsError("COMMAND.INVALID", "it exists already; name a new folder", where=f"{where} {path}")
        if path is not None and not path.resolve().parent.is_dir():
            raise SettingsError("COMMAND.INVALID", "its folder does not exist", where=f"{where} {path}")
    if not options.database:
        return
    if options.database == database_url(plant.site, plant.site_file):
        raise SettingsError("COMMAND.INVALID", "this is the plant's own database", where="--database")
    if found := tables_in(options.database):
        raise SettingsError("COMMAND.INVALID", f"not empty: {found} tables; name an empty one", where="--database")


@contextmanager
def _signer(plant: Plant, options: AcceptanceOptions) -> Iterator[Signer]:
    """What signs the report: the key that was named, else the plant's report key; tried before anything starts."""
    if options.key is not None:
        yield SoftwareSigner.load(options.key)
        return
    with using_keys(plant.site.keys, plant.site_file) as keys:
        signer = signer_for(keys, plant.site.keys, Purpose.REPORT)
        if signer is None:
            detail = "nothing would sign the report: set [keys], or name a key of `ifpp keys personal`"
            raise SettingsError("COMMAND.INVALID", detail, where="--key")
        _ = signer.key_id
        yield signer


class _Acceptance:
    def __init__(self, plant: Plant, folder: Path, options: AcceptanceOptions) -> None:
        self._plant, self._folder, self._options = plant, folder, options
        self._recipe = plant.recipe(options.recipe)
        ports = Ports.MODEM if self._recipe is not None and needs_modem(self._recipe) else Ports.TCP
        self._line = AcceptanceLine(plant, folder, apdu_ms=options.apdu_ms, books=options.database, ports=ports)

    async def run(self) -> dict[str, Any]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - inside asyncio.run
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        line = self._line
        try:
            world = await asyncio.to_thread(self._world)
            await line.start_broker()
            _say(f"opening a copy of the line in {self._folder} ...")
            await line.open(world)
            driver = Driver(line, world, self._options.seed, _say)
            await driver.run()
            await self._end(world, driver.journey)
        finally:
            await line.close()
        return await asyncio.to_thread(self._judge, world, driver.journey)

    def _world(self) -> WorldSummary:
        heads = {name: len(station.heads) for name, station in self._plant.stations.items()}
        of_head = _QUICK_OF_HEAD if self._options.quick else _OF_HEAD
        # Dealt to the stations in turn: each gets what the largest needs, and some for every act.
        least = 2 * (len(Act) + 1) * len(heads)
        units = self._options.units or max(_LEAST, least, of_head * max(heads.values()) * len(heads))
        if units < least:
            detail = f"{units} units do not last for every act at {len(heads)} stations: at least {least}"
            raise SettingsError("COMMAND.INVALID", detail, where="--units")
        _say(f"making {units} chips, their keys and their packages ...")
        faults = max(len(_FAULTS), units // 10)
        try:
            job, recipe = _JOB._replace(stations=self._line.stations), self._recipe
            if recipe is not None:
                job = job._replace(recipe=(recipe.name, recipe.version), types=recipe.profiles)
            return build_world(
                self._folder / "world",
                units=units,
                seed=self._options.seed,
                jobs=[job],
                faults=faults,
                fault_classes=_FAULTS,
                make=None if recipe is None else make_of(recipe),
            )
        except ValueError as error:
            raise SettingsError("COMMAND.INVALID", str(error), where="--units") from error

    async def _end(self, world: WorldSummary, journey: Journey) -> None:
        """Report and close in order, where the line came so far."""
        line = self._line
        if journey.faults or any(one.fault for one in journey.done):
            return
        reports = await line.write_reports()
        journey.faults += await line.stop_in_order(*line.stations)
        await line.deliver_reports(world, reports)
        journey.faults += await line.stop_in_order(SUPERVISOR, STORE)

    def _judge(self, world: WorldSummary, journey: Journey) -> dict[str, Any]:
        told = gather(self._line, world, self._recipe or IFPP_LOAD)
        lease_s, untouched = self._plant.site.supervisor.lease_s, self._plant.untouched
        found = criteria(told, world, journey, lease_s=lease_s, untouched=untouched)
        passed = sum(unit.lamp == "pass" for unit in told.evidence.units)
        figures = {
            "units": len(world.units),
            "passed": passed,
            "attempts": len(told.evidence.attempts),
            "events": len(told.evidence.taken),
            "elapsed_s": round(journey.elapsed_s, 1),
            "good_units_an_hour": round(3600 * passed / journey.elapsed_s, 1) if journey.elapsed_s else 0.0,
        }
        return self._document(world, journey, found, figures)

    def _document(
        self, world: WorldSummary, journey: Journey, found: list[Criterion], figures: dict[str, Any]
    ) -> dict[str, Any]:
        now, plant, options = datetime.now(UTC), self._plant, self._options
        faults = [plan.fault for plan in world.units]
        return {
            "format": report.FORMAT,
            "report_id": uuid7(now),
            "made_at": utc_ms_text(now),
            "verdict": "pass" if all(one.passed for one in found) else "fail",
            "line": {name: getattr(plant.site, name) for name in ("enterprise", "site", "area", "line")}
            | {"stations": {name: list(station.heads) for name, station in sorted(plant.stations.items())}},
            "plan": {
                "units": len(world.units),
                "pulled": faults.count("contact"),
                "bad": {name: faults.count(name) for name in sorted(_BAD)},
                "acts": [str(act) for act in Act],
                "seed": options.seed,
                "apdu_ms": options.apdu_ms,
                "quick": options.quick,
                "recipe": _name_of(self._recipe or IFPP_LOAD),
            },
            "criteria": [asdict(one) for one in found],
            "acts": [asdict(one) for one in journey.done],
            "figures": figures,
            "versions": _versions(self._line),
            "machine": _machine(),
            "configuration": {"files": plant.digests, "replaced": [asdict(one) for one in plant.replaced()]},
            "notes": list(self._notes()),
        }

    def _notes(self) -> Iterator[str]:
        """What a reader should know that is no fault of the line."""
        plants, ours = (url.partition(":")[0] for url in (self._plant.site.store.database, self._line.database))
        if plants != ours:
            yield f"the plant's database is {plants}, the copy's was {ours}"
        if self._line.broker is not None and self._line.broker.kind is not BrokerKind.MOSQUITTO:
            yield "Mosquitto is not installed: the copy's broker is another one"
        if self._plant.site.broker.tls or self._plant.site.store.tls:
            yield "the plant speaks TLS, the copy does not: `ifpp check` looks at the plant's certificates"
        if self._plant.site.mes.enabled:
            yield "the plant has an MES; the copy worked without"
        others = [each.name for each in self._plant.recipes if self._recipe is not None and each != self._recipe]
        if others:
            yield f"recipes that were not tried: {', '.join(others)}"


def _name_of(recipe: Recipe) -> str:
    return f"{recipe.name} {recipe.version} (SHA-256 {digest(recipe)})"


def _versions(line: AcceptanceLine) -> dict[str, str]:
    found = {
        "ifpp": __version__,
        "Python": platform.python_version(),
        "SQLite": ".".join(map(str, sqlite_version())),
        "OpenSSL": ssl.OPENSSL_VERSION,
        "system": _system(),
        "broker": "" if line.broker is None else str(line.broker.kind),
    }
    if (path := mosquitto_path()) is not None:
        told = subprocess.run([path, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout
        version = re.search(r"mosquitto version (\S+)", told)
        found["Mosquitto"] = version.group(1) if version else "?"
    return found


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "?")
    except OSError:
        name = platform.system()
    return f"{name}, {platform.release()}, {platform.machine()}"


def _machine() -> dict[str, Any]:
    models = re.findall(r"^model name\s*: (.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"name": platform.node(), "processor": models[0] if models else "?", "cpus": os.cpu_count()} | {
        "memory_bytes": memory
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
