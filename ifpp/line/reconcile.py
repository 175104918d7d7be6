"""Units that went on while the MES had no answer are asked for afterwards (route policy ALLOW_AND_RECONCILE).

The questions are rows of the factory database (`ifpp.store.unasked`), so they outlive any supervisor; each is asked
under the id of its result's event, which stays the same. A refusal keeps the unit at the gate and rings (A-122).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from ifpp import metrics as series
from ifpp.errors import ServiceError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause
from ifpp.model.mes import RouteAnswer, RouteCheck
from ifpp.model.messages import UnitResultEvent
from ifpp.store.factory import Factory
from ifpp.store.unasked import REFUSED, LateAnswer, OpenQuestion

_ROUND_S = 2.0
_AT_ONCE = 50
_DEADLINE_MS = 30_000  # nobody waits for it
_ANSWERS = ("PASS", REFUSED, "SKIPPED")
_START = ("", 0)

log = get_logger("line.reconcile")
Ask = Callable[[RouteCheck], Awaitable[RouteAnswer | None]]


class Reconciler:
    """Belongs to the event loop of one supervisor.

    `ask` puts a question to the MES, gives None without an answer in time and raises ServiceError without a broker;
    `online` says what the MES says of itself, None: nothing.
    """

    def __init__(
        self,
        factory: Factory,
        line: str,
        ask: Ask,
        *,
        online: Callable[[], bool | None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._factory = factory
        self._line = line
        self._ask = ask
        self._online = online
        self._clock = clock
        self._metrics = metrics
        self._after = _START
        self._at_once = 1

    async def run(self, over: asyncio.Event) -> None:
        """Ask until `over`; what has no answer by then is asked by the next supervisor."""
        ending = asyncio.create_task(over.wait(), name="over")
        try:
            while not over.is_set():
                asking = asyncio.create_task(self._round(), name="reconcile")
                await asyncio.wait([asking, ending], return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                elif not asking.result():
                    await pause(self._clock, _ROUND_S, over)
        finally:
            ending.cancel()

    async def _round(self) -> bool:
        """Ask what is next: one, and many where that one is answered; whether there may be more to ask at once."""
        if self._online() is False:
            return False
        try:
            rows = await asyncio.to_thread(self._factory.unasked.questions, self._line, self._after, self._at_once)
            said = [one for one in await asyncio.gather(*map(self._settle, rows)) if one is not None]
            if said:
                await asyncio.to_thread(self._factory.unasked.answer, said, self._clock.now())
        except ServiceError as error:  # broker or database away: asked again
            log.warning("reconcile.not_asked", error=error)
            return False
        for one in said:
            self._metrics.add(series.ROUTE_CHECKS_LATE, result=one.result)
        if refused := [one for one in said if one.result == REFUSED]:
            log.error("reconcile.refused", units=len(refused), first=f"{refused[0].node_id} {refused[0].seq}")
        self._after = (rows[-1].node_id, rows[-1].seq) if rows else _START
        self._at_once = _AT_ONCE if said else 1
        return bool(said)

    async def _settle(self, question: OpenQuestion) -> LateAnswer | None:
        """Ask about one result; None while the MES does not say."""
        result = msgspec.json.decode(question.body, type=UnitResultEvent)
        answer = await self._ask(
            RouteCheck(
                schema="route_check/1.0",
                request_id=result.id,
                unit=result.unit,
                operation=result.operation,
                station_id=question.node_id,
                head_id=result.head_id,
                job_order_id=result.job_order_id,
                recipe=result.recipe,
                deadline_ms=_DEADLINE_MS,
                worked_at=result.started_at,
            )
        )
        if answer is None or answer.result not in _ANSWERS:
            return None
        return LateAnswer(question.node_id, question.seq, answer.result, answer.code, answer.text)
