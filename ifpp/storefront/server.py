"""Serving the store on a socket, until it is told to stop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from ipaddress import ip_address

from aiohttp import web

from ifpp.errors import SettingsError

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

    Requests under way are answered first, for at most 5 seconds. Raises SettingsError for an address beyond this
    machine without TLS, or one that cannot be bound.
    """
    if tls is None and not _is_loopback(host):
        raise SettingsError(
            "SETTINGS.INVALID", f"{host or 'every address'} without TLS: use 127.0.0.1", where="store.host"
        )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise SettingsError("SETTINGS.INVALID", f"cannot listen ({error})", where=f"{host}:{port}") from error
        ready(runner.addresses[0][1])
        await stop.wait()
    finally:
        await runner.cleanup()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
