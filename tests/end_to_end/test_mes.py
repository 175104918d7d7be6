"""A line and its MES, every process real: the numbers are equal at the end, whatever both go through."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ifpp.bus.broker import BrokerKind
from ifpp.model.messages import StationState
from ifpp.roles import demo_mes
from ifpp.roles.accounts import Figures, take_account
from ifpp.roles.demo_keys import KeysKind
from ifpp.roles.factory_floor import SUPERVISOR, FactoryFloor
from ifpp.sim.world import JobPlan, build_world
from ifpp.store.factory import Factory
from tests.bus.node import Node, until
from tests.end_to_end.test_demo import figures
from tests.real.mosquitto import require

pytestmark = pytest.mark.timeout(240)
UNITS = 6


def test_a_demo_with_an_mes(tmp_path: Path) -> None:
    require(BrokerKind.MOSQUITTO)
    kept = tmp_path / "kept"
    words = ("--units", "8", "--heads", "2", "--apdu-ms", "1", "--faults", "2", "--mes", "--keep", str(kept))
    out = figures(tmp_path, *words)
    mes = out["mes"]
    assert mes["differs"] == []
    assert len(mes["responses"]) == len(mes["orders"]) == 2
    assert mes["results"] == out["acked"]
    assert mes["packages"]["consumed"] == sum(row["installed"] for row in out["mass_balance"]) > 0
    assert mes["route_checks"]["asked"] == mes["route_checks"]["pass"] >= 7
    shift = kpi(kept, "--shift", "current")
    assert shift["total"]["attempts"] == mes["results"]
    for job, told in mes["units"].items():
        for one in (shift["jobs"][job], kpi(kept, "--job", job)["total"]):
            assert (one["units_in"], one["final_pass"]) == (told["units"], told["good"])


def kpi(kept: Path, *words: str) -> Any:
    """What `ifpp kpi` counts from the kept books."""
    command = [sys.executable, "-m", "ifpp", "kpi", *words, "--json", "--config", str(kept / "config" / "site.toml")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Line:
    """One station, an MES with these options, and what a test does in the middle.

    `first_articles`: so many units are shown before somebody releases the job order, after any trouble.
    """

    def __init__(self, folder: Path, *options: str, first_articles: int = 0) -> None:
        require(BrokerKind.MOSQUITTO)
        plan = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]
        self.world = build_world(folder / "world", units=UNITS, seed=5, jobs=plan, profile_kb=(4, 6))
        self.folder = folder
        self.floor = FactoryFloor(folder, ["st01"], heads=2, apdu_ms=3, broker=BrokerKind.MOSQUITTO, keys=KeysKind.NONE)
        self.floor.mes = True
        self.floor.mes_extra = options
        self.first_articles = first_articles
        self.floor.supervisor_extra = f"\n[gate]\nfirst_articles = {first_articles}\n"
        self.answers: list[str] = []

    async def work(self, *trouble: str) -> tuple[Figures, dict[str, Any]]:
        floor = self.floor
        try:
            await floor.start_broker()
            await floor.open(self.world)
            await demo_mes.begin(floor, self.world)
            chips = floor.fleets["st01"]
            await chips.tell("go")
            if trouble:
                await self._units(2)
                await self._restart(trouble)
            if self.first_articles:
                await self._release()
            await asyncio.wait_for(chips.process.wait(), 120)
            await floor.settled()
            await floor.children.stop(floor.children["st01"])
            await floor.write_reports()
            await self._all_asked()
            await demo_mes.conclude(floor)
        finally:
            await floor.close()
        account = take_account(self.folder, self.world, ["st01"], station_cpu_s=0.0, block_size=255)
        told, differs = demo_mes.compare(floor.mes_file, floor.database)
        assert differs == []
        assert account.unaccounted == []
        return account, told

    async def _units(self, number: int) -> None:
        factory = Factory.open(self.floor.database)
        try:
            while sum(row.units for row in factory.unit_counts()) < number:  # noqa: ASYNC110 - other processes' doing
                await asyncio.sleep(0.05)
        finally:
            factory.close()

    async def _all_asked(self) -> None:
        """Wait until the MES has answered for every unit that went on without it, and keep what it said."""
        factory = Factory.open(self.floor.database)
        try:
            while factory.unasked.questions("L1", ("", 0), 1):  # noqa: ASYNC110 - other processes' doing
                await asyncio.sleep(0.05)
            units = [factory.unit(unit.eid) for unit in self.world.units]
        finally:
            factory.close()
        self.answers = [row.result for unit in units if unit is not None for row in unit.asked_later]

    async def _release(self) -> None:
        """Wait until every head says that it waits for a person; no more was made than was to be shown; release it."""
        assert self.floor.broker is not None
        topic = "ifpp1/demo/laptop/hall/L1/st01/state/station"
        async with Node(self.floor.broker.port, "panel", [topic]).up() as panel:

            def reasons() -> set[str]:
                said = msgspec.json.decode(panel.payloads(topic)[-1], type=StationState)
                return {head.reason for head in said.heads.values()}

            await until(lambda: reasons() == {"GATE.NOT_RELEASED"})
        factory = Factory.open(self.floor.database)
        try:
            assert [row.units for row in factory.unit_counts()] == [self.first_articles]
        finally:
            factory.close()
        site = str(self.folder / "config" / "site.toml")
        words = ("gate", "release", "JO-1", "--by", "anna", "--reason", "seen", "--config", site)
        await asyncio.to_thread(subprocess.run, [sys.executable, "-m", "ifpp", *words], check=True)

    async def _restart(self, trouble: Sequence[str]) -> None:
        if "broker" in trouble:
            assert self.floor.broker is not None
            await self.floor.broker.stop()
            await self.floor.start_broker()
        if "supervisor" in trouble:
            await self.floor.children.stop(self.floor.children[SUPERVISOR])
            await (await self.floor.start(SUPERVISOR)).wait_ready()


@pytest.mark.parametrize(
    "options",
    [
        ["--slow", "0.3"],
        ["--absent", "0.5,4"],
        ["--absent", "0.5,4", "--route-policy", "ALLOW_AND_RECONCILE"],
        ["--contradictory"],
        ["--malicious"],
    ],
    ids=["slow", "absent", "absent, allowed", "contradictory", "malicious"],
)
async def test_whatever_the_mes_does_every_unit_is_made_and_told(tmp_path: Path, options: list[str]) -> None:
    line = Line(tmp_path, *options)
    account, told = await line.work()
    assert account.passed == UNITS
    assert told["units"]["JO-1"] == {"units": UNITS, "good": UNITS}
    assert line.answers == ["PASS"] * told["unchecked"], "who went on unasked is asked for afterwards"
    if "--contradictory" in options:
        assert told["orders"]["JO-1"] == {
            "STORE": "ACCEPTED",
            "START": "ACCEPTED",
            "STORE conflict": "REJECTED",
            "START again": "DUPLICATE",
            "CLOSE": "ACCEPTED",
        }


async def test_a_refused_unit_goes_nowhere_and_the_others_pass(tmp_path: Path) -> None:
    line = Line(tmp_path)
    refused = line.world.units[2].eid
    line.floor.mes_extra = ["--refuse", refused]
    account, told = await line.work()
    assert (account.passed, dict(account.failed)) == (UNITS - 1, {"SUPPLY": 1})
    truth = json.loads((tmp_path / "fleet-st01.json").read_bytes())
    (unit,) = [unit for unit in truth["units"] if unit["eid"] == refused]
    place = f"st01/{unit['slot']}"
    assert (unit["card"]["profiles"], unit["lamp"]) == ([], "fail")
    assert told["orders"]["JO-1"]["STOP"] == "ACCEPTED"
    factory = Factory.open(line.floor.database)
    try:
        rows = [json.loads(row.body) for row in factory.line_log_page("L1", 0, 1000) if row.name == "alarm"]
    finally:
        factory.close()
    assert [one["source"] for one in rows if (one["code"], one["state"]) == ("A-121", "UNACK_ALARM")] == [place]


@pytest.mark.parametrize(
    ("trouble", "first_articles"), [(["broker"], 0), (["supervisor"], 2), (["broker", "supervisor"], 0)]
)
async def test_restarts_in_the_middle_lose_and_double_nothing(
    tmp_path: Path, trouble: list[str], first_articles: int
) -> None:
    """With first articles to show a station makes these, and the others once a person has released the order."""
    account, told = await Line(tmp_path, first_articles=first_articles).work(*trouble)
    assert account.passed == UNITS
    assert (told["gaps"], told["conflicts"]) == (0, 0)
