"""A clock that only moves when a test moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)


class FakeClock:
    """Implements ifpp.model.clock.Clock; `advance` wakes the sleepers whose time has come, in order."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    @property
    def sleepers(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not future.done() for _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed_s + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        """Move time on; callable from the event loop's thread only."""
        self._elapsed_s += seconds
        now_s = self._elapsed_s + 1e-9  # sums of decimal fractions are not exact
        due = sorted((at for at in self._sleepers if at[0] <= now_s), key=lambda at: at[0])
        self._sleepers = [at for at in self._sleepers if at[0] > now_s]
        for _, future in due:
            if not future.done():
                future.set_result(None)
