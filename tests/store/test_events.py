"""Events going in: each once, settled with the ledger, poison aside; on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ifpp.errors import WireError
from ifpp.model.messages import ProfileResult, UnitRef
from ifpp.store import events as module
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from tests.clock import START
from tests.store.raw import raw
from tests.store.world import (
    SMDP,
    Node,
    eid,
    later,
    outcome,
    request,
    results,
    states,
    stock,
    take_one,
    way,
)


def started(factory: Factory, number: int = 1, attempt_id: str = "a", **changes: Any) -> str:
    """Claim and send the package of a chip; return its id."""
    claim = factory.claim(request(number, attempt_id, **changes), START)
    package_id = claim.packages[0].package_id
    factory.mark_sent(package_id, attempt_id, changes.get("station_id", "st01"), START)
    return package_id


def word(package_id: str, state: str, *, number: int = 1, spent: bool = False, **changes: Any) -> ProfileResult:
    return outcome(number, 0, state, spent=spent, package_id=package_id, **changes)


def state_event(node_id: str, seq: int, event_id: str = "") -> ReceivedEvent:
    document = {
        "schema": "state_changed/1.0",
        "id": event_id or f"{node_id}-{seq}",
        "ts": "2026-03-01T08:00:00.000Z",
        "node_id": node_id,
        "boot_id": "boot",
        "seq": seq,
        "resource": "h01",
        "old": "SBY",
        "old_code": 2202,
        "old_duration_ms": 1000,
        "new": "PRD",
        "new_code": 1100,
    }
    return ReceivedEvent.parse(node_id, msgspec.json.encode(document))


def changed(event: ReceivedEvent, **changes: Any) -> ReceivedEvent:
    """The same event with other members, as a station with a fault would send it."""
    document = msgspec.json.decode(event.body) | changes
    return ReceivedEvent(event.node_id, event.seq, event.id, event.schema, msgspec.json.encode(document))


# ---- settling ---------------------------------------------------------------------------------------


def test_a_result_settles_its_package(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    pir = b64encode(b"result of the chip").decode()
    event = Node().result(1, "a", [word(package_id, "INSTALLED", pir_b64=pir)])
    answer = take_one(factory, event, later(9))
    assert (answer.node_id, answer.through, answer.rejected, answer.fresh) == ("st01", 1, (), (1,))
    unit = factory.unit(eid(1))
    assert unit is not None
    last = unit.packages[0].history[-1]
    assert (last.to_state, last.node_id, last.head_id, last.attempt_id, last.event_id, last.at) == (
        "INSTALLED",
        "st01",
        "h01",
        "a",
        event.id,
        "2026-03-01T08:00:09.000Z",
    )
    assert unit.clean_to_ship_at == "2026-03-01T08:00:06.000Z"
    (result,) = results(factory, SMDP, START, later(10))
    assert (result.package_id, result.state, result.pir, result.eid) == (
        package_id,
        "INSTALLED",
        b"result of the chip",
        eid(1),
    )
    assert results(factory, SMDP, later(10), later(20)) == []


def test_a_result_for_a_claimed_package_passes_through_sent(factory: Factory) -> None:
    """The store was away when the station sent: the ledger makes up for the step in the same transaction."""
    stock(factory, 1)
    package_id = factory.claim(request(1, "a"), START).packages[0].package_id
    event = Node().result(1, "a", [word(package_id, "INSTALLED")])
    take_one(factory, event)
    unit = factory.unit(eid(1))
    assert unit is not None
    assert [(step.to_state, step.event_id) for step in unit.packages[0].history[2:]] == [
        ("SENT", event.id),
        ("INSTALLED", event.id),
    ]
    assert factory.audit() == []


def test_a_result_after_the_lease_ran_out_still_counts(factory: Factory) -> None:
    stock(factory, 1)
    package_id = factory.claim(request(1, "a", lease_s=1), START).packages[0].package_id
    factory.expire_leases(later(2))
    take_one(factory, Node().result(1, "a", [word(package_id, "INSTALLED")]))
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "AVAILABLE", "CLAIMED", "SENT", "INSTALLED"]
    assert factory.audit() == []


@pytest.mark.parametrize(
    ("state", "spent", "end"), [("FAILED", True, "FAILED"), ("FAILED", False, "FAILED"), ("UNKNOWN", False, "UNKNOWN")]
)
def test_a_failure_keeps_its_reason(factory: Factory, state: str, spent: bool, end: str) -> None:
    stock(factory, 1)
    package_id = started(factory)
    take_one(factory, Node().result(1, "a", [word(package_id, state, spent=spent, error="EUICC.LOAD_REFUSED")]))
    unit = factory.unit(eid(1))
    assert unit is not None
    package = unit.packages[0]
    assert (package.state, package.spent, package.history[-1].detail) == (end, spent, "EUICC.LOAD_REFUSED")
    assert unit.clean_to_ship_at is None


def test_an_untouched_package_goes_back_to_the_shelf(factory: Factory) -> None:
    stock(factory, 1)
    package_id = factory.claim(request(1, "a"), START).packages[0].package_id
    take_one(factory, Node().result(1, "a", [word(package_id, "CLAIMED")]))
    assert states(factory, 1) == ["AVAILABLE"]


def test_late_and_repeated_words_never_move_a_settled_package(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    node = Node()
    take_one(factory, node.result(1, "a", [word(package_id, "INSTALLED")]))
    for state in ("INSTALLED", "FAILED", "UNKNOWN", "CLAIMED"):
        answer = take_one(factory, node.result(1, "a", [word(package_id, state)]))
        assert answer.rejected == ()
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT", "INSTALLED"]


def test_an_old_attempt_cannot_free_what_another_one_reads(factory: Factory) -> None:
    """st02 was told to read the chip: from then on only its word, or a final one, moves the package."""
    stock(factory, 1)
    package_id = started(factory)
    old, new = Node("st01"), Node("st02")
    assert factory.claim(request(1, "b", station_id="st02"), START).unresolved
    take_one(factory, old.result(1, "a", [word(package_id, "FAILED")]))
    assert states(factory, 1) == ["SENT"]
    take_one(factory, new.result(1, "b", [word(package_id, "FAILED")]))
    assert states(factory, 1) == ["FAILED"]


def test_the_last_reader_counts(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    for attempt_id, station_id in (("b", "st02"), ("c", "st03")):
        assert factory.claim(request(1, attempt_id, station_id=station_id), START).unresolved
    factory.claim(request(1, "b", station_id="st02"), START)  # a repeated claim is no new reading
    take_one(factory, Node("st02").result(1, "b", [word(package_id, "FAILED")]))
    assert states(factory, 1) == ["SENT"]
    take_one(factory, Node("st03").result(1, "c", [word(package_id, "UNKNOWN")]))
    assert states(factory, 1) == ["UNKNOWN"]


def test_a_reader_of_an_earlier_sending_has_no_say_in_the_next(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    node = Node("st02")
    factory.claim(request(1, "b", station_id="st02"), START)
    take_one(factory, node.result(1, "b", [word(package_id, "FAILED")]))
    assert started(factory, attempt_id="c", station_id="st03") == package_id
    take_one(factory, node.result(1, "b", [word(package_id, "FAILED")]))
    assert states(factory, 1) == ["SENT"]
    take_one(factory, Node("st03").result(1, "c", [word(package_id, "FAILED")]))
    assert states(factory, 1) == ["FAILED"]


def test_an_installed_profile_is_installed_whoever_saw_it(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    factory.claim(request(1, "b", station_id="st02"), START)
    take_one(factory, Node("st01").result(1, "a", [word(package_id, "INSTALLED")]))
    assert states(factory, 1) == ["INSTALLED"]


def test_clean_to_ship_stays(factory: Factory) -> None:
    stock(factory, 1)
    node = Node()
    take_one(factory, node.result(1, "a", [word(started(factory), "INSTALLED")]))
    take_one(factory, node.result(1, "b", clean_to_ship=False, result="SKIPPED"))
    chip = factory.chip(eid(1))
    assert chip is not None
    assert chip.clean_to_ship_at == "2026-03-01T08:00:06.000Z"


def test_one_event_settles_all_its_packages_or_none(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    first, second = (package.package_id for package in claim.packages)
    half = [word(first, "INSTALLED"), outcome(1, 1, "MELTED", package_id=second)]
    assert take_one(factory, Node().result(1, "a", half)).rejected
    assert states(factory, 1) == ["CLAIMED", "CLAIMED"]


# ---- once, in whatever order ------------------------------------------------------------------------


def test_an_event_counts_once(factory: Factory) -> None:
    stock(factory, 1)
    event = Node().result(1, "a", [word(started(factory), "INSTALLED")])
    (first,) = factory.take_events([event, event], START)
    second = take_one(factory, event)
    assert (first.fresh, second.fresh) == ((1,), ())
    assert (first.through, second.through) == (1, 1)
    assert first.rejected == second.rejected == ()
    assert len(factory.units()) == 1


def test_through_is_the_highest_number_without_a_gap(factory: Factory) -> None:
    def through(*seqs: int) -> int:
        (answer,) = factory.take_events([state_event("st01", seq) for seq in seqs], START)
        return answer.through

    assert through(2, 3) == 0
    assert through(5) == 0
    assert through(1) == 3
    assert through(4) == 5
    assert through(3) == 5


def test_nodes_are_counted_apart(factory: Factory) -> None:
    batch = [state_event("st02", 1), state_event("st01", 2), state_event("st02", 2)]
    answers = {answer.node_id: answer for answer in factory.take_events(batch, START)}
    assert {node: (answer.through, answer.fresh) for node, answer in answers.items()} == {
        "st01": (0, (2,)),
        "st02": (2, (1, 2)),
    }
    assert factory.take_events([], START) == []


def test_more_than_one_chunk(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7)
    stock(factory, 25)
    node = Node()
    batch = [node.result(number, f"a{number}") for number in range(1, 26)]
    random.Random(1).shuffle(batch)
    (answer,) = factory.take_events(batch, START)
    assert (answer.through, len(answer.fresh)) == (25, 25)


def test_the_steps_of_one_package_within_one_batch(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    node = Node()
    batch = [node.result(1, "a", [word(package_id, state)]) for state in ("UNKNOWN", "FAILED", "INSTALLED", "FAILED")]
    (answer,) = factory.take_events(batch, START)
    assert (answer.through, answer.rejected) == (4, ())
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT", "UNKNOWN", "FAILED", "CLAIMED", "SENT", "INSTALLED"]
    assert factory.audit() == []


# ---- poison -----------------------------------------------------------------------------------------


def test_another_event_under_a_taken_number_is_a_conflict(factory: Factory) -> None:
    take_one(factory, state_event("st01", 1))
    clone = state_event("st01", 1, "clone")
    for _ in range(2):
        answer = take_one(factory, clone)
        assert [(row.seq, row.id, row.code) for row in answer.rejected] == [(1, "clone", "CUSTODY.SEQ_CONFLICT")]
        assert (answer.through, answer.fresh) == (1, ())
    assert [(row.node_id, row.seq, row.id, row.body) for row in factory.parked()] == [("st01", 1, "clone", clone.body)]


def test_a_conflict_within_one_batch(factory: Factory) -> None:
    (answer,) = factory.take_events([state_event("st01", 1), state_event("st01", 1, "clone")], START)
    assert (answer.fresh, [row.id for row in answer.rejected]) == ((1,), ["clone"])


def test_an_id_stands_for_one_event(factory: Factory) -> None:
    (answer,) = factory.take_events([state_event("st01", 1, "same"), state_event("st01", 2, "same")], START)
    assert (answer.through, answer.fresh) == (2, (1,))
    assert [(row.seq, row.code) for row in answer.rejected] == [(2, "CUSTODY.EVENT_REFUSED")]
    (other,) = factory.take_events([state_event("st02", 1, "same")], START)
    assert [row.code for row in other.rejected] == ["CUSTODY.EVENT_REFUSED"]


Spoil = Callable[[ReceivedEvent], ReceivedEvent]


def profile(**changes: Any) -> Spoil:
    def spoil(event: ReceivedEvent) -> ReceivedEvent:
        document = msgspec.json.decode(event.body)
        return changed(event, profiles=[document["profiles"][0] | changes])

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda event: ReceivedEvent(event.node_id, event.seq, event.id, event.schema, b"{not json"),
        lambda event: ReceivedEvent(event.node_id, event.seq, event.id, event.schema, event.body + b"{}"),
        lambda event: ReceivedEvent(event.node_id, event.seq, event.id, "unit_result/2.0", event.body),
        lambda event: ReceivedEvent(event.node_id, event.seq, event.id, "state_changed/1.0", event.body),
        lambda event: ReceivedEvent(event.node_id, event.seq, event.id, "unreadable/0.0", event.body),
        lambda event: changed(event, seq=77),
        lambda event: changed(event, id="other"),
        lambda event: changed(event, result=5),
        lambda event: changed(event, transaction_id=""),
        lambda event: changed(event, cycle_ms=-1),
        lambda event: changed(event, cycle_ms=2**70),
        lambda event: changed(event, started_at="yesterday"),
        lambda event: changed(event, started_at="0001-01-01T00:00:00+14:00"),
        lambda event: changed(event, ended_at="2026-03-01T08:00:00"),
        lambda event: changed(event, unit={"eid": "12345"}),
        lambda event: changed(event, unit={"eid": str(eid(2))}),
        lambda event: changed(event, unit={"sn": "a\x00b", "eid": str(eid(1))}),
        lambda event: changed(event, profiles=msgspec.json.decode(event.body)["profiles"] * 2),
        profile(package_id="000009-0000009"),
        profile(package_id="\x00"),
        profile(iccid="8949990000000000010"),
        profile(bpp_sha256="00" * 32),
        profile(package_state="DESTROYED"),
        profile(package_state="MELTED"),
        profile(pir_b64="***"),
    ],
)
def test_a_bad_event_is_parked_and_the_others_go_through(factory: Factory, spoil: Spoil) -> None:
    stock(factory, 3)
    node = Node()
    good = [node.result(2, "a2", [word(started(factory, 2, "a2"), "INSTALLED", number=2)])]
    bad = spoil(node.result(1, "a1", [word(started(factory, 1, "a1"), "INSTALLED")]))
    good.append(node.result(3, "a3", [word(started(factory, 3, "a3"), "INSTALLED", number=3)]))
    (answer,) = factory.take_events([good[0], bad, good[1]], START)
    assert [(row.seq, row.id, row.code) for row in answer.rejected] == [(2, bad.id, "CUSTODY.EVENT_REFUSED")]
    assert (answer.fresh, answer.through) == ((1, 3), 3)
    assert [states(factory, number) for number in (1, 2, 3)] == [["SENT"], ["INSTALLED"], ["INSTALLED"]]
    again = take_one(factory, bad)
    assert (again.rejected, again.through) == (answer.rejected, 3)
    assert [(row.seq, row.id, row.body) for row in factory.parked()] == [(2, bad.id, bad.body)]


def test_a_word_against_the_ledger_is_parked(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    node = Node()
    take_one(factory, node.result(1, "a", [word(package_id, "FAILED", spent=True)]))
    answer = take_one(factory, node.result(1, "b", [word(package_id, "INSTALLED")]))
    assert [(row.seq, row.code) for row in answer.rejected] == [(2, "CUSTODY.EVENT_REFUSED")]
    assert "FAILED" in answer.rejected[0].text
    assert states(factory, 1) == ["FAILED"]
    assert len(factory.units()) == 1


def forbid(url: str, serial_number: str) -> None:
    """A rule only the database knows of."""
    with raw(url) as connection:
        if url.startswith("sqlite"):
            connection.execute(
                f"CREATE TRIGGER house_rule BEFORE INSERT ON unit_attempt WHEN NEW.sn = '{serial_number}' "
                "BEGIN SELECT RAISE(ABORT, 'not in this house'); END"
            )
        else:
            connection.execute(f"ALTER TABLE unit_attempt ADD CONSTRAINT house CHECK (sn <> '{serial_number}')")


def test_what_only_the_database_refuses_spoils_one_event_only(factory: Factory, url: str) -> None:
    stock(factory, 9)
    forbid(url, "SN5")
    node = Node()
    batch = [
        node.result(number, f"a{number}", [word(started(factory, number, f"a{number}"), "INSTALLED", number=number)])
        for number in range(1, 10)
    ]
    (answer,) = factory.take_events(batch, START)
    assert [(row.seq, row.code) for row in answer.rejected] == [(5, "CUSTODY.EVENT_REFUSED")]
    assert answer.through == 9
    assert answer.fresh == (1, 2, 3, 4, 6, 7, 8, 9)
    assert states(factory, 5) == ["SENT"]
    assert {tuple(states(factory, number)) for number in (1, 4, 6, 9)} == {("INSTALLED",)}
    assert factory.audit() == []


def test_a_document_without_envelope_is_kept_once(factory: Factory) -> None:
    body = b"\xff\x00 not even text"
    for _ in range(3):
        factory.park("st01", body, "no event envelope", START)
    factory.park("st02", body, "no event envelope\x00", START)
    assert [(row.node_id, row.seq, row.id, row.body) for row in factory.parked()] == [
        ("st02", 0, "", body),
        ("st01", 0, "", body),
    ]
    assert take_one(factory, state_event("st01", 1)).through == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"schema":"x/1.0","id":"1","node_id":"st01"}',
        b'{"schema":"x/1.0","id":"1","node_id":"st01","seq":0}',
        b'{"schema":"x/1.0","id":"1","node_id":"st01","seq":9007199254740992}',
        b'{"schema":"x","id":"1","node_id":"st01","seq":1}',
        b'{"schema":"x/1.0","id":"a b","node_id":"st01","seq":1}',
        b'{"schema":"x/1.0","id":"1","node_id":"st02","seq":1}',
        b'{"schema":"x/1.0","id":"1","node_id":"st01","seq":1,"deep":' + b"[" * 100_000,
        b'{"schema":"x/1.0","id":"1","node_id":"st01","seq":1,"long":"' + b"x" * 300_000 + b'"}',
        b'{"schema":"x/1.0","id":"\xff","node_id":"st01","seq":1}',
    ],
    ids=lambda body: f"{len(body)}-{body[:50]!r}",
)
def test_no_envelope_no_event(body: bytes) -> None:
    with pytest.raises(WireError):
        ReceivedEvent.parse("st01", body)


def test_an_event_of_a_chip_nobody_knows_is_kept(factory: Factory) -> None:
    event = Node().result(1, "a", unit=UnitRef(sn="SN-X", eid=str(eid(99))))
    assert take_one(factory, event).fresh == (1,)
    unit = factory.unit("SN-X")
    assert unit is not None
    assert (unit.eid, unit.packages, len(unit.attempts)) == (eid(99), (), 1)
