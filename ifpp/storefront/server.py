"""Serving the store on a socket, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from ipaddress import ip_address

from aiohttp import web

from ifpp.errors import SettingsError
from ifpp.storefront.answers import problem
from ifpp.storefront.refusals import REFUSALS, Refusals

MAX_CONNECTIONS = 512
HANDSHAKE_S = 10.0
FIRST_ANSWER_S = 30.0
_IDLE_S = 75.0
_LINGER_S = 1.0
_SERVER_FAULT = 500
_NO_LOG = logging.getLogger("ifpp.storefront.access")  # ours says what happened
_NO_LOG.disabled = True
_GRACE_S = 5.0


async def serve(
    app: web.Application,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    ready: Callable[[int], None],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until `stop` is set; `ready` is called with the port once connections are accepted (port 0 = any free).

    After `stop` no connection is taken and no request; those under way are answered, for at most 5 seconds. Raises
    SettingsError for an address beyond this machine without TLS, or one that cannot be bound.
    """
    if tls is None and not _is_loopback(host):
        raise SettingsError(
            "SETTINGS.INVALID", f"{host or 'every address'} without TLS: use 127.0.0.1, or set tls", where="store.host"
        )
    connections = _Connections(app)
    app.on_response_prepare.append(connections.answered)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        site = _Site(runner, host, port, tls, connections)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError("SETTINGS.INVALID", f"cannot listen ({error})", where=f"{host}:{port}") from error
        ready(runner.addresses[0][1])
        await stop.wait()
    finally:
        await runner.cleanup()


class _Connection(web.RequestHandler):
    """One connection; what is no HTTP is refused like everything else."""

    def __init__(self, server: web.Server, refusals: Refusals) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=_NO_LOG, keepalive_timeout=_IDLE_S, lingering_time=_LINGER_S)
        self._refusals = refusals

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= _SERVER_FAULT or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        self._refusals.add(request.remote or "unknown", "unknown", "STORE.REFUSED", f"no HTTP: {message}")
        answer = problem(status, "STORE.REFUSED", "this is no HTTP request")
        answer.force_close()
        return answer


class _Full(asyncio.Protocol):
    """There are too many connections already."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connections:
    """Makes connections, so many at most, and turns out who does not come to the point in time."""

    def __init__(self, app: web.Application) -> None:
        self._refusals = app[REFUSALS]
        self._fresh: set[asyncio.BaseProtocol] = set()

    def make(self, server: web.Server) -> asyncio.Protocol:
        """Return the protocol of one more connection."""
        if len(server.connections) >= MAX_CONNECTIONS:
            self._refusals.add("unknown", "connect", "STORE.REFUSED", f"{MAX_CONNECTIONS} connections are open")
            return _Full()
        connection = _Connection(server, self._refusals)
        self._fresh.add(connection)
        asyncio.get_running_loop().call_later(FIRST_ANSWER_S, self._turn_out, connection)
        return connection

    async def answered(self, request: web.Request, _response: web.StreamResponse) -> None:
        """A connection has had its first answer."""
        self._fresh.discard(request.protocol)

    def _turn_out(self, connection: _Connection) -> None:
        if connection in self._fresh:
            self._fresh.discard(connection)
            connection.force_close()


class _Site(web.BaseSite):
    """A TCP socket whose connections are made by `_Connections`; a handshake has its time."""

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None, connections: _Connections
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._host, self._port, self._connections = host, port, connections

    @property
    def name(self) -> str:
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner is not set up")
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._connections.make(server),
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=HANDSHAKE_S if self._ssl_context else None,
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
