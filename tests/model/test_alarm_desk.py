"""The life of an alarm, by ISA-18.2: delays, acknowledgement, shelving, suppression, floods."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ifpp.model.alarm_desk import (
    ACKED,
    NORMAL,
    OUT_OF_SERVICE,
    RTN_UNACK,
    SHELVED,
    SUPPRESSED,
    UNACK,
    AlarmDesk,
    Verdict,
)
from ifpp.model.alarm_list import ALARM_KINDS
from ifpp.model.alarms import AlarmCommand
from tests.clock import FakeClock

CONTACT, WORN, OFFLINE, NO_MES, UNANSWERED, NO_STOCK = "A-110", "A-112", "A-101", "A-103", "A-120", "A-131"
Steps = list[tuple[str, str, str, str]]


class Desk(AlarmDesk):
    """A desk that remembers what it told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: Steps = []
        super().__init__(self.clock)

    def after(self, seconds: float = 0.0) -> Steps:
        """Let time pass; return the changes as (code, source, old, new)."""
        self.clock.advance(seconds)
        steps = [(c.alarm.kind.code, c.alarm.source, c.old_state, c.state) for c in self.changes()]
        self.told += steps
        return steps

    def ask(
        self, action: str, *, by: str = "op-1", minutes: int = 0, reason: str = "", maintenance: bool = False
    ) -> Verdict:
        (alarm_id,) = list(self.active())[:1]
        command = AlarmCommand(
            schema="alarm/1.0",
            request_id="r",
            alarm_id=alarm_id,
            action=action,
            operator_id="op-1",
            minutes=minutes,
            reason=reason,
        )
        return self.act(command, maintenance=maintenance)


def test_alarm_acknowledged_and_gone() -> None:
    desk = Desk()
    desk.say(CONTACT, "st01/h03", active=True, text="3 contact errors in a row", value=3, limit=3)
    assert desk.after() == [(CONTACT, "st01/h03", NORMAL, UNACK)]
    (alarm,) = desk.active().values()
    assert (alarm.priority, alarm.action, alarm.value) == (2, ALARM_KINDS[CONTACT].action, 3)
    assert desk.ask("ACK").status == "ACCEPTED"
    assert desk.after() == [(CONTACT, "st01/h03", UNACK, ACKED)]
    desk.say(CONTACT, "st01/h03", active=False)
    assert desk.after(29) == []
    assert desk.after(1) == [(CONTACT, "st01/h03", ACKED, NORMAL)]
    assert desk.active() == {}


def test_what_returned_by_itself_waits_for_a_person() -> None:
    desk = Desk()
    desk.say(CONTACT, "st01/h03", active=True)
    desk.after()
    desk.say(CONTACT, "st01/h03", active=False)
    assert desk.after(30) == [(CONTACT, "st01/h03", UNACK, RTN_UNACK)]
    desk.ask("ACK")
    assert desk.after() == [(CONTACT, "st01/h03", RTN_UNACK, NORMAL)]


def test_a_condition_shorter_than_its_delay_is_no_alarm() -> None:
    desk = Desk()
    desk.say(OFFLINE, "st01", active=True)
    assert desk.after(9) == []
    desk.say(OFFLINE, "st01", active=False)
    assert desk.after(60) == []
    desk.say(OFFLINE, "st01", active=True)
    assert desk.after(10) == [(OFFLINE, "st01", NORMAL, UNACK)]


def test_chattering_is_one_occurrence_that_counts() -> None:
    desk = Desk()
    desk.say(WORN, "st01/h01", active=True)
    desk.after()
    for _ in range(5):
        desk.say(WORN, "st01/h01", active=False)
        desk.after(5)
        desk.say(WORN, "st01/h01", active=True)
        desk.after(5)
    assert desk.told == [(WORN, "st01/h01", NORMAL, UNACK)]
    (alarm,) = desk.active().values()
    assert alarm.count == 6


def test_shelving_ends_by_itself_and_is_limited() -> None:
    desk = Desk()
    desk.say(CONTACT, "st01/h03", active=True)
    desk.after()
    assert desk.ask("SHELVE", minutes=30).code == "ALARM.REFUSED"  # no reason
    assert desk.ask("SHELVE", minutes=9 * 60, reason="x").code == "ALARM.REFUSED"
    assert desk.ask("SHELVE", minutes=30, reason="spare socket at ten").status == "ACCEPTED"
    assert desk.after() == [(CONTACT, "st01/h03", UNACK, SHELVED)]
    (alarm,) = desk.active().values()
    assert (alarm.operator_id, alarm.reason) == ("op-1", "spare socket at ten")
    assert desk.after(30 * 60) == [(CONTACT, "st01/h03", SHELVED, UNACK)]


def test_the_most_urgent_cannot_be_shelved() -> None:
    desk = Desk()
    desk.say(NO_STOCK, "_line", active=True)
    desk.after()
    assert desk.ask("SHELVE", minutes=10, reason="later").status == "REJECTED"


def test_only_maintenance_takes_an_alarm_out_of_service() -> None:
    desk = Desk()
    desk.say(WORN, "st01/h03", active=True)
    desk.after()
    assert desk.ask("OUT_OF_SERVICE", reason="rebuild").status == "REJECTED"
    assert desk.ask("OUT_OF_SERVICE", reason="rebuild", maintenance=True).status == "ACCEPTED"
    assert desk.after() == [(WORN, "st01/h03", UNACK, OUT_OF_SERVICE)]
    desk.say(WORN, "st01/h03", active=False)
    assert desk.after(100) == []
    assert desk.ask("IN_SERVICE", maintenance=True).status == "ACCEPTED"
    assert desk.after() == [(WORN, "st01/h03", OUT_OF_SERVICE, RTN_UNACK)]


def test_a_station_that_is_offline_explains_its_heads() -> None:
    desk = Desk()
    for head in range(16):
        desk.say(CONTACT, f"st01/h{head:02}", active=True)
    desk.say(CONTACT, "st011/h01", active=True)
    desk.say(OFFLINE, "st01", active=True)
    desk.after()
    hidden = desk.after(10)
    assert (OFFLINE, "st01", NORMAL, UNACK) in hidden
    assert sum(step[3] == SUPPRESSED for step in hidden + desk.after()) == 16
    assert [a.source for a in desk.active().values() if a.code == CONTACT and a.state == UNACK] == ["st011/h01"]
    desk.say(OFFLINE, "st01", active=False)
    assert sum(step[2:] == (SUPPRESSED, UNACK) for step in desk.after(30) + desk.after()) == 16


def test_no_mes_explains_unanswered_route_checks_everywhere() -> None:
    desk = Desk()
    desk.say(UNANSWERED, "st01", active=True)
    desk.say(NO_MES, "_mes", active=True)
    desk.after(30)
    desk.after()
    assert {a.code: a.state for a in desk.active().values()} == {NO_MES: UNACK, UNANSWERED: SUPPRESSED}


def test_a_flood_names_what_came_first_and_ends() -> None:
    desk = Desk()
    for head in range(11):
        desk.say(CONTACT, f"st01/h{head:02}", active=True)
        desk.after(1)
    assert desk.floods.on is True
    assert [desk.active()[alarm_id].source for alarm_id in desk.floods.first_out] == [f"st01/h{n:02}" for n in range(5)]
    desk.after(601)
    assert (desk.floods.on, desk.floods.first_out) == (False, ())


def test_a_successor_rings_nothing_twice() -> None:
    desk = Desk()
    desk.say(CONTACT, "st01/h03", active=True)
    desk.say(WORN, "st01/h04", active=True)
    desk.after()
    desk.ask("ACK")
    desk.after()
    successor = AlarmDesk(desk.clock, desk.active().items())
    successor.say(CONTACT, "st01/h03", active=True)
    assert successor.changes() == []
    assert successor.active() == desk.active()
    successor.say(CONTACT, "st01/h03", active=False)
    desk.clock.advance(30)
    assert [(c.old_state, c.state) for c in successor.changes()] == [(ACKED, NORMAL)]


def test_an_unknown_code_is_still_an_alarm_with_an_action() -> None:
    desk = Desk()
    desk.say("A-999", "st01", active=True, text="new")
    desk.after()
    (alarm,) = desk.active().values()
    assert (alarm.code, alarm.text) == ("A-999", "new")
    assert alarm.action


def test_every_kind_tells_a_person_what_to_do() -> None:
    assert all(kind.action and kind.text and kind.priority in (1, 2, 3) for kind in ALARM_KINDS.values())


LEGAL = {
    NORMAL: {UNACK, SUPPRESSED},
    UNACK: {ACKED, RTN_UNACK, SHELVED, SUPPRESSED},
    ACKED: {NORMAL, SHELVED, SUPPRESSED},
    RTN_UNACK: {NORMAL, UNACK, SHELVED, SUPPRESSED},
    SHELVED: {NORMAL, UNACK, ACKED, RTN_UNACK, SUPPRESSED},
    SUPPRESSED: {NORMAL, UNACK, ACKED, RTN_UNACK, SHELVED},
}
SAY = st.tuples(st.just("say"), st.sampled_from([CONTACT, OFFLINE]), st.booleans())
ACT = st.tuples(st.just("act"), st.sampled_from(["ACK", "SHELVE", "UNSHELVE"]), st.integers(0, 1))
WAIT = st.tuples(st.just("wait"), st.floats(0, 40), st.none())


@given(st.lists(st.one_of(SAY, ACT, WAIT), max_size=60))
def test_only_the_transitions_of_the_standard_happen(steps: list[tuple[str, object, object]]) -> None:
    desk = Desk()
    for what, first, second in steps:
        if what == "say":
            desk.say(str(first), "st01/h01" if first == CONTACT else "st01", active=bool(second))
        elif what == "act" and desk.active():
            desk.ask(str(first), minutes=1, reason="r")
        desk.after(float(str(first)) if what == "wait" else 0.0)
    where: dict[str, str] = {}
    for code, _, old, new in desk.told:
        assert where.get(code, NORMAL) == old
        assert new in LEGAL[old]
        where[code] = new
