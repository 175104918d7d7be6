"""What people do with alarms, as it is checked and recorded; and how many alarms stand."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from uuid import UUID

from ifpp.errors import SettingsError
from ifpp.model.alarm_desk import ACKED, OUT_OF_SERVICE, RTN_UNACK, SHELVED, SUPPRESSED, UNACK
from ifpp.model.alarms import ActiveAlarm, AlarmAnswer, AlarmCommand
from ifpp.model.clock import Clock, utc_ms_text, uuid7
from ifpp.model.messages import OperatorAction

PRIORITIES = (1, 2, 3)
STATES = (UNACK, ACKED, RTN_UNACK, SHELVED, SUPPRESSED, OUT_OF_SERVICE)
_LONGEST_NAME = 64


def check_request(command: AlarmCommand) -> None:
    """Refuse an act that nobody signs or that cannot be told from another; raises SettingsError."""
    try:
        canonical = str(UUID(command.request_id))
    except ValueError:
        canonical = ""
    if canonical != command.request_id:
        raise SettingsError("COMMAND.INVALID", "request_id is no UUID in its usual form", where="alarm")
    name = command.operator_id
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise SettingsError("OPERATOR.UNNAMED", f"{name[:_LONGEST_NAME]!r} names nobody", where="operator_id")
    if command.reason and not command.reason.isprintable():
        raise SettingsError("OPERATOR.NO_REASON", "the reason cannot be printed", where="reason")


def as_action(command: AlarmCommand, *, node_id: str, boot_id: str, clock: Clock) -> OperatorAction:
    """Return the record of what a person did to an alarm."""
    return OperatorAction(
        schema="operator_action/1.0",
        id=command.request_id,
        ts=utc_ms_text(clock.now()),
        node_id=node_id,
        boot_id=boot_id,
        action=command.action,
        operator_id=command.operator_id.strip(),
        target=command.alarm_id,
        comment=command.reason,
    )


def as_answer(
    request_id: str, status: str, text: str, code: str = "", *, node_id: str, boot_id: str, clock: Clock
) -> AlarmAnswer:
    """Return the answer to an act."""
    now = clock.now()
    return AlarmAnswer(
        schema="alarm_answer/1.0",
        id=uuid7(now),
        ts=utc_ms_text(now),
        node_id=node_id,
        boot_id=boot_id,
        request_id=request_id,
        status=status,
        text=text,
        code=code,
    )


def tally(alarms: Iterable[ActiveAlarm]) -> dict[tuple[int, str], int]:
    """Count alarms by priority and state; every pair is there."""
    counts = dict.fromkeys(product(PRIORITIES, STATES), 0)
    for alarm in alarms:
        if (alarm.priority, alarm.state) in counts:
            counts[alarm.priority, alarm.state] += 1
    return counts
