"""A judge that cannot fail is worthless: one sound line, then one forged fact after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ifpp.sim.judge import RULES_DOUBLED, RULES_LOST, RULES_WRONG, Verdict, judge
from ifpp.sim.witness import Attempt, Event, Evidence, Package, Sending, Unit

AT = "2026-01-01T00:00:00.000Z"
INSTALLED_WAY = ["AVAILABLE", "CLAIMED", "SENT", "INSTALLED"]
FAILED_WAY = ["AVAILABLE", "CLAIMED", "SENT", "FAILED"]


def sound() -> Evidence:
    """Two units that passed, and one with too little memory, whose package failed for good."""
    units = [
        Unit("e1", ["i1"], {"k1": "consumed", "x1": "deleted"}, locked=True, bin="pass", lamp="pass"),
        Unit("e2", ["i2"], {"k2": "consumed"}, locked=True, bin="pass", lamp="pass", has_results=True),
        Unit("e3", [], {"k3": "consumed"}, locked=False, bin="fail", lamp="fail", fault="small_memory"),
    ]
    packages = [
        Package("p1", "e1", "k1", "i1", "INSTALLED", spent=True, steps=INSTALLED_WAY),
        Package("p2", "e2", "k2", "i2", "INSTALLED", spent=True, steps=INSTALLED_WAY),
        Package("p3", "e3", "k3", "i3", "FAILED", spent=True, steps=FAILED_WAY),
    ]
    events = [Event("st01", seq, f"id{seq}") for seq in range(1, 5)]
    return Evidence(
        units=units,
        packages=packages,
        attempts=[
            Attempt("e1", "a0", "ERROR"),
            Attempt("e1", "a1", "PASS"),
            Attempt("e1", "a4", "SKIPPED"),
            Attempt("e2", "a2", "PASS"),
            Attempt("e3", "a3", "FAIL"),
        ],
        cleared={"e1", "e2"},
        taken=list(events),
        parked={},
        stored=list(events),
        sendings=[
            Sending("st01", "e1", "i1", "SENT", spent=False, has_result=False, resolved=True),
            Sending("st01", "e1", "i1", "INSTALLED", spent=True, has_result=True, resolved=False),
            Sending("st01", "e2", "i2", "UNKNOWN", spent=False, has_result=False, resolved=True),
            Sending("st01", "e3", "i3", "FAILED", spent=True, has_result=True, resolved=False),
        ],
        held={},
        counted=(3, 2),
        proven=["i1", "i2"],
        refused=[],
        gates={"e1": "", "e2": "", "e3": "GATE.NOT_SEALED: no station has sealed it"},
        broken=[],
        at=AT,
    )


def book(evidence: Evidence, number: int, **changes: object) -> None:
    evidence.packages[number] = replace(evidence.packages[number], **changes)  # type: ignore[arg-type]


def chip(evidence: Evidence, number: int, **changes: object) -> None:
    evidence.units[number] = replace(evidence.units[number], **changes)  # type: ignore[arg-type]


def journal(evidence: Evidence, number: int, **changes: object) -> None:
    evidence.sendings[number] = replace(evidence.sendings[number], **changes)  # type: ignore[arg-type]


def available_again(evidence: Evidence) -> None:
    book(evidence, 0, state="AVAILABLE", spent=False)


def failed_not_spent(evidence: Evidence) -> None:
    book(evidence, 2, state="FAILED", spent=False)


def key_of_nobody(evidence: Evidence) -> None:
    chip(evidence, 0, keys={"k1": "consumed", "x1": "consumed"})


def profile_of_nobody(evidence: Evidence) -> None:
    chip(evidence, 1, profiles=["i2", "i9"])


def spent_for_nothing(evidence: Evidence) -> None:
    chip(evidence, 2, fault="")


def event_not_taken(evidence: Evidence) -> None:
    evidence.taken.pop()


def event_not_stored(evidence: Evidence) -> None:
    evidence.stored.pop(1)


def event_put_aside(evidence: Evidence) -> None:
    evidence.parked[evidence.taken.pop()] = "CUSTODY.EVENT_REFUSED: no"


def green_without_pass(evidence: Evidence) -> None:
    evidence.attempts[3] = Attempt("e2", "a2", "ERROR")


def green_not_cleared(evidence: Evidence) -> None:
    evidence.cleared.discard("e2")


def green_and_the_gate_is_shut(evidence: Evidence) -> None:
    evidence.gates["e2"] = "GATE.UNSIGNED: not signed"


def not_reported(evidence: Evidence) -> None:
    evidence.proven.remove("i2")


def report_refused(evidence: Evidence) -> None:
    evidence.refused.append("the signature does not hold")


def books_broken(evidence: Evidence) -> None:
    evidence.broken.append("the mass balance does not hold")


def unit_not_counted(evidence: Evidence) -> None:
    evidence.counted = (2, 2)


LOST = [
    available_again,
    failed_not_spent,
    key_of_nobody,
    profile_of_nobody,
    spent_for_nothing,
    event_not_taken,
    event_not_stored,
    event_put_aside,
    green_without_pass,
    green_not_cleared,
    green_and_the_gate_is_shut,
    not_reported,
    report_refused,
    books_broken,
    unit_not_counted,
]


def profile_on_two_chips(evidence: Evidence) -> None:
    chip(evidence, 1, profiles=["i2", "i1"])


def profile_on_the_wrong_chip(evidence: Evidence) -> None:
    chip(evidence, 0, profiles=["i2"])
    chip(evidence, 1, profiles=["i1"])


def package_installed_twice(evidence: Evidence) -> None:
    book(evidence, 0, steps=[*INSTALLED_WAY, "CLAIMED", "SENT", "INSTALLED"])


def key_of_two_packages(evidence: Evidence) -> None:
    book(evidence, 1, eid="e1", otk_id="k1")


def event_taken_twice(evidence: Evidence) -> None:
    evidence.taken.append(replace(evidence.taken[0], seq=9))


def event_stored_twice(evidence: Evidence) -> None:
    evidence.stored.append(replace(evidence.stored[0], seq=9))


def number_of_two_events(evidence: Evidence) -> None:
    evidence.taken[2] = replace(evidence.taken[2], id="other")


def attempt_reported_twice(evidence: Evidence) -> None:
    evidence.attempts.append(Attempt("e1", "a1", "PASS"))


def unit_counted_twice(evidence: Evidence) -> None:
    evidence.counted = (4, 2)


def pass_counted_twice(evidence: Evidence) -> None:
    evidence.counted = (3, 3)


def reported_twice(evidence: Evidence) -> None:
    evidence.proven.append("i1")


DOUBLED = [
    profile_on_two_chips,
    profile_on_the_wrong_chip,
    package_installed_twice,
    key_of_two_packages,
    event_taken_twice,
    event_stored_twice,
    number_of_two_events,
    attempt_reported_twice,
    unit_counted_twice,
    pass_counted_twice,
    reported_twice,
]


def left_unknown(evidence: Evidence) -> None:
    book(evidence, 1, state="UNKNOWN", spent=False)


def left_sent_with_a_result_in_the_journal(evidence: Evidence) -> None:
    book(evidence, 0, state="SENT", spent=False)


def left_sent_with_a_usable_key(evidence: Evidence) -> None:
    chip(evidence, 2, keys={"k3": "reserved"})
    journal(evidence, 3, has_result=False)
    book(evidence, 2, state="SENT", spent=False)


def claimed_for_nobody(evidence: Evidence) -> None:
    chip(evidence, 2, keys={"k3": "available"})
    book(evidence, 2, state="CLAIMED", spent=False, lease_until="2025-12-31T23:59:59.000Z")


def installed_and_not_there(evidence: Evidence) -> None:
    book(evidence, 2, state="INSTALLED")


def failed_and_there(evidence: Evidence) -> None:
    book(evidence, 0, state="FAILED")


def spent_and_usable(evidence: Evidence) -> None:
    chip(evidence, 2, keys={"k3": "available"})


def journal_says_installed(evidence: Evidence) -> None:
    journal(evidence, 3, state="INSTALLED")


def journal_says_failed(evidence: Evidence) -> None:
    journal(evidence, 1, state="FAILED")


def journal_left_open(evidence: Evidence) -> None:
    journal(evidence, 2, resolved=False)


def journal_of_no_unit(evidence: Evidence) -> None:
    journal(evidence, 3, eid="e9")


def green_and_not_locked(evidence: Evidence) -> None:
    chip(evidence, 0, locked=False)


def green_with_a_key(evidence: Evidence) -> None:
    chip(evidence, 0, keys={"k1": "consumed", "x1": "available"})


def cleared_without_profile(evidence: Evidence) -> None:
    evidence.cleared.add("e3")


def gate_open_for_an_open_chip(evidence: Evidence) -> None:
    evidence.gates["e3"] = ""


def sound_unit_held(evidence: Evidence) -> None:
    chip(evidence, 1, bin="hold", lamp="hold")


def passed_and_still_held(evidence: Evidence) -> None:
    evidence.held["e1"] = "STATION.DIED: hold it"


WRONG = [
    left_unknown,
    left_sent_with_a_result_in_the_journal,
    left_sent_with_a_usable_key,
    claimed_for_nobody,
    installed_and_not_there,
    failed_and_there,
    spent_and_usable,
    journal_says_installed,
    journal_says_failed,
    journal_left_open,
    journal_of_no_unit,
    green_and_not_locked,
    green_with_a_key,
    cleared_without_profile,
    gate_open_for_an_open_chip,
    sound_unit_held,
    passed_and_still_held,
]


def test_a_sound_line_is_acquitted() -> None:
    assert judge(sound()) == Verdict([], [], [])
    assert judge(sound()).clean


@pytest.mark.parametrize("forge", LOST)
def test_the_judge_finds_what_is_lost(forge: Callable[[Evidence], None]) -> None:
    evidence = sound()
    forge(evidence)
    assert judge(evidence).lost


@pytest.mark.parametrize("forge", DOUBLED)
def test_the_judge_finds_what_counts_twice(forge: Callable[[Evidence], None]) -> None:
    evidence = sound()
    forge(evidence)
    assert judge(evidence).doubled


@pytest.mark.parametrize("forge", WRONG)
def test_the_judge_finds_what_was_not_resolved_or_wrongly(forge: Callable[[Evidence], None]) -> None:
    evidence = sound()
    forge(evidence)
    assert judge(evidence).unresolved_wrongly


def test_green_without_one_of_two_profiles_is_a_lie() -> None:
    evidence = sound()
    evidence.packages.insert(0, Package("p0", "e1", "x1", "i0", "FAILED", spent=True, steps=FAILED_WAY))
    lies = [reason for reason in judge(evidence).unresolved_wrongly if "the lamp was green" in reason]
    assert lies == ["EID e1: the lamp was green, the chip is sealed and lacks a profile"]


def test_what_nobody_can_tell_may_be_held() -> None:
    """The key is spent, no profile, no result on the chip nor in the journal: to hold the unit is right."""
    evidence = sound()
    book(evidence, 2, state="UNKNOWN", spent=False)
    journal(evidence, 3, state="UNKNOWN", spent=False, has_result=False)
    evidence.held["e3"] = "PIR.MISSING: hold it"
    assert judge(evidence).clean


def test_a_lease_that_still_runs_is_no_fault() -> None:
    evidence = sound()
    chip(evidence, 2, keys={"k3": "available"})
    journal(evidence, 3, spent=False)
    book(evidence, 2, state="CLAIMED", spent=False, lease_until="2026-01-01T00:10:00.000Z")
    assert judge(evidence).clean


def test_every_rule_has_found_something_forged() -> None:
    silent = {rule.__name__ for rule in (*RULES_LOST, *RULES_DOUBLED, *RULES_WRONG)}
    for forge in (*LOST, *DOUBLED, *WRONG):
        evidence = sound()
        forge(evidence)
        silent -= {rule.__name__ for rule in (*RULES_LOST, *RULES_DOUBLED, *RULES_WRONG) if list(rule(evidence))}
    assert silent == set()


# ---- chips that download --------------------------------------------------------------------------------


def downloaded() -> Evidence:
    """One unit that passed with its second code; the first went back and was another chip's then."""
    found = sound()
    found.units.append(Unit("e4", ["i4"], {}, locked=False, bin="pass", lamp="pass"))
    found.packages += [
        Package("c1-1", "e4", "c1-1", "c1-1", "DESTROYED", spent=False, steps=[*FAILED_WAY, "DESTROYED"]),
        Package("c2-1", "e4", "c2-1", "i4", "INSTALLED", spent=True, steps=INSTALLED_WAY),
    ]
    found.attempts.append(Attempt("e4", "a5", "PASS"))
    found.cleared.add("e4")
    found.gates["e4"] = ""
    found.proven.append("i4")
    found.counted = (4, 3)
    return found


def test_activation_codes_need_no_key_and_no_lock() -> None:
    assert judge(downloaded()) == Verdict()


@pytest.mark.parametrize(
    ("index", "change", "says"),
    [
        (-1, {"state": "FAILED"}, "the books say FAILED, it is on the chip"),
        (-1, {"iccid": "i9"}, "ICCID i9): the books say INSTALLED, the chip does not have it"),
        (-2, {"spent": True}, "c1-1): spent, and no profile came of it"),
    ],
)
def test_a_lie_about_an_activation_code_is_found(index: int, change: dict[str, object], says: str) -> None:
    found = downloaded()
    found.packages[index] = replace(found.packages[index], **change)  # type: ignore[arg-type]
    verdict = judge(found)
    assert any(says in reason for reason in [*verdict.lost, *verdict.doubled, *verdict.unresolved_wrongly]), verdict
