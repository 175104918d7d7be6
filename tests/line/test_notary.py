"""The notary: clearances at once, checkpoints now and then, nothing that does not hold, nothing lost on failure."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import ServiceError
from ifpp.line import notary as module
from ifpp.line.notary import Notary
from ifpp.metrics import Metrics, Role
from ifpp.store.factory import Factory
from ifpp.store.records import SignedCheckpoint
from ifpp.trust.signer import SoftwareSigner, VerificationKey, create_key
from tests.bus.node import until
from tests.clock import START, FakeClock
from tests.store.test_events import started, word
from tests.store.world import Node, eid, request, stock, take_one


class Device:
    """A key device that can be away."""

    def __init__(self, path: Path) -> None:
        create_key(path)
        self._key = SoftwareSigner.load(path)
        self.key_id, self.public = self._key.key_id, self._key.public
        self.away = False
        self.signatures = 0

    def sign(self, message: bytes) -> bytes:
        if self.away:
            raise ServiceError("SIGNER.FAILED", "the device does not answer")
        self.signatures += 1
        return self._key.sign(message)


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as opened:
        yield opened


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "audit.key")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Role.SUPERVISOR, line="L1")


@pytest.fixture
def notary(factory: Factory, device: Device, clock: FakeClock, metrics: Metrics) -> Notary:
    return new_notary(factory, device, clock, metrics)


def new_notary(factory: Factory, device: Device, clock: FakeClock, metrics: Metrics) -> Notary:
    return Notary(factory, device, clock=clock, metrics=metrics, entries=10, seconds=60)


def signed(factory: Factory, chain: str = "factory") -> list[SignedCheckpoint]:
    with factory.audit_log() as log:
        return log.checkpoints(chain, 0, 10**6)


def end_of(factory: Factory) -> int:
    with factory.audit_log() as log:
        (head,) = log.heads()
    return head.number


def finish_unit(factory: Factory) -> None:
    take_one(factory, Node().result(1, "a", [word(started(factory), "INSTALLED")]))


def test_a_clearance_is_signed_at_once(factory: Factory, notary: Notary, device: Device) -> None:
    stock(factory, 1)
    assert notary.sign() == 0
    finish_unit(factory)
    assert notary.sign() == 1
    (one,) = signed(factory)
    assert one.number == end_of(factory)
    key = VerificationKey.from_der(device.public)
    key.verify(one.signature, one.statement(factory.factory_id).message(), what="checkpoint")
    assert factory.unit_gate(eid(1)).signed
    assert notary.sign() == 0


def test_a_checkpoint_follows_after_so_many_entries(factory: Factory, notary: Notary, metrics: Metrics) -> None:
    stock(factory, 5)
    assert notary.sign() == 0
    assert metrics.value("ifpp_audit_unsigned_entries", chain="factory") == end_of(factory) == 9
    factory.claim(request(1), START)
    assert notary.sign() == 1
    assert [one.number for one in signed(factory)] == [10]
    assert metrics.value("ifpp_audit_unsigned_entries", chain="factory") == 0


def test_a_checkpoint_follows_after_so_many_seconds(factory: Factory, notary: Notary, clock: FakeClock) -> None:
    stock(factory, 1)
    assert notary.sign() == 0
    clock.advance(59)
    assert notary.sign() == 0
    clock.advance(1)
    assert notary.sign() == 1
    clock.advance(600)
    assert notary.sign() == 0, "nothing is new"


def test_at_the_end_everything_is_signed(factory: Factory, notary: Notary) -> None:
    stock(factory, 1)
    assert notary.sign(final=True) == 1
    assert notary.sign(final=True) == 0
    assert [one.number for one in signed(factory)] == [end_of(factory)]


def test_a_long_chain_is_read_in_pages(factory: Factory, notary: Notary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 7)
    stock(factory, 30)
    assert notary.sign(final=True) == 3
    assert [one.number for one in signed(factory)] == [14, 28, 34]


def test_a_device_that_is_away_delays_and_loses_nothing(factory: Factory, notary: Notary, device: Device) -> None:
    stock(factory, 1)
    notary.sign()
    finish_unit(factory)
    device.away = True
    with pytest.raises(ServiceError, match=r"SIGNER\.FAILED"):
        notary.sign()
    assert factory.unit_gate(eid(1)).code == "GATE.UNSIGNED"
    device.away = False
    assert notary.sign() == 1
    assert factory.unit_gate(eid(1)).signed


def test_after_a_restart_it_goes_on_from_the_last_signature(
    factory: Factory, device: Device, clock: FakeClock, metrics: Metrics
) -> None:
    stock(factory, 1)
    new_notary(factory, device, clock, metrics).sign(final=True)
    finish_unit(factory)
    again = new_notary(factory, device, clock, metrics)
    assert again.sign() == 1
    assert device.signatures == 2


def tamper(tmp_path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(tmp_path / "factory.db")) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET at = 'x' WHERE number = 4",
        "DELETE FROM audit_entry WHERE number = 4",
        "UPDATE audit_entry SET hash = x'00' WHERE number = 4",
    ],
)
def test_what_was_changed_is_not_signed(factory: Factory, notary: Notary, tmp_path: Path, statement: str) -> None:
    stock(factory, 1)
    tamper(tmp_path, statement)
    finish_unit(factory)
    assert notary.sign(final=True) == 0
    assert signed(factory) == []
    assert factory.unit_gate(eid(1)).code == "GATE.UNSIGNED"


def test_a_chain_that_became_shorter_is_not_signed_any_more(factory: Factory, notary: Notary, tmp_path: Path) -> None:
    """The database was replaced by an older copy and went on: another history under the same numbers."""
    stock(factory, 1)
    notary.sign(final=True)
    factory.claim(request(1, "a"), START)
    notary.sign()
    tamper(
        tmp_path,
        "DELETE FROM audit_entry WHERE number > 4",
        "UPDATE audit_chain SET number = 4, hash = (SELECT hash FROM audit_entry WHERE number = 4)",
    )
    assert notary.sign(final=True) == 0
    factory.claim(request(1, "b"), START)
    factory.claim(request(1, "c"), START)
    assert notary.sign(final=True) == 0
    assert len(signed(factory)) == 1


def test_a_forged_signature_is_no_place_to_start_from(
    factory: Factory, device: Device, clock: FakeClock, metrics: Metrics, tmp_path: Path
) -> None:
    stock(factory, 1)
    new_notary(factory, device, clock, metrics).sign(final=True)
    tamper(tmp_path, "UPDATE audit_checkpoint SET hash = x'00'")
    finish_unit(factory)
    assert new_notary(factory, device, clock, metrics).sign(final=True) == 0


def test_a_broken_chain_does_not_stop_the_others(
    factory: Factory, notary: Notary, metrics: Metrics, tmp_path: Path
) -> None:
    stock(factory, 1)
    tamper(tmp_path, "UPDATE audit_entry SET at = 'x' WHERE number = 2")
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}", writer="store")) as other:
        other.claim(request(1), START)
    assert notary.sign(final=True) == 1
    assert len(signed(factory, "store")) == 1


async def test_it_signs_by_itself_and_once_more_at_the_end(
    factory: Factory, notary: Notary, device: Device, clock: FakeClock
) -> None:
    stock(factory, 1)
    over = asyncio.Event()
    device.away = True
    running = asyncio.create_task(notary.run(over))
    await until(lambda: clock.sleepers > 0)
    finish_unit(factory)
    device.away = False
    clock.advance(1)
    await until(lambda: bool(signed(factory)))
    over.set()
    await running
    factory.release("never", "st01", START)
    await notary.finish()
    assert signed(factory)[-1].number == end_of(factory)
