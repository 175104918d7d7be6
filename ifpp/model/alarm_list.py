"""The alarms a line knows (line contract 6.2): what each means, how urgent it is, and what the operator does.

An alarm without an action for a person is no alarm (ISA-18.2). Priorities: 1 high, 2 medium, 3 low. A condition must
last `on_s` seconds before it is an alarm, and be gone for `off_s` before it has returned to normal.
"""

from __future__ import annotations

from dataclasses import dataclass

_OFF_S = 30.0


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """One kind of alarm. `hides`: codes that its standing explains, at the same place and below it, or everywhere."""

    code: str
    priority: int
    kind: str
    text: str
    action: str
    on_s: float = 0.0
    off_s: float = _OFF_S
    hides: frozenset[str] = frozenset()
    hides_below: bool = False


_TABLE = (
    AlarmKind("A-101", 2, "COMMS", "station offline", "check power and network of the station", 10, hides_below=True),
    AlarmKind("A-102", 1, "COMMS", "supervisor offline", "call IT; stations keep what happens until it is back", 15),
    AlarmKind("A-103", 2, "COMMS", "MES offline", "go on or stop as the banner says", 30, hides=frozenset({"A-120"})),
    AlarmKind("A-104", 2, "COMMS", "events wait too long", "call IT; the line stops when the store of events is full"),
    AlarmKind("A-110", 2, "EQUIPMENT", "contact errors in a row", "clean or replace the socket of the head"),
    AlarmKind("A-111", 2, "QUALITY", "fails in a row", "call quality; the head is blocked"),
    AlarmKind("A-112", 3, "EQUIPMENT", "contact worse than the other heads'", "swap the socket at the next stop"),
    AlarmKind("A-113", 3, "EQUIPMENT", "socket at the end of its life", "change the socket, in schedule"),
    AlarmKind("A-114", 3, "EQUIPMENT", "load times left their chart", "clean the socket; call quality if it stays"),
    AlarmKind("A-120", 2, "COMMS", "route checks have no answer", "do as the policy on the banner says"),
    AlarmKind("A-121", 3, "QUALITY", "unit refused by the route check", "move the unit to the step that is shown"),
    AlarmKind("A-122", 2, "QUALITY", "unit refused after it was worked on", "hold the unit; call quality"),
    AlarmKind("A-130", 3, "MATERIAL", "packages for less than the set hours", "tell the planner"),
    AlarmKind("A-131", 1, "MATERIAL", "no package for the chips that come", "stop feeding the lot; call the planner"),
    AlarmKind("A-140", 1, "QUALITY", "the same EID or ICCID in two units", "hold both units; call quality"),
    AlarmKind("A-141", 1, "QUALITY", "package or result does not belong to the chip", "hold the unit; call quality"),
    AlarmKind("A-150", 2, "COMMS", "events refused", "call engineering: a document broke the contract"),
    AlarmKind("A-151", 3, "COMMS", "clock wrong", "call IT: it is off by more than half a second", 300),
    AlarmKind("A-160", 2, "COMMS", "Profile Loading Report not delivered in time", "call the planner"),
    AlarmKind("A-161", 3, "SECURITY", "a certificate ends soon", "call IT: issue it anew"),
    AlarmKind("A-170", 1, "EQUIPMENT", "fault of a reader or its power", "remove the unit; call maintenance"),
)
ALARM_KINDS: dict[str, AlarmKind] = {one.code: one for one in _TABLE}
UNKNOWN_KIND = AlarmKind("", 2, "EQUIPMENT", "alarm of an unknown kind", "call engineering: the station is newer")
