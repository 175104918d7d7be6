"""The owner thread of one blocking device, and the one bridge from the event loop to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from ifpp.errors import TransportError

T = TypeVar("T")
Step = tuple["Future[object]", Callable[..., object], tuple[object, ...]]

_LOOK_S = 0.5


class Owner:
    """Runs every call of one device on one thread, in order.

    A side effect on a chip cannot be taken back: when the caller is cancelled, the running call is still waited for,
    then the cancellation goes on ("cancel means after this step").

    `deadline` says until when, in `time.monotonic()` seconds, the device's present blocking call may last, None: it
    ends by itself. A call that outlives it hangs in a library or a driver that nothing can wake: it is abandoned, its
    caller and all that come after get TransportError HEAD.HUNG at once, until it does return. The thread is a daemon:
    it keeps no process alive.
    """

    def __init__(self, name: str, deadline: Callable[[], float | None] = lambda: None) -> None:
        self._name = name
        self._deadline = deadline
        self._steps: SimpleQueue[Step | None] = SimpleQueue()
        self._running: Future[object] | None = None
        self._abandoned: Future[object] | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def hung(self) -> bool:
        """Whether an abandoned call still has not returned."""
        return self._abandoned is not None and not self._abandoned.done()

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Run `function(*args)` on the owner thread and return its result; raises TransportError HEAD.HUNG."""
        if self.hung:
            raise self._fault()
        step: Future[T] = Future()
        self._steps.put((step, function, args))  # type: ignore[arg-type]  # a Future takes what its own function returns
        result = asyncio.wrap_future(step)
        try:
            await self._until_done(result)
        except asyncio.CancelledError:
            await self._until_done(result)
            result.exception()  # nobody is left to hear of it
            raise
        return result.result()

    def abandon(self) -> None:
        """Give up the running call: whoever waits learns of it. What waits behind it is never begun."""
        self._abandoned = self._running

    def close(self) -> None:
        """Let the thread end after its present call; does not wait for a hung device."""
        self._steps.put(None)

    async def _until_done(self, result: asyncio.Future[T]) -> None:
        while not result.done():
            await asyncio.wait([result], timeout=_LOOK_S)
            if result.done():
                return
            deadline_s = self._deadline()
            if deadline_s is not None and time.monotonic() > deadline_s + _LOOK_S:
                self.abandon()
            if self.hung:
                result.cancel()
                raise self._fault()

    def _fault(self) -> TransportError:
        return TransportError("HEAD.HUNG", "its reader or modem never came back from a command", where=self._name)

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            future, function, args = step
            if not future.set_running_or_notify_cancel():
                continue
            self._running = future
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)
