"""Reports of shifts and job orders: figures are those of the KPIs, pages run nothing and escape everything."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from ifpp.line.kpi_book import KpiBook
from ifpp.line.report_data import LineReport, make_report, p_limits
from ifpp.line.report_html import as_html
from ifpp.line.report_text import as_csv, as_text, seconds
from ifpp.line.shifts import Window
from ifpp.line.svg import Bar, Range, bar_chart, range_chart
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Job
from ifpp.settings import Calendar, Shift, Site
from ifpp.store.factory import Factory
from tests.line.test_kpi import JOBS, NOW, PLANNED, T0, Stay, Try, events

EVIL = "<script>alert(1)</script>&\"'"
CALENDAR = Calendar("Europe/Berlin", (Shift("early", "07:00", "15:00", target=200),))
SITE = Site(enterprise="e", site="s", area="a", line="L1", calendar=CALENDAR, kpi=PLANNED)
VOID = {"meta"}


def tries() -> list[Try]:
    """A shift of one head; from 10:00 to 11:00 in UTC every other unit fails."""
    bad = range(4 * 3600, 5 * 3600)
    return [
        Try("st01", "h01", "A", "LOAD", f"U{at}", 1, "FAIL" if at in bad and at % 120 else "PASS", at, 50)
        for at in range(0, 8 * 3600, 60)
    ]


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    made = Factory.open(f"sqlite:///{tmp_path}/f.db")
    for name, job in [*JOBS.items(), (EVIL, replace_job("A", EVIL))]:
        with made.intake("job", name, name, T0) as intake:
            intake.add_job("L1", job)
    yield made
    made.close()


def replace_job(name: str, new: str) -> Job:
    return msgspec.structs.replace(JOBS[name], job_order_id=new)


def shift(factory: Factory) -> LineReport:
    window = KpiBook(SITE, factory).shifts.named("2026-03-02/early", NOW)
    return make_report(SITE, factory, window, NOW)


class Page(HTMLParser):
    """Checks that a page is well nested, and keeps its text and what it would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_figures_are_those_of_the_kpis(factory: Factory) -> None:
    factory.take_events(events(tries(), [Stay("st01", "h01", "PRD", 1100, 0, 28000, "UDT", 5300)]), T0)
    report = shift(factory)
    content = KpiBook(SITE, factory).write(report.window, NOW).content
    assert report.written.content == content
    told = json.loads(report.as_json())
    assert told["total"]["units_in"] == content["total"].units_in == 480
    assert told["total"]["fpy"] == content["total"].fpy
    rows = {(part, name, figure): value for part, name, figure, value in csv.reader(io.StringIO(as_csv(report)))}
    assert rows["total", "2026-03-02/early", "units_in"] == "480"
    assert float(rows["total", "2026-03-02/early", "fpy"]) == content["total"].fpy
    assert float(rows["stations", "st01", "oee.availability"]) == content["stations"]["st01"].oee.availability
    page = as_html(report)
    assert f"{100 * content['total'].fpy:.2f} %" in page
    assert f"{content['total'].good}" in page


def test_slices_add_up_to_the_shift_and_the_bad_ones_are_outside(factory: Factory) -> None:
    factory.take_events(events(tries(), []), T0)
    report = shift(factory)
    assert sum(one.units_in for one in report.time) == report.total.units_in
    assert sum(one.first_pass for one in report.time) == report.total.first_pass
    assert report.time[0].start == report.written.content["window"].start
    assert report.time[-1].end == report.written.content["window"].end
    worse = [one for one in report.time if one.outside and one.fpy is not None and one.fpy < 0.6]
    assert [one.start[11:16] for one in worse] == ["10:00", "10:30"]
    assert "! Yield below its limits from 11:00 on" in as_text(report)  # Berlin
    assert "<polygon" in as_html(report)


def test_an_empty_shift_says_so(factory: Factory) -> None:
    report = shift(factory)
    page = Page(as_html(report))
    assert "No unit was worked on." in page.words
    assert page.words.count("Nothing to show: there was none.") == 5
    assert "- No unit was worked on." in as_text(report)
    assert json.loads(report.as_json())["time"][0]["fpy"] is None


def test_a_shift_that_has_not_begun_to_end(factory: Factory) -> None:
    factory.take_events(events(tries()[:60], []), T0)
    window = KpiBook(SITE, factory).shifts.named("2026-03-02/early", NOW)
    report = make_report(SITE, factory, window, T0 + timedelta(minutes=30))
    assert report.time[-1].end == utc_ms_text(T0 + timedelta(minutes=30))
    assert "still open" in as_html(report)


def test_names_are_text_and_nothing_runs(factory: Factory) -> None:
    evil = [replace(one, job="A", head="h<b>", unit=f"{EVIL}{one.unit}") for one in tries()[:100]]
    made = events(evil, [])
    factory.take_events(made, T0)
    start = T0 - timedelta(hours=1)
    window = Window("job", EVIL, start, NOW)
    report = make_report(SITE, factory, window, NOW, job=EVIL)
    assert EVIL in "".join(Page(as_html(report)).words)
    for one in (report, shift(factory)):
        page = Page(as_html(one))
        assert not {"script", "iframe", "img", "link", "object", "form", "a", "b<"} & page.tags
        assert not {name for name in page.attributes if name.startswith("on") or name in {"src", "href"}}
        assert "default-src 'none'" in as_html(one)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", as_html(one))


def test_a_spreadsheet_runs_no_name(factory: Factory) -> None:
    window = Window("job", "=HYPERLINK(1)", T0, NOW)
    with factory.intake("job", "f", "f", T0) as intake:
        intake.add_job("L1", replace_job("A", "=HYPERLINK(1)"))
    text = as_csv(make_report(SITE, factory, window, NOW, job="=HYPERLINK(1)"))
    assert "'=HYPERLINK(1)" in text
    assert not re.search(r"(^|,)=", text, re.MULTILINE)


def test_limits_of_chance() -> None:
    assert p_limits(0.5, 100) == pytest.approx((0.35, 0.65))
    assert p_limits(0.99, 10) == pytest.approx((0.99 - 3 * (0.0099 / 10) ** 0.5, 1.0))
    assert p_limits(None, 10) == p_limits(0.5, 0) == (None, None)


def test_drawings_are_well_formed_whatever_the_names() -> None:
    bars = [Bar(EVIL, 3, "<3>", mark=5.0, alarm=True), Bar("x" * 200, 0, "")]
    ranges = [Range(EVIL, (1, 2, 3, 4, 5), ""), Range("", (0, 0, 0, 0, 0), "")]
    for drawing in (bar_chart(bars, EVIL), range_chart(ranges, "s", EVIL), range_chart([], "s", ""), bar_chart([], "")):
        assert ElementTree.fromstring(drawing).tag.endswith("svg")  # noqa: S314 - our own


def test_times_by_their_size() -> None:
    assert [seconds(one) for one in (0, 1500, 119_000, 180_000, 3_900_000)] == [
        "0.0 s",
        "1.5 s",
        "119.0 s",
        "3 min",
        "1 h 05 min",
    ]
