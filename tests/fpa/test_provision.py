"""Provision virtual eUICCs: the minimum of commands, honest verdicts, and a cut at every single APDU."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ifpp.errors import CardError, TransportError, VerificationError
from ifpp.fpa.chip import Chip
from ifpp.fpa.fit import Wanted, preflight
from ifpp.fpa.load import Verdict, load, prepare, read_back, require_listed
from ifpp.fpa.settle import results_of, settle
from ifpp.model.chip import FpaState
from ifpp.model.ids import Iccid
from ifpp.model.states import PackageState
from ifpp.wire.bpp import apdu_floor
from tests.fpa.conftest import Case, seal
from tests.memory_port import MemoryPort

Make = Callable[..., list[Case]]


def opened(case: Case, port: MemoryPort | None = None, block_size: int = 255) -> Chip:
    chip = Chip(port or case.port(), block_size=block_size)
    chip.open()
    return chip


def loaded(chip: Chip, case: Case) -> Verdict:
    prepare(chip, case.order)
    return load(chip, case.order, case.key)


def installed_on(port: MemoryPort) -> bool:
    """The truth, asked of the chip itself after a power cycle, past everything under test."""
    port.pull_at = 0
    chip = Chip(port)
    chip.open()
    return bool(chip.profiles())


@pytest.mark.parametrize("ppk", [True, False])
@pytest.mark.parametrize("block_size", [60, 120, 128, 200, 240, 255])
def test_a_load_takes_exactly_the_minimum_of_commands(make_cases: Make, ppk: bool, block_size: int) -> None:
    (case,) = make_cases(ppk=ppk)
    chip = opened(case, block_size=block_size)
    identity = chip.identify(chip.eid())
    preflight(identity, [case.order], Wanted())
    before = chip.apdus
    verdict = loaded(chip, case)
    assert (verdict.state, verdict.spent, verdict.fault) == (PackageState.INSTALLED, True, None)
    floor = apdu_floor(case.order.bpp.segments, len(case.order.prepare.raw), block_size)
    assert chip.apdus - before == floor
    assert verdict.pir is not None
    read_back(chip, case.order.iccid, verdict.pir)


def test_a_sealed_chip_has_no_key_is_locked_and_answers_the_field(make_cases: Make) -> None:
    (case,) = make_cases(otks_per_chip=4)
    chip = opened(case)
    assert not chip.answers_field_lpa()
    loaded(chip, case)
    proof = seal(chip, case.order.eid)
    assert (proof.keys_deleted, proof.keys_remaining, proof.locked, proof.lpa_answers) == (3, 0, True, True)
    chip.close()
    chip.open()
    assert chip.status().state == FpaState.LOCKED
    again = seal(chip, case.order.eid)
    assert (again.keys_deleted, again.locked) == (0, True)


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("ppk", [True, False])
def test_a_cut_at_any_command_is_settled_truthfully_and_the_order_is_not_lost(
    make_cases: Make, executed: bool, ppk: bool
) -> None:
    (case,) = make_cases(ppk=ppk, profile_kb=(12, 12))
    probe = opened(case)
    first = len(probe.port.sent) + 1  # type: ignore[attr-defined]
    loaded(probe, case)
    last = len(probe.port.sent)  # type: ignore[attr-defined]
    assert last - first > 50
    for cut in range(first, last + 1):
        port = case.port()
        chip = opened(case, port)
        port.pull_at, port.executed = cut, executed
        try:
            verdict = loaded(chip, case)
        except TransportError:
            verdict = None  # in PrepareDownload: nothing was sent
        assert verdict is None or verdict.state is PackageState.UNKNOWN
        truth = installed_on(port)
        chip.open()
        settled = settle(chip, case.order, case.otk_id, case.key)
        assert settled.state is (PackageState.INSTALLED if truth else PackageState.FAILED), f"cut at APDU {cut}"
        if not truth:
            assert not settled.spent, f"cut at APDU {cut}: the same package must be usable again"
            assert loaded(chip, case).state is PackageState.INSTALLED, f"retry after a cut at APDU {cut}"
        seal(chip, case.order.eid)
        assert len(chip.profiles()) == 1


def test_another_package_for_the_key_of_an_interrupted_one_is_refused(make_cases: Make) -> None:
    first, second = make_cases(profiles_per_unit=2)
    port = first.port()
    chip = opened(first, port)
    port.pull_at = len(port.sent) + 30
    assert loaded(chip, first).state is PackageState.UNKNOWN
    port.pull_at = 0
    chip.open()
    assert loaded(chip, second).state is PackageState.INSTALLED
    assert settle(chip, first.order, first.otk_id, first.key).spent is False
    assert loaded(chip, first).state is PackageState.INSTALLED


def test_a_key_used_twice_is_refused_before_anything_is_sent(make_cases: Make) -> None:
    (case,) = make_cases()
    chip = opened(case)
    loaded(chip, case)
    with pytest.raises(CardError) as caught:
        prepare(chip, case.order)
    assert caught.value.code == "EUICC.PREPARE_REFUSED"
    assert "no_session_context(4)" in caught.value.detail


@pytest.mark.parametrize(
    ("fault", "code", "spent"), [("small_memory", "EUICC.NO_MEMORY", False), ("tampered", "EUICC.LOAD_REFUSED", True)]
)
def test_a_refused_profile_is_a_signed_failure(make_cases: Make, fault: str, code: str, spent: bool) -> None:
    (case,) = make_cases(faults=1, fault_classes=[fault])
    verdict = loaded(opened(case), case)
    assert verdict.state is PackageState.FAILED
    assert verdict.spent is spent
    assert verdict.fault is not None
    assert verdict.fault.code == code
    assert verdict.pir is not None


def test_a_result_signed_by_another_chip_is_believed_by_nobody(make_cases: Make) -> None:
    case, other = make_cases(units=2)
    chip = opened(case)
    prepare(chip, case.order)
    verdict = load(chip, case.order, other.key)
    assert verdict.state is PackageState.UNKNOWN
    assert verdict.fault is not None
    assert verdict.fault.code in ("PIR.SIGNATURE", "EID.MISMATCH")
    settled = settle(chip, case.order, case.otk_id, other.key)
    assert settled.state is PackageState.UNKNOWN


def test_a_result_that_was_already_removed_leaves_the_unit_held_not_guessed(make_cases: Make) -> None:
    (case,) = make_cases()
    chip = opened(case)
    verdict = loaded(chip, case)
    assert verdict.pir is not None
    chip.forget(verdict.pir.seq_number)
    assert results_of(chip, case.order) == []
    settled = settle(chip, case.order, case.otk_id, case.key)
    assert settled.state is PackageState.UNKNOWN
    assert settled.fault is not None
    assert settled.fault.code == "PIR.MISSING"


def test_a_package_for_another_chip_is_refused_before_it_is_sent(make_cases: Make) -> None:
    case, other = make_cases(units=2)
    chip = opened(case)
    with pytest.raises(VerificationError) as caught:
        preflight(chip.identify(chip.eid()), [other.order], Wanted())
    assert caught.value.code == "EID.MISMATCH"
    with pytest.raises(CardError):
        prepare(chip, other.order)
    assert chip.status().otk_remaining == 3


def test_too_little_memory_is_seen_before_a_key_is_spent(make_cases: Make) -> None:
    (case,) = make_cases()
    chip = opened(case)
    with pytest.raises(CardError) as caught:
        preflight(chip.identify(chip.eid()), [case.order], Wanted(memory_factor=1000.0))
    assert caught.value.code == "EUICC.NO_MEMORY"


def test_a_profile_that_vanished_is_not_passed_on(make_cases: Make) -> None:
    (case,) = make_cases()
    chip = opened(case)
    with pytest.raises(VerificationError) as caught:
        require_listed(chip, {Iccid("8988211900000311922")})
    assert caught.value.code == "PIR.READBACK"


def test_a_card_without_isdr_is_no_euicc(make_cases: Make) -> None:
    (case,) = make_cases()
    port = case.port()
    port.chip = _NoIsdr()  # type: ignore[assignment]
    with pytest.raises(CardError) as caught:
        Chip(port).open()
    assert caught.value.code == "EUICC.NOT_AN_EUICC"


class _NoIsdr:
    """A plain SIM: opens a channel and knows no ISD-R."""

    atr = bytes.fromhex("3B00")
    silent = False

    def reset(self) -> None:
        pass

    def power_off(self) -> None:
        pass

    def process(self, apdu: bytes) -> bytes:
        if apdu[1] == 0x70:
            return bytes.fromhex("019000") if apdu[2] == 0 else bytes.fromhex("9000")
        return bytes.fromhex("6A82" if apdu[1] == 0xA4 else "9000")
