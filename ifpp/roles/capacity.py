"""`ifpp capacity`: how many heads and stations a target takes, by what this line was measured to do."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ifpp.errors import SettingsError, SupplyError
from ifpp.line.capacity import LONG, MIN_UNITS, Answer, Measured, Parts, Spread, answer, measure
from ifpp.line.kpi_book import KpiBook
from ifpp.line.shifts import Window
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.roles.factory_access import open_factory
from ifpp.settings import Site, load_site
from ifpp.store.cycles import Cycle
from ifpp.store.factory import Factory
from ifpp.store.figures import Asked, StateTime

FORMAT = "ifpp.capacity/1.0"
_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_LAST_DAY = timedelta(days=1)


def capacity(
    site_file: Path,
    *,
    target: str,
    takt: str,
    since: str,
    shift: str,
    job: str,
    recipe: str,
    availability: float | None,
    heads_per_station: int,
    as_json: bool,
) -> None:
    """Print what was measured and what follows from it.

    Raises SettingsError COMMAND.INVALID, SHIFT.UNKNOWN; SupplyError JOB.UNKNOWN.
    """
    wanted = target_of(target, takt)
    if sum(map(bool, (since, shift, job))) > 1:
        raise SettingsError("COMMAND.INVALID", "choose one of them", where="--since, --shift, --job")
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        window = _window(site, factory, since=since, shift=shift, job=job)
        measured = _measured(site, factory, window, job=job, recipe=recipe)
    finally:
        factory.close()
    found = answer(measured, target=wanted, uptime=availability, heads_per_station=heads_per_station)
    if as_json:
        sys.stdout.write(json.dumps(document(site.line, window, measured, found), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(text(site.line, window, measured, found)) + "\n")


def target_of(target: str, takt: str) -> float | None:
    """Read "1200/h" or "3.0s" as good units an hour, None of neither; raises SettingsError COMMAND.INVALID."""
    if target and takt:
        raise SettingsError("COMMAND.INVALID", "choose one of them", where="--target, --takt")
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(/h)?", target) or re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s)?", takt)
    if (target or takt) and (found is None or float(found.group(1)) <= 0):
        where = f"--target {target}" if target else f"--takt {takt}"
        raise SettingsError(
            "COMMAND.INVALID", "give good units an hour as 1200/h, or seconds a unit as 3.0s", where=where
        )
    if found is None or not (target or takt):
        return None
    return float(found.group(1)) if target else 3600 / float(found.group(1))


def _window(site: Site, factory: Factory, *, since: str, shift: str, job: str) -> Window:
    """Return the stretch of time that was asked for; by default the day that ended with the line's last unit."""
    book, now = KpiBook(site, factory), datetime.now(UTC)
    if shift:
        return book.shifts.named(shift, now)
    if job:
        if (found := book.job(job)) is None:
            raise SupplyError("JOB.UNKNOWN", f"nothing was done for job order {job!r}", where="--job")
        return found
    last = factory.figures.last_end(site.line)
    if last is None:
        raise SettingsError("COMMAND.INVALID", f"line {site.line} has made nothing yet", where=site.store.database)
    end = last + timedelta(milliseconds=1)
    start = _since(since, now) if since else end - _LAST_DAY
    if start >= end:
        raise SettingsError("COMMAND.INVALID", f"the last unit ended at {utc_ms_text(last)}", where=f"--since {since}")
    return Window("since", since or "the last day of work", start, end, book.shifts.breaks(start, end))


def _since(since: str, now: datetime) -> datetime:
    """Read "90min" back from now, or a moment (RFC 3339)."""
    if (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|min|h|d)", since)) is not None:
        return now - timedelta(seconds=float(found.group(1)) * _UNITS_S[found.group(2)])
    try:
        return parse_utc(since)
    except ValueError as error:
        detail = "give a time back as 90min, 8h or 2d, or a moment as 2026-03-02T06:00:00Z"
        raise SettingsError("COMMAND.INVALID", detail, where=f"--since {since}") from error


def _measured(site: Site, factory: Factory, window: Window, *, job: str, recipe: str) -> Measured:
    jobs = {one.job_order_id: one for one in factory.jobs(site.line)}
    worked = factory.figures.worked(site.line, window.start, window.end)
    worked.cycles[:] = [
        one
        for one in worked.cycles
        if (not job or one.job == job) and (not recipe or (one.job in jobs and jobs[one.job].recipe.name == recipe))
    ]
    return measure(worked, jobs, _states(site, factory, window, worked.cycles, job))


def _states(site: Site, factory: Factory, window: Window, cycles: Sequence[Cycle], job: str) -> Iterator[StateTime]:
    """Give the time of heads by E10 state, from their station's first seating to its last verdict.

    A station that has ended its work is not down, whatever became of its readers since.
    """
    for station in sorted({one.station for one in cycles}):
        own = [one for one in cycles if one.station == station]
        start, end = (_moment(ms) for ms in (min(o.began_ms for o in own), max(o.ended_ms for o in own) + 1))
        pieces = tuple(replace(window, start=start, end=end).pieces(end))
        counted = factory.figures.count(Asked(site.line, start, end, end, pieces, job))
        heads = {one.head for one in own}
        yield from (row for row in counted.states if row.station == station and row.head in heads)


def _moment(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


# ---- words ------------------------------------------------------------------------------------------------


def document(line: str, window: Window, measured: Measured, found: Answer) -> dict[str, Any]:
    """What `--json` prints: seconds, and good units an hour; `measured` says of how many each figure is."""
    derived = {
        "delivered": measured.delivered,
        "seconds_of_a_head": measured.parts.total,
        "stations": measured.stations,
        "more_units_for_5_percent": measured.more_units,
    }
    return {
        "format": FORMAT,
        "line": line,
        "from": utc_ms_text(window.start),
        "to": utc_ms_text(window.end),
        "measured": asdict(measured) | derived,
        "answer": asdict(found),
        "limits": {"store": "not measured here", "supervisor": "not measured here", "people": "not measured here"},
    }


def text(line: str, window: Window, measured: Measured, found: Answer) -> Iterator[str]:
    """The same for people."""
    yield f"line {line}, {window.name}: {utc_ms_text(window.start)} to {utc_ms_text(window.end)}"
    yield from _seen(measured)
    yield from _time_of_a_head(measured.parts, measured, found)
    fed = measured.delivered / found.rate_now
    heads, stations = _number(len(measured.heads), "head"), _number(measured.stations, "station")
    yield (
        f"{heads} at {stations} make {found.rate_now:,.0f} good units an hour when they are fed; "
        f"{measured.delivered:,.0f} were delivered ({100 * fed:.0f} %)"
    )
    if found.target is not None:
        yield from _answer(measured, found)
    yield "what to do next, by the same model" + (
        "" if found.target is None else "; behind it the heads the target takes"
    )
    for option in found.options:
        needed = "" if option.heads_needed is None else f"  {option.heads_needed:3} heads"
        note = f" (assumed: {option.assumed})" if option.assumed else ""
        kind = "buy " if option.buys else "mend"
        gain = f"{option.gain:+9,.0f}/h {100 * option.gain / found.rate_now:+6.1f} %"
        yield f"  {kind} {gain}{needed}  {option.what}{note}"


def _seen(measured: Measured) -> Iterator[str]:
    ends = ", ".join(f"{count} {name}" for name, count in measured.not_passed.items()) or "none"
    yield f"  units      {measured.good} good of {measured.attempts} attempts; not passed: {ends}"
    for one in measured.products:
        if one.load is None or one.parts is None:
            yield f"  product    {one.name}: {one.attempts} attempts, none good"
            continue
        few = "" if one.good >= MIN_UNITS else "  (few)"
        yield f"  product    {one.name}: {one.good} good, {one.kilobytes:.1f} kB each{few}"
        yield f"    load     {_spread(one.load)}; {one.parts.total:.2f} s of a head for a good unit"
    count, seconds = measured.long_changes
    long_ones = f"; {count} of more than {LONG} medians are waits for a unit ({seconds:.1f} s)" if count else ""
    yield f"  change     of units: {_spread(measured.change)}{long_ones}"
    yield (
        f"  waiting    for a unit or a person {_share(measured.waited_units)}, "
        f"for the store {_share(measured.waited_store)} of the heads' planned time"
    )
    yield f"  uptime     {_share(measured.uptime)} of planned time not down (E10), all heads"
    yield (
        f"  store      {measured.claims_per_s} claims in its busiest second; what store, supervisor and people can "
        "take at most: not measured here"
    )


def _time_of_a_head(parts: Parts, measured: Measured, found: Answer) -> Iterator[str]:
    yield f"a good unit takes {parts.total:.3f} s of a head (+- {measured.margin_s:.3f} s, 95 %)"
    whole = sum(found.shares.values())
    for name, seconds in sorted(found.shares.items(), key=lambda item: -item[1]):
        if seconds:
            mark = "  <- the bottleneck" if name == found.bottleneck else ""
            yield f"  {name:27}{seconds:9.3f} s {100 * seconds / whole:5.1f} %{mark}"
    if measured.more_units:
        yield f"  {measured.more_units} more good units tell it within 5 %"


def _answer(measured: Measured, found: Answer) -> Iterator[str]:
    exact, high = found.exact or 0.0, found.exact_high or 0.0
    yield (
        f"TARGET {found.target:,.0f} an hour, a unit each {3600 / (found.target or 1):.2f} s: "
        f"{_number(found.heads or 0, 'head')}, {_number(found.stations or 0, 'station')} of {found.heads_per_station}"
    )
    yield (
        f"  {found.target:,.0f}/h x {measured.parts.total:.3f} s / 3600 / {100 * found.uptime:.1f} % uptime = "
        f"{exact:.2f} heads, up to {high:.2f} with the margin; a head is whole, so {found.heads}"
    )
    yield "  heads work side by side, none waits for another: the mean of their time counts, not how it varies"
    yield f"  with one of them down: {found.rate_one_down or 0:,.0f} an hour"


def _spread(one: Spread) -> str:
    return f"p50 {one.p50:.3f} s, p95 {one.p95:.3f} s, mean {one.mean:.3f} s (n = {one.n})"


def _share(value: float | None) -> str:
    return "not measured here" if value is None else f"{100 * value:.1f} %"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
