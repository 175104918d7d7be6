"""Deliveries that come encrypted for the factory's transport key: by software keys and inside a SoftHSM token."""

from __future__ import annotations

import logging
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ifpp.errors import IntakeError, ServiceError
from ifpp.line.intake import IntakeOutcome, import_file
from ifpp.log import Secret
from ifpp.sim.envelope import CHUNK_BYTES, encrypt_file
from ifpp.store.factory import Factory
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import KeyInfo, KeyProvider, Purpose
from tests.line.supply import Supply, contents, now
from tests.real.softhsm import SoftToken

PIN = "2718281828"


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture(params=["software", "pkcs11"])
def keys(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyProvider]:
    made: KeyProvider
    if request.param == "software":
        made = SoftwareKeys.create(tmp_path / "keys.ifpp", Secret(PIN.encode()))
    else:
        made = SoftToken(tmp_path, monkeypatch).open()
    made.generate(Purpose.TRANSPORT)
    yield made
    made.close()


class Place:
    """A factory that knows the chips, and one delivery on its way to it."""

    def __init__(self, folder: Path, supply: Supply, keys: KeyProvider) -> None:
        self.database, self.keys, self.supply = folder / "factory.db", keys, supply
        self.envelope = folder / "delivery.esbpp.envelope"
        self.factory = Factory.open(f"sqlite:///{self.database}")
        import_file(supply.esed, self.factory, supply.trust_store, now=now(), line="L1")

    def encrypt(self, info: KeyInfo | None = None, source: Path | None = None) -> bytes:
        info = info or self.keys.keys()[-1]
        assert info.public is not None
        encrypt_file(source or self.supply.delivery, self.envelope, info.public, info.name)
        return self.envelope.read_bytes()

    def take(self, keys: Callable[[], KeyProvider | None] | None = None) -> IntakeOutcome:
        wanted = keys or (lambda: self.keys)
        store, trust = self.factory, self.supply.trust_store
        return import_file(self.envelope, store, trust, now=now(), line="L1", keys=wanted).outcome

    def refuse(self, keys: Callable[[], KeyProvider | None] | None = None) -> str:
        before = contents(self.database)
        with pytest.raises(IntakeError) as caught:
            self.take(keys)
        assert contents(self.database) == before
        return caught.value.code


@pytest.fixture
def place(tmp_path: Path, supply: Supply, keys: KeyProvider) -> Iterator[Place]:
    made = Place(tmp_path, supply, keys)
    yield made
    made.factory.close()


def test_an_encrypted_delivery_is_what_it_holds(place: Place, supply: Supply) -> None:
    envelope = place.encrypt()
    assert supply.delivery.read_bytes()[:200] not in envelope
    assert place.take() is IntakeOutcome.IMPORTED
    (row,) = place.factory.balance()
    assert row.available == 6
    assert place.take() is IntakeOutcome.ALREADY_IMPORTED, "played again"
    assert place.encrypt() != envelope
    assert place.take() is IntakeOutcome.ALREADY_IMPORTED, "encrypted again"
    shutil.copy(supply.delivery, place.envelope)
    assert place.take() is IntakeOutcome.ALREADY_IMPORTED, "in the clear"


def test_keys_rotate_with_overlap_and_a_destroyed_one_opens_nothing(place: Place, keys: KeyProvider) -> None:
    first = keys.keys()[0]
    place.encrypt(first)
    keys.generate(Purpose.TRANSPORT)
    assert place.take() is IntakeOutcome.IMPORTED, "sent before the sender heard of the new key"
    keys.destroy(first.name)
    assert place.refuse() == "ENVELOPE.KEY"


def test_a_foreign_key_opens_nothing(place: Place, tmp_path: Path) -> None:
    place.encrypt()
    other = SoftwareKeys.create(tmp_path / "other.ifpp", Secret(b"1"))
    assert place.refuse(lambda: other) == "ENVELOPE.KEY"
    other.generate(Purpose.TRANSPORT)
    assert place.refuse(lambda: other) == "ENVELOPE.KEY"
    assert place.refuse(lambda: None) == "ENVELOPE.KEY"


def test_altered_cut_or_reordered_it_is_refused_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_bytes(place.supply.delivery.read_bytes() + bytes(2 * CHUNK_BYTES))
    envelope = place.encrypt(source=long)
    head, sealed = envelope.index(b"\n") + 1, CHUNK_BYTES + 16
    first, rest = envelope[head : head + sealed], envelope[head + sealed :]
    assert rest, "more than one chunk"
    middle = len(envelope) // 2
    for changed, code in (
        (envelope[:middle] + bytes([envelope[middle] ^ 4]) + envelope[middle + 1 :], "ENVELOPE.BROKEN"),
        (envelope[: head + sealed], "ENVELOPE.BROKEN"),
        (envelope[:-1], "ENVELOPE.BROKEN"),
        (envelope[:head], "ENVELOPE.BROKEN"),
        (envelope + b"\n", "ENVELOPE.BROKEN"),
        (envelope[:head] + rest + first, "ENVELOPE.BROKEN"),
        (envelope[:head] + first + first + rest, "ENVELOPE.BROKEN"),
        (envelope.replace(b'"content":"delivery"', b'"content":"backup"', 1), "ENVELOPE.BROKEN"),
        (envelope.replace(b"transport.1", b"transport.9", 1), "ENVELOPE.KEY"),
        (envelope.replace(b'"key":"transport', b'"key":"audit', 1), "ENVELOPE.BROKEN"),
    ):
        place.envelope.write_bytes(changed)
        assert place.refuse() == code


def test_keys_that_are_away_are_asked_again_later(place: Place) -> None:
    place.encrypt()

    def away() -> KeyProvider:
        raise ServiceError("KEYS.UNREACHABLE", "pulled out", where="token")

    before = contents(place.database)
    with pytest.raises(ServiceError):
        place.take(away)
    assert contents(place.database) == before
    assert place.take() is IntakeOutcome.IMPORTED


def test_a_file_in_the_clear_asks_for_no_keys(place: Place, supply: Supply) -> None:
    shutil.copy(supply.delivery, place.envelope)

    def never() -> KeyProvider:
        raise AssertionError("asked for")

    assert place.take(never) is IntakeOutcome.IMPORTED


def test_the_content_key_stays_in_no_log_error_or_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = bytes(range(100, 132))
    monkeypatch.setattr("ifpp.sim.envelope.secrets.token_bytes", lambda _count: known)
    envelope = place.encrypt()
    seen: list[str] = []
    with caplog.at_level(logging.DEBUG):
        place.envelope.write_bytes(envelope[:-1])
        with pytest.raises(IntakeError) as caught:
            place.take()
        seen += [str(caught.value), repr(caught.value), caught.value.detail]
        place.envelope.write_bytes(envelope)
        place.take()
    seen.append(caplog.text)
    for text in seen:
        assert known.hex() not in text
        assert repr(known) not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert known not in data
            assert known.hex().encode() not in data


def test_memory_stays_flat(place: Place, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as out:
        out.write(b'{"format":"ifpp.nothing"}\n')
        for _ in range(512):
            out.write(bytes(CHUNK_BYTES))
    place.encrypt(source=large)
    tracemalloc.start()
    try:
        assert place.refuse() == "INTAKE.FORMAT"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * 1024 * 1024
