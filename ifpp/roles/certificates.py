"""What a process shows of its certificates: how long they last, as a metric and, in good time, in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ifpp import metrics as series
from ifpp.errors import SettingsError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock
from ifpp.trust.expiry import SOON, endings

_EVERY_S = 60.0
_REPEAT_S = 24 * 3600.0

log = get_logger("certificates")


class Expiry:
    """Looks at certificate files; what ends within 14 days is told at once, then once a day."""

    def __init__(self, metrics: Metrics, clock: Clock, files: Sequence[Path]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._files = files
        self._told: dict[Path, float] = {}
        self.ending: dict[str, float] = {}

    def look(self) -> None:
        """Set the metric of every file to what ends first in it; a file that cannot be read has 0 s left."""
        for file in self._files:
            left_s = 0.0
            with suppress(SettingsError):
                ends = [one.ends for one in endings(file)]
                left_s = (min(ends) - self._clock.now()).total_seconds() if ends else 0.0
            self._metrics.set(series.CERTIFICATE_EXPIRES_SECONDS, left_s, file=file.name)
            now = self._clock.monotonic()
            if left_s >= SOON.total_seconds():
                self._told.pop(file, None)
                self.ending.pop(file.name, None)
                continue
            self.ending[file.name] = left_s / 86400
            if now - self._told.get(file, -_REPEAT_S) >= _REPEAT_S:
                self._told[file] = now
                log.warning("certificate.ends", alarm="A-161", file=file.name, days=round(left_s / 86400, 1))


@asynccontextmanager
async def watched(metrics: Metrics, clock: Clock, files: Sequence[Path]) -> AsyncIterator[Expiry]:
    """Look at these files every minute while the block runs; `ending` holds, in days, what ends soon."""
    expiry = Expiry(metrics, clock, files)

    async def watch() -> None:
        while True:
            await asyncio.to_thread(expiry.look)
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(watch(), name="certificates")
    try:
        yield expiry
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
