"""`ifpp store migrate | backup | restore | purge | openapi`: keeping the store, apart from serving it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.roles.factory_access import database_url, open_factory
from ifpp.roles.key_access import LateKeys
from ifpp.settings import load_site
from ifpp.store import backup as backups
from ifpp.store.migrate import make_where_none_is
from ifpp.store.migrate import migrate as take_steps
from ifpp.storefront.openapi import describe
from ifpp.trust.keyring import KeyProvider, Purpose


def migrate(site_file: Path) -> None:
    """Bring the factory database to the present schema; in an empty one of a server, make its tables."""
    url, now = database_url(load_site(site_file), site_file), datetime.now(UTC)
    if make_where_none_is(url, now):
        _print("a new database")
        return
    steps = take_steps(url, now)
    for step in steps:
        _print(f"schema {step.version}: {step.brings}")
    if not steps:
        _print("the database has the present schema")


def backup(site_file: Path, file: Path, *, seal: bool | None) -> None:
    """Write the factory database to a new file; `seal` None: sealed when [keys] has a backup key."""
    site = load_site(site_file)
    with closing(LateKeys(site.keys, site_file)) as keys:
        wanted = Purpose.BACKUP in site.keys.purposes and site.keys.provider != "none" if seal is None else seal
        provider = keys() if wanted else None
        if provider is not None and seal is None and not _has_backup_key(provider):
            provider = None
        if seal and provider is None:
            raise SettingsError("KEYS.NONE", "a sealed backup wants a backup key", where=str(site_file))
        _tell(backups.backup(database_url(site, site_file), file, datetime.now(UTC), provider))
        _print("sealed" if provider else "not sealed: whoever has this file can read it")


def restore(site_file: Path, file: Path) -> None:
    """Make the factory database from a backup."""
    site = load_site(site_file)
    with closing(LateKeys(site.keys, site_file)) as keys:
        _tell(backups.restore(file, database_url(site, site_file), datetime.now(UTC), keys))


def _has_backup_key(keys: KeyProvider) -> bool:
    found = keys.keys()
    return any(info.purpose is Purpose.BACKUP for info in found)


def purge(site_file: Path, *, days: int, dry_run: bool) -> None:
    """Let go of the bytes of packages that were settled and reported `days` days ago; the store may run meanwhile."""
    now, packages, size = datetime.now(UTC), 0, 0
    with closing(open_factory(load_site(site_file), site_file, writer="desk")) as factory:
        for count, part in factory.retention.purge(now - timedelta(days=days), now, dry_run=dry_run):
            packages, size = packages + count, size + part
    verb = "would go" if dry_run else "are gone; the database uses their room again"
    _print(f"{packages} packages, {size / 1e6:.1f} MB, {verb}")


def openapi() -> None:
    """Print the description of the HTTP interface."""
    _print(json.dumps(describe(), indent=2))


def _tell(report: backups.BackupReport) -> None:
    _print(f"{report.path}: {report.size} bytes, sha256 {report.sha256}")
    _print(f"factory {report.factory_id}, schema {report.version}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
