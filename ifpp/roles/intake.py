"""`ifpp store import`: files come in, with a bar on a terminal and plain lines elsewhere; `ifpp store request`."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from ifpp.errors import SettingsError
from ifpp.line.intake import import_file
from ifpp.line.request import Wish, job_named, still_needed, write_requests
from ifpp.roles.factory_access import open_factory
from ifpp.roles.key_access import LateKeys
from ifpp.roles.quota import is_order, take_file
from ifpp.roles.runtime import load_trust
from ifpp.settings import load_site
from ifpp.store.plans import Planned

_BAR = 30
_LINE_EVERY_S = 5.0


def import_files(site_file: Path, files: list[Path], *, dry_run: bool) -> None:
    """Verify files and take them in, each whole or not at all; stops at the first refused one."""
    site = load_site(site_file)
    trust = load_trust(site, site_file)
    keys = LateKeys(site.keys, site_file)
    factory = open_factory(site, site_file, writer="intake")
    try:
        for path in files:
            if is_order(path):
                sys.stdout.write(take_file(factory, site, site_file, path, dry_run=dry_run) + "\n")
                continue
            progress = ProgressLine(sys.stderr, path.name)
            try:
                report = import_file(
                    path,
                    factory,
                    trust,
                    now=datetime.now(UTC),
                    line=site.line,
                    dry_run=dry_run,
                    progress=progress.show,
                    keys=keys,
                )
            finally:
                progress.clear()
            sys.stdout.write(f"{report.outcome:17} {report.kind:6} {report.items:7} items  {path}\n")
            sys.stdout.flush()
    finally:
        factory.close()
        keys.close()


def write_request(
    site_file: Path, folder: Path, *, job: str, lot: str, sku: str, region: str, profile_types: list[str]
) -> None:
    """Ask for what chips still lack: for a job order, or for a SKU and region."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="intake")
    try:
        quantity, customer, order_ref = None, "", lot or f"{sku}-{region}"
        if job:
            order = job_named(factory, site.line, job)
            sku, region, order_ref = order.product.part_number, order.region, job
            quantity = still_needed(factory, order)
            customer = order.customer
        plan = None if profile_types else factory.plan_for(sku, region, customer, datetime.now(UTC))
        profiles = tuple(Planned(kind) for kind in profile_types) if plan is None else plan.profiles
        if not (sku and region and profiles):
            detail = "name a job order, or SKU and region; and profile types, where no plan says them"
            raise SettingsError("COMMAND.INVALID", detail)
        wish = Wish(sku, region, profiles, job)
        report = write_requests(
            factory, folder, wish, now=datetime.now(UTC), lot=lot, quantity=quantity, order_ref=order_ref
        )
    finally:
        factory.close()
    sys.stdout.write(
        f"{report.packages} packages asked for, for {report.chips} chips; {report.covered} chips have theirs, "
        f"{report.elsewhere} are for something else, {report.short} lack one-time keys, {report.missing} units lack a "
        "chip\n"
    )
    for path in report.files:
        sys.stdout.write(f"  {path}\n")


class ProgressLine:
    """Where an import stands: one line that is written over on a terminal, else a plain line every few seconds."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._bar = stream.isatty()
        self._told = time.monotonic()

    def show(self, phase: str, items: int, share: float) -> None:
        """Say how far a phase is."""
        now = time.monotonic()
        if self._bar:
            full = round(share * _BAR)
            self._stream.write(f"\r{phase:7} [{'#' * full}{'.' * (_BAR - full)}] {share:4.0%} {items:8} items\x1b[K")
        elif now - self._told >= _LINE_EVERY_S:
            self._stream.write(f"{self._name}: {phase} {items} items, {share:.0%}\n")
            self._told = now
        self._stream.flush()

    def clear(self) -> None:
        """Make room for the next line on a terminal."""
        if self._bar:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
