"""Whether a person has stopped the intake of units at this station; that outlives the process."""

from __future__ import annotations

import msgspec

from ifpp.station.gate import Gate

LOCK_ROW = "/station"
"""Where the journal keeps it, among the lives of the heads; no head can be called so."""
_CODE = "STATION.LOCKED"


class Locked(msgspec.Struct, kw_only=True):
    """Who stopped it, and why."""

    by: str
    reason: str


class Lock:
    """Shuts the gate; units in the heads are finished. Belongs to the event loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._locked: Locked | None = None

    @property
    def reason(self) -> str | None:
        """Who stopped it, and why; None while units are taken."""
        return None if self._locked is None else f"{self._locked.by}: {self._locked.reason}"

    def turn(self, action: str, by: str, reason: str) -> str:
        """LOCK or UNLOCK; returns what to answer."""
        before = self.reason
        self._set(Locked(by=by, reason=reason) if action == "LOCK" else None)
        if action == "LOCK":
            return f"was stopped already ({before})" if before else "takes no new units; seated ones are finished"
        return "takes units" if before else "took units already"

    def row(self) -> bytes:
        """As the journal keeps it."""
        return msgspec.json.encode(self._locked)

    def restore(self, rows: dict[str, bytes]) -> None:
        """Go on where the journal ended."""
        if row := rows.get(LOCK_ROW):
            self._set(msgspec.json.decode(row, type=Locked | None))

    def _set(self, locked: Locked | None) -> None:
        self._locked = locked
        self._gate.clear(_CODE)
        if locked is not None:
            self._gate.note(_CODE, f"{locked.by}: {locked.reason}", shuts=True)
