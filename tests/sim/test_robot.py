"""The robot and the fleet: units through slots by their lamps, planned faults, and the truth written at the end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ifpp.sim import documents
from ifpp.sim.euicc import Euicc
from ifpp.sim.fleet import Fleet, card_contents
from ifpp.sim.robot import Robot, Unit, planned_cut
from ifpp.sim.slots import Cut, Lamp, Slot, SlotServer
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from tests.sim.bench import SlotClient, Terminal, new_bench, outcome, segments

JOB = JobPlan("JO-1", "TRACKER-EU", "EU", ("st01",))


def unit(faults: dict[str, Any] | None = None) -> Unit:
    bench = new_bench(keys=1)
    return Unit(bench.chip.card.eid, "SN1", bench.card, faults or {})


async def until(condition: Callable[[], bool]) -> None:
    """Let the robot work until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def feed(units: list[Unit], lamps: list[Lamp], *, reseats: int = 3) -> list[bool]:
    """Run a robot on one slot; each seating gets the next lamp. Returns whether a chip answered at each seating."""
    slot = Slot("h01")
    robot = asyncio.create_task(Robot({"h01": slot}, units, reseats=reseats).run())
    answered: list[bool] = []
    for lamp in lamps:
        await until(lambda: slot.seated)
        slot.control(0x01)
        answered.append(bool(slot.control(0x04)))
        slot.show(lamp)
        await until(lambda: sum(each.seatings for each in units) == len(answered))
        slot.show(Lamp.OFF)
    await asyncio.wait_for(robot, 60)
    return answered


@pytest.mark.parametrize(("lamp", "where"), [(Lamp.PASS, "pass"), (Lamp.FAIL, "fail")])
async def test_a_verdict_sends_the_unit_to_its_bin(lamp: Lamp, where: str) -> None:
    one = unit()
    await feed([one], [lamp])
    assert (one.bin, one.seatings, one.slot) == (where, 1, "h01")


@pytest.mark.parametrize(("again", "where"), [(Lamp.RESEAT, "contact"), (Lamp.HOLD, "hold")])
async def test_a_unit_is_seated_again_until_patience_ends(again: Lamp, where: str) -> None:
    one = unit()
    await feed([one], [again, again, again], reseats=2)
    assert (one.bin, one.seatings) == (where, 3)


async def test_a_unit_may_pass_at_a_later_seating() -> None:
    one, two = unit(), unit()
    await feed([one, two], [Lamp.RESEAT, Lamp.HOLD, Lamp.PASS, Lamp.PASS])
    assert [each.record()["lamps"] for each in (one, two)] == [["reseat", "hold", "pass"], ["pass"]]


async def test_a_unit_its_head_does_not_know_of_is_seated_again() -> None:
    """It fell out, and the station that had it is gone: the next one shows an empty head."""
    one, slot = unit(), Slot("h01")
    robot = asyncio.create_task(Robot({"h01": slot}, [one]).run())
    await until(lambda: slot.seated)
    slot.show(Lamp.OFF)
    slot.unseat()
    await asyncio.sleep(0.01)
    assert one.lamps == []
    slot.show(Lamp.OFF)
    await until(lambda: slot.seated)
    slot.show(Lamp.PASS)
    await asyncio.wait_for(robot, 60)
    assert (one.lamps, one.bin) == ([Lamp.OFF, Lamp.PASS], "pass")


async def test_a_head_that_says_hold_over_an_empty_socket_gets_no_unit_and_the_others_get_all() -> None:
    units, slots = [unit() for _ in range(4)], {"h01": Slot("h01"), "h02": Slot("h02")}
    robot = asyncio.create_task(Robot(slots, units).run())
    await until(lambda: slots["h01"].seated)
    slots["h01"].show(Lamp.RESEAT)
    await until(lambda: not slots["h01"].seated)
    slots["h01"].show(Lamp.HOLD)
    while not robot.done():
        await asyncio.sleep(0.005)
        assert not slots["h01"].seated
        slots["h02"].show(Lamp.PASS if slots["h02"].seated else Lamp.OFF)
    assert [each.bin for each in units] == ["pass"] * 4
    assert units[0].lamps == [Lamp.RESEAT, Lamp.PASS]


async def test_a_worn_socket_loses_contact_over_a_command_of_each_seating() -> None:
    one, slot = unit(), Slot("h01")
    robot = asyncio.create_task(Robot({"h01": slot}, [one], worn={"h01": 1.0}).run())
    await until(lambda: slot.seated)
    slot.control(0x01)
    answers = [slot.transmit(bytes.fromhex("80e2910000")) for _ in range(41)]
    assert answers.count(b"") >= 1
    assert slot.losses == 1
    assert slot.seated
    slot.show(Lamp.PASS)
    await asyncio.wait_for(robot, 60)


async def test_a_dead_chip_has_no_atr() -> None:
    assert await feed([unit({"class": "dead"}), unit()], [Lamp.FAIL, Lamp.PASS]) == [False, True]


def test_contact_is_planned_for_the_first_seating_only() -> None:
    contact = {"class": "contact", "pull_at_apdu": 40}
    assert planned_cut(contact, 1) == Cut(at=40)
    assert planned_cut(contact, 2) is None
    assert planned_cut({**contact, "executed": True}, 1) == Cut(at=40, executed=True)
    assert planned_cut({"class": "power_cut", "pull_at_apdu": 9}, 1) == Cut(at=9, stays=True)
    assert planned_cut({"class": "tampered"}, 1) is None


@dataclass(frozen=True)
class Package:
    prepare_download: bytes
    bpp: bytes

    @classmethod
    def of(cls, item: dict[str, Any]) -> Package:
        return cls(base64.b64decode(item["prepare_download"]), base64.b64decode(item["bpp"]))

    @property
    def shortest(self) -> int:
        """STORE DATA and GET RESPONSE from BF21 to the result, as few as there can be at 255 bytes a block."""
        commands = [self.prepare_download, *segments(self.bpp)]
        return sum(-(-len(command) // 255) for command in commands) + 2


@dataclass
class Station:
    """A simple station: provisions what is seated with what was delivered for it, and shows the lamp it deserves."""

    packages: dict[str, Package]

    def work(self, port: int) -> None:
        client = SlotClient(port)
        try:
            while client.ask(b"\xe0\x0a") == b"\x01":
                client.send(b"\x01")
                lamp = self.provision(client) if client.ask(b"\x04") else Lamp.FAIL
                client.send(bytes((0xE2, lamp)))
                client.ask(b"\xe1\xff")
                client.send(bytes((0xE2, Lamp.OFF)))
        except ConnectionError:
            return  # the fleet has ended
        finally:
            client.close()

    def provision(self, client: SlotClient) -> Lamp:
        terminal = Terminal(client)
        eid = terminal.ask(bytes.fromhex("bf3e035c015a")).need(0x5A).value.hex()
        package = self.packages.get(eid)
        if package is None:
            return Lamp.FAIL
        terminal.send(package.prepare_download)
        pir, sw = terminal.load(package.bpp)
        if not pir:
            return Lamp.RESEAT if sw == 0 else Lamp.FAIL
        if outcome(pir) is not None:
            return Lamp.FAIL
        terminal.ask(bytes.fromhex("f904a2028000"))
        terminal.ask(bytes.fromhex("f905a303800100"))
        return Lamp.PASS


def make_world(folder: Path, **options: Any) -> tuple[WorldSummary, Station]:
    world = build_world(folder, jobs=[JOB], profile_kb=(10, 11), seed=5, **options)
    _, items = documents.read_lines(world.deliveries[0], "ifpp.esbpp-delivery")
    return world, Station({item["eid"]: Package.of(item) for item in items})


def test_every_fault_of_a_world_through_a_fleet(tmp_path: Path) -> None:
    """All units of a world with one unit of each fault class, two slots; then the chips themselves are asked."""
    world, station = make_world(tmp_path / "world", units=8, faults=5)
    fleet = Fleet(world.directory, ["st01"], slots=2, apdu_ms=0, handling_ms=0)

    async def run() -> None:
        heads = (await fleet.start())["st01"]
        assert list(heads) == ["h01", "h02"]
        stations = [asyncio.create_task(asyncio.to_thread(station.work, tcp_port(head))) for head in heads.values()]
        await asyncio.wait_for(fleet.work(), 60)
        fleet.finish(tmp_path / "fleet.json")
        await asyncio.gather(*stations)

    asyncio.run(run())
    document = json.loads((tmp_path / "fleet.json").read_bytes())
    assert document["finished"] is True
    by_eid = {record["eid"]: record for record in document["units"]}
    assert len(by_eid) == 8
    for plan in world.units:
        record = by_eid[plan.eid]
        good = plan.fault in ("", "contact")
        assert record["bin"] == ("pass" if good else "fail"), plan.fault
        assert record["seatings"] == (2 if plan.fault == "contact" else 1)
        assert record["card"]["fpa_locked"] is good
        assert [profile["iccid"] for profile in record["card"]["profiles"]] == (list(plan.iccids) if good else [])
        if good:
            assert record["load_apdus"] == [station.packages[plan.eid].shortest]
        saved = Euicc.load(world.directory / "cards" / f"{plan.eid}.card.json")
        assert card_contents(saved) == record["card"]


@pytest.fixture
def start_fleet(tmp_path: Path) -> Callable[[Path], Any]:
    """Start a fleet process on a world with one slot."""

    async def start(world: Path) -> asyncio.subprocess.Process:
        program = (
            "import sys, pathlib; from ifpp.sim.fleet import serve_fleet; "
            "serve_fleet(pathlib.Path(sys.argv[1]), ['st01'], slots=1, apdu_ms=0.0, handling_ms=0.0, "
            "out_path=pathlib.Path(sys.argv[2]))"
        )
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            str(world),
            str(tmp_path / "fleet.json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    return start


async def ready(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    facts = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    assert facts["ready"] is True
    return tcp_port(facts["heads"]["st01"]["h01"])


def tcp_port(head: dict[str, str]) -> int:
    return int(head["port"].rpartition(":")[2])


async def test_a_fleet_process_from_ready_to_result(tmp_path: Path, start_fleet: Callable[[Path], Any]) -> None:
    world, station = make_world(tmp_path / "world", units=2)
    process = await start_fleet(world.directory)
    port = await ready(process)
    client = await asyncio.to_thread(SlotClient, port)
    assert await asyncio.to_thread(client.ask, b"\xe0\x01") == b"\x00", "nothing is seated before go"
    client.close()
    process.stdin.write(b"go\n")
    await asyncio.to_thread(station.work, port)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    document = json.loads((tmp_path / "fleet.json").read_bytes())
    assert [record["bin"] for record in document["units"]] == ["pass", "pass"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_fleet_saves_what_the_chips_hold(
    tmp_path: Path, start_fleet: Callable[[Path], Any], number: signal.Signals
) -> None:
    world, station = make_world(tmp_path / "world", units=2)
    process = await start_fleet(world.directory)
    port = await ready(process)
    process.stdin.write(b"go\n")

    def first_unit_only() -> None:
        client = SlotClient(port)
        assert client.ask(b"\xe0\x64") == b"\x01"
        client.send(b"\x01")
        assert station.provision(client) is Lamp.PASS
        client.close()

    await asyncio.to_thread(first_unit_only)
    os.kill(process.pid, number)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    document = json.loads((tmp_path / "fleet.json").read_bytes())
    assert document["finished"] is False
    assert [record["bin"] for record in document["units"]] == ["", ""]
    assert [len(record["card"]["profiles"]) for record in document["units"]] == [1, 0]
    first = world.units[0]
    saved = Euicc.load(world.directory / "cards" / f"{first.eid}.card.json")
    assert card_contents(saved) == document["units"][0]["card"]


async def test_a_fleet_whose_master_is_gone_ends(tmp_path: Path, start_fleet: Callable[[Path], Any]) -> None:
    world, _ = make_world(tmp_path / "world", units=1)
    process = await start_fleet(world.directory)
    await ready(process)
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_slot_can_be_served_without_a_fleet() -> None:
    """What tests of a station need: one seated chip behind a port."""
    slot = Slot("h01")
    server = SlotServer({"h01": slot})
    await server.start()
    slot.seat(new_bench().card)
    client = await asyncio.to_thread(SlotClient, server.ports["h01"])
    assert await asyncio.to_thread(client.ask, b"\xe0\x00") == b"\x01"
    client.close()
    server.stop()
