"""A unit loaded for one region, emptied and loaded for another: real processes, simulated chip, kill -9 in between."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ifpp.roles.children import Child
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.fleet import card_contents
from ifpp.sim.slots import Lamp, Slot, SlotServer
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.store.factory import Factory

pytestmark = pytest.mark.timeout(240)
PATIENCE_S = 60
EU, US = "st01", "st02"
_OUTBOX = "\n[outbox]\nresend_s = 1\nresend_max_s = 2\n"


class Plant(FactoryFloor):
    """Two stations of one head each, fed by hand: the first loads for stock, the second ships."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, [EU, US], heads=1, apdu_ms=0, broker=None)
        self.slots = {name: Slot("h01") for name in self.stations}
        self._servers = {name: SlotServer({"h01": slot}) for name, slot in self.slots.items()}

    async def open(self, world: WorldSummary) -> None:
        self._write_site(world, self._smdpf_port)  # no SM-DPf serves here: its port is free
        await self._make_keys()
        await self._import(world)
        services = [await self.start(STORE), await self.start(SUPERVISOR)]
        await asyncio.gather(*(child.wait_ready() for child in services))
        for name, server in self._servers.items():
            await server.start()
            self.station_extra = f'{_OUTBOX}\n[recipe]\nfinish = "{"stock" if name == EU else "seal"}"\n'
            self._write_station(name, {"h01": {"port": f"tcp://127.0.0.1:{server.ports['h01']}", "lamp": ""}})
            await (await self.start(name)).wait_ready()

    async def close(self) -> None:
        await super().close()
        for server in self._servers.values():
            server.stop()

    async def seat(self, station: str, chip: Euicc) -> Lamp:
        """Seat the chip, wait for the verdict and take it out."""
        slot = self.slots[station]
        async with asyncio.timeout(PATIENCE_S):
            while slot.lamp is not Lamp.OFF:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            slot.seat(chip)
            lamp = await slot.verdict()
        slot.unseat()
        return lamp

    async def ifpp(self, *words: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *self.command("desk"), *words, *self._config, stdout=asyncio.subprocess.PIPE
        )
        answer, _ = await asyncio.wait_for(child.communicate(), PATIENCE_S)
        assert child.returncode == 0, answer
        return answer.decode()


class Fatal:
    """A chip that lets a process die as soon as it has deleted a profile, before anybody hears its answer."""

    def __init__(self, chip: Euicc, victim: Child) -> None:
        self._process = chip.process
        self._victim = victim
        chip.process = self  # type: ignore[method-assign]

    def __call__(self, apdu: bytes) -> bytes:
        answer = self._process(apdu)
        if apdu[5:7] == b"\xbf\x33":
            with suppress(ProcessLookupError):
                self._victim.process.kill()
        return answer


def deal(delivery: Path) -> None:
    """Make the second package of every chip one for the US."""
    head, *items, _ = map(json.loads, delivery.read_text().splitlines())
    for item in items[1::2]:
        item["region"] = "US"
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (head, *items))
    trailer = {"end": True, "items": len(items), "sha256": sha256(body).hexdigest()}
    delivery.write_bytes(body + json.dumps(trailer).encode() + b"\n")


def books(plant: Plant, eid: str) -> Any:
    factory = Factory.open(plant.database)
    try:
        assert factory.audit() == []
        assert all(row.holds for row in factory.balance())
        return factory.unit(eid)
    finally:
        factory.close()


async def told(plant: Plant, eid: str, attempts: int) -> Any:
    """Wait until the books have heard of so many attempts."""
    async with asyncio.timeout(PATIENCE_S):
        while len((record := books(plant, eid)).attempts) < attempts:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    return record


async def test_a_unit_in_stock_is_reworked_for_another_region(tmp_path: Path) -> None:
    jobs = [JobPlan("JO-1", "TRACKER", "EU", [EU]), JobPlan("JO-2", "TRACKER", "US", [US])]
    world = build_world(tmp_path / "world", units=2, seed=12, jobs=jobs, profile_kb=(4, 6), profiles_per_unit=2)
    deal(world.deliveries[0])
    eid = next(plan.eid for plan in world.units if plan.job == "JO-1")
    chip = Euicc.load(world.directory / "cards" / f"{eid}.card.json")
    chip.nvm.rework = True
    plant = Plant(tmp_path)
    try:
        await plant.start_broker()
        await plant.open(world)
        assert await plant.seat(EU, chip) is Lamp.PASS
        await told(plant, eid, 1)
        (first,) = card_contents(chip)["profiles"]
        assert (card_contents(chip)["fpa_locked"], card_contents(chip)["keys_left"]) == (False, 2)
        assert "in stock, not sealed" in await plant.ifpp("unit", "show", eid)

        words = ["--sku", "TRACKER", "--region", "US", "--reason", "wrong region", "--by", "Ann"]
        assert "1 profiles are to leave" in await plant.ifpp("unit", "rework", eid, *words)

        doomed = plant.children[US]
        process = chip.process
        Fatal(chip, doomed)
        plant.slots[US].seat(chip)
        await asyncio.wait_for(doomed.process.wait(), PATIENCE_S)
        plant.slots[US].unseat()
        chip.process = process  # type: ignore[method-assign]
        assert card_contents(chip)["profiles"] == []
        assert "NOT CLEAN TO SHIP" in await plant.ifpp("unit", "show", eid)
        await (await plant.start(US)).wait_ready()
        record = await told(plant, eid, 2)  # it tells that it does not know, and the books believe nothing yet
        assert [attempt.result for attempt in record.attempts] == ["PASS", "ERROR"]
        assert [order.gone for order in record.reworks] == [0]

        assert await plant.seat(US, chip) is Lamp.PASS
        await told(plant, eid, 3)
        (second,) = card_contents(chip)["profiles"]
        assert second["iccid"] != first["iccid"]
        assert (card_contents(chip)["fpa_locked"], card_contents(chip)["keys_left"]) == (True, 0)
        shown = json.loads(await plant.ifpp("unit", "show", eid, "--json"))
        assert shown["gate"]["clean_to_ship"]
        assert shown["gate"]["proof"]["entry"]["facts"]["iccids"] == [second["iccid"]]
        lives = {package["iccid"]: (package["state"], package["removed"]) for package in shown["packages"]}
        assert lives[second["iccid"]] == ("INSTALLED", None)
        state, removed = lives[first["iccid"]]
        assert state == "INSTALLED"
        assert removed["result"] is None  # it was gone before: the dead process had done it
        assert b64decode(removed["notification_b64"]).startswith(b"\x30")  # and the chip signed that
        (counts,) = json.loads(await plant.ifpp("report", "rework", "--json"))
        assert counts == {
            "sku": "TRACKER",
            "region": "US",
            "ordered": 1,
            "removed": 1,
            "reprovisioned": 1,
            "open": 0,
            "failed": 0,
        }
        folder = await plant.write_reports()
    finally:
        await plant.close()
    books(plant, eid)
    items = [json.loads(line) for file in folder.glob("*.plr.jsonl") for line in file.read_text().splitlines()[1:-1]]
    deleted = {item["iccid"]: item.get("deleted", {}).get("notification") for item in items}
    assert deleted == {first["iccid"]: removed["notification_b64"], second["iccid"]: None}
