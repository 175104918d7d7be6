"""The factory database as the settings name it; apart from `runtime`, since most processes have none."""

from __future__ import annotations

from pathlib import Path

from ifpp.roles.runtime import beside
from ifpp.settings import Site
from ifpp.store.denylist import Learning
from ifpp.store.factory import Factory


def open_factory(site: Site, site_file: Path, *, writer: str) -> Factory:
    """Open the factory database; `writer` names the chain of the audit log for what this process changes."""
    learning = Learning(site.denylist.failures, site.denylist.refuse)
    url, required = database_url(site, site_file), site.quota.required
    return Factory.open(url, writer=writer, learning=learning, orders_required=required)


def database_url(site: Site, site_file: Path) -> str:
    """Return the URL of the factory database; a relative SQLite path is relative to the site file."""
    prefix, url = "sqlite:///", site.store.database
    if url.startswith(prefix) and not url.startswith(prefix + "/"):
        url = prefix + str(beside(site_file, url.removeprefix(prefix)))
    return url
