"""ES9+ over HTTPS: one client for all heads of a station, its connections and TLS sessions used again (SGP.22 6.5)."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType

import aiohttp

from ifpp.errors import ServiceError
from ifpp.model.rsp import Function, is_address

_PATH = "/gsma/rsp2/es9plus/"
_HEADERS = {
    "User-Agent": "gsma-rsp-lpad",
    "X-Admin-Protocol": "gsma/rsp/v2.2.0",
    "Content-Type": "application/json",
}
_DONE, _DONE_WITHOUT_BODY = 200, 204
_LATER = frozenset({408, 425, 429})
_CHUNK_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 8 * 1024 * 1024  # a package of 4 MiB in base64, and what is around it
_IDLE_S = 60.0  # a connection is kept that long: units of one head come more often


class Es9Client:
    """Use as an async context manager, or end with `close`; belongs to one event loop.

    `timeout_s` bounds one call from its start to the last byte; `connections` is the most to one SM-DP+ at a time.
    """

    def __init__(self, tls: ssl.SSLContext, *, timeout_s: float = 30.0, connections: int = 64) -> None:
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Es9Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, address: str, function: Function, body: bytes) -> bytes:
        """Call one function of the SM-DP+ at `address`; returns the body of its answer, b"" for none.

        Raises ServiceError: RSP.UNREACHABLE (no answer in time, cut off, 5xx: it may have been carried out), RSP.TLS
        (its certificate is not trusted), RSP.ANSWER (an answer that is none: too long, another status).
        """
        if not is_address(address):
            raise ServiceError("RSP.ANSWER", "not the address of an SM-DP+", where=address[:80])
        url = f"https://{address}{_PATH}{function}"
        try:
            async with self._open().post(
                url, data=body, headers=_HEADERS, allow_redirects=False, timeout=self._timeout
            ) as response:
                return await _body(response, url)
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise ServiceError("RSP.TLS", str(error)[:200], where=url) from error
        except aiohttp.InvalidURL as error:
            raise ServiceError("RSP.ANSWER", "not the address of an SM-DP+", where=address[:80]) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise ServiceError("RSP.UNREACHABLE", what[:200], where=url) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=0, limit_per_host=self._connections, keepalive_timeout=_IDLE_S
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


class HeadEs9:
    """The same client from the thread of a head: each call waits there while the station's loop goes on.

    `round_trips` counts the calls of this head.
    """

    def __init__(self, client: Es9Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop
        self.round_trips = 0

    def call(self, address: str, function: Function, body: bytes) -> bytes:
        """As `Es9Client.call`; never on the loop's own thread."""
        self.round_trips += 1
        return asyncio.run_coroutine_threadsafe(self._client.call(address, function, body), self._loop).result()


async def _body(response: aiohttp.ClientResponse, url: str) -> bytes:
    if response.status == _DONE_WITHOUT_BODY:
        return b""
    if response.status != _DONE:
        code = "RSP.UNREACHABLE" if response.status >= 500 or response.status in _LATER else "RSP.ANSWER"
        raise ServiceError(code, f"HTTP {response.status}", where=url)
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ServiceError("RSP.ANSWER", f"an answer of more than {MAX_ANSWER_BYTES} bytes", where=url)
    return bytes(body)
