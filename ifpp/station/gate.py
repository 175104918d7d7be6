"""Whether this station takes new units, and what people have to see to: said once in the log, shown while it lasts."""

from __future__ import annotations

import asyncio

from ifpp.errors import FAULTS
from ifpp.log import get_logger

log = get_logger("station.gate")


class Gate:
    """Concerns by fault code; while one of them shuts the gate, no head takes a unit. Belongs to the event loop."""

    def __init__(self) -> None:
        self._concerns: dict[str, bool] = {}
        self._open = asyncio.Event()
        self._open.set()
        self.changes = 0

    def note(self, code: str, detail: str, *, shuts: bool) -> None:
        """There is something to see to; the log says it when it is new."""
        if self._concerns.get(code) == shuts:
            return
        self._concerns[code] = shuts
        self._changed()
        log.error("no new units" if shuts else "attention", code=code, detail=detail, advice=FAULTS[code].advice)

    def clear(self, code: str) -> None:
        """It is in order again."""
        if self._concerns.pop(code, None) is not None:
            self._changed()
            log.info("in order again", code=code, refusing=self.refusing)

    @property
    def refusing(self) -> str:
        """The fault code for which no new unit is taken; "" when units are taken."""
        return next((code for code, shuts in self._concerns.items() if shuts), "")

    @property
    def attention(self) -> dict[str, str]:
        """Every concern: fault code -> what to do."""
        return {code: FAULTS[code].advice for code in self._concerns}

    async def opened(self) -> None:
        """Wait until units are taken."""
        await self._open.wait()

    def _changed(self) -> None:
        self.changes += 1
        if self.refusing:
            self._open.clear()
        else:
            self._open.set()
