"""`ifpp kpi`: the line's figures, counted from its database now."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SupplyError
from ifpp.line.kpi_book import KpiBook, Written
from ifpp.model.kpi import Figures
from ifpp.roles.factory_access import open_factory
from ifpp.settings import load_site


def show_kpi(site_file: Path, *, shift: str, job: str, as_json: bool) -> None:
    """Print the figures of a shift, or of a job order. Raises SettingsError SHIFT.UNKNOWN, SupplyError JOB.UNKNOWN."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        book, now = KpiBook(site, factory), datetime.now(UTC)
        window = book.job(job) if job else book.shifts.named(shift, now)
        if window is None:
            raise SupplyError("JOB.UNKNOWN", f"nothing was done for job order {job!r}", where="--job")
        written = book.write(window, now, job=job)
    finally:
        factory.close()
    text = written.as_json() if as_json else "\n".join(_text(written))
    sys.stdout.write(text + "\n")


def _text(written: Written) -> Iterator[str]:
    content, window = written.content, written.content["window"]
    total: Figures = content["total"]
    standing = "complete" if content["complete"] else "not complete"
    yield f"{window.kind} {window.job_order_id or window.shift_id}  {window.start} to {window.end}"
    yield f"  revision {written.revision}, {standing}"
    yield from _figures(total)
    yield f"  takt            {_number(content['takt_s'])} s   RTY {_share(content['rty'])}"
    load = f"load p50 {_number(content['load_ms_p50'])}, p95 {_number(content['load_ms_p95'])} ms"
    yield f"  cycle p50       {_number(content['cycle_ms_p50'])} ms   {load}"
    for title, parts in (("station", content["stations"]), ("SKU", content["skus"]), ("job order", content["jobs"])):
        for name, one in parts.items():
            yield f"  {title:9} {name:16} good {one.good:6}  FPY {_share(one.fpy)}  {_oee(one)}"
    for code, number in content["top_defects"].items():
        yield f"  defect {number:6} x {code}"
    for code, loss in content["losses"].items():
        yield f"  lost   {loss.ms / 1000:8.0f} s  {code} ({loss.count})"


def _figures(one: Figures) -> Iterator[str]:
    yield f"  FPY             {_share(one.fpy)} ({one.first_pass} of {one.units_in}); product {_share(one.fpy_product)}"
    yield f"  final yield     {_share(one.final_yield)} ({one.final_pass} of {one.units_out})"
    again = f"re-seated {_share(one.reseat_rate)} ({one.reseats} of {one.attempts} attempts)"
    retested = f"{_share(one.retest_rate)} ({one.units_retested} units), {one.recovered} recovered"
    yield f"  retested        {retested}; {again}"
    yield f"  units an hour   {_number(one.uph)}, while productive {_number(one.uph_run)}"
    yield f"  OEE             {_oee(one)}"
    times = f"MTBF {_number(one.mtbf_s)} s, MTTR {_number(one.mttr_s)} s, down {_number(one.mdt_s)} s each"
    yield f"  failures        {one.failures}; {times}"


def _oee(one: Figures) -> str:
    if one.oee is None:
        return ""
    parts = (("A", one.oee.availability), ("P", one.oee.effectiveness), ("Q", one.oee.quality))
    return f"{_share(one.oee.oee)} = " + " x ".join(f"{name} {_share(value)}" for name, value in parts)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
