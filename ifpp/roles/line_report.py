"""`ifpp report shift|job`: what a shift or a job order came to, for people to look at."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from ifpp.errors import SettingsError, SupplyError
from ifpp.line.kpi_book import KpiBook
from ifpp.line.report_data import LineReport, make_report
from ifpp.line.report_html import as_html
from ifpp.line.report_text import as_csv, as_text
from ifpp.roles.factory_access import open_factory
from ifpp.settings import load_site


class Form(StrEnum):
    HTML = "html"
    CSV = "csv"
    JSON = "json"
    TEXT = "text"


def form_of(*, csv: bool, json: bool, text: bool) -> Form:
    """Return the form that was asked for, a page by default. Raises SettingsError COMMAND.INVALID for two of them."""
    wanted = [form for form, asked in ((Form.CSV, csv), (Form.JSON, json), (Form.TEXT, text)) if asked]
    if len(wanted) > 1:
        raise SettingsError("COMMAND.INVALID", "choose one of them", where="--csv, --json, --text")
    return wanted[0] if wanted else Form.HTML


def report(site_file: Path, *, form: Form, out: Path | None, shift: str = "", job: str = "") -> None:
    """Write a report to a file or the standard output.

    Raises SettingsError SHIFT.UNKNOWN, COMMAND.INVALID; SupplyError JOB.UNKNOWN.
    """
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        book, now = KpiBook(site, factory), datetime.now(UTC)
        window = book.job(job) if job else book.shifts.named(shift, now)
        if window is None:
            raise SupplyError("JOB.UNKNOWN", f"nothing was done for job order {job!r}", where="report job")
        made = make_report(site, factory, window, now, job=job)
    finally:
        factory.close()
    text = _written(made, form)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise SettingsError("COMMAND.INVALID", f"cannot be written ({error.strerror})", where=f"--out {out}") from error


def _written(made: LineReport, form: Form) -> str:
    if form is Form.HTML:
        return as_html(made)
    if form is Form.CSV:
        return as_csv(made)
    return made.as_json() + "\n" if form is Form.JSON else as_text(made)
