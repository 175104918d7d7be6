"""The first-article gate: a job order, and every changeover of it, is released by a person who saw what it makes.

Each station that works on the job order shows so many different units in a row that passed, and every golden unit
passed; both since the last changeover. A released job order stays so until the next changeover.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ifpp.errors import CustodyError
from ifpp.model.messages import FirstArticles, Job
from ifpp.settings import Gate
from ifpp.store.figure_store import FigureStore
from ifpp.store.releases import Article, Release

CHANGEOVER, RELEASE = "CHANGEOVER", "RELEASE"
WORKING = frozenset({"READY", "RUNNING"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What one station has shown since the changeover: units that passed in a row, golden units that passed."""

    in_a_row: tuple[str, ...] = ()
    golden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateStanding:
    """`released`: by whom, "" while nobody has; `missing`: what the stations have still to show, in words."""

    job: str
    setup: str
    released: str
    missing: tuple[str, ...]
    shown: dict[str, Shown] = field(default_factory=dict)
    is_set: bool = True

    @property
    def is_open(self) -> bool:
        """Whether units may be made without a person watching."""
        return bool(self.released) or not self.is_set


def standing(
    job: str, settings: Gate, articles: Iterable[Article], decisions: Sequence[Release], stations: Iterable[str] = ()
) -> GateStanding:
    """Judge a job order; `stations` it is for, none = those that worked on it."""
    setup, since, released = "", "", ""
    for one in decisions:
        if one.decision == CHANGEOVER:
            setup, since, released = one.setup, one.at, ""
        elif one.decision == RELEASE:
            released = one.by
    golden = set(settings.golden_units)
    shown = _shown((one for one in articles if one.ended_at >= since), golden)
    places = sorted({*stations} or shown.keys())
    missing = [word for place in places for word in _missing(place, shown.get(place, Shown()), settings)]
    if not places and (golden or settings.first_articles):
        missing = ["no station has made a unit of it"]
    is_set = bool(golden or settings.first_articles)
    return GateStanding(job, setup, released, tuple(missing), shown, is_set=is_set)


def not_open(figures: FigureStore, settings: Gate, jobs: Iterable[Job]) -> dict[str, FirstArticles]:
    """Return the job orders in work that nobody released since their last changeover, with what stations may make."""
    found = {}
    for job in jobs if settings.golden_units or settings.first_articles else ():
        decisions = figures.job_releases(job.job_order_id)
        if job.dispatch_status not in WORKING or (decisions and decisions[-1].decision == RELEASE):
            continue
        articles = figures.shown_articles(job.job_order_id)
        shown = standing(job.job_order_id, settings, articles, decisions).shown
        found[job.job_order_id] = FirstArticles(
            wanted=settings.first_articles + len(settings.golden_units),
            left={place: _left(one, settings) for place, one in shown.items()},
            made=dict(sorted(Counter(one.station for one in articles).items())),
        )
    return found


def _left(shown: Shown, settings: Gate) -> int:
    golden = {*settings.golden_units} - {*shown.golden}
    return max(0, settings.first_articles - len(shown.in_a_row)) + len(golden)


def check_release(found: GateStanding) -> None:
    """Raises CustodyError GATE.NOT_SHOWN while anything is missing."""
    if found.missing:
        raise CustodyError("GATE.NOT_SHOWN", "; ".join(found.missing), where=found.job)


def _shown(articles: Iterable[Article], golden: set[str]) -> dict[str, Shown]:
    rows: dict[str, list[str]] = defaultdict(list)
    passed: dict[str, list[str]] = defaultdict(list)
    for one in articles:
        names = golden & {one.sn, one.eid}
        unit = one.sn or one.eid
        if names:
            passed[one.station] = [name for name in passed[one.station] if name not in names]
            passed[one.station] += sorted(names) if one.result == "PASS" else []
        elif one.result != "PASS":
            rows[one.station] = []
        elif unit not in rows[one.station]:
            rows[one.station].append(unit)
    return {place: Shown(tuple(rows[place]), tuple(passed[place])) for place in sorted({*rows, *passed})}


def _missing(place: str, shown: Shown, settings: Gate) -> Iterable[str]:
    short = settings.first_articles - len(shown.in_a_row)
    if short > 0:
        yield f"{place}: {short} more units in a row"
    yield from (f"{place}: golden unit {name}" for name in settings.golden_units if name not in shown.golden)
