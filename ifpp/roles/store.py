"""`ifpp store`: serve packages, take files in; `ifpp report`: what the SM-DPf is told, and whether it heard."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from ifpp.line.intake import import_file
from ifpp.line.report import write_reports as write_loading_reports
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import load_trust, open_factory, run_until_stopped, say_ready
from ifpp.settings import load_site
from ifpp.storefront.app import build_app
from ifpp.storefront.server import serve as serve_http

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def serve(site_file: Path) -> None:
    """Serve the store until told to stop; raises IfppError when it cannot start."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="store")

    async def main(stop: asyncio.Event) -> None:
        app = build_app(factory, SystemClock(), Metrics(Role.STORE))
        await serve_http(
            app, site.store.host, site.store.port, stop=stop, ready=lambda port: say_ready("store", port=port)
        )

    try:
        run_until_stopped(main)
    finally:
        factory.close()


def import_files(site_file: Path, files: list[Path], *, dry_run: bool) -> None:
    """Verify files and take them in, each whole or not at all; stops at the first refused one."""
    site = load_site(site_file)
    trust = load_trust(site, site_file)
    factory = open_factory(site, site_file, writer="intake")
    try:
        for path in files:
            report = import_file(
                path,
                factory,
                trust,
                now=datetime.now(UTC),
                line=site.line,
                dry_run=dry_run,
                progress=_progress if sys.stderr.isatty() else None,
            )
            _print(f"{report.outcome:17} {report.kind:6} {report.items:7} items  {path}")
    finally:
        factory.close()


def write_reports(site_file: Path, folder: Path) -> None:
    """Write a Profile Loading Report for each SM-DPf over everything taken so far."""
    factory = open_factory(load_site(site_file), site_file, writer="report")
    try:
        now = datetime.now(UTC)
        for report in write_loading_reports(factory, folder, start=_EVER, end=now, now=now):
            _print(f"{report.items:7} items, {report.outstanding} outstanding  {report.path}")
    finally:
        factory.close()


def acknowledge(site_file: Path, report_id: str, told_by: str) -> None:
    """Keep that an SM-DPf has taken a report; raises CustodyError REPORT.UNKNOWN."""
    factory = open_factory(load_site(site_file), site_file, writer="report")
    try:
        at, first = factory.acknowledge_report(report_id, told_by, datetime.now(UTC))
    finally:
        factory.close()
    _print(f"report {report_id}: taken by its SM-DPf, as {first} said at {at}")


def _progress(phase: str, items: int) -> None:
    sys.stderr.write(f"\r{phase} {items} ...\x1b[K")
    sys.stderr.flush()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
