"""The device maker's word for the sealing of each chip, asked of his keys while the package is being loaded."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ifpp.errors import ServiceError
from ifpp.fpa.seal import Authorise, permit
from ifpp.model.chip import Permit
from ifpp.model.ids import Eid
from ifpp.wire.fpx import Es10fCodec


class Permits:
    """Asks in threads of its own, so that keys which do not answer hold neither a head nor the event loop.

    `timeout_s`: how long a unit waits for its permit; `heads`: so many may wait at a time.
    """

    def __init__(self, authorise: Authorise, *, timeout_s: float, heads: int) -> None:
        self._authorise = authorise
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(heads, thread_name_prefix="permit")

    async def ask(self, codec: Es10fCodec, eid: Eid, request: bytes) -> Permit:
        """Return a chip's permit for one command; raises ServiceError KEYS.UNREACHABLE, and what the keys raise."""
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, permit, codec, eid, request, self._authorise)
        try:
            return await asyncio.wait_for(asked, self._timeout_s)
        except TimeoutError:
            detail = f"no permit within {self._timeout_s:g} s"
            raise ServiceError("KEYS.UNREACHABLE", detail, where=f"EID {eid}") from None

    def close(self) -> None:
        """Ask no more; a question under way ends by the time-out of the keys."""
        self._threads.shutdown(wait=False, cancel_futures=True)
