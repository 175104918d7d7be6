"""The owner thread of one blocking device, and the one bridge from the event loop to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Owner:
    """Runs every call of one device on one thread, in order.

    A side effect on a chip cannot be taken back: when the caller is cancelled, the running call is still waited for,
    then the cancellation goes on ("cancel means after this step").
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Run `function(*args)` on the owner thread and return its result."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def close(self) -> None:
        """Let the thread end after its present call; does not wait for a hung device."""
        self._executor.shutdown(wait=False, cancel_futures=True)
