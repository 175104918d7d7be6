"""`python -m tests.campaign.launch CONTROL ARGUMENTS...`: ifpp as it is, with a clock that jumps and edges to die at.

The only seams are the process's one source of time and the edges; what runs is the code of `ifpp ARGUMENTS...`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

from tests.campaign import edges
from tests.campaign.control import Control


def main() -> None:
    control = Control(Path(sys.argv.pop(1)))
    _wrong_clock(control)
    match sys.argv[1:3]:
        case ["station", "run"]:
            _station(control)
        case ["store", "serve"]:
            _factory_calls(control, edges.STORE, edges.STORE_CALLS)
        case ["supervisor", "run"]:
            _factory_calls(control, edges.SUPERVISOR, edges.SUPERVISOR_CALLS)
    from ifpp.__main__ import main as ifpp  # after the seams are in

    ifpp()


def _wrong_clock(control: Control) -> None:
    from ifpp.model.clock import SystemClock

    def now(_clock: SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=control.clock_s())

    setattr(SystemClock, "now", now)  # noqa: B010 - put in from outside, on purpose


def _station(control: Control) -> None:
    import ifpp.station.edges as seam

    seam.pass_by = lambda edge: control.at(f"{edges.STATION}.{edge}")
    from ifpp.station.journal import Journal

    for call in edges.STATION_CALLS:
        _deadly(Journal, call, edges.sides(edges.STATION, call), control)


def _factory_calls(control: Control, process: str, calls: tuple[str, ...]) -> None:
    from ifpp.store.factory import Factory

    for call in calls:
        _deadly(Factory, call, edges.sides(process, call), control)


def _deadly(owner: type, name: str, sides: tuple[str, str], control: Control) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    @wraps(call)
    def between_edges(*args: Any, **options: Any) -> Any:
        control.at(sides[0])
        result = call(*args, **options)
        control.at(sides[1])
        return result

    setattr(owner, name, between_edges)


if __name__ == "__main__":
    main()
