"""One campaign from an empty folder to its outcome."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ifpp.bus.broker import free_port
from ifpp.model.recipe import IFPP_LOAD
from ifpp.recipes import load_recipe
from ifpp.sim.judge import judge
from ifpp.sim.witness import Evidence
from ifpp.sim.world import JobPlan, build_world
from tests.campaign.driver import Driver
from tests.campaign.edges import edges
from tests.campaign.evidence import gather
from tests.campaign.line import Line, Say, can_mount
from tests.campaign.plan import plan

# dead units have no EID to be asked for
_RECIPES = Path(__file__).parent.parent.parent / "config" / "recipes"
_FAULT_CLASSES = ("small_memory", "tampered", "no_package", "contact")


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be done; `kills` faults while `units` units are made, `faulty` of them made so. `folder` is empty.

    `recipe`: by its name in config/recipes, "" = the one way there is without.
    """

    folder: Path
    kills: int
    seed: int
    units: int
    stations: int
    heads: int
    apdu_ms: float
    faulty: int
    minutes: float
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `kills`: faults by kind; `edges`: how often a process died at each; counts with `reasons`."""

    seed: int
    faults: int
    kills: dict[str, int]
    edges: dict[str, int]
    edges_known: int
    edges_never_hit: list[str]
    units: int
    made_faulty: int
    passed: int
    attempts: int
    events: int
    elapsed_s: float
    lost: int
    doubled: int
    unresolved_wrongly: int
    stuck: int
    reasons: dict[str, list[str]]
    notes: list[str]

    @property
    def clean(self) -> bool:
        """True when nothing was found."""
        return not any(self.reasons.values())


async def run(options: Options, say: Say) -> Outcome:
    """Run one campaign; whatever happens, no process and no mount stays behind."""
    began = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    stations = [f"st{number:02d}" for number in range(1, options.stations + 1)]
    heads = [f"h{number:02d}" for number in range(1, options.heads + 1)]
    say(f"making {options.units} chips, their keys and their packages ...")
    recipe = load_recipe(_RECIPES / f"{options.recipe}.toml") if options.recipe else IFPP_LOAD
    chosen = (recipe.name, recipe.version) if options.recipe else ("", "")
    world = build_world(
        options.folder / "world",
        units=options.units,
        seed=options.seed,
        jobs=[JobPlan("JO-1001", "TRACKER-EU", "EU", stations, chosen)],
        faults=options.faulty,
        fault_classes=_FAULT_CLASSES,
        smdp_plus=f"localhost:{free_port()}" if recipe.online else "",
    )
    steps = plan(options.kills, options.seed, stations=stations, heads=heads, disk=can_mount(), online=recipe.online)
    line = Line(options.folder, stations, heads=options.heads, apdu_ms=options.apdu_ms, say=say)
    line.recipe_file = _RECIPES / f"{options.recipe}.toml" if options.recipe else None
    try:
        await line.open_line(world)
        say("the line works")
        driver = Driver(line, world, steps, say)
        await driver.run(60 * options.minutes)
        evidence = gather(line, world)
    finally:
        await line.close()
    known = edges(online=recipe.online)
    return _outcome(options, line, driver, evidence, known, time.monotonic() - began)


def _outcome(
    options: Options, line: Line, driver: Driver, evidence: Evidence, known: tuple[str, ...], elapsed_s: float
) -> Outcome:
    log, verdict = driver.log, judge(evidence)
    notes = [f"did not come to pass, a kill instead: {fault}" for fault in log.missed]
    notes += [f"refused to start: {reason}" for reason in line.refused]
    if not can_mount():
        notes.append("no disk was filled: that needs root")
    reasons = {
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "unresolved_wrongly": verdict.unresolved_wrongly,
        "stuck": line.stuck + line.ended,
    }
    return Outcome(
        seed=options.seed,
        faults=log.done,
        kills=dict(sorted(log.kills.items())),
        edges=dict(sorted(log.edges.items())),
        edges_known=len(known),
        edges_never_hit=sorted(set(known) - log.edges.keys()),
        units=options.units,
        made_faulty=sum(unit.fault != "" for unit in evidence.units),
        passed=sum(unit.lamp == "pass" for unit in evidence.units),
        attempts=len(evidence.attempts),
        events=len(evidence.taken),
        elapsed_s=round(elapsed_s, 1),
        **{name: len(found) for name, found in reasons.items()},
        reasons=reasons,
        notes=notes,
    )
