"""`ifpp quality`: how long loads take by what they depend on; freezing the limits of their charts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.line.quality import Chart, chart, limits_from, strata
from ifpp.line.spc import MIN_SUBGROUPS
from ifpp.model.clock import utc_ms_text
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.settings import load_site


def show_quality(site_file: Path, *, hours: float, limit: float, as_json: bool) -> None:
    """Print the charts of the loads of the last `hours`; `limit` in seconds per kilobyte, 0 = none."""
    site, now = load_site(site_file), datetime.now(UTC)
    factory = open_factory(site, site_file, writer="desk")
    try:
        loads = factory.figures.load_times(site.line, now - timedelta(hours=hours), now)
        frozen = factory.figures.chart_limits(site.line)
    finally:
        factory.close()
    charts = [chart(name, heads, frozen.get(name), limit) for name, heads in sorted(strata(loads).items())]
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in charts], indent=2) + "\n")
        return
    for one in charts:
        sys.stdout.write("\n".join(_text(one)) + "\n")
    if not charts:
        sys.stdout.write("no package was installed in that time\n")


def freeze(site_file: Path, *, hours: float, by: str, reason: str) -> None:
    """Freeze limits for every stratum with enough subgroups. Raises SettingsError COMMAND.INVALID."""
    check_person(by, reason)
    site, now = load_site(site_file), datetime.now(UTC)
    start = now - timedelta(hours=hours)
    factory = open_factory(site, site_file, writer="desk")
    try:
        sorted_loads = strata(factory.figures.load_times(site.line, start, now))
        made = [limits_from(name, heads, utc_ms_text(start), utc_ms_text(now)) for name, heads in sorted_loads.items()]
        for limits in made:
            if limits is not None:
                version = factory.figures.freeze_limits(site.line, limits, by.strip(), reason.strip(), now)
                sys.stdout.write(f"{limits.stratum}: limits {version}, from {limits.subgroups} subgroups\n")
    finally:
        factory.close()
    if not any(made):
        raise SettingsError("COMMAND.INVALID", f"no stratum has {MIN_SUBGROUPS} subgroups of 5 loads", where="--hours")


def _text(one: Chart) -> Iterator[str]:
    limits = f"limits {one.limits_version}" if one.limits_version else "no frozen limits"
    yield f"{one.stratum}: {one.seconds_per_kb:.4f} s/kB, {one.n} loads, {one.subgroups} subgroups, {limits}"
    if one.capability is None:
        yield f"  capability  none: {one.why_no_capability}"
    else:
        found = one.capability
        bound = f"Ppu {found.ppu:.2f} (at least {found.ppu_low:.2f} with 95 %)"
        yield f"  capability  Cpu {found.cpu:.2f}, {bound}, by percentiles {found.percentile:.2f}; n = {found.n}"
    yield from (f"  OPERATOR    {call}" for call in one.operator_calls)
    yield from (f"  engineer    {call}" for call in one.engineer_calls)
    for head in one.heads:
        if head.differs:
            yield f"  head        {head.head} takes {head.ratio:.2f} times as long as the others (p = {head.p:.2g})"
