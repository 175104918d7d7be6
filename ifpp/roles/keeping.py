"""`ifpp store migrate | backup | restore | openapi`: keeping the store, apart from serving it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.roles.factory_access import database_url
from ifpp.roles.key_access import LateKeys
from ifpp.settings import load_site
from ifpp.store import backup as backups
from ifpp.store.migrate import migrate as take_steps
from ifpp.storefront.openapi import describe
from ifpp.trust.keyring import KeyProvider, Purpose


def migrate(site_file: Path) -> None:
    """Bring the factory database to the present schema."""
    steps = take_steps(database_url(load_site(site_file), site_file), datetime.now(UTC))
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


def openapi() -> None:
    """Print the description of the HTTP interface."""
    _print(json.dumps(describe(), indent=2))


def _tell(report: backups.BackupReport) -> None:
    _print(f"{report.path}: {report.size} bytes, sha256 {report.sha256}")
    _print(f"factory {report.factory_id}, schema {report.version}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
