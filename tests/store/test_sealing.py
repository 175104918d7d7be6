"""Sealed backups: the factory in one file that only the backup key opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, ServiceError
from ifpp.log import Secret
from ifpp.store.backup import backup, restore
from ifpp.store.factory import Factory
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import KeyProvider, Purpose
from tests.clock import START
from tests.real.postgres import Postgres
from tests.store.world import later, package_item, stock

NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    names = iter("abcdef")
    if request.param == "sqlite":
        (tmp_path / "databases").mkdir()
        return lambda: f"sqlite:///{tmp_path / 'databases' / next(names)}.db"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.own_database


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[SoftwareKeys]:
    made = SoftwareKeys.create(tmp_path / "keys.ifpp", Secret(b"1234"))
    made.generate(Purpose.BACKUP)
    yield made
    made.close()


def factory_with_stock(url: str) -> str:
    with closing(Factory.open(url)) as factory:
        stock(factory, 3)
        return factory.factory_id


def refused(path: Path, url: str, keys: KeyProvider | None) -> str:
    with pytest.raises(CustodyError) as caught:
        restore(path, url, later(2), lambda: keys)
    return caught.value.code


def test_a_sealed_backup_is_restored_by_its_key_and_tells_nothing(
    new_database: NewDatabase, keys: SoftwareKeys, tmp_path: Path
) -> None:
    url, place, again = new_database(), tmp_path / "carried", new_database()
    place.mkdir()
    factory_id = factory_with_stock(url)
    written = backup(url, place / "sealed", later(1), keys)
    assert [path.name for path in place.iterdir()] == ["sealed"]
    content = (place / "sealed").read_bytes()
    assert written.size == len(content)
    item = package_item(1)
    for secret in (b"SQLite format 3", b"PGDMP", factory_id.encode(), item.bpp[:40], item.eid.encode()):
        assert secret not in content
    keys.generate(Purpose.BACKUP)  # a newer one works for new backups; this one opens what it sealed
    assert restore(place / "sealed", again, later(2), lambda: keys).factory_id == factory_id
    with closing(Factory.open(again)) as factory:
        assert factory.audit() == []
        assert factory.package_bytes(package_item(1).bpp_sha256) == package_item(1).bpp


def test_a_changed_cut_or_foreign_one_is_refused_before_anything_is_written(
    new_database: NewDatabase, keys: SoftwareKeys, tmp_path: Path
) -> None:
    url, sealed, again = new_database(), tmp_path / "sealed", new_database()
    factory_with_stock(url)
    backup(url, sealed, later(1), keys)
    content = sealed.read_bytes()
    middle, head = len(content) // 2, content.index(b"\n")
    for changed in (
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        content[:middle],
        content[:-1],
        content + b"x",
        content[:head],
        content.replace(b'"wrapped":"', b'"wrapped":"AAAA', 1),
    ):
        sealed.write_bytes(changed)
        assert refused(sealed, again, keys) == "ENVELOPE.BROKEN"
    sealed.write_bytes(content)
    assert refused(sealed, again, None) == "ENVELOPE.KEY"
    other = SoftwareKeys.create(tmp_path / "other.ifpp", Secret(b"1234"))
    assert refused(sealed, again, other) == "ENVELOPE.KEY"
    other.generate(Purpose.BACKUP)
    assert refused(sealed, again, other) == "ENVELOPE.KEY"
    keys.generate(Purpose.BACKUP)
    keys.destroy("backup.1")
    assert refused(sealed, again, keys) == "ENVELOPE.KEY"
    if again.startswith("sqlite"):
        assert [path.name for path in (tmp_path / "databases").iterdir() if path.name.startswith("b.")] == []
    factory_with_stock(again)  # the place is as empty as it was


def test_without_its_key_nothing_of_a_backup_stays(
    new_database: NewDatabase, keys: SoftwareKeys, tmp_path: Path
) -> None:
    class Away(SoftwareKeys):
        def wrap(self, content_key: Secret) -> tuple[str, bytes]:
            raise ServiceError("KEYS.UNREACHABLE", "pulled out", where="token")

    url, place = new_database(), tmp_path / "carried"
    place.mkdir()
    factory_with_stock(url)
    with pytest.raises(ServiceError) as caught:
        backup(url, place / "sealed", later(1), Away.open(tmp_path / "keys.ifpp", Secret(b"1234")))
    assert caught.value.code == "KEYS.UNREACHABLE"
    assert list(place.iterdir()) == []
    if url.startswith("sqlite"):
        assert not [path for path in (tmp_path / "databases").iterdir() if path.name.startswith(".backup-")]


def test_what_cannot_be_opened_again_is_no_backup(keys: SoftwareKeys, tmp_path: Path) -> None:
    class Forgetful(SoftwareKeys):
        def wrap(self, content_key: Secret) -> tuple[str, bytes]:
            return super().wrap(Secret(bytes(32)))

    url = f"sqlite:///{tmp_path / 'a.db'}"
    factory_with_stock(url)
    forgetful = Forgetful.open(tmp_path / "keys.ifpp", Secret(b"1234"))
    with pytest.raises(CustodyError) as caught:
        backup(url, tmp_path / "sealed", START, forgetful)
    assert caught.value.code == "ENVELOPE.BROKEN"
    assert not (tmp_path / "sealed").exists()
