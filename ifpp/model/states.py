"""The states that must never lie, and their allowed transitions: one table for code, ledger and documents."""

from __future__ import annotations

from enum import StrEnum


class PackageState(StrEnum):
    """Where one Bound Profile Package stands in the ledger."""

    AVAILABLE = "AVAILABLE"
    CLAIMED = "CLAIMED"  # leased to one station and head
    SENT = "SENT"  # written and synced before the first byte that can spend the key
    INSTALLED = "INSTALLED"
    FAILED = "FAILED"  # with a reason, and whether the one-time key is spent
    UNKNOWN = "UNKNOWN"  # resolved only by reading the card
    DESTROYED = "DESTROYED"


# from-state -> to-states. FAILED -> CLAIMED only while the one-time key is not spent (column `spent`).
PACKAGE_TRANSITIONS: dict[PackageState, frozenset[PackageState]] = {
    PackageState.AVAILABLE: frozenset({PackageState.CLAIMED, PackageState.DESTROYED}),
    PackageState.CLAIMED: frozenset({PackageState.AVAILABLE, PackageState.SENT}),
    PackageState.SENT: frozenset({PackageState.INSTALLED, PackageState.FAILED, PackageState.UNKNOWN}),
    PackageState.UNKNOWN: frozenset({PackageState.INSTALLED, PackageState.FAILED, PackageState.DESTROYED}),
    PackageState.FAILED: frozenset({PackageState.CLAIMED, PackageState.DESTROYED}),
    PackageState.INSTALLED: frozenset(),
    PackageState.DESTROYED: frozenset(),
}


# What a head has in hand, or what became of it is not known: a unit with such a package is never clean to ship.
OPEN_STATES = (PackageState.CLAIMED, PackageState.SENT, PackageState.UNKNOWN)


class UnitResult(StrEnum):
    """Verdict of one attempt (CFX TestResult; ERROR = could not be judged)."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    ERROR = "ERROR"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"


class OutcomeClass(StrEnum):
    """Unit outcome classes: they decide which yield is hit."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    CONTACT = "CONTACT"
    PRODUCT = "PRODUCT"
    SUPPLY = "SUPPLY"
    STATION = "STATION"
    ABORTED = "ABORTED"
    AMBIGUOUS = "AMBIGUOUS"


class Disposition(StrEnum):
    """What happens to the unit next."""

    CONTINUE = "CONTINUE"
    RETEST = "RETEST"
    REWORK = "REWORK"
    SCRAP = "SCRAP"
    HOLD = "HOLD"
    STOCK = "STOCK"  # as it should be, and not sealed: it may be reworked, and must not leave


class E10(StrEnum):
    """SEMI E10 states of a head or station."""

    PRD = "PRD"
    SBY = "SBY"
    ENG = "ENG"
    SDT = "SDT"
    UDT = "UDT"
    NST = "NST"


class Phase(StrEnum):
    """Where a head is in the way of a unit."""

    EMPTY = "EMPTY"
    SEATED = "SEATED"
    IDENTIFIED = "IDENTIFIED"
    CLAIMED = "CLAIMED"
    LOADING = "LOADING"
    VERIFYING = "VERIFYING"
    SEALING = "SEALING"
    VERDICT = "VERDICT"
    NOT_STORED = "NOT_STORED"  # the verdict is known and its record is not on the disk yet: the unit stays
    REFUSING = "REFUSING"  # no new unit is taken: see the station's `refusing`
    QUARANTINED = "QUARANTINED"
    RETIRED = "RETIRED"


class Lamp(StrEnum):
    """What the head shows the person or robot that feeds it."""

    OFF = "OFF"
    BUSY = "BUSY"
    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    RESEAT = "RESEAT"
    HOLD = "HOLD"
