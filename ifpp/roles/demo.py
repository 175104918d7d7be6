"""`ifpp demo`: a whole line on one machine, every process real, every chip simulated.

1. A world is made: test PKI, chips, deliveries, job orders (`sim`).
2. Broker, store, supervisor, chip fleets and stations are started as processes on the loopback.
3. A robot seats and removes units; the line works; progress is shown.
4. Everything is stopped in order; then chips, ledger, journals and reports are compared unit by unit (`accounts`).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifpp.bus.broker import BrokerKind, free_port
from ifpp.errors import ServiceError, SettingsError
from ifpp.model.recipe import IFPP_LOAD, Recipe
from ifpp.recipes import load_recipe
from ifpp.roles import demo_mes
from ifpp.roles.accounts import Figures, take_account
from ifpp.roles.children import Child
from ifpp.roles.demo_keys import KeysKind, softhsm_module
from ifpp.roles.demo_recipe import find_recipe, make_of, needs_modem
from ifpp.roles.demo_screen import DemoScreen
from ifpp.roles.factory_floor import SUPERVISOR, FactoryFloor
from ifpp.sim.doors import Ports
from ifpp.sim.world import FAULT_CLASSES, FAULT_CLASSES_ONLINE, JobPlan, WorldSummary, build_world
from ifpp.store.factory import Factory

_MARKETS = [("TRACKER-EU", "EU"), ("TRACKER-US", "US"), ("TRACKER-AP", "AP")]
_PROGRESS_S = 0.5
_PATIENCE_S = 60.0
_LONGEST_LOAD_APDUS = 1500


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line asks for; `apdu_ms` is the time a chip takes for one command, in milliseconds."""

    units: int
    stations: int
    heads: int
    seed: int
    apdu_ms: float
    faults: int
    ports: Ports
    modem: str
    templates: Sequence[Path]
    broker: BrokerKind | None
    json: Path | None
    keep: Path | None
    keys: KeysKind = KeysKind.SOFTWARE
    encrypt_deliveries: bool = False
    dm_auth: bool = False
    screen: bool = True
    mes: bool = False
    recipe: str = ""


def demo(options: DemoOptions) -> int:
    """Run the demo; returns 0 when every unit is accounted for, 1 when not, 130 after Ctrl-C."""
    templates = _check(options)
    recipe_file = find_recipe(options.recipe) if options.recipe else None
    recipe = load_recipe(recipe_file) if recipe_file else None
    if recipe is not None and needs_modem(recipe) and options.ports is not Ports.MODEM:
        raise SettingsError("COMMAND.INVALID", "this recipe wants modem heads: --ports modem", where="--recipe")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="ifpp-demo-"))
    try:
        figures = asyncio.run(_Demo(options, folder, templates, recipe, recipe_file).run())
    except (asyncio.CancelledError, KeyboardInterrupt):
        _say("stopped; every process has ended")
        return 130
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json is not None:
        options.json.write_text(json.dumps(figures.document(), indent=2) + "\n", encoding="utf-8")
    _say(figures.text())
    if options.keep is not None:
        _say(f"kept in {options.keep}; its keys: export CREDENTIALS_DIRECTORY={options.keep / 'credentials'}")
    return 0 if figures.sound else 1


def _check(options: DemoOptions) -> list[bytes]:
    """Refuse what cannot work before anything is started; returns the templates."""
    if options.units < options.stations:
        raise SettingsError("COMMAND.INVALID", "there are fewer units than stations", where="--units")
    if options.faults > options.units:
        raise SettingsError("COMMAND.INVALID", "more faulty units than units", where="--faults")
    if options.keep is not None and options.keep.exists():
        raise SettingsError("COMMAND.INVALID", "it exists already; name a new folder", where=f"--keep {options.keep}")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        raise SettingsError("COMMAND.INVALID", "its folder does not exist", where=f"--json {options.json}")
    if options.keys is KeysKind.NONE and (options.encrypt_deliveries or options.dm_auth):
        raise SettingsError("COMMAND.INVALID", "these want keys", where="--encrypt-deliveries or --dm-auth")
    if options.keys is KeysKind.PKCS11:
        softhsm_module()
    return [_template(path) for path in options.templates]


def _template(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            "SETTINGS.MISSING", f"cannot be read ({error.strerror})", where=f"--template {path}"
        ) from error


class _Demo:
    def __init__(
        self,
        options: DemoOptions,
        folder: Path,
        templates: Sequence[bytes],
        recipe: Recipe | None = None,
        recipe_file: Path | None = None,
    ) -> None:
        self._options = options
        self._recipe = recipe
        self._folder = folder
        self._templates = templates
        self._stations = [f"st{number:02d}" for number in range(1, options.stations + 1)]
        self._floor = FactoryFloor(
            folder,
            self._stations,
            heads=options.heads,
            apdu_ms=options.apdu_ms,
            broker=options.broker,
            ports=options.ports,
            modem=options.modem,
            keys=options.keys,
        )
        self._screen = DemoScreen(None)
        self._floor.encrypt_deliveries = options.encrypt_deliveries
        self._floor.mes = options.mes
        self._floor.recipe_file = recipe_file
        self._floor.fleet_extra = ("--stay",)  # else the figures would end with heads that are down
        if options.dm_auth:
            self._floor.station_extra += "\n[recipe]\ndm_auth = true\n"

    async def run(self) -> Figures:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - inside asyncio.run
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        _say(f"making {self._options.units} chips, their keys and their packages ...")
        world, floor, options = self._world(), self._floor, self._options
        try:
            broker = await floor.start_broker()
            _say(f"broker: {broker.kind}; starting store, supervisor, {len(self._stations)} stations ...")
            await floor.open(world)
            stations = [floor.children[name] for name in self._stations]
            cpu_s = sum(child.cpu_s() for child in stations)
            first = self._stations[0]
            _say(f"badge at {first}'s screen: {floor.badge} (ifpp tui --socket {floor.socket(first)})")
            if self._options.screen:
                self._screen = await DemoScreen.open(floor.command("tui"), floor.station_file(first))
            if options.mes:
                await demo_mes.begin(floor, world)
            await self._work([*floor.fleets.values()])
            await self._screen.close()
            await floor.settled()
            if world.smdp_plus:
                await self._tell_smdp_plus()
            reports = await floor.write_reports()
            await floor.metrics(floor.children[SUPERVISOR])
            cpu_s = sum(child.cpu_s() for child in stations) - cpu_s
            await floor.children.stop(*stations)
            await self._end([*floor.fleets.values()])
            if options.mes:
                await demo_mes.conclude(floor)
            await floor.deliver_reports(world, reports)
        finally:
            await self._screen.close()
            await floor.close()
        figures = take_account(
            self._folder,
            world,
            self._stations,
            station_cpu_s=cpu_s,
            block_size=255,
            recipe=self._recipe or IFPP_LOAD,
            evidence=floor.evidence_file if world.smdp_plus else None,
        )
        if options.mes:
            figures.mes, figures.mes_differs = demo_mes.compare(floor.mes_file, floor.database)
        return figures

    def _world(self) -> WorldSummary:
        count = min(len(_MARKETS), self._options.stations)
        recipe = self._recipe
        chosen, types = ((recipe.name, recipe.version), recipe.profiles) if recipe else (("", ""), ())
        jobs = [
            JobPlan(f"JO-{1000 + number}", sku, region, self._stations[number::count], chosen, types)
            for number, (sku, region) in enumerate(_MARKETS[:count])
        ]
        try:
            return build_world(
                self._folder / "world",
                units=self._options.units,
                seed=self._options.seed,
                jobs=jobs,
                templates=self._templates,
                faults=self._options.faults,
                fault_classes=FAULT_CLASSES_ONLINE if recipe and recipe.online else FAULT_CLASSES,
                make=make_of(recipe) if recipe else None,
                smdp_plus=f"localhost:{free_port()}" if recipe and recipe.online else "",
            )
        except ValueError as error:
            raise SettingsError("COMMAND.INVALID", str(error), where="--template or --units") from error

    async def _tell_smdp_plus(self) -> None:
        if owed := self._floor.owed:
            _say(f"{owed} notifications of failed units are still to be told: stations do that within a minute ...")
        await self._floor.told()

    async def _work(self, fleet: list[Child]) -> None:
        """Let the robots feed units until the piles are empty."""
        start = time.monotonic()
        for chips in fleet:
            await chips.tell("go")
        done = [asyncio.create_task(chips.line(), name=chips.name) for chips in fleet]
        await self._watch(done, start)
        for chips, one in zip(fleet, done, strict=True):
            if not one.result():
                raise chips.death(f"{chips.name} ended in the middle of the work")

    async def _end(self, fleet: list[Child]) -> None:
        """The stations have gone: let the chips go and say what became of them."""
        for chips in fleet:
            await chips.tell("end")
            if await chips.process.wait():
                raise chips.death(f"{chips.name} ended with {chips.process.returncode}")

    async def _watch(self, done: list[asyncio.Task[str]], start: float) -> None:
        """Show progress until every fleet is done; raises ServiceError when a process dies or nothing moves."""
        patience_s = _PATIENCE_S + _LONGEST_LOAD_APDUS * self._options.apdu_ms / 1000
        attempts, moved = 0, start
        factory = Factory.open(self._floor.database)
        try:
            while not all(one.done() for one in done):
                await asyncio.sleep(_PROGRESS_S)
                if self._screen.interrupted:
                    raise asyncio.CancelledError
                for child in self._floor.children.dead():
                    if child.name not in ("import", "keys"):
                        raise child.death(f"{child.name} ended in the middle of the work")
                counts = await asyncio.to_thread(factory.unit_counts)
                if (now := sum(row.attempts for row in counts)) != attempts:
                    attempts, moved = now, time.monotonic()
                elif time.monotonic() - moved > patience_s:
                    logs = str(self._folder / "logs")
                    raise ServiceError("HOST.TIMEOUT", f"no unit was finished for {patience_s:.0f} s", where=logs)
                self._progress(sum(row.units for row in counts), sum(row.final_pass for row in counts), start)
        finally:
            factory.close()

    def _progress(self, units: int, passed: int, start: float) -> None:
        if self._screen.shown:
            return
        total, width = self._options.units, 30
        elapsed_s = time.monotonic() - start
        bar = "#" * (units * width // total)
        rate = units / elapsed_s * 3600 if elapsed_s else 0
        line = f"[{bar:<{width}}] {units}/{total} units, {passed} passed, {rate:,.0f} an hour"
        if sys.stdout.isatty():
            sys.stdout.write(f"\r{line}\x1b[K" + ("\n" if units == total else ""))
        else:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
