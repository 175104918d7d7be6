"""Everything the store refuses because of who asks or what is asked, counted, logged and on its way to the audit log.

A thousand refusals in a row cost one line and one entry: equal ones are counted together until the next sweep.
"""

from __future__ import annotations

from aiohttp import web

from ifpp import metrics as series
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.store.records import Refusal

_MAX_KINDS = 100
_MAX_TEXT = 200
_USUAL = frozenset(
    {
        "BPP.NOT_FOUND",
        "BPP.EXHAUSTED",
        "BPP.EXPIRED",
        "BPP.WITHDRAWN",
        "BPP.INCOMPLETE",
        "BPP.TAKEN",
        "UNIT.ALREADY_LOADED",
        "UNIT.UNRESOLVED",
    }
)
"""Said in the course of business: the claim is in order, there is no package for it."""

log = get_logger("storefront.refusals")


class Refusals:
    """Refusals since the last `take`; used by the event loop only."""

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics
        self._open: dict[tuple[str, str, str], Refusal] = {}

    def add(self, who: str, operation: str, code: str, detail: str) -> None:
        """Note one refusal; `who` is a caller or an address, `operation` a name of the route table."""
        if code in _USUAL:
            return
        if self._metrics is not None:
            self._metrics.add(series.STORE_REFUSALS, operation=operation, code=code)
        key = (who, operation, code)
        if key not in self._open and len(self._open) >= _MAX_KINDS:
            who, detail = "many", "too many different ones to name"
            key = (who, operation, code)
        known = self._open.get(key)
        if known is None:
            shown = ascii(detail[:_MAX_TEXT])[1:-1]
            self._open[key] = Refusal(who, operation, code, shown)
            log.warning("refused", who=who, operation=operation, code=code, detail=shown)
        else:
            known.times += 1

    def take(self) -> list[Refusal]:
        """Return and forget what was noted."""
        taken = list(self._open.values())
        self._open.clear()
        return taken

    def put_back(self, taken: list[Refusal]) -> None:
        """Keep for the next time what could not be written."""
        for refusal in taken:
            key = (refusal.who, refusal.operation, refusal.code)
            known = self._open.get(key)
            if known is None:
                self._open[key] = refusal
            else:
                known.times += refusal.times


REFUSALS = web.AppKey("refusals", Refusals)
"""Where an application keeps its own."""
