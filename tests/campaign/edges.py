"""Every named edge at which the campaign kills a process: `<process>.<instant>`.

The stations' own edges are the seam of `ifpp.station.edges`; the others are the calls that change something for good,
each just before (nothing is written) and just after (written, nobody was told).
"""

from __future__ import annotations

from ifpp.station.edges import Edge

STATION, STORE, SUPERVISOR = "station", "store", "supervisor"
STATION_CALLS = ("begin", "acknowledge")  # of the journal
STORE_CALLS = ("claim", "mark_sent", "release")  # of the factory database
SUPERVISOR_CALLS = ("acquire_line", "take_events")
# A process passes these while it starts: it is killed, and killed again on its way back.
AT_START = frozenset({"station.begin", "supervisor.acquire_line"})


def sides(process: str, call: str) -> tuple[str, str]:
    """Name the two edges of a call."""
    return f"{process}.{call}.before", f"{process}.{call}.after"


_OF_REWORK = (Edge.REMOVING, Edge.REMOVED)  # no unit of a campaign is reworked
STATION_EDGES = tuple(f"{STATION}.{edge}" for edge in Edge if edge not in _OF_REWORK)
_NOT_ONLINE = f"{STATION}.{Edge.SEALED}"  # a chip without factory services is not locked
EDGES = (
    *STATION_EDGES,
    *(edge for call in STATION_CALLS for edge in sides(STATION, call)),
    *(edge for call in STORE_CALLS for edge in sides(STORE, call)),
    *(edge for call in SUPERVISOR_CALLS for edge in sides(SUPERVISOR, call)),
)


def edges(*, online: bool) -> tuple[str, ...]:
    """The edges a campaign passes; `online`: its units download."""
    return tuple(edge for edge in EDGES if not (online and edge == _NOT_ONLINE))


def passed_at_start(edge: str) -> bool:
    """Whether a process passes the edge only while it starts."""
    return edge.rpartition(".")[0] in AT_START
