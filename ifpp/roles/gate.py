"""`ifpp gate`: what a job order has shown, its release by a person, its changeovers."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from ifpp.line.first_article import CHANGEOVER, RELEASE, GateStanding, check_release, standing
from ifpp.line.request import job_named
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.settings import Site, load_site
from ifpp.store.factory import Factory
from ifpp.store.releases import Release


def show(site_file: Path, job: str) -> int:
    """Print how a job order stands; 0 when it is released or no gate is set, else 1. Raises SupplyError JOB.UNKNOWN."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        found = _standing(site, factory, job)
    finally:
        factory.close()
    setup = f", changeover {found.setup}" if found.setup else ""
    released = f"released by {found.released}" if found.released else "not released"
    _print(f"job order {job}{setup}: {released if found.is_set else 'no gate set'}")
    for station, shown in found.shown.items():
        _print(
            f"  {station}: {len(shown.in_a_row)} units passed in a row; golden units: {', '.join(shown.golden) or '-'}"
        )
    for word in found.missing:
        _print(f"  missing: {word}")
    return 0 if found.is_open else 1


def release(site_file: Path, job: str, by: str, reason: str) -> None:
    """Release a job order that has shown what it makes. Raises CustodyError GATE.NOT_SHOWN, SupplyError JOB.UNKNOWN."""
    _decide(site_file, job, RELEASE, "", by, reason)


def changeover(site_file: Path, job: str, setup: str, by: str, reason: str) -> None:
    """Say that a job order is set up anew: it has to show its first articles again. Raises SupplyError JOB.UNKNOWN."""
    _decide(site_file, job, CHANGEOVER, setup, by, reason)


def _decide(site_file: Path, job: str, decision: str, setup: str, by: str, reason: str) -> None:
    check_person(by, reason)
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        found = _standing(site, factory, job)
        if decision == RELEASE:
            check_release(found)
        units = sorted({unit for shown in found.shown.values() for unit in (*shown.in_a_row, *shown.golden)})
        made = Release(job, setup or found.setup, decision, " ".join(units), by.strip(), reason.strip())
        number = factory.figures.release_job(made, datetime.now(UTC))
    finally:
        factory.close()
    _print(f"job order {job}: {decision.lower()} {number} on record")


def _standing(site: Site, factory: Factory, job: str) -> GateStanding:
    order = job_named(factory, site.line, job)
    figures = factory.figures
    return standing(job, site.gate, figures.shown_articles(job), figures.job_releases(job), order.stations)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
