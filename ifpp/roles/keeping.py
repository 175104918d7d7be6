"""`ifpp store migrate | backup | restore | openapi | pki`: keeping the store, apart from serving it."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.roles.runtime import database_url
from ifpp.settings import load_site
from ifpp.store import backup as backups
from ifpp.store.migrate import migrate as take_steps
from ifpp.storefront.openapi import describe
from ifpp.trust.callers import CallerRole
from ifpp.trust.site_pki import SitePki


def migrate(site_file: Path) -> None:
    """Bring the factory database to the present schema."""
    steps = take_steps(database_url(load_site(site_file), site_file), datetime.now(UTC))
    for step in steps:
        _print(f"schema {step.version}: {step.brings}")
    if not steps:
        _print("the database has the present schema")


def backup(site_file: Path, file: Path) -> None:
    """Write the factory database to a new file."""
    _tell(backups.backup(database_url(load_site(site_file), site_file), file, datetime.now(UTC)))


def restore(site_file: Path, file: Path) -> None:
    """Make the factory database from a backup."""
    _tell(backups.restore(file, database_url(load_site(site_file), site_file), datetime.now(UTC)))


def openapi() -> None:
    """Print the description of the HTTP interface."""
    _print(json.dumps(describe(), indent=2))


def pki(folder: Path, names: list[str], *, revoke: bool) -> None:
    """Issue certificates to `store:<host>` and `<role>:<name>`, or revoke theirs; the list is renewed in any case."""
    wanted = [_split(name) for name in names]
    authority = SitePki(folder)
    if revoke:
        for kind, name in wanted:
            authority.revoke(authority.certificate(kind, name))
            _print(f"revoked  {authority.certificate(kind, name)}")
    else:
        for kind, name in wanted:
            certificate, _ = (
                authority.issue_store(name) if kind == "store" else authority.issue_caller(CallerRole(kind), name)
            )
            _print(f"issued   {certificate}")
        authority.revoke()
    _print(f"renewed  {authority.crl}")


def _split(text: str) -> tuple[str, str]:
    kind, _, name = text.partition(":")
    pattern = "[0-9A-Za-z.:-]{1,253}" if kind == "store" else "[A-Za-z0-9_-]{1,32}"
    if kind not in ("store", *CallerRole) or not re.fullmatch(pattern, name):
        detail = "name certificates store:<host> or <role>:<name>, role " + ", ".join(CallerRole)
        raise SettingsError("COMMAND.INVALID", detail, where=text[:60])
    return kind, name


def _tell(report: backups.BackupReport) -> None:
    _print(f"{report.path}: {report.size} bytes, sha256 {report.sha256}")
    _print(f"factory {report.factory_id}, schema {report.version}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
