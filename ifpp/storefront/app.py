"""Routes of the store, and how its errors look over HTTP.

Every error is a Problem document (`ifpp.model.messages.Problem`) with a fault code; the HTTP status follows from it.
The database is used by two threads of this process, one that writes and one that reads, never by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from aiohttp import web

from ifpp import metrics as series
from ifpp.errors import FAULTS, IfppError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock
from ifpp.model.messages import ClaimRequest, Problem, ReleaseNotice, SentNotice
from ifpp.store.factory import Factory

MAX_BODY_BYTES = 16 * 1024
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
    "UNIT.ALREADY_LOADED": 409,
    "CUSTODY.TRANSITION": 409,
    "STORE.REFUSED": 409,
    "DATABASE.UNREACHABLE": 503,
}
_NAME = "[0-9A-Za-z._:-]{1,128}"

log = get_logger("storefront")
T = TypeVar("T")
D = TypeVar("D", bound=msgspec.Struct)


def build_app(factory: Factory, clock: Clock, metrics: Metrics | None = None) -> web.Application:
    """Return the store's application; run it with `ifpp.storefront.server.serve`. The factory stays the caller's.

    While it runs, leases that have run out are freed every 5 seconds.
    """
    store = _Store(factory, clock, metrics)
    app = web.Application(middlewares=[store.guard], client_max_size=MAX_BODY_BYTES)
    app.cleanup_ctx.append(store.running)
    app.add_routes(
        [
            web.post("/v1/claims", store.claim),
            web.post(f"/v1/claims/{{attempt_id:{_NAME}}}/release", store.release),
            web.post(f"/v1/packages/{{package_id:{_NAME}}}/sent", store.sent),
            web.get("/v1/packages/{sha256:[0-9a-f]{64}}", store.package),
            web.get("/v1/units/{eid:[0-9]{32}}/gate", store.gate),
            web.get("/healthz", store.health),
            web.get("/readyz", store.ready),
        ]
    )
    return app


class _Store:
    def __init__(self, factory: Factory, clock: Clock, metrics: Metrics | None) -> None:
        self._factory = factory
        self._clock = clock
        self._metrics = metrics
        # Calls that wait together are committed together; more threads than heads of a station gain nothing.
        self._writer = ThreadPoolExecutor(_WRITERS, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    # ---- what stations ask ------------------------------------------------------------------------

    async def claim(self, request: web.Request) -> web.Response:
        # way of a unit, step 4
        wanted = await _document(request, ClaimRequest)
        claim = await self._write(lambda: self._factory.claim(wanted, self._clock.now()))
        return _json(claim)

    async def package(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        content = await self._read(lambda: self._factory.package_bytes(sha256))
        return web.Response(body=content, content_type="application/octet-stream")

    async def sent(self, request: web.Request) -> web.Response:
        package_id = request.match_info["package_id"]
        notice = await _document(request, SentNotice)
        await self._write(
            lambda: self._factory.mark_sent(package_id, notice.attempt_id, notice.station_id, self._clock.now())
        )
        return web.Response(status=204)

    async def release(self, request: web.Request) -> web.Response:
        attempt_id = request.match_info["attempt_id"]
        notice = await _document(request, ReleaseNotice)
        await self._write(lambda: self._factory.release(attempt_id, notice.station_id, self._clock.now()))
        return web.Response(status=204)

    async def gate(self, request: web.Request) -> web.Response:
        # asked by the MES: always 200 for a known unit, the answer is in the document
        eid = request.match_info["eid"]
        return _json(await self._read(lambda: self._factory.unit_gate(eid)))

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def ready(self, _request: web.Request) -> web.Response:
        await self._read(self._factory.ping)
        return web.json_response({"ready": True, "factory_id": self._factory.factory_id})

    # ---- around every request ---------------------------------------------------------------------

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn every error into a Problem and note how long the answer took."""
        began_s = self._clock.monotonic()
        response = await _answered(request, handler)
        if self._metrics is not None:
            took_s = self._clock.monotonic() - began_s
            known = request.match_info.http_exception is None
            operation = getattr(handler, "__name__", "unknown") if known else "unknown"
            self._metrics.observe(series.STORE_SECONDS, took_s, operation=operation, status=str(response.status))
        return response

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Sweep while the application runs; at the end let the transaction under way finish."""
        sweeping = asyncio.create_task(self._sweep(), name="lease sweep")
        yield
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await asyncio.to_thread(self._stop_threads)

    def _stop_threads(self) -> None:
        self._writer.shutdown()
        self._reader.shutdown()

    async def _sweep(self) -> None:
        while True:
            try:
                freed = await self._write(lambda: self._factory.expire_leases(self._clock.now()))
            except IfppError as error:  # the next sweep tries again
                log.warning("sweep.failed", error=error)
            else:
                if freed:
                    log.info("leases.expired", packages=freed)
            await self._clock.sleep(SWEEP_S)

    async def _write(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, call)


async def _answered(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except IfppError as error:
        if error.code not in _STATUS:
            log.error("unexpected fault", error=error)
        return _problem(_STATUS.get(error.code, 500), error.code, error.detail, error.where)
    except web.HTTPException as error:
        answer = _problem(error.status, "STORE.REFUSED", error.text or error.reason, request.path[:200])
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:  # whatever went wrong in one request must not take the store away from the other heads
        log.exception("unforeseen", path=request.path[:200])
        return _problem(500, "INTERNAL", "an unforeseen fault, see the store's log")


async def _document(request: web.Request, kind: type[D]) -> D:
    body = await request.read()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"not a {kind.__name__}: {error}") from error


def _json(document: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _problem(status: int, code: str, detail: str, where: str = "") -> web.Response:
    problem = Problem(code=code, detail=detail, advice=FAULTS[code].advice, where=where)
    response = _json(problem)
    response.set_status(status)
    return response
