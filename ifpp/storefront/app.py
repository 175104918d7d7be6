"""Routes of the store, and how its errors look over HTTP.

Every error is a Problem document (`ifpp.model.messages.Problem`) with a fault code; the HTTP status follows from it.
Whatever is refused for who asks or what is asked is counted, logged and written to the audit log. The database is used
by threads of this process that write and one that reads, never by the event loop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from aiohttp import web

from ifpp import metrics as series
from ifpp.errors import IfppError, VerificationError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause
from ifpp.model.messages import (
    ClaimRequest,
    ExpectedQuestion,
    Health,
    LeaseQuestion,
    Readiness,
    ReleaseNotice,
    SentNotice,
)
from ifpp.store.factory import Factory
from ifpp.storefront.answers import document, problem
from ifpp.storefront.door import Door
from ifpp.storefront.openapi import describe
from ifpp.storefront.refusals import REFUSALS, Refusals
from ifpp.storefront.routes import PARAMETERS, ROUTES, Route
from ifpp.trust.callers import Caller

MAX_BODY_BYTES = 16 * 1024
BODY_S = 10.0
_WRITERS = 16
SWEEP_S = 5.0

_STATUS = {
    "EID.UNKNOWN": 404,
    "SKU.UNKNOWN": 404,
    "REGION.UNKNOWN": 404,
    "BPP.NOT_FOUND": 404,
    "BPP.EXHAUSTED": 409,
    "BPP.EXPIRED": 409,
    "BPP.TAKEN": 409,
    "BPP.WITHDRAWN": 409,
    "BPP.INCOMPLETE": 409,
    "BPP.OTHER_PRODUCT": 409,
    "BPP.RESERVED": 409,
    "JOB.OTHER_STATION": 409,
    "UNIT.ALREADY_LOADED": 409,
    "UNIT.UNRESOLVED": 409,
    "UNIT.TRAVELLER": 409,
    "UNIT.NO_TRAVELLER": 404,
    "CUSTODY.TRANSITION": 409,
    "STORE.FORBIDDEN": 403,
    "STORE.REFUSED": 409,
    "DATABASE.UNREACHABLE": 503,
}
_BAD_REQUEST = 400
_CALLER = web.RequestKey("caller", Caller)

log = get_logger("storefront")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
D = TypeVar("D", bound=msgspec.Struct)


def build_app(
    factory: Factory,
    clock: Clock,
    metrics: Metrics | None = None,
    *,
    door: Door | None = None,
    refusals: Refusals | None = None,
    beat: Callable[[], None] = lambda: None,
) -> web.Application:
    """Return the store's application; run it with `ifpp.storefront.server.serve`. The factory stays the caller's.

    With a `door` callers are known by their certificates and may do what the route table says; without, everything is
    answered that comes without TLS, which `serve` takes from this machine only. While it runs, leases that have run
    out are freed, and refusals written down, every 5 seconds; each time `beat` is called, after the threads that write
    and read have answered.
    """
    refusals = refusals or Refusals(metrics)
    store = _Store(factory, clock, metrics, door, refusals, beat)
    app = web.Application(middlewares=[store.guard], client_max_size=MAX_BODY_BYTES)
    app[REFUSALS] = refusals
    app.cleanup_ctx.append(store.running)
    for route in ROUTES:
        path = re.sub("{(.*?)}", lambda name: f"{{{name[1]}:{PARAMETERS[name[1]]}}}", route.path)
        app.router.add_route(route.method, path, store.answering(route), name=route.operation)
    return app


class _Store:
    def __init__(
        self,
        factory: Factory,
        clock: Clock,
        metrics: Metrics | None,
        door: Door | None,
        refusals: Refusals,
        beat: Callable[[], None],
    ) -> None:
        self._factory = factory
        self._clock = clock
        self._metrics = metrics
        self._door = door
        self._refusals = refusals
        self._beat = beat
        self._description = msgspec.json.encode(describe())
        # Calls that wait together are committed together; more threads than heads of a station gain nothing.
        self._writer = ThreadPoolExecutor(_WRITERS, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    # ---- what stations ask ------------------------------------------------------------------------

    async def claim(self, request: web.Request) -> web.Response:
        # way of a unit, step 4
        wanted = await _document(request, ClaimRequest)
        _speaks_for(request, wanted.station_id)
        claim = await self._write(lambda: self._factory.claim(wanted, self._clock.now()))
        return document(claim)

    async def package(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        content = await self._read(lambda: self._factory.package_bytes(sha256))
        return web.Response(body=content, content_type="application/octet-stream")

    async def sent(self, request: web.Request) -> web.Response:
        package_id = request.match_info["package_id"]
        notice = await _document(request, SentNotice)
        _speaks_for(request, notice.station_id)
        await self._write(
            lambda: self._factory.mark_sent(package_id, notice.attempt_id, notice.station_id, self._clock.now())
        )
        return web.Response(status=204)

    async def release(self, request: web.Request) -> web.Response:
        attempt_id = request.match_info["attempt_id"]
        notice = await _document(request, ReleaseNotice)
        _speaks_for(request, notice.station_id)
        await self._write(lambda: self._factory.release(attempt_id, notice.station_id, self._clock.now()))
        return web.Response(status=204)

    async def leases(self, request: web.Request) -> web.Response:
        question = await _document(request, LeaseQuestion)
        _speaks_for(request, question.station_id)
        return document(await self._read(lambda: self._factory.leases(question.station_id, question.leases)))

    async def expected(self, request: web.Request) -> web.Response:
        question = await _document(request, ExpectedQuestion)
        _speaks_for(request, question.station_id)
        return document(await self._read(lambda: self._factory.expected(question, self._clock.now())))

    async def gate(self, request: web.Request) -> web.Response:
        # asked by the MES: always 200 for a known unit, the answer is in the document
        eid = request.match_info["eid"]
        return document(await self._read(lambda: self._factory.unit_gate(eid)))

    async def health(self, _request: web.Request) -> web.Response:
        return document(Health(alive=True))

    async def ready(self, _request: web.Request) -> web.Response:
        await self._read(self._factory.ping)
        return document(Readiness(ready=True, factory_id=self._factory.factory_id))

    async def openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._description, content_type="application/json")

    # ---- around every request ---------------------------------------------------------------------

    def answering(self, route: Route) -> _Handler:
        """Return the handler of a route, behind the question who asks and whether they may."""
        handler: _Handler = getattr(self, route.operation)

        async def admitted(request: web.Request) -> web.StreamResponse:
            self._admit(request, route)
            return await handler(request)

        return admitted

    def _admit(self, request: web.Request, route: Route) -> None:
        if self._door is None:
            if request.secure:
                raise VerificationError("STORE.FORBIDDEN", "nobody is known here")
            return
        caller = request[_CALLER] = self._door.caller(request)
        if caller.role not in route.roles:
            raise VerificationError("STORE.FORBIDDEN", f"{caller} may not do this", where=route.operation)

    @web.middleware
    async def guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Turn every error into a Problem, note what was refused and how long the answer took."""
        began_s = self._clock.monotonic()
        operation = request.match_info.route.name or "unknown"
        try:
            response = await handler(request)
        except (IfppError, web.HTTPException) as error:
            response = self._refused(request, operation, error)
        except Exception:  # whatever went wrong in one request must not take the store away from the other heads
            log.exception("unforeseen", path=request.path[:200])
            response = problem(500, "INTERNAL", "an unforeseen fault, see the store's log")
        if self._metrics is not None:
            took_s = self._clock.monotonic() - began_s
            self._metrics.observe(series.STORE_SECONDS, took_s, operation=operation, status=str(response.status))
        return response

    def _refused(
        self, request: web.Request, operation: str, error: IfppError | web.HTTPException
    ) -> web.StreamResponse:
        answer = _told(request, error)
        if answer.status < 500:
            caller = request.get(_CALLER)
            code, detail = "STORE.REFUSED", f"{request.method} {request.path}: HTTP {answer.status}"
            if isinstance(error, IfppError):
                code, detail = error.code, f"{error.where}: {error.detail}" if error.where else error.detail
            elif answer.status == _BAD_REQUEST:
                detail = error.text or detail
            self._refusals.add(str(caller or request.remote or "unknown"), operation, code, detail)
        return answer

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Sweep while the application runs; at the end let the sweep under way finish."""
        over = asyncio.Event()
        sweeping = asyncio.create_task(self._sweep(over), name="lease sweep")
        yield
        over.set()
        await asyncio.gather(sweeping, return_exceptions=True)
        await self._write_refusals()
        await asyncio.to_thread(self._stop_threads)

    def _stop_threads(self) -> None:
        self._writer.shutdown()
        self._reader.shutdown()

    async def _sweep(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                freed = await self._write(lambda: self._factory.expire_leases(self._clock.now()))
                await self._read(self._factory.ping)
            except IfppError as error:  # the next sweep tries again
                log.warning("sweep.failed", error=error)
            else:
                if freed:
                    log.info("leases.expired", packages=freed)
            await self._write_refusals()
            self._beat()
            await pause(self._clock, SWEEP_S, over)

    async def _write_refusals(self) -> None:
        taken = self._refusals.take()
        if not taken:
            return
        try:
            await self._write(lambda: self._factory.note_refusals(taken, self._clock.now()))
        except IfppError as error:
            log.warning("refusals.unwritten", error=error)
            self._refusals.put_back(taken)

    async def _write(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, call)


def _told(request: web.Request, error: IfppError | web.HTTPException) -> web.Response:
    """Say in a Problem what was refused."""
    if isinstance(error, IfppError):
        if error.code not in _STATUS:
            log.error("unexpected fault", error=error)
        return problem(_STATUS.get(error.code, 500), error.code, error.detail, error.where)
    answer = problem(error.status, "STORE.REFUSED", error.text or error.reason, request.path[:200])
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    if error.status == web.HTTPRequestTimeout.status_code:
        answer.force_close()
    return answer


def _speaks_for(request: web.Request, station_id: str) -> None:
    """Refuse a station that speaks in the name of another one."""
    caller = request.get(_CALLER)
    if caller is not None and caller.name != station_id:
        raise VerificationError("STORE.FORBIDDEN", f"{caller} speaks in the name of {station_id[:32]}")


async def _document(request: web.Request, kind: type[D]) -> D:
    try:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the request did not come to its end in {BODY_S:g} s") from None
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"not a {kind.__name__}: {error}") from error
