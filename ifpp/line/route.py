"""Route checks between stations and the MES: asked once more at half time, answered alike, never answered late.

Where the MES has no answer in time, what the line knows of its mind is told as such (`source` CACHE): its last PASS for
the same unit, or that a traveller names the unit for this job order. Else the answer is ERROR, and the station does as
the job order's policy says. An MES that says of itself that it is offline is not waited for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from ifpp import metrics as series
from ifpp.bus.topics import LINE_NODE, MES_NODE, Place, Topics
from ifpp.errors import ServiceError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, parse_utc
from ifpp.model.mes import RouteAnswer, RouteCheck
from ifpp.store.factory import Factory

_LONGEST = 16 * 1024
_AT_ONCE = 1000  # checks under way
_REMEMBERED = 10_000
_MINUTE_S = 60.0
_SCHEMA = "route_check/1.0"
_RESULTS = ("PASS", "FAIL", "SKIPPED", "ERROR")

log = get_logger("line.route")
K = TypeVar("K")
V = TypeVar("V")
Unit = tuple[str, str, str]
"""Job order, EID (or serial number) and operation."""


class RouteDesk:
    """Belongs to the event loop of one supervisor. `online` says what the MES says of itself, None: nothing."""

    def __init__(
        self,
        factory: Factory,
        topics: Topics,
        publish: Callable[[str, bytes, bool], Awaitable[None]],
        *,
        online: Callable[[], bool | None],
        clock: Clock,
        metrics: Metrics,
        violation: Callable[..., None],
    ) -> None:
        self._factory = factory
        self._topics = topics
        self._publish = publish
        self._online = online
        self._clock = clock
        self._metrics = metrics
        self._violation = violation
        self._asked: asyncio.Queue[tuple[str, RouteCheck]] = asyncio.Queue(_AT_ONCE)
        self._open: dict[str, asyncio.Future[RouteAnswer]] = {}
        self._askers: dict[str, RouteCheck] = {}
        self._said: OrderedDict[str, tuple[RouteCheck, RouteAnswer]] = OrderedDict()
        self._passed: OrderedDict[Unit, RouteAnswer] = OrderedDict()
        self._unanswered: deque[float] = deque(maxlen=_AT_ONCE)

    @property
    def subscriptions(self) -> list[str]:
        """Where stations ask and the MES answers."""
        return [f"{self._topics.base}/+/req/route_check", self._topics.reply(LINE_NODE, "route_check")]

    def unanswered(self) -> int:
        """Return how many checks of the last minute an MES that does not say it is offline left without an answer."""
        since_s = self._clock.monotonic() - _MINUTE_S
        while self._unanswered and self._unanswered[0] <= since_s:
            self._unanswered.popleft()
        return len(self._unanswered)

    async def hear(self, place: Place, payload: bytes, *, retained: bool) -> bool:
        """Take one document; False when it has nothing to do with route checks."""
        if place.name != "route_check" or place.kind not in ("req", "req_rsp"):
            return False
        node = MES_NODE if place.node == LINE_NODE else place.node
        if (place.node, place.kind) == (LINE_NODE, "req"):
            return True  # our own question
        try:
            if retained:  # nobody knows how old it is
                raise msgspec.ValidationError("neither question nor answer is retained")
            if len(payload) > _LONGEST:
                raise msgspec.ValidationError(f"{len(payload)} bytes are too many for a route check")
            if place.kind == "req":
                await self._take(place.node, msgspec.json.decode(payload, type=RouteCheck))
            else:
                self._take_answer(msgspec.json.decode(payload, type=RouteAnswer))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._violation("route_check", "schema", node_id=node, error=error)
        return True

    async def run(self, over: asyncio.Event) -> None:
        """Answer until `over`."""
        ending = asyncio.create_task(over.wait(), name="over")
        working: set[asyncio.Task[None]] = set()
        try:
            while not over.is_set():
                taking = asyncio.create_task(self._asked.get(), name="route check")
                await asyncio.wait([taking, ending], return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    break
                work = asyncio.create_task(self._answer(*taking.result()), name="route answer")
                working.add(work)
                work.add_done_callback(working.discard)
        finally:
            ending.cancel()
            for work in working:
                work.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    # ---- questions ----

    async def _take(self, node: str, ask: RouteCheck) -> None:
        if ask.station_id != node:
            raise msgspec.ValidationError(f"station_id {ask.station_id[:40]} is not who asks")
        before = self._said.get(ask.request_id)
        known = self._askers.get(ask.request_id) or (before and before[0])
        if known is not None and known != ask:
            raise msgspec.ValidationError("this request_id was used for another question")
        if before is not None:
            await self._tell(node, before[1])
        elif known is None and not self._asked.full() and len(self._askers) < _AT_ONCE:  # else it is asked again
            self._askers[ask.request_id] = ask
            self._asked.put_nowait((node, ask))

    async def _answer(self, node: str, ask: RouteCheck) -> None:
        try:
            answer = await self._of_mes(ask) or await self._of_cache(ask)
            unit = _unit(ask)
            if answer.source == "MES":
                if answer.result == "PASS":
                    _remember(self._passed, unit, answer)
                elif answer.result == "FAIL":
                    self._passed.pop(unit, None)
            _remember(self._said, ask.request_id, (ask, answer))
            self._metrics.add(series.ROUTE_CHECKS, result=answer.result, source=answer.source)
            await self._tell(node, answer)
        finally:
            del self._askers[ask.request_id]

    async def _tell(self, node: str, answer: RouteAnswer) -> None:
        try:
            await self._publish(self._topics.reply(node, "route_check"), msgspec.json.encode(answer), False)
        except ServiceError as error:  # asked again, it is answered alike
            log.warning("route.not_answered", station=node, request=answer.request_id, error=error)

    # ---- where answers come from ----

    async def _of_mes(self, ask: RouteCheck) -> RouteAnswer | None:
        """Return what the MES says; None when it has no answer in time, or no mind."""
        if self._online() is False:
            return None
        try:
            found = await self.ask(ask)
        except ServiceError as error:
            log.warning("route.not_asked", request=ask.request_id, error=error)
            return None
        if found is None:
            self._unanswered.append(self._clock.monotonic())
        return None if found is None or found.result == "ERROR" else found

    async def ask(self, ask: RouteCheck) -> RouteAnswer | None:
        """Ask the MES, twice at most; None when it has no answer in time. Raises ServiceError: no broker."""
        answer: asyncio.Future[RouteAnswer] = asyncio.get_running_loop().create_future()
        self._open[ask.request_id] = answer
        try:
            for _ in range(2):
                await self._publish(self._topics.question(LINE_NODE, "route_check"), msgspec.json.encode(ask), False)
                await asyncio.wait([answer], timeout=ask.deadline_ms / 2000)
                if answer.done():
                    return answer.result()
        finally:
            del self._open[ask.request_id]
        return None

    def _take_answer(self, answer: RouteAnswer) -> None:
        """Only the first answer to an open question counts."""
        waiting = self._open.get(answer.request_id)
        said = self._said.get(answer.request_id)
        if answer.result not in _RESULTS:
            answer = msgspec.structs.replace(answer, result="ERROR")
        answer = msgspec.structs.replace(answer, source="MES")
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
        elif said is not None and said[1].source == "MES":
            if said[1] != answer:
                self._violation("route_check", "contradiction", node_id=MES_NODE, request=answer.request_id)
        elif waiting is None:
            self._violation("route_check", "nobody_asked", node_id=MES_NODE, request=answer.request_id)

    async def _of_cache(self, ask: RouteCheck) -> RouteAnswer:
        before = self._passed.get(_unit(ask))
        if before is not None and not self._ended(before):
            return msgspec.structs.replace(before, request_id=ask.request_id, source="CACHE")
        names = ask.job_order_id, ask.unit.sn, ask.unit.eid
        try:
            if await asyncio.to_thread(self._factory.announced, *names):
                return RouteAnswer(schema=_SCHEMA, request_id=ask.request_id, result="PASS", source="CACHE")
        except ServiceError as error:
            log.warning("route.not_looked_up", request=ask.request_id, error=error)
        text = "the MES is offline" if self._online() is False else f"no answer within {ask.deadline_ms} ms"
        return RouteAnswer(
            schema=_SCHEMA, request_id=ask.request_id, result="ERROR", code="HOST.TIMEOUT", text=text, source="OFF"
        )

    def _ended(self, answer: RouteAnswer) -> bool:
        try:
            return bool(answer.valid_until) and parse_utc(answer.valid_until) <= self._clock.now()
        except ValueError:  # a date nobody can read allows nothing
            return True


def _unit(ask: RouteCheck) -> Unit:
    return ask.job_order_id, ask.unit.eid or ask.unit.sn, ask.operation


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
