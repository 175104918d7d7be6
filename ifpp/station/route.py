"""The route check: may this unit be worked on, here, now? Asked of the MES before anything is claimed.

Without an answer in time the job order's `route_policy` decides: BLOCK, the unit waits and is asked for again; CACHE,
what the line knows of the MES's mind counts (`source` CACHE), else as BLOCK; ALLOW_AND_RECONCILE, the unit goes on and
its result says that nobody allowed it (`source` OFF); OFF, nobody is asked. A policy we do not know is BLOCK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from ifpp.errors import ServiceError, SupplyError
from ifpp.log import get_logger
from ifpp.model.clock import Clock, pause, uuid7
from ifpp.model.mes import RouteAnswer, RouteCheck
from ifpp.model.messages import RouteNote, UnitRef
from ifpp.settings import Station
from ifpp.station.attempt import Attempt

_GO = ("PASS", "SKIPPED")
_ERROR, _FAIL = "ERROR", "FAIL"
_CACHE, _ALLOW, _OFF = "CACHE", "ALLOW_AND_RECONCILE", "OFF"
_OUR_SHARE = 1.25  # the supervisor needs some time beside the MES
log = get_logger("station.route")

Waiting = Callable[[str], None]
"""Told the code for which a unit waits; "" when it waits no more."""


class Place(Protocol):
    """Where a check is made; the station's floor is one."""

    @property
    def settings(self) -> Station: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def stopping(self) -> asyncio.Event: ...


class Route:
    """Asks, and takes the answers; belongs to the event loop.

    `send` publishes a RouteCheck and raises ServiceError while the broker is away.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], *, deadline_ms: int) -> None:
        self._send = send
        self._deadline_ms = deadline_ms
        self._open: dict[str, asyncio.Future[RouteAnswer]] = {}

    def hear(self, payload: bytes) -> None:
        """Take an answer; one nobody waits for is dropped. Raises msgspec.MsgspecError for what is none."""
        answer = msgspec.json.decode(payload, type=RouteAnswer)
        waiting = self._open.get(answer.request_id)
        if waiting is None or waiting.done():
            log.info("late answer", request=answer.request_id, result=answer.result)
        else:
            waiting.set_result(answer)

    async def check(self, attempt: Attempt, place: Place, waiting: Waiting) -> None:
        """Return when the unit may be worked on; what was decided stands in `attempt.route`.

        Raises SupplyError ROUTE.REFUSED with what the MES said, UNIT.TRAVELLER when it means another unit;
        ServiceError HOST.TIMEOUT when the station stops before there is an answer.
        """
        policy = attempt.job.route_policy
        waited = False
        while policy != _OFF:
            answer = await self._ask(attempt, place)
            known = answer.source != _CACHE or policy == _CACHE
            if known and answer.result in (*_GO, _FAIL):
                self._judge(attempt, answer)
                break
            if policy == _ALLOW:
                attempt.route = RouteNote(request_id=answer.request_id, result="SKIPPED", source=_OFF)
                break
            code, waited = "HOST.TIMEOUT", True
            waiting(code)
            attempt.route = RouteNote(request_id=answer.request_id, result=_ERROR, source=_OFF)
            if place.stopping.is_set() or await pause(
                place.clock, place.settings.deadlines.reconnect_s, place.stopping
            ):
                raise ServiceError(code, answer.text or "the route check has no answer", where="MES")
        if waited:
            waiting("")

    def _judge(self, attempt: Attempt, answer: RouteAnswer) -> None:
        attempt.route = RouteNote(request_id=answer.request_id, result=answer.result, source=answer.source)
        where = f"EID {attempt.eid}"
        if answer.result == _FAIL:
            said = ": ".join(filter(None, (answer.code, answer.text))) or "no reason given"
            raise SupplyError("ROUTE.REFUSED", f"the MES says {said}", where=where)
        sku = attempt.job.product.part_number
        if answer.sku and answer.sku != sku:
            raise SupplyError("UNIT.TRAVELLER", f"the MES says SKU {answer.sku}, the job order {sku}", where=where)
        if answer.sn and attempt.sn and answer.sn != attempt.sn:
            detail = f"the MES says serial number {answer.sn}, the label {attempt.sn}"
            raise SupplyError("UNIT.TRAVELLER", detail, where=where)
        attempt.sn = attempt.sn or answer.sn

    async def _ask(self, attempt: Attempt, place: Place) -> RouteAnswer:
        """Ask, and once more with the same id at half time; without an answer the result is ERROR."""
        ask = RouteCheck(
            schema="route_check/1.0",
            request_id=uuid7(place.clock.now()),
            unit=UnitRef(sn=attempt.sn, eid=str(attempt.eid)),
            operation=attempt.job.operation,
            station_id=place.settings.id,
            head_id=attempt.head_id,
            job_order_id=attempt.job.job_order_id,
            recipe=attempt.job.recipe,
            deadline_ms=self._deadline_ms,
        )
        document, half_s = msgspec.json.encode(ask), self._deadline_ms / 2000
        answer: asyncio.Future[RouteAnswer] = asyncio.get_running_loop().create_future()
        self._open[ask.request_id] = answer
        try:
            for wait_s in (half_s, half_s * (2 * _OUR_SHARE - 1)):
                await self._send(document)
                await asyncio.wait([answer], timeout=wait_s)
                if answer.done():
                    return answer.result()
            text = f"the route check has no answer within {self._deadline_ms} ms"
        except ServiceError as error:  # no broker: nobody could be asked
            text = error.detail
        finally:
            del self._open[ask.request_id]
        log.warning("no answer", head=attempt.head_id, eid=attempt.eid, request=ask.request_id, text=text)
        return RouteAnswer(
            schema="route_check/1.0",
            request_id=ask.request_id,
            result=_ERROR,
            code="HOST.TIMEOUT",
            text=text,
            source=_OFF,
        )
