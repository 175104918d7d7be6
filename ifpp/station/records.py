"""What the journal takes and gives: sent and settled packages, closed units, what a dead process left, the outbox."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from ifpp.model.messages import Message
from ifpp.model.states import PackageState

Events = list[tuple[str, Message]]
"""Durable events in order: (last topic level, document without `seq`)."""


@dataclass(frozen=True, slots=True)
class SentPackage:
    """A package whose first byte is about to leave: what must be known after a crash."""

    attempt_id: str
    package_id: str
    eid: str
    iccid: str
    transaction_id: str
    bpp_sha256: str
    head_id: str


@dataclass(frozen=True, slots=True)
class SettledPackage:
    """What became of one package; `pir` is the raw result of the chip."""

    attempt_id: str
    package_id: str
    state: PackageState
    spent: bool
    reason: str
    pir: bytes | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A unit that must not go on: the fault's code, and what the operator does with it."""

    code: str
    action: str


@dataclass(frozen=True, slots=True)
class ClosedUnit:
    """The end of one attempt, written in one transaction with its events.

    `hold`: the unit must not go on. `judged`: the chip spoke for itself (it passed, or refused), so an older hold ends
    unless one of its packages is still open. `finished`: the unit is clean to ship, so none is. `life`: (head id, its
    life as it is after this unit).
    """

    attempt_id: str
    eid: str
    packages: list[SettledPackage]
    events: Events
    hold: Hold | None = None
    judged: bool = False
    finished: bool = False
    life: tuple[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A record the journal has taken charge of: it is stored in its turn, however often that has to be tried.

    `tried` completes after the first try: True when it is on disk, False when the journal goes on trying. `stored`
    completes when it is on disk. Both raise CustodyError when the record itself is impossible, and `stored` when the
    journal is closed before.
    """

    tried: Future[bool] = field(default_factory=Future)
    stored: Future[None] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The last E10 state a head or the station told; `since` as it was told."""

    e10: str
    code: int
    since: str


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """What the last process left behind.

    `wills` are the unit_result documents of its open attempts, oldest first, as they were to be sent if it died;
    `died`: it did not close its journal; `last_at`: when it stored its last event ("" when there is none).
    """

    wills: list[bytes]
    died: bool
    last_at: str
    resources: dict[str, Whereabouts]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A durable event; `name` is the last topic level, `body` the JSON document as it is sent every time."""

    seq: int
    name: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """Events not yet acknowledged, when the oldest was stored ("" when there is none), and how many were rejected."""

    count: int
    oldest_at: str
    rejected: int
