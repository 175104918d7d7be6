"""Alarms as they stand now, and what people do with them (ISA-18.2; line contract 4.3 and 6)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ifpp.model.messages import Message

AlarmStateName = Annotated[
    str,
    msgspec.Meta(
        examples=["UNACK_ALARM", "ACK_ALARM", "RTN_UNACK", "NORMAL", "SHELVED", "SUPPRESSED", "OUT_OF_SERVICE"]
    ),
]


class ActiveAlarm(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One alarm that is not NORMAL. `priority` 1 high, 2 medium, 3 low; `action`: what the operator does.

    `beneath`: the process's own state where the alarm was set aside (SHELVED, SUPPRESSED, OUT_OF_SERVICE).
    """

    code: str
    source: str
    priority: int
    state: AlarmStateName
    text: str
    action: str
    first_at: str
    count: int = 1
    value: float | None = None
    limit: float | None = None
    operator_id: str = ""
    shelved_until: str = ""
    reason: str = ""
    beneath: str = ""


class ActiveAlarms(Message, kw_only=True):
    """`S/state/alarms`, `L/state/alarms`, retained: all of them, by the id of the occurrence.

    `flood`: more came than a person can take in; then `first_out` names those that came first. `horn`: one of them
    was not acknowledged.
    """

    alarms: dict[str, ActiveAlarm]
    flood: bool = False
    first_out: tuple[str, ...] = ()
    horn: bool = False
    shelved: int = 0
    suppressed: int = 0


class AlarmCommand(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`S/cmd/alarm`, `L/cmd/alarm`: a person acts on one alarm; `request_id` as everywhere.

    `action`: ACK, SHELVE (`minutes` and `reason` are wanted), UNSHELVE, OUT_OF_SERVICE, IN_SERVICE.
    """

    schema: str
    request_id: str
    alarm_id: str
    action: str
    operator_id: str
    reason: Annotated[str, msgspec.Meta(max_length=256)] = ""
    minutes: Annotated[int, msgspec.Meta(ge=0, le=24 * 60)] = 0


class AlarmAnswer(Message, kw_only=True):
    """`cmd_rsp/alarm`: `status` is ACCEPTED, REJECTED (then `code` says why) or DUPLICATE."""

    request_id: str
    status: str
    text: str
    code: str = ""
