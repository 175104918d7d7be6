"""Units whose chips obey the device maker alone: loaded, and sealed by his word or not at all."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ifpp.errors import ServiceError
from ifpp.log import Secret
from ifpp.model.ids import Eid
from ifpp.model.states import Lamp, PackageState
from ifpp.sim.eum import dm_key_of
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.station.edges import Edge
from ifpp.station.permits import Permits
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import Purpose
from tests.fpa.test_seal import MASTER, authoriser
from tests.station.shop import JOB, PATIENCE_S, Shop, open_shop, truth


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    plan = [JobPlan(JOB.job_order_id, "TRACKER", "EU", ["st01"])]
    folder = tmp_path_factory.mktemp("guarded")
    return build_world(folder, units=2, seed=8, jobs=plan, profile_kb=(4, 5), dm_master=MASTER)


@pytest.fixture
async def strict(tmp_path: Path, guarded: WorldSummary) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, guarded) as shop:
        yield shop
        if shop.permits is not None:
            shop.permits.close()


async def test_the_word_is_asked_for_while_the_package_is_loaded(strict: Shop) -> None:
    answered, asked = threading.Event(), []

    def slow(eid: Eid, message: bytes) -> bytes:
        """Keys that answer only after the chip has the whole package."""
        asked.append(eid)
        assert answered.wait(PATIENCE_S)
        return authoriser(MASTER)(eid, message)

    strict.permits = Permits(slow, timeout_s=PATIENCE_S, heads=1)
    chip = strict.chip()
    async with strict.start(lambda edge: answered.set() if edge is Edge.ANSWERED else None) as run:
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
    assert asked == [strict.eid()], "one question a unit"
    assert truth(chip) == (1, 0, True)
    assert strict.state() is PackageState.INSTALLED


async def test_without_keys_the_unit_is_loaded_and_never_green_and_sealed_once_they_are_back(strict: Shop) -> None:
    away = True

    def keys(eid: Eid, message: bytes) -> bytes:
        if away:
            raise ServiceError("KEYS.UNREACHABLE", "pulled out", where="token")
        return authoriser(MASTER)(eid, message)

    strict.permits = Permits(keys, timeout_s=PATIENCE_S, heads=1)
    chip = strict.chip()
    async with strict.start() as run:
        assert await run.load(chip) is Lamp.RESEAT
        events = await run.supervise()
        assert (truth(chip)[0], truth(chip)[2]) == (1, False)
        assert strict.state() is PackageState.INSTALLED, "the profile is there, whatever the seal"
        assert any(b'"clean_to_ship":false' in e.body for e in events)
        assert not any(b'"clean_to_ship":true' in e.body for e in events)
        away = False
        assert await run.load(chip) is Lamp.PASS
        events = await run.supervise()
        assert any(b'"clean_to_ship":true' in e.body for e in events)
    assert truth(chip) == (1, 0, True)


async def test_keys_that_never_answer_hold_no_unit_for_longer_than_agreed(strict: Shop) -> None:
    released = threading.Event()

    def silent(eid: Eid, message: bytes) -> bytes:
        released.wait(PATIENCE_S)
        return bytes(8)

    strict.permits = Permits(silent, timeout_s=0.01, heads=1)
    chip = strict.chip()
    async with strict.start() as run:
        lamp = await run.load(chip)
        released.set()
        events = await run.supervise()
    assert lamp is Lamp.RESEAT
    assert any(b"KEYS.UNREACHABLE" in event.body for event in events)
    assert (truth(chip)[0], truth(chip)[2]) == (1, False)


async def test_a_refused_word_is_a_fault_of_the_unit_and_never_green(strict: Shop) -> None:
    strict.permits = Permits(authoriser(bytes(32)), timeout_s=PATIENCE_S, heads=1)
    chip = strict.chip()
    async with strict.start() as run:
        assert await run.load(chip) is Lamp.RESEAT
        events = await run.supervise()
    assert any(b"EUICC.NOT_AUTHORISED" in event.body for event in events)
    assert not any(b'"clean_to_ship":true' in event.body for event in events)
    assert truth(chip) == (1, 2, False)


async def test_a_station_that_does_not_ask_ships_no_such_chip(strict: Shop) -> None:
    chip = strict.chip()
    async with strict.start() as run:
        assert await run.load(chip) is Lamp.RESEAT
        events = await run.supervise()
    assert any(b"EUICC.NOT_AUTHORISED" in event.body for event in events)
    assert not truth(chip)[2]


async def test_the_key_file_and_the_chip_maker_agree_on_the_key_of_a_chip(tmp_path: Path) -> None:
    keys = SoftwareKeys.create(tmp_path / "keys.ifpp", Secret(b"1234"))
    keys.generate(Purpose.CHIP)
    eid = Eid("89049032123451234512345678901235")
    value = keys._newest(Purpose.CHIP).value.reveal()
    assert keys.authorise(eid, b"message") == authoriser(value)(eid, b"message")


async def test_master_and_chip_key_are_in_no_log_journal_event_or_metric(
    strict: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strict.permits = Permits(authoriser(MASTER), timeout_s=PATIENCE_S, heads=1)
    with caplog.at_level(logging.DEBUG):
        async with strict.start() as run:
            assert await run.load(strict.chip()) is Lamp.PASS
            events = await run.supervise()
            told = b"".join(event.body for event in events) + run.metrics.text()
    kept = _everything_in(tmp_path)
    assert strict.eid().encode() in kept
    for secret in (MASTER, dm_key_of(MASTER, strict.eid())):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in told + kept + caplog.text.encode()


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
