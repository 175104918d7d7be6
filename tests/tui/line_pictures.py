"""States of a line that its screen must show, and its pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from textual.app import App

from ifpp.model.clock import Clock
from ifpp.model.kpi import Oee
from ifpp.model.messages import LineState, Online
from ifpp.tui.line_app import LineScreen, StationWall
from ifpp.tui.line_heard import LineHeard
from ifpp.tui.marks import ASCII, UNICODE
from ifpp.tui.words import Words
from tests.tui import pictures

CUSTODY = [
    f"unit      EID {pictures.eid(3)}  serial SN00003",
    "gate      NOT CLEAN TO SHIP. GATE.UNKNOWN: it is not known what is on the chip. Hold the unit; call quality",
    "",
    "package   89882390000000000033  TRACKER-EU EU  of SM-DPf 2.999.10: SENT",
    "          sent by st01/h03 at 2026-11-22T08:15:12.000Z; its result is not here yet",
    "  2026-11-22T07:00:00.000Z  -> AVAILABLE  store  import",
    "  2026-11-22T08:15:10.000Z  AVAILABLE -> CLAIMED  st01/h03  attempt 01930b3e-7c1a-7d10-8a52-0c1d2e3f4a5b",
    "  2026-11-22T08:15:12.000Z  CLAIMED -> SENT  st01/h03  attempt 01930b3e-7c1a-7d10-8a52-0c1d2e3f4a5b",
    "",
    "attempts  1",
    "  2026-11-22T08:15:10.000Z  st01/h03  ERROR (CONTACT, RESEAT)  CONTACT.LOST  cycle 4.1 s, load 2.2 s",
]


def line_documents(*, trouble: bool = False, stations: int = 3) -> dict[str, bytes]:
    """What the broker keeps of a line."""
    names = [f"st{number:02}" for number in range(1, stations + 1)]
    shift = msgspec.structs.replace(
        pictures.SHIFT,
        stations=dict.fromkeys(names, pictures.FIGURES),
        top_defects={"CONTACT.LOST": 9, "EUICC.NO_MEMORY": 4, "TRIANGLE.MISMATCH": 2, "CHIP.TIMEOUT": 1},
        oee=Oee(pbt_ms=1, apt_ms=1, pq=1, gq=1, oee=0.712),
        window=msgspec.structs.replace(pictures.SHIFT.window, shift_id="2026-11-22/early"),
    )
    told: dict[str, msgspec.Struct] = {f"{name}/state/station": pictures.station() for name in names}
    told |= {
        "_line/state/job": pictures.JOBS,
        "_line/state/job_orders": pictures.ORDERS,
        "_line/state/stock": pictures.STOCK,
        "_line/kpi/shift": shift,
    }
    told["_line/state/alarms"] = msgspec.structs.replace(pictures.alarms(), alarms={}, horn=False, shelved=0)
    if trouble:
        told["st01/state/station"] = pictures.troubled()
        told["_line/state/alarms"] = pictures.alarms()
        stock = msgspec.structs.replace(pictures.STOCK.jobs["JO-1042"], hours_left=1.2)
        told["_line/state/stock"] = msgspec.structs.replace(pictures.STOCK, jobs={"JO-1042": stock})
    for name in (*names, "_line"):
        there = not (trouble and name == "st03")
        told[f"{name}/state/online"] = Online(
            schema="online/1.0", node_id=name, online=there, session=1, boot_id="b", ts=pictures.AT
        )
    return {at: msgspec.json.encode(document) for at, document in told.items()}


def counted(heard: LineHeard, now_s: float) -> None:
    """Half an hour of work, as the line counted it."""
    passed = 0
    for minute in range(30, -1, -1):
        passed += (5, 6, 4, 6, 0, 3, 5)[minute % 7]
        line = LineState(
            schema="line/1.0", node_id="_line", epoch=1, stations={}, units=passed, passed=passed, failed=0,
            **pictures.ENVELOPE,
        )  # fmt: skip
        heard.take("_line/state/line", msgspec.json.encode(line), now_s - 60.0 * minute)


async def nothing(_: LineHeard) -> None:
    """Follow a broker that says nothing more."""
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class LinePicture:
    """One state of the line's screen, or of a wall; `keys`: what is pressed, as `LineDesk` knows it."""

    documents: dict[str, bytes]
    clock: Clock
    size: tuple[int, int] = (80, 24)
    up: bool = True
    colour: bool = True
    ascii_only: bool = False
    language: str = "en"
    wall: bool = False
    keys: tuple[str, ...] = ()
    station: bool = False
    age_s: float = 0.5

    def screen(self) -> App[None]:
        words, marks = Words(self.language), ASCII if self.ascii_only else UNICODE
        now_s = self.clock.monotonic()
        if self.station:
            wall = StationWall(Path("/nowhere"), words, marks, self.clock, colour=self.colour)
            for at, document in self.documents.items():
                wall.heard.take(at, document, now_s - self.age_s)
            return wall
        screen = LineScreen(
            "L1", nothing, lambda _: CUSTODY, words, marks, self.clock, wall=self.wall, colour=self.colour
        )
        screen.heard.link(True, now_s)
        if self.documents:
            counted(screen.heard, now_s)
        for at, document in self.documents.items():
            screen.heard.take(at, document, now_s)
        if not self.up:
            screen.heard.link(False, now_s - 42)
        desk = screen.desk
        desk.lookup = lambda name: desk.found(name, CUSTODY)
        acts: dict[str, Callable[[], None]] = {"enter": desk.enter, "down": lambda: desk.move(1)}
        for key in self.keys:
            (acts.get(key) or (lambda key=key: desk.press(key)))()  # type: ignore[misc]
        return screen


def line_pictures(clock: Clock) -> dict[str, LinePicture]:
    """Every picture of the line and the walls by name."""
    good, bad = line_documents(), line_documents(trouble=True)
    wall = (55, 15)
    return {
        "line-normal": LinePicture(good, clock),
        "line-alarm": LinePicture(bad, clock),
        "line-stale": LinePicture(bad, clock, up=False),
        "line-no-colour": LinePicture(bad, clock, colour=False, ascii_only=True),
        "line-small": LinePicture(bad, clock, size=(36, 8)),
        "line-large": LinePicture(line_documents(trouble=True, stations=12), clock, size=(120, 36)),
        "line-first": LinePicture({}, clock, up=False),
        "line-chinese": LinePicture(bad, clock, language="zh"),
        "line-german": LinePicture(bad, clock, language="de"),
        "line-station": LinePicture(bad, clock, keys=("enter", "down", "down")),
        "line-head": LinePicture(bad, clock, keys=("enter", "down", "down", "down", "enter")),
        "line-unit": LinePicture(bad, clock, keys=("enter", "down", "down", "down", "enter", "enter")),
        "line-alarms": LinePicture(bad, clock, keys=("f8",)),
        "line-help": LinePicture(good, clock, keys=("f1",)),
        "line-hand-over": LinePicture(bad, clock, keys=("f9",)),
        "wall-line": LinePicture(bad, clock, size=wall, wall=True),
        "wall-line-normal": LinePicture(good, clock, size=wall, wall=True),
        "wall-station": LinePicture(pictures.alarmed(), clock, size=wall, station=True),
        "wall-station-normal": LinePicture(pictures.normal(), clock, size=wall, station=True),
        "wall-station-stale": LinePicture(pictures.alarmed(), clock, size=wall, station=True, age_s=42),
        "wall-station-no-colour": LinePicture(
            pictures.alarmed(), clock, size=wall, station=True, colour=False, ascii_only=True
        ),
    }
