"""A disk that is full while a backup is made: a clear word, nothing at its name or left over, and later it works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import CustodyError
from ifpp.log import Secret
from ifpp.store.backup import backup, restore
from ifpp.store.factory import Factory
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import Purpose
from tests.clock import START
from tests.real.postgres import Postgres
from tests.real.small_disk import SmallDisk, small_disk
from tests.store.world import request, stock


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[SoftwareKeys]:
    made = SoftwareKeys.create(tmp_path / "keys.ifpp", Secret(b"1234"))
    made.generate(Purpose.BACKUP)
    yield made
    made.close()


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """A database of its own: pg_dump looks at all of one, and locks it."""
    return postgres_server.own_database()


def filled(url: str) -> None:
    with closing(Factory.open(url)) as factory:
        stock(factory, 20)


def refused(url: str, file: Path, disk: SmallDisk, keys: SoftwareKeys | None = None) -> None:
    before = sorted(path.name for path in disk.folder.rglob("*"))
    with pytest.raises(CustodyError, match=r"FILE\.WRITE: .*[Nn]o space|FILE\.WRITE: .*full"):
        backup(url, file, START, keys)
    assert not file.exists()
    assert sorted(path.name for path in disk.folder.rglob("*")) == before


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_where_the_backup_goes(url: str, tmp_path: Path, keys: SoftwareKeys, sealed: bool) -> None:
    filled(url)
    with small_disk(tmp_path / "disk", size_kb=64) as disk:
        refused(url, disk.folder / "backup", disk, keys if sealed else None)
    file = tmp_path / "backup"
    backup(url, file, START, keys if sealed else None)
    if url.startswith("sqlite"):
        again = f"sqlite:///{tmp_path / 'again.db'}"
        restore(file, again, START, lambda: keys)
        with closing(Factory.open(again)) as factory:
            assert factory.audit() == []


@pytest.mark.parametrize("room_kb", [0, 256, 1024])
def test_where_the_database_is(tmp_path: Path, room_kb: int) -> None:
    """The copy is made and proved beside it, while the store works."""
    with small_disk(tmp_path / "disk", size_kb=4096) as disk:
        url, file = f"sqlite:///{disk.folder / 'factory.db'}", tmp_path / "backup"
        filled(url)
        with closing(Factory.open(url)) as factory:
            disk.fill()
            ballast = disk.folder / "ballast"
            os.truncate(ballast, ballast.stat().st_size - room_kb * 1024)
            refused(url, file, disk)
            assert factory.audit() == []
            disk.clear()
            backup(url, file, START)
            assert factory.claim(request(1), START).packages
    assert file.stat().st_size > 256 * 1024
