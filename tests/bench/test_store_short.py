"""The benchmark of the store in small: its databases are sound, and its whole way is gone; no figure is judged."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.store.factory import Factory
from tests.bench import stock, store
from tests.clock import START
from tests.store.conftest import postgres_server, postgres_url, sqlite_url, url

__all__ = ["postgres_server", "postgres_url", "sqlite_url", "url"]


def unsound(factory: Factory) -> list[str]:
    """What is wrong with the books, but for what the audit log knows nothing of."""
    return [line for line in factory.audit() if "audit log" not in line]


def test_what_is_written_past_the_intake_is_sound(url: str) -> None:
    stock.fill(url, 50, package_bytes=45_000)
    with closing(Factory.open(url)) as factory:
        assert unsound(factory) == []
        (balance,) = factory.balance()
        assert (balance.imported, balance.available, balance.holds) == (50, 50, True)
        (level,) = factory.stock_levels(START)
        assert level.chips == 50
        (package,) = factory.claim(store._request(7, "st01"), START).packages
        assert (package.bpp_sha256, package.bytes) == (stock.sha256(7), 45_000)
        assert len(factory.package_bytes(package.bpp_sha256)) == 45_000
        assert unsound(factory) == []


def test_the_benchmark_goes_its_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = iter(f"sqlite:///{tmp_path}/{name}.db" for name in ("small", "large"))
    store._claims("SQLite", lambda: next(urls), 40, 80)
    asyncio.run(store._service("SQLite", f"sqlite:///{tmp_path}/served.db", tmp_path, 80))
    shown = capsys.readouterr().out
    for figure in (
        "SQLite: claims, 80 / 40 packages",
        "SQLite: claims a second, 80 packages",
        "SQLite: stock levels, 80 packages",
        "SQLite: longest / median wait, 16 stations",
        "SQLite: packages of 45 kB handed out a second",
    ):
        assert figure in shown
    with closing(Factory.open(f"sqlite:///{tmp_path}/served.db")) as factory:
        assert unsound(factory) == []
        (balance,) = factory.balance()
        assert (balance.claimed, balance.holds) == (80, True)
