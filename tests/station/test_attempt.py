"""Outcome classes, dispositions and lamps of an attempt: one row for each kind of ending."""

from __future__ import annotations

import pytest

from ifpp.errors import CardError, IfppError, ServiceError, SupplyError, TransportError, VerificationError
from ifpp.fpa.load import Verdict
from ifpp.model.messages import ClaimedPackage, Job, Product, Recipe
from ifpp.model.states import Disposition, Lamp, OutcomeClass, PackageState, UnitResult
from ifpp.station.attempt import Attempt
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
INSTALLED = Verdict(PackageState.INSTALLED, spent=True, fault=None, pir=None)


def ended(fault: IfppError | None, *verdicts: Verdict, seatings: int = 1, sealed: bool = False) -> Attempt:
    attempt = Attempt("a1", "h01", JOB, START, 0.0, seatings=seatings)
    attempt.fault, attempt.sealed = fault, sealed
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
