"""The named instants in the way of a unit at which a station may die: what a test kills it at."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Edge(StrEnum):
    """Passed in this order; JOURNALLED to SETTLED once for each package, REMOVING and REMOVED for each of a rework."""

    CLAIMED = "CLAIMED"  # the store has leased the packages to this attempt
    REMOVING = "REMOVING"  # the journal says that a profile leaves the chip, the chip does not know
    REMOVED = "REMOVED"  # the chip has deleted it, nobody has written that
    INTENDING = "INTENDING"  # nothing is written yet
    JOURNALLED = "JOURNALLED"  # the journal says SENT, the store does not know
    SENT = "SENT"  # both know, no byte of the package has left
    ANSWERED = "ANSWERED"  # the chip has given its result, nobody has written it
    SETTLED = "SETTLED"  # the result is in the journal
    SEALED = "SEALED"  # the chip is locked
    CLOSING = "CLOSING"  # the verdict is known and not stored
    CLOSED = "CLOSED"  # stored, the result is still on the chip
    FORGOTTEN = "FORGOTTEN"  # the chip has dropped the result; the lamp comes next


AtEdge = Callable[[Edge], None]
"""Called at every edge; in a station at work it does nothing."""


def pass_by(edge: Edge) -> None:
    """Go on."""
