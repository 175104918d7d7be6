"""The line's desk towards the MES: takes its job orders, tells it what was made until it says that it has it.

Nothing the MES says or fails to say stops a station: what it asks is answered from the database, what it is told stands
in the line's own log and is sent again until it is acknowledged (line contract 4.3).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from ifpp.bus.topics import LINE_NODE, MES_NODE, Place, Topics
from ifpp.errors import CustodyError, IfppError, ServiceError
from ifpp.log import get_logger
from ifpp.model.clock import Clock, pause, utc_ms_text, uuid7
from ifpp.model.mes import JobOrder, JobOrderAnswer, JobOrders, JobOrderState
from ifpp.model.messages import Ack, Job, Online
from ifpp.model.orders import completed
from ifpp.settings import Mes
from ifpp.store.factory import Factory
from ifpp.store.records import UnitCounts

_ROUND_S = 0.2
_BOOKS_S = 1.0
_BOOKS_SHARE = 10  # reading the books takes at most one tenth of the time
_WINDOW = 100  # documents on their way without an acknowledgement
_RESEND_FIRST_S, _RESEND_LAST_S = 5.0, 60.0
_LONGEST_ORDER = 64 * 1024

log = get_logger("line.mes")
T = TypeVar("T")
Publish = Callable[[str, bytes, bool], Awaitable[None]]
Violation = Callable[..., None]


class MesDesk:
    """Belongs to the event loop of one supervisor, for one epoch.

    `publish(topic, payload, retain)` raises ServiceError while the broker is away; `violation` is Settling's.
    `online`: what the MES says of itself, None: nothing; `rejected`: how many documents of the log it refused.
    """

    def __init__(
        self,
        settings: Mes,
        factory: Factory,
        topics: Topics,
        publish: Publish,
        *,
        boot_id: str,
        epoch: int,
        clock: Clock,
        violation: Violation,
    ) -> None:
        self._settings = settings
        self._factory = factory
        self._topics = topics
        self._publish = publish
        self._boot_id = boot_id
        self._epoch = epoch
        self._clock = clock
        self._violation = violation
        self._sent = 0
        self._acknowledged = 0
        self._resend_s = _RESEND_FIRST_S
        self._resend_at_s = 0.0
        self._said: dict[str, JobOrderState] | None = None
        self._since: dict[str, tuple[str, str]] = {}
        self.online: bool | None = None
        self.rejected = 0

    @property
    def subscriptions(self) -> list[str]:
        """Where the MES speaks to the line."""
        return [
            self._topics.command(LINE_NODE, "job_order"),
            f"{self._topics.base}/{LINE_NODE}/ack/mes",
            self._topics.online(MES_NODE),
        ]

    def connected(self) -> None:
        """A new connection: all that is not acknowledged is sent again, all that is retained is said again."""
        self._sent, self._resend_s, self._said = 0, _RESEND_FIRST_S, None

    async def hear(self, place: Place, payload: bytes, *, retained: bool) -> bool:
        """Take one document; False when it is none of the MES's."""
        where = (place.node, place.kind, place.name)
        if where == (LINE_NODE, "cmd", "job_order"):
            if retained:  # nobody knows how old it is
                self._violation(
                    "job_order", "retained", node_id=MES_NODE, error=ValueError("a command is not retained")
                )
            else:
                await self._take_order(payload)
        elif where == (LINE_NODE, "ack", "mes"):
            await self._take_ack(payload)
        elif where == (MES_NODE, "state", "online"):
            self._note_online(payload)
        else:
            return False
        return True

    async def run(self, over: asyncio.Event) -> None:
        """Tell the MES what happens until `over`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell(over), name="mes log")
            tasks.create_task(self._keep_orders(over), name="mes orders")

    # ---- orders ----

    async def _take_order(self, payload: bytes) -> None:
        try:
            if len(payload) > _LONGEST_ORDER:
                raise msgspec.ValidationError(f"{len(payload)} bytes are too many for a job order")
            ask = msgspec.json.decode(payload, type=JobOrder)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._violation("job_order", "schema", node_id=MES_NODE, error=error)
            request_id, job_order_id = _glance(payload)
            if request_id:
                await self._answer(request_id, job_order_id, "REJECTED", code="ORDER.SCHEMA", text=str(error)[:256])
            return
        try:
            word = await self._call(lambda: self._factory.command_order(self._topics.line, ask, self._clock.now()))
        except ServiceError as error:  # the MES asks again
            log.warning("order.not_taken", job=ask.job_order_id, error=error)
            await self._answer(ask.request_id, ask.job_order_id, "REJECTED", code=error.code, text=error.detail)
            return
        log.info("order", job=ask.job_order_id, version=ask.version, command=ask.command, status=word.status)
        await self._answer(
            ask.request_id,
            ask.job_order_id,
            word.status,
            dispatch_status=word.dispatch_status,
            code=word.code,
            text=word.text,
        )

    async def _answer(
        self,
        request_id: str,
        job_order_id: str,
        status: str,
        *,
        dispatch_status: str = "",
        code: str = "",
        text: str = "",
    ) -> None:
        now = self._clock.now()
        answer = JobOrderAnswer(
            schema="job_order/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=LINE_NODE,
            boot_id=self._boot_id,
            request_id=request_id,
            job_order_id=job_order_id,
            status=status,
            dispatch_status=dispatch_status,
            code=code,
            text=text,
        )
        try:
            await self._publish(self._topics.answer(LINE_NODE, "job_order"), msgspec.json.encode(answer), False)
        except ServiceError as error:  # asked again, it is answered alike
            log.warning("answer.not_sent", request=request_id, error=error)

    async def _keep_orders(self, over: asyncio.Event) -> None:
        """End what is complete, respond to what has ended, and show where every order stands."""
        while True:
            began_s = self._clock.monotonic()
            try:
                await self._look_after_orders()
            except IfppError as error:  # database or broker away: the next round says it
                log.warning("orders.not_said", error=error)
            took_s = self._clock.monotonic() - began_s
            if await pause(self._clock, max(_BOOKS_S, _BOOKS_SHARE * took_s), over):
                return

    async def _look_after_orders(self) -> None:
        line, grace_s = self._topics.line, self._settings.response_s
        jobs = await self._call(lambda: self._factory.jobs(line))
        rows = await self._call(self._factory.unit_counts)
        counts = {row.job_order_id: row for row in rows}
        for at, job in enumerate(jobs):
            good = counts[job.job_order_id].final_pass if job.job_order_id in counts else 0
            if completed(job, good):
                now = self._clock.now()
                ended = await self._call(partial(self._factory.finish_order, line, job.job_order_id, good, now))
                jobs[at] = ended or job
        done = await self._call(
            lambda: self._factory.respond_to_orders(line, self._boot_id, self._clock.now(), grace_s)
        )
        for job_order_id in done:
            log.info("order.responded", job=job_order_id)
        await self._say_orders({job.job_order_id: self._stands(job, counts.get(job.job_order_id)) for job in jobs})

    async def _say_orders(self, orders: dict[str, JobOrderState]) -> None:
        if orders == self._said:
            return
        now = self._clock.now()
        document = JobOrders(
            schema="job_orders/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=LINE_NODE,
            boot_id=self._boot_id,
            epoch=self._epoch,
            orders=orders,
        )
        await self._publish(f"{self._topics.base}/{LINE_NODE}/state/job_orders", msgspec.json.encode(document), True)
        self._said = orders

    def _stands(self, job: Job, counts: UnitCounts | None) -> JobOrderState:
        status, since = self._since.get(job.job_order_id, ("", ""))
        if status != job.dispatch_status:
            since = utc_ms_text(self._clock.now())
            self._since[job.job_order_id] = (job.dispatch_status, since)
        units, good = (counts.units, counts.final_pass) if counts else (0, 0)
        return JobOrderState(
            version=job.version,
            dispatch_status=job.dispatch_status,
            quantity=job.quantity,
            started=units,
            good=good,
            failed=units - good,
            since=since,
            work_order_id=job.work_order_id,
            due_at=job.due_at,
        )

    # ---- the line's own log ----

    async def _tell(self, over: asyncio.Event) -> None:
        while True:
            try:
                busy = await self._tell_some()
            except IfppError as error:  # broker or database away
                log.debug("log.not_told", error=error)
                busy = False
            if await pause(self._clock, 0.0 if busy else _ROUND_S, over):
                return

    async def _tell_some(self) -> bool:
        """Take into the log what is new and send what may go; returns whether there is more to do at once."""
        line, now = self._topics.line, self._clock.now
        read = await self._call(lambda: self._factory.collect_line_log(line, self._boot_id, now()))
        if not self._acknowledged:
            self._acknowledged = (await self._call(lambda: self._factory.line_log_state(line))).acknowledged
        if self._sent > self._acknowledged and self._clock.monotonic() >= self._resend_at_s:
            self._sent, self._resend_s = self._acknowledged, min(2 * self._resend_s, _RESEND_LAST_S)
        after = max(self._sent, self._acknowledged)
        room = _WINDOW - (after - self._acknowledged)
        if room <= 0:
            return False
        rows = await self._call(lambda: self._factory.line_log_page(line, after, room))
        for row in rows:
            await self._publish(self._topics.event(LINE_NODE, row.name), row.body, False)
            self._sent = row.seq
            self._resend_at_s = self._clock.monotonic() + self._resend_s
        if rows and self._settings.ack == "off":
            await self._note_ack(rows[-1].seq)
        return bool(read or rows)

    async def _take_ack(self, payload: bytes) -> None:
        try:
            ack = msgspec.json.decode(payload, type=Ack)
            await self._note_ack(ack.through)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, CustodyError) as error:
            self._violation("ack", "mes", node_id=MES_NODE, error=error)
            return
        except ServiceError as error:
            log.warning("ack.not_taken", error=error)
            return
        self.rejected += len(ack.rejected)
        for refused in ack.rejected:
            log.error("mes.rejected", seq=refused.seq, code=refused.code, text=refused.text[:200])

    async def _note_ack(self, through: int) -> None:
        line, now = self._topics.line, self._clock.now()
        state = await self._call(lambda: self._factory.acknowledge_line_log(line, through, now))
        if state.acknowledged > self._acknowledged:
            self._acknowledged, self._resend_s = state.acknowledged, _RESEND_FIRST_S

    def _note_online(self, payload: bytes) -> None:
        try:
            said = msgspec.json.decode(payload, type=Online) if payload else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._violation("online", "schema", node_id=MES_NODE, error=error)
            return
        self.online = None if said is None else said.online

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.to_thread(call)


def _glance(payload: bytes) -> tuple[str, str]:
    """Read who asks from an order that breaks the contract, so that it can be answered."""
    try:
        document = json.loads(payload[:_LONGEST_ORDER])
        return str(document["request_id"])[:128], str(document.get("job_order_id", ""))[:128]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", ""
