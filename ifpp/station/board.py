"""What every head is doing now: the station's state document and the E10 transitions that become events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from ifpp import metrics as series
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, utc_ms_text, uuid7
from ifpp.model.messages import HandOver, HeadState, StateChanged, StationState
from ifpp.model.states import E10, Phase, UnitResult
from ifpp.station.life import ALARMS, LifeShown, Lives
from ifpp.station.records import OutboxDepth

# SEMI E10 sub-codes as CFX numbers them.
CODE_REGULAR_WORK = 1100
CODE_STAND_BY = 2000
CODE_BLOCKED = 2201
CODE_STARVED = 2202
CODE_NO_HOST = 2500
CODE_DEAD = 5000
CODE_REPAIR = 5300

_SHOWN_UNITS = 100
_REMEMBERED = 1000
_STATE_OF_CODE = {1: E10.PRD, 2: E10.SBY, 3: E10.ENG, 4: E10.SDT, 5: E10.UDT, 6: E10.NST}


@dataclass(slots=True)
class _HeadRow:
    e10: E10
    code: int
    phase: Phase
    since: str
    entered_s: float
    last: str = ""
    ok: int = 0
    ng: int = 0
    life: LifeShown = field(default_factory=LifeShown)
    eid: str = ""
    sn: str = ""
    loaded: int = 0
    to_load: int = 0
    lamp: str = ""
    fault: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Custody:
    """What the journal has in its keeping; `held`: EID -> why, and what the operator does."""

    outbox: OutboxDepth = field(default_factory=lambda: OutboxDepth(0, "", 0))
    oldest_ms: int = 0
    held: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What the station keeps to work without the store, and since when it does ("" = it does not)."""

    units: int = 0
    oldest_ms: int = 0
    away_since: str = ""


_NOTHING = Ahead()


@dataclass(slots=True)
class Board:
    """The heads of one station by id. Lives on the event loop; readers take `document`.

    `changes` counts what the line is told, `moves` the progress that only those see who look at this moment;
    `verdicts` are (head, EID or "", fault or "") of the last units, for whoever takes them out.
    """

    station_id: str
    boot_id: str
    clock: Clock
    rows: dict[str, _HeadRow] = field(default_factory=dict)
    changes: int = 0
    moves: int = 0
    verdicts: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def add(self, head_id: str) -> None:
        """Put a head on the board, standing by for units."""
        now = utc_ms_text(self.clock.now())
        self.rows[head_id] = _HeadRow(E10.SBY, CODE_STARVED, Phase.EMPTY, now, self.clock.monotonic())

    def enter(self, head_id: str, phase: Phase, code: int, *, reason: str = "") -> list[StateChanged]:
        """Move a head to a phase and an E10 code; returns the event of an E10 transition, if it was one."""
        row = self.rows[head_id]
        old, old_code, old_since = row.e10, row.code, row.entered_s
        row.phase, row.code = phase, code
        row.reason = reason if phase is Phase.REFUSING else ""
        if phase is Phase.EMPTY:
            row.eid, row.sn = "", ""
        row.e10 = _STATE_OF_CODE[code // 1000]
        self.changes += 1
        if row.e10 is old:
            return []
        now = self.clock.now()
        row.since, row.entered_s = utc_ms_text(now), self.clock.monotonic()
        return [
            StateChanged(
                schema="state_changed/1.0",
                id=uuid7(now),
                ts=row.since,
                node_id=self.station_id,
                boot_id=self.boot_id,
                resource=head_id,
                old=old,
                old_code=old_code,
                old_duration_ms=round((row.entered_s - old_since) * 1000),
                new=row.e10,
                new_code=code,
                reason=reason,
            )
        ]

    def seat(self, head_id: str, eid: str, sn: str) -> None:
        """Show which unit sits in a head; nothing of a package has reached it."""
        row = self.rows[head_id]
        row.eid, row.sn, row.loaded, row.to_load = str(eid), sn, 0, 0
        self.changes += 1

    def move(self, head_id: str, loaded: int, to_load: int) -> None:
        """Show how far a load is, in bytes; may be called from the card's thread."""
        row = self.rows[head_id]
        row.loaded, row.to_load = loaded, to_load
        self.moves += 1

    def count(self, head_id: str, result: UnitResult, lamp: str = "", fault: str = "") -> None:
        """Count a verdict of a head; `lamp` says what becomes of the unit, `fault` is the code of what went wrong."""
        row = self.rows[head_id]
        row.last, row.lamp, row.fault = result, str(lamp), fault
        self.verdicts.append((head_id, row.eid, fault))
        if result is UnitResult.PASS:
            row.ok += 1
        else:
            row.ng += 1
        self.changes += 1

    def tell(self, head_id: str, life: LifeShown) -> None:
        """Show what became of a head's life."""
        self.rows[head_id].life = life
        self.changes += 1

    def head(self, head_id: str) -> HeadState:
        """One head as it stands now."""
        row = self.rows[head_id]
        return HeadState(
            e10=row.e10,
            code=row.code,
            phase=row.phase,
            since=row.since,
            last=row.last,
            ok=row.ok,
            ng=row.ng,
            blocked=row.phase is Phase.REFUSING or bool(row.life.blocked),
            reason=row.life.blocked or row.reason,
            cycles=row.life.cycles,
            maintenance_due=row.life.maintenance_due,
            contact_failures=row.life.contact[0],
            contact_units=row.life.contact[1],
            seconds_per_kb=row.life.seconds_per_kb,
            alarms=list(row.life.alarms),
            eid=row.eid,
            sn=row.sn,
            loaded=row.loaded,
            to_load=row.to_load,
            lamp=row.lamp,
            fault=row.fault,
        )

    def document(
        self,
        *,
        job_order_id: str,
        operator_id: str = "",
        lock_reason: str | None = None,
        refusing: str,
        attention: dict[str, str],
        custody: Custody,
        ahead: Ahead = _NOTHING,
        hand_over: HandOver | None = None,
    ) -> StationState:
        """Return `S/state/station` as it stands now; the station is as productive as its best head."""
        now = self.clock.now()
        rank = [E10.PRD, E10.ENG, E10.SBY, E10.SDT, E10.UDT, E10.NST]
        best = min(self.rows.values(), key=lambda row: rank.index(row.e10))
        return StationState(
            schema="station/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=self.station_id,
            boot_id=self.boot_id,
            e10=best.e10,
            e10_code=best.code,
            phase=best.phase,
            since=best.since,
            job_order_id=job_order_id,
            operator_id=operator_id,
            locked=lock_reason is not None,
            lock_reason=lock_reason or "",
            outbox_depth=custody.outbox.count,
            outbox_oldest_ms=custody.oldest_ms,
            outbox_rejected=custody.outbox.rejected,
            refusing=refusing,
            attention=attention,
            held=dict(islice(custody.held.items(), _SHOWN_UNITS)),
            held_units=len(custody.held),
            cached_units=ahead.units,
            cached_oldest_ms=ahead.oldest_ms,
            store_away_since=ahead.away_since,
            hand_over=hand_over,
            heads={head_id: self.head(head_id) for head_id in self.rows},
        )


def show_life(head_id: str, lives: Lives, board: Board, metrics: Metrics) -> None:
    """Show what became of a head's life on the board and in the metrics."""
    life = lives.shown(head_id)
    board.tell(head_id, life)
    metrics.set(series.SOCKET_CYCLES, life.cycles, head=head_id)
    metrics.set(series.MAINTENANCE_DUE, life.maintenance_due, head=head_id)
    metrics.set(series.QUARANTINED, bool(life.blocked), head=head_id)
    metrics.set(series.SECONDS_PER_KB, life.seconds_per_kb, head=head_id)
    for code in ALARMS:
        metrics.set(series.HEAD_ALARMS, code in life.alarms, head=head_id, code=code)
