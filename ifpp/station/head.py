"""One programming head: seat, identify, claim, load, verify, seal, store, show; again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from ifpp import metrics as series
from ifpp.errors import CardError, CustodyError, IfppError, TransportError
from ifpp.fpa.chip import Chip
from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort
from ifpp.log import get_logger
from ifpp.model.clock import pause, uuid7
from ifpp.model.messages import Job, StateChanged, UnitResultEvent
from ifpp.model.states import E10, Lamp, Phase
from ifpp.station.attempt import Attempt
from ifpp.station.board import (
    CODE_BLOCKED,
    CODE_NO_HOST,
    CODE_REGULAR_WORK,
    CODE_REPAIR,
    CODE_STAND_BY,
    CODE_STARVED,
    show_life,
)
from ifpp.station.cycle import Cycle
from ifpp.station.edges import Edge
from ifpp.station.floor import Floor
from ifpp.station.life import Finding
from ifpp.station.material import used_up
from ifpp.station.records import Events, Kept

_POLL_S = 0.5
# Line contract 4.3; what else keeps units out is a breakdown.
_CODE_OF_REFUSAL = {"OUTBOX.FULL": CODE_NO_HOST, "STATION.LOCKED": CODE_STAND_BY}
log = get_logger("station.head")


class Head:
    """Runs one card port until the station stops; whatever happens here, the other heads go on."""

    def __init__(self, head_id: str, port: CardPort, floor: Floor) -> None:
        self.head_id = head_id
        self._port = port
        self._floor = floor
        self._owner = Owner(f"head-{head_id}", lambda: port.deadline_s)
        self._chip = Chip(
            port,
            block_size=floor.settings.heads[head_id].block_size,
            apdu_timeout_s=floor.settings.deadlines.apdu_s,
            load_apdu_timeout_s=floor.settings.deadlines.load_apdu_s,
        )
        self._cycle = Cycle(head_id, self._chip, self._owner, floor, self._enter)
        self._life = floor.lives[head_id]
        self._lost = ""
        floor.board.add(head_id)

    async def run(self) -> None:
        """Serve units until the station stops; a lost reader is tried again and again."""
        # way of a unit, step 3
        show_life(self.head_id, self._floor.lives, self._floor.board, self._floor.metrics)
        while not self._floor.stopping.is_set():
            try:
                await self._owner.call(self._port.open)
                self._lost = ""
                await self._serve()
            except TransportError as error:
                if error.code != self._lost:  # said once, tried again and again
                    log.warning("head lost", head=self.head_id, code=error.code, detail=error.detail)
                self._lost = error.code
                self._enter(Phase.RETIRED, CODE_REPAIR, reason=error.code)
                await self._pause()
            except Exception:  # an unforeseen fault of ours must not stop the other heads
                log.exception("head failed", head=self.head_id)
                self._enter(Phase.RETIRED, CODE_REPAIR, reason="INTERNAL")
                await self._pause()
            finally:
                with suppress(TransportError):  # a head that hangs is closed when it is opened anew
                    await self._owner.call(self._port.close)
        self._owner.close()

    async def _serve(self) -> None:
        floor = self._floor
        await self._stand_by()
        while not floor.stopping.is_set():
            if floor.gate.refusing:
                await self._refuse()
                continue
            if self._life.blocked:
                await self._quarantined()
                continue
            job = await floor.jobs.current()
            if job is not None and floor.jobs.waits(job):
                await self._await_release(job)
                continue
            if job is None or not await self._owner.call(self._port.wait_seated, _POLL_S) or self._closed:
                continue
            if not floor.jobs.begin(job):
                continue
            now = floor.clock
            attempt = Attempt(uuid7(now.now()), self.head_id, job, now.now(), now.monotonic(), seatings=1)
            if not await self._work(attempt) or await self._removed():
                await self._stand_by()

    @property
    def _closed(self) -> bool:
        return bool(self._floor.gate.refusing or self._life.blocked)

    async def _stand_by(self) -> None:
        if self._life.blocked:
            return  # quarantine shows itself: at no moment may the head seem free
        self._enter(Phase.EMPTY, CODE_STARVED)
        await self._owner.call(self._port.lamp, Lamp.OFF)

    async def _refuse(self) -> None:
        """Take no unit while the station cannot answer for one."""
        code = self._floor.gate.refusing
        self._enter(Phase.REFUSING, _CODE_OF_REFUSAL.get(code, CODE_REPAIR), reason=code)
        await self._owner.call(self._port.lamp, Lamp.HOLD)
        await first_of(self._floor.gate.opened(), self._floor.stopping.wait())
        if not self._floor.stopping.is_set():
            await self._stand_by()

    async def _await_release(self, job: Job) -> None:
        """Take no unit of a job order whose first articles are shown, until a person has released it."""
        floor = self._floor
        self._enter(Phase.REFUSING, CODE_STAND_BY, reason="GATE.NOT_RELEASED")
        await self._owner.call(self._port.lamp, Lamp.HOLD)
        while floor.jobs.job_order_id == job.job_order_id and floor.jobs.waits(job) and not self._closed:
            await first_of(floor.jobs.changed(), floor.stopping.wait(), pause(floor.clock, _POLL_S, floor.stopping))
            if floor.stopping.is_set():
                return
        await self._stand_by()

    async def _quarantined(self) -> None:
        """Take no unit until a person lets the head work again."""
        log.warning("head in quarantine", head=self.head_id, reason=self._life.blocked)
        self._enter(Phase.QUARANTINED, CODE_REPAIR, reason=self._life.blocked)
        await self._owner.call(self._port.lamp, Lamp.HOLD)
        await first_of(self._life.freed(), self._floor.stopping.wait())
        if not self._floor.stopping.is_set():
            await self._stand_by()

    async def _removed(self) -> bool:
        """Wait for the unit's removal; False when the station is stopped before."""
        while not self._floor.stopping.is_set():
            if await self._owner.call(self._port.wait_removed, _POLL_S):
                return True
        return False

    async def _work(self, attempt: Attempt) -> bool:
        """Take one unit to its verdict; every fault of the unit ends here, stored, and not in another head.

        Returns whether the unit is still in the socket.
        """
        self._enter(Phase.SEATED, CODE_REGULAR_WORK)
        await self._owner.call(self._port.lamp, Lamp.BUSY)
        try:
            await self._cycle.run(attempt)
        except IfppError as error:
            attempt.fault = error
        except Exception as error:  # a fault of ours is this unit's verdict and must not stop the other heads
            log.exception("unforeseen", head=self.head_id, eid=attempt.eid)
            attempt.fault = CardError("INTERNAL", f"{type(error).__name__}", where=f"head {self.head_id}")
        if not attempt.eid:
            attempt.seatings = self._life.seated("")
        return await self._close(attempt)

    async def _close(self, attempt: Attempt) -> bool:
        """Store the record, then show the verdict: green means stored."""
        # way of a unit, step 8
        floor, reseats = self._floor, self._floor.settings.recipe.reseats
        floor.at_edge(Edge.CLOSING)
        events = self._events(attempt)
        record = floor.journal.close_unit(attempt.closed(events, floor.lives.row(self.head_id)))
        lamp = attempt.lamp(reseats)
        try:
            with floor.metrics.timed(series.JOURNAL_COMMIT_SECONDS):
                stored = await asyncio.wrap_future(record.tried)
            seated = stored or await self._until_stored(attempt, record)
            floor.at_edge(Edge.CLOSED)
        except CustodyError as error:
            log.error("not stored", head=self.head_id, eid=attempt.eid, code=error.code, detail=error.detail)
            seated, lamp = True, Lamp.HOLD
        if seated and lamp is Lamp.PASS and floor.settings.recipe.report_path == "factory":
            await self._forget(attempt)
            floor.at_edge(Edge.FORGOTTEN)
        self._measure(attempt)
        self._log_verdict(attempt, lamp)
        with suppress(TransportError):
            await self._owner.call(self._chip.close)
        if seated:
            await self._show(lamp)
        return seated

    async def _show(self, lamp: Lamp) -> None:
        """Show the verdict; a head that hangs still has a lamp, which is a device of its own."""
        if self._owner.hung:
            await asyncio.to_thread(self._port.lamp, lamp)
        else:
            await self._owner.call(self._port.lamp, lamp)

    def _events(self, attempt: Attempt) -> Events:
        """What the record of a unit tells: its result, what it means for the head, and that the removal is awaited."""
        floor = self._floor
        now, now_s, reseats = floor.clock.now(), floor.clock.monotonic(), floor.settings.recipe.reseats
        result = attempt.event(
            station_id=floor.settings.id, boot_id=floor.journal.boot_id, now=now, now_s=now_s, reseats=reseats
        )
        fault = "" if attempt.fault is None else attempt.fault.code
        floor.board.count(self.head_id, attempt.result, attempt.lamp(reseats), fault)
        floor.lives.close(self.head_id, attempt.seating(reseats))
        show_life(self.head_id, floor.lives, floor.board, floor.metrics)
        passages = floor.board.enter(self.head_id, Phase.VERDICT, CODE_BLOCKED)
        self._count_states(passages)
        return [("unit_result", result), *self._used(result), *(("state_changed", passage) for passage in passages)]

    def _used(self, result: UnitResultEvent) -> Events:
        """What the unit used up, where an MES wants to know."""
        floor, head_id = self._floor, self.head_id
        if floor.route is None:
            return []
        due, cycles = floor.settings.life.socket_cycles_due, floor.lives[head_id].record.cycles
        socket_id = floor.settings.heads[head_id].socket_id
        return used_up(result, socket_id=socket_id, remaining=max(0, due - cycles) if due else None)

    async def _until_stored(self, attempt: Attempt, record: Kept) -> bool:
        """The verdict is known and its record is not on the disk: the unit is held where it is until it is.

        Returns whether the unit never left its socket meanwhile. Raises CustodyError when the station is stopped
        before: what the chip got stands in the journal, and the next start tells it.
        """
        log.error("verdict not stored yet", head=self.head_id, eid=attempt.eid, result=attempt.result)
        self._enter(Phase.NOT_STORED, CODE_BLOCKED, reason="JOURNAL.WRITE")
        await self._owner.call(self._port.lamp, Lamp.HOLD)
        removal = asyncio.create_task(self._gone(), name=f"removal {self.head_id}")
        stored = asyncio.wrap_future(record.stored)
        try:
            await first_of(asyncio.wait([stored]), self._floor.stopping.wait())
            if not stored.done():
                raise CustodyError("JOURNAL.WRITE", "the station is stopped before the record is stored")
            stored.result()
            self._enter(Phase.VERDICT, CODE_BLOCKED)
            return not removal.done()
        finally:
            stored.cancel()
            removal.cancel()
            await asyncio.wait([removal])

    async def _gone(self) -> None:
        """Return when the unit was taken out, or when the reader is lost and nobody can say."""
        with suppress(TransportError):
            while not await self._owner.call(self._port.wait_removed, _POLL_S):
                pass

    async def _forget(self, attempt: Attempt) -> None:
        """The result is stored here: the device need not report it again. Losing this step harms nothing."""
        for number in attempt.told_by_chip:
            try:
                await self._owner.call(self._chip.forget, number)
            except IfppError as error:
                log.warning("result stays on the chip", head=self.head_id, eid=attempt.eid, code=error.code)

    async def _pause(self) -> None:
        await pause(self._floor.clock, self._floor.settings.deadlines.reconnect_s, self._floor.stopping)

    def _measure(self, attempt: Attempt) -> None:
        metrics, job = self._floor.metrics, attempt.job
        operation, product = job.operation, job.product.part_number
        metrics.add(series.UNIT_RESULTS, head=self.head_id, result=attempt.result, operation=operation, product=product)
        if attempt.number == 1 and attempt.fault is None:
            metrics.add(series.FIRST_PASS, operation=operation, product=product)
        if attempt.fault is not None:
            metrics.add(series.DEFECTS, head=self.head_id, code=attempt.fault.code)
        metrics.add(series.INSERTIONS, head=self.head_id)
        metrics.add(series.CONTACT_FAILURES, attempt.finding is Finding.CONTACT, head=self.head_id)

    def _log_verdict(self, attempt: Attempt, lamp: Lamp) -> None:
        fault = attempt.fault
        log.info(
            "verdict",
            head=self.head_id,
            eid=attempt.eid,
            attempt=attempt.number,
            result=attempt.result,
            outcome=attempt.outcome,
            lamp=lamp,
            code="" if fault is None else fault.code,
            detail="" if fault is None else fault.detail,
        )

    def _count_states(self, events: list[StateChanged]) -> None:
        metrics = self._floor.metrics
        for event in events:
            metrics.add(series.STATE_SECONDS, event.old_duration_ms / 1000, head=self.head_id, e10=event.old)
            if event.new == E10.UDT:
                metrics.add(series.FAILURES, head=self.head_id)

    def _enter(self, phase: Phase, code: int, *, reason: str = "") -> None:
        """Move on the board; an E10 transition goes into the outbox without being waited for."""
        events = self._floor.board.enter(self.head_id, phase, code, reason=reason)
        if events:
            self._count_states(events)
            self._floor.journal.events([("state_changed", event) for event in events])


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Return as soon as one of them is done; the others are given up."""
    waits = {asyncio.ensure_future(one) for one in awaitables}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
