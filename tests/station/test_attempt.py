"""Outcome classes, dispositions and lamps of an attempt: one row for each kind of ending."""

from __future__ import annotations

import msgspec
import pytest

from ifpp.errors import CardError, IfppError, ServiceError, SupplyError, TransportError, VerificationError
from ifpp.fpa.load import Verdict
from ifpp.model.messages import ClaimedPackage, Job, Product, Recipe, SealProof, UnitResultEvent
from ifpp.model.states import Disposition, Lamp, OutcomeClass, PackageState, UnitResult
from ifpp.station.attempt import Attempt, under_way
from ifpp.station.life import Finding, Seating
from tests.clock import START

JOB = Job(
    job_order_id="JO-1", version=1, product=Product(part_number="SKU"), region="EU", recipe=Recipe(name="r"), quantity=1
)
PACKAGE = ClaimedPackage(
    package_id="p1",
    iccid="8988211900000311922",
    profile_type="t",
    smdp_oid="2.999.10",
    transaction_id="aa",
    otk_id="bb",
    state="CLAIMED",
    bpp_sha256="cc",
    bytes=10,
    prepare_download_b64="",
)
PROOF = SealProof(keys_deleted=1, keys_remaining=0, fpa_locked=True, lpa_answers=True)
INSTALLED = Verdict(PackageState.INSTALLED, spent=True, fault=None, pir=None)


def ended(fault: IfppError | None, *verdicts: Verdict, seatings: int = 1, sealed: bool = False) -> Attempt:
    attempt = Attempt("a1", "h01", JOB, START, 0.0, seatings=seatings)
    attempt.fault, attempt.seal = fault, PROOF if sealed else None
    attempt.loads = [(PACKAGE, verdict) for verdict in verdicts]
    return attempt


LOST = TransportError("CONTACT.LOST", "gone")
REFUSED = CardError("EUICC.LOAD_REFUSED", "no")
FORGED = VerificationError("PIR.SIGNATURE", "not the chip's")

ROWS = [
    (ended(None, INSTALLED, sealed=True), "PASS", "PASS", "CONTINUE", "PASS"),
    (ended(LOST), "ERROR", "CONTACT", "RETEST", "RESEAT"),
    (ended(LOST, seatings=3), "ERROR", "CONTACT", "HOLD", "FAIL"),
    (ended(LOST, Verdict(PackageState.UNKNOWN, False, LOST, None)), "ERROR", "AMBIGUOUS", "RETEST", "RESEAT"),
    (ended(LOST, Verdict(PackageState.UNKNOWN, False, LOST, None), seatings=3), "ERROR", "AMBIGUOUS", "HOLD", "HOLD"),
    (ended(FORGED, Verdict(PackageState.UNKNOWN, False, FORGED, None)), "ERROR", "AMBIGUOUS", "HOLD", "HOLD"),
    (ended(REFUSED, Verdict(PackageState.FAILED, True, REFUSED, None)), "FAIL", "PRODUCT", "REWORK", "FAIL"),
    (ended(SupplyError("BPP.NOT_FOUND", "none")), "ERROR", "SUPPLY", "HOLD", "FAIL"),
    (ended(ServiceError("STORE.UNREACHABLE", "away")), "ERROR", "STATION", "RETEST", "RESEAT"),
    (ended(SupplyError("UNIT.ALREADY_LOADED", "done")), "SKIPPED", "PASS", "CONTINUE", "PASS"),
]


@pytest.mark.parametrize(("attempt", "result", "outcome", "disposition", "lamp"), ROWS)
def test_endings(attempt: Attempt, result: str, outcome: str, disposition: str, lamp: str) -> None:
    assert attempt.result is UnitResult(result)
    assert attempt.outcome is OutcomeClass(outcome)
    assert attempt.disposition(reseats=2) is Disposition(disposition)
    assert attempt.lamp(reseats=2) is Lamp(lamp)


@pytest.mark.parametrize(
    ("attempt", "finding"),
    [
        (ended(None, INSTALLED, sealed=True), Finding.PASS),
        (ended(SupplyError("UNIT.ALREADY_LOADED", "done")), Finding.PASS),
        (ended(LOST), Finding.CONTACT),
        (ended(LOST, Verdict(PackageState.UNKNOWN, False, LOST, None)), Finding.CONTACT),  # whatever the unit got
        (ended(CardError("EUICC.INTERRUPTED", "earlier, maybe on another head")), Finding.OTHER),
        (ended(REFUSED, Verdict(PackageState.FAILED, True, REFUSED, None)), Finding.FAIL),
        (ended(FORGED, Verdict(PackageState.UNKNOWN, False, FORGED, None)), Finding.OTHER),
        (ended(SupplyError("BPP.NOT_FOUND", "none")), Finding.OTHER),
        (ended(ServiceError("STORE.UNREACHABLE", "away")), Finding.NOTHING),
        (ended(TransportError("HEAD.UNREACHABLE", "no reader")), Finding.NOTHING),
    ],
)
def test_what_an_end_says_about_the_head(attempt: Attempt, finding: Finding) -> None:
    assert attempt.finding is finding


def test_a_head_remembers_the_time_of_what_was_installed_and_whom_it_awaits() -> None:
    loaded = Verdict(PackageState.INSTALLED, spent=True, fault=None, pir=None, load_ms=40)
    assert ended(None, loaded, sealed=True).seating(2) == Seating("", Finding.PASS, False, load_s=0.04, load_kb=0.01)
    assert ended(None, INSTALLED, sealed=True).seating(2).load_kb == 0, "read back, not loaded here"
    assert ended(LOST).seating(2) == Seating("", Finding.CONTACT, again=True)
    assert ended(LOST, seatings=3).seating(2) == Seating("", Finding.CONTACT, again=False)


def test_the_event_tells_what_was_proven() -> None:
    attempt = ended(REFUSED, INSTALLED, Verdict(PackageState.FAILED, True, REFUSED, None, apdus=7, load_ms=40))
    attempt.eid = "eid"
    event = attempt.event(station_id="st01", boot_id="b", now=START, now_s=0.1, reseats=2)
    assert [(row.package_state, row.key_consumed, row.apdus) for row in event.profiles] == [
        ("INSTALLED", True, 0),
        ("FAILED", True, 7),
    ]
    assert event.clean_to_ship is False
    assert event.defects[0].code == "EUICC.LOAD_REFUSED"
    assert (event.cycle_ms, event.load_ms, event.handling_ms) == (100, 40, 60)
    assert event.seq is None


def test_clean_to_ship_needs_the_proof_and_tells_it() -> None:
    for sealed, clean in ((True, True), (False, False)):
        event = ended(None, INSTALLED, sealed=sealed).event(
            station_id="st01", boot_id="b", now=START, now_s=0.1, reseats=2
        )
        assert event.clean_to_ship is clean
        assert event.seal == (PROOF if sealed else None)


def test_a_later_word_on_a_package_takes_the_place_of_the_earlier() -> None:
    attempt = ended(None)
    attempt.conclude(PACKAGE, under_way(PACKAGE.iccid))
    before = attempt.loads
    attempt.conclude(PACKAGE, INSTALLED)
    assert attempt.loads == [(PACKAGE, INSTALLED)]
    assert [verdict.state for _, verdict in before] == [PackageState.UNKNOWN]  # a list kept before is as it was


def test_the_will_of_an_attempt_never_calls_it_good() -> None:
    """Whatever was achieved: a process that died did not bring the unit to its end."""
    attempt = ended(None, INSTALLED, sealed=True)
    attempt.eid = "eid"
    will = msgspec.json.decode(attempt.will(station_id="st01", boot_id="b", now=START, now_s=0.1), type=UnitResultEvent)
    assert (will.result, will.outcome_class, will.disposition) == ("ERROR", "AMBIGUOUS", "HOLD")
    assert (will.clean_to_ship, will.seal) == (False, None)
    assert [row.package_state for row in will.profiles] == ["INSTALLED"]
    assert will.defects[0].code == "STATION.DIED"
    assert attempt.fault is None  # the attempt itself goes on


@pytest.mark.parametrize(
    ("attempt", "held", "judged", "finished"),
    [
        (ended(None, INSTALLED, sealed=True), False, True, True),
        (ended(SupplyError("UNIT.ALREADY_LOADED", "done")), False, True, True),
        (ended(REFUSED, Verdict(PackageState.FAILED, True, REFUSED, None)), False, True, False),
        (ended(LOST), False, False, False),
        (ended(LOST, Verdict(PackageState.UNKNOWN, False, LOST, None)), True, False, False),
        (ended(SupplyError("BPP.TAKEN", "other head")), False, False, False),
    ],
)
def test_what_an_end_means_for_holding_the_unit(attempt: Attempt, held: bool, judged: bool, finished: bool) -> None:
    closed = attempt.closed([])
    assert (closed.hold is not None, closed.judged, closed.finished) == (held, judged, finished)
