"""The file of packages kept at a station: what goes in comes out, and what is damaged or foreign is refused."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from ifpp.errors import CustodyError
from ifpp.model.messages import Claim
from ifpp.station.cache import Cache, Wanted
from ifpp.station.journal import Journal
from tests.clock import START, FakeClock
from tests.real.small_disk import small_disk
from tests.station.test_attempt import PACKAGE

WANTED = Wanted("TRACKER", "EU", "acme", "JO-1")
BPP = b"package " * 1000
DIGEST = sha256(BPP).hexdigest()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def cache(path: Path, clock: FakeClock) -> Iterator[Cache]:
    opened = Cache.open(path, "st01", clock)
    yield opened
    opened.close()


def claim(eid: str = "eid-1", lease_id: str = "lease-1", digest: str = DIGEST) -> Claim:
    package = msgspec.structs.replace(PACKAGE, package_id=f"package of {eid}", bpp_sha256=digest)
    return Claim(
        attempt_id=lease_id,
        eid=eid,
        lease_until="",
        euicc_certificate_b64="",
        eum_chain_b64=[],
        packages=[package],
        denied={"operational": ["1.2"]},
    )


def keep(cache: Cache, clock: FakeClock, eid: str = "eid-1", hours: float = 8, bpp: bytes = BPP) -> None:
    digest = sha256(bpp).hexdigest()
    cache.keep(claim(eid, f"lease of {eid}", digest), WANTED, clock.now() + timedelta(hours=hours), {digest: bpp})


def refusal(path: Path, station_id: str = "st01") -> CustodyError:
    before = path.read_bytes()
    with pytest.raises(CustodyError) as caught:
        Cache.open(path, station_id, FakeClock())
    assert path.read_bytes() == before  # nothing was lost
    return caught.value


def test_what_is_kept_is_there_after_a_start(path: Path, clock: FakeClock) -> None:
    first = Cache.open(path, "st01", clock)
    keep(first, clock)
    first.close()
    again = Cache.open(path, "st01", clock)
    found, lease = again.claim("eid-1"), again.lease("eid-1")
    assert found == claim(lease_id="lease of eid-1")
    assert again.package(DIGEST) == BPP
    assert lease is not None
    assert (lease.until, lease.kept_at) == ("2026-03-01T16:00:00.000Z", "2026-03-01T08:00:00.000Z")
    assert lease.wanted == WANTED
    assert again.leases() == [lease]
    again.close()


def test_what_is_not_kept_is_none(cache: Cache) -> None:
    assert (cache.claim("eid-1"), cache.lease("eid-1"), cache.package(DIGEST)) == (None, None, None)
    assert (cache.leases(), cache.holding().units, cache.job()) == ([], 0, None)


def test_a_chip_has_one_claim_and_dropping_it_drops_its_packages(cache: Cache, clock: FakeClock) -> None:
    keep(cache, clock, bpp=b"an older package")
    keep(cache, clock)
    assert cache.package(sha256(b"an older package").hexdigest()) is None
    assert cache.holding().units == 1
    cache.relet("eid-1", "lease-2")
    relet = cache.claim("eid-1")
    assert relet is not None
    assert relet.attempt_id == "lease-2"
    cache.drop("eid-1")
    assert (cache.claim("eid-1"), cache.package(DIGEST)) == (None, None)


def test_what_it_holds(cache: Cache, clock: FakeClock) -> None:
    keep(cache, clock, "eid-1", hours=8)
    clock.advance(60)
    keep(cache, clock, "eid-2", hours=1, bpp=b"another")
    holding = cache.holding()
    assert (holding.units, holding.oldest_at) == (2, "2026-03-01T08:00:00.000Z")
    assert holding.first_until == "2026-03-01T09:01:00.000Z"
    assert [lease.eid for lease in cache.leases()] == ["eid-2", "eid-1"]


def test_what_the_line_said_last_is_kept(cache: Cache) -> None:
    cache.remember_job(b'{"jobs":[]}')
    cache.remember_job(b'{"jobs":[1]}')
    assert cache.job() == b'{"jobs":[1]}'


def test_time_does_not_step_back_with_the_clock(path: Path, clock: FakeClock) -> None:
    cache = Cache.open(path, "st01", clock)
    clock.advance(3600)
    clock._start -= timedelta(hours=5)
    assert cache.now() == START + timedelta(hours=1)
    clock._start += timedelta(hours=9)
    assert cache.now() == START + timedelta(hours=5)
    cache.close()


def test_a_clock_set_back_between_two_starts_ends_every_lease(path: Path, clock: FakeClock) -> None:
    cache = Cache.open(path, "st01", clock)
    keep(cache, clock)
    clock.advance(3600)
    cache.remember_time()
    cache.close()
    for hours, until in ((1, "2026-03-01T16:00:00.000Z"), (0.9, ""), (2, "")):
        later = Cache.open(path, "st01", FakeClock(START + timedelta(hours=hours)))
        (lease,) = later.leases()
        assert lease.until == until
        later.close()


def test_another_process_of_the_station_is_refused(cache: Cache, path: Path, clock: FakeClock) -> None:
    with pytest.raises(CustodyError) as caught:
        Cache.open(path, "st01", clock)
    assert caught.value.code == "CACHE.IN_USE"


def test_the_cache_of_another_station_is_refused(tmp_path: Path, path: Path, clock: FakeClock) -> None:
    other = tmp_path / "other.db"
    cache = Cache.open(other, "st02", clock)
    keep(cache, clock)
    cache.close()
    shutil.copy(other, path)
    refused = refusal(path)
    assert refused.code == "CACHE.FOREIGN"
    assert "st02" in refused.detail


def test_a_newer_cache_is_refused(path: Path, clock: FakeClock) -> None:
    Cache.open(path, "st01", clock).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 99")
    assert refusal(path).code == "CUSTODY.SCHEMA_NEWER"


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path, path: Path, clock: FakeClock) -> None:
    path.write_bytes(b"not a database, whatever it is called " * 200)
    assert refusal(path).code == "CACHE.CORRUPT"
    Journal.open(tmp_path / "journal.db", "st01", clock).close()
    assert refusal(tmp_path / "journal.db").code in ("CACHE.CORRUPT", "CUSTODY.SCHEMA_NEWER")


def test_a_damaged_cache_is_refused(path: Path, clock: FakeClock) -> None:
    cache = Cache.open(path, "st01", clock)
    for number in range(20):
        keep(cache, clock, f"eid-{number}", bpp=b"%d" % number * 9000)
    cache.close()
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    assert refusal(path).code == "CACHE.CORRUPT"


@pytest.mark.parametrize("change", ["UPDATE package SET bpp = x'00'", "UPDATE unit SET claim = x'7b7d'"])
def test_content_that_is_not_what_was_kept_is_not_given_out(path: Path, clock: FakeClock, change: str) -> None:
    cache = Cache.open(path, "st01", clock)
    keep(cache, clock)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(change)
        raw.commit()
    ask = (lambda: cache.package(DIGEST)) if "package" in change else (lambda: cache.claim("eid-1"))
    with pytest.raises(CustodyError) as caught:
        ask()
    assert caught.value.code == "CACHE.CORRUPT"
    cache.close()


def test_a_full_disk_keeps_what_was_kept(tmp_path: Path, clock: FakeClock) -> None:
    with small_disk(tmp_path / "disk", size_kb=512) as disk:
        cache = Cache.open(disk.folder / "cache.db", "st01", clock)
        keep(cache, clock)
        disk.fill()
        with pytest.raises(CustodyError) as caught:
            keep(cache, clock, "eid-2", bpp=bytes(100_000))
        assert caught.value.code == "CACHE.WRITE"
        assert cache.package(DIGEST) == BPP
        assert cache.holding().units == 1
        disk.clear()
        keep(cache, clock, "eid-2", bpp=bytes(100_000))
        assert cache.holding().units == 2
        cache.close()
