"""A station without its store: what it keeps, what it loads from that, and what becomes of it when the store is back.

The store is real and so is its client; it is "away" when the client is led to a port nobody listens on.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from ifpp.bus.broker import free_port
from ifpp.errors import CustodyError, IfppError, TransportError
from ifpp.fpa.steps import Steps
from ifpp.model.messages import ClaimRequest, Job, JobState, UnitResultEvent
from ifpp.model.states import Lamp, PackageState
from ifpp.settings import Cache as CacheSettings
from ifpp.settings import Head, Station
from ifpp.station.cache import Cache, Wanted
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.prefetch import Fetched, Prefetch, read_eids
from ifpp.store.client import StoreClient
from ifpp.store.records import ReceivedEvent, TakeResult
from tests.station.shop import JOB, Run, Shop, shop, truth, world

__all__ = ["shop", "world"]

WANTED = Wanted("TRACKER", "EU", "", JOB.job_order_id)
MINE = msgspec.structs.replace(JOB, stations=["st01"])
LEASE_S, MARGIN_S = 8 * 3600.0, 1800.0


@dataclass
class Desk:
    """A station at work with a cache, and the switch of its store."""

    shop: Shop
    run: Run
    cache: Cache
    prefetch: Prefetch
    there: StoreClient

    def away(self) -> None:
        self.run.supplier.store = StoreClient(f"http://127.0.0.1:{free_port()}", timeout_s=30)

    async def back(self) -> None:
        await self.run.supplier.store.close()
        self.run.supplier.store = self.there

    async def fill(self, count: int = 9) -> Fetched:
        return await self.prefetch.fill(WANTED, [str(self.shop.eid(number)) for number in range(4)], count)

    async def results(self) -> list[UnitResultEvent]:
        """Every result that waits in the outbox."""
        rows = await asyncio.wrap_future(self.run.journal.unacked(0, 1000))
        return [msgspec.json.decode(row.body, type=UnitResultEvent) for row in rows if row.name == "unit_result"]

    async def last(self) -> UnitResultEvent:
        return (await self.results())[-1]


@asynccontextmanager
async def desk(of: Shop, folder: Path, units: int = 0, eids: Path | None = None, heads: int = 1) -> AsyncIterator[Desk]:
    """A life of the station whose journal and cache lie in `folder`."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
    of.path = folder / "journal.db"
    of.settings = Station(
        id="st01",
        heads={"h01": Head(port="memory://")},
        cache=CacheSettings(units=units, lease_s=LEASE_S, margin_s=MARGIN_S),
    )
    cache = Cache.open(folder / "cache.db", "st01", of.clock)
    try:
        async with of.start(cache=cache, heads=heads) as run:
            prefetch = Prefetch(
                run.supplier,
                cache,
                journal=run.journal,
                trust=of.trust,
                settings=of.settings,
                eids=eids,
                gate=run.gate,
                metrics=run.metrics,
                clock=of.clock,
            )
            made = Desk(of, run, cache, prefetch, run.supplier.store)
            try:
                yield made
            finally:
                if run.supplier.store is not made.there:
                    await run.supplier.store.close()
    finally:
        cache.close()


async def take(of: Shop, journal: Journal) -> TakeResult:
    """What the supervisor makes of everything in an outbox; nothing is acknowledged."""
    rows = await asyncio.wrap_future(journal.unacked(0, 1000))
    events = [ReceivedEvent.parse("st01", row.body) for row in rows]
    (result,) = await asyncio.to_thread(of.factory.take_events, events, of.clock.now())
    return result


def passed(of: Shop) -> tuple[int, int]:
    """The books' count of units and of those that passed."""
    rows = of.factory.unit_counts()
    return sum(row.units for row in rows), sum(row.final_pass for row in rows)


async def fault(act: Callable[[], Awaitable[object]]) -> IfppError:
    with pytest.raises(IfppError) as caught:
        await act()
    return caught.value


# ---- the shift ----------------------------------------------------------------------------------------


async def test_a_unit_is_made_without_the_store_and_settles_when_it_is_back(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        done = await at.fill(2)
        assert (len(done.kept), done.refused) == (2, {})
        assert [shop.state(number) for number in range(3)] == ["CLAIMED", "CLAIMED", "AVAILABLE"]
        at.away()
        chip = shop.chip(0)
        assert await at.run.load(chip) is Lamp.PASS
        assert truth(chip) == (1, 0, True)
        told = await at.last()
        assert told.profiles[0].lease_id not in ("", told.transaction_id)
        assert shop.state(0) is PackageState.CLAIMED  # nobody could tell the store
        assert at.run.gate.attention.keys() == {"STORE.UNREACHABLE"}
        assert not at.run.gate.refusing
        await at.back()
        await at.run.supervise()
        assert shop.state(0) is PackageState.INSTALLED
        await at.prefetch.round(None)
        assert [lease.eid for lease in at.cache.leases()] == [str(shop.eid(1))]
        assert (at.run.supplier.away_since, at.run.gate.attention) == ("", {})
        assert shop.state(1) is PackageState.CLAIMED
        assert shop.factory.unit_gate(shop.eid(0)).clean_to_ship


async def test_a_unit_nothing_is_kept_for_is_put_aside_with_the_reason(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(1)
        at.away()
        assert await at.run.load(shop.chip(3)) is Lamp.FAIL
        told = await at.last()
        assert (told.outcome_class, told.disposition, told.defects[0].code) == ("SUPPLY", "HOLD", "BPP.NOT_CACHED")
        await at.back()
        assert await at.run.load(shop.chip(3)) is Lamp.PASS


async def test_with_the_store_there_it_is_told_before_the_first_byte(shop: Shop, tmp_path: Path) -> None:
    """And when it goes away just before that, the package that is kept is loaded all the same."""
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(2)
        assert await at.run.load(shop.chip(0)) is Lamp.PASS
        assert shop.state(0) is PackageState.SENT
        assert (await at.last()).profiles[0].lease_id == ""
        claim = at.run.supplier.store.claim

        async def claim_and_go(request: object) -> object:
            answer = await claim(request)  # type: ignore[arg-type]
            at.away()
            return answer

        at.there.claim = claim_and_go  # type: ignore[method-assign,assignment]
        assert await at.run.load(shop.chip(1)) is Lamp.PASS
        assert shop.state(1) is PackageState.CLAIMED
        del at.there.claim
        await at.back()
        await at.run.supervise()
        assert [shop.state(number) for number in (0, 1)] == ["INSTALLED", "INSTALLED"]


@pytest.mark.parametrize("executed", [False, True])
async def test_a_load_that_was_cut_off_is_read_from_the_chip_without_the_store(
    shop: Shop,
    tmp_path: Path,
    executed: bool,
) -> None:
    chip = shop.chip(0)
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(1)
        at.away()
        at.run.socket.seat(chip, (3, executed))
        assert await at.run.socket.shows(Lamp.RESEAT, Lamp.HOLD)
        at.run.socket.take()
        await at.run.socket.shows(Lamp.OFF)
        assert (await at.last()).profiles[0].package_state == "UNKNOWN"
    async with desk(shop, tmp_path / "st01") as at:  # and the station is started anew
        at.away()
        assert await at.run.load(chip) is Lamp.PASS
        await at.back()
        await at.run.supervise()
    assert truth(chip) == (1, 0, True)
    assert shop.state(0) is PackageState.INSTALLED


async def test_the_store_is_back_before_it_has_heard_of_a_load_that_was_cut_off(shop: Shop, tmp_path: Path) -> None:
    """It takes the package for unsent; the journal knows better, and nobody else gets it either."""
    chip = shop.chip(0)
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(1)
        at.away()
        at.run.socket.seat(chip, (3, True))
        assert await at.run.socket.shows(Lamp.RESEAT, Lamp.HOLD)
        at.run.socket.take()
        await at.run.socket.shows(Lamp.OFF)
        await at.back()
        await at.prefetch.round(MINE)
        assert shop.state(0) is PackageState.CLAIMED
        assert await at.run.load(chip) is Lamp.PASS
        sent = at.run.socket.sent
        assert _first(sent, b"\xbf\x28") < _first(sent, b"\xbf\x21")  # the chip's list is read, then it is loaded
        await at.run.supervise()
    assert truth(chip) == (1, 0, True)
    assert shop.state(0) is PackageState.INSTALLED
    assert passed(shop) == (1, 1)


async def test_two_heads_never_work_from_the_same_package(shop: Shop, tmp_path: Path) -> None:
    """A cloned chip in another head, while the first is being loaded and the store is away."""
    async with desk(shop, tmp_path / "st01", heads=2) as at:
        await at.fill(1)
        at.away()
        assert at.run.supplier.take(str(shop.eid(0)), "an attempt of the first head")
        at.run.sockets[1].seat(shop.chip(0))
        assert await at.run.sockets[1].shows(Lamp.FAIL) is Lamp.FAIL
        assert (await at.last()).defects[0].code == "BPP.TAKEN"


# ---- one package in two caches ------------------------------------------------------------------------


async def test_a_package_handed_to_two_caches_cannot_be_installed_twice_nor_counted_twice(
    shop: Shop,
    tmp_path: Path,
) -> None:
    """A station's disk is cloned after the prefetch; both work offline, and the unit comes to both."""
    chip = shop.chip(0)
    async with desk(shop, tmp_path / "one") as at:
        await at.fill(1)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    results = []
    for folder, lamp in (("one", Lamp.PASS), ("two", Lamp.FAIL)):
        async with desk(shop, tmp_path / folder) as at:
            at.away()
            assert await at.run.load(chip) is lamp
            assert truth(chip) == (1, 0, True)
            results.append(await take(shop, at.run.journal))
            (fates,) = [[one.package_state for one in told.profiles] for told in await at.results()]
            assert fates == (["INSTALLED"] if folder == "one" else [])
    first, second = results
    assert first.rejected == ()
    assert {row.code for row in second.rejected} == {"CUSTODY.SEQ_CONFLICT"}
    assert shop.state(0) is PackageState.INSTALLED
    (package,) = shop.record(0).packages
    assert [step.to_state for step in package.history].count("INSTALLED") == 1
    assert passed(shop) == (1, 1)
    assert shop.factory.audit() == []


@pytest.mark.parametrize("second", ["the chip", "a liar"])
async def test_of_two_stations_with_one_package_one_installs_it(
    shop: Shop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: str,
) -> None:
    """As above, but the first load was cut off before the chip was sealed, and the other cache is used next.

    A station that says without the chip's word that it installed it once more moves nothing; one that says it failed
    for good is refused.
    """
    chip = shop.chip(0)
    async with desk(shop, tmp_path / "one") as at:
        await at.fill(1)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    async with desk(shop, tmp_path / "one") as at:
        at.away()
        with monkeypatch.context() as patch:
            patch.setattr(Steps, "perform", _lost)
            assert await at.run.load(chip) is Lamp.RESEAT
        assert [one.package_state for one in (await at.last()).profiles] == ["INSTALLED"]
        await take(shop, at.run.journal)
    assert truth(chip)[0] == 1
    async with desk(shop, tmp_path / "two") as at:
        at.away()
        assert await at.run.load(chip) is not Lamp.PASS
        told = (await at.results())[-1]
        assert [one.package_state for one in told.profiles] == ["FAILED"]
        if second == "the chip":
            answer = await _as_station("st02", shop, told)
            assert answer.rejected == ()
        else:
            lie = msgspec.structs.replace(told.profiles[0], package_state="INSTALLED", key_consumed=True)
            for _ in range(2):
                await _as_station("st02", shop, told, lie)
            worse = msgspec.structs.replace(lie, package_state="FAILED")
            refused = await _as_station("st02", shop, told, worse)
            assert {row.code for row in refused.rejected} == {"CUSTODY.EVENT_REFUSED"}
    assert truth(chip)[0] == 1
    (package,) = shop.record(0).packages
    assert [step.to_state for step in package.history].count("INSTALLED") == 1
    assert sum(row.units for row in shop.factory.unit_counts()) == 1
    assert shop.factory.audit() == []


# ---- leases, withdrawal, clocks -----------------------------------------------------------------------


async def test_a_package_whose_lease_ends_soon_is_not_loaded(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(2)
        at.away()
        shop.clock.advance(LEASE_S - MARGIN_S - 1)
        assert await at.run.load(shop.chip(0)) is Lamp.PASS
        shop.clock.advance(2)
        assert await at.run.load(shop.chip(1)) is Lamp.FAIL
        assert (await at.last()).defects[0].code == "BPP.LEASE_ENDED"
        shop.factory.expire_leases(shop.clock.now() + timedelta(seconds=MARGIN_S + 3500))
        assert shop.state(1) is PackageState.CLAIMED  # the store waits longer than the station


async def test_a_clock_that_is_set_back_gains_no_time(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(2)
        at.away()
        shop.clock.advance(LEASE_S)
        await at.prefetch.round(None)
        shop.clock._start -= timedelta(seconds=LEASE_S)
        assert await at.run.load(shop.chip(0)) is Lamp.FAIL
        assert (await at.last()).defects[0].code == "BPP.LEASE_ENDED"
    async with desk(shop, tmp_path / "st01") as at:
        at.away()
        assert await at.run.load(shop.chip(1)) is Lamp.FAIL
        assert "set back" in (await at.last()).defects[0].text
        await at.back()
        assert await at.run.load(shop.chip(1)) is Lamp.PASS


async def test_what_was_withdrawn_during_the_shift_is_dropped_and_what_was_loaded_is_told(
    shop: Shop,
    tmp_path: Path,
) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(2)
        at.away()
        assert await at.run.load(shop.chip(0)) is Lamp.PASS
        (delivery,) = [row for row in shop.factory.batches() if row.packages]
        shop.factory.withdraw(str(delivery.number), "anna", "wrong region", shop.clock.now())
        await at.back()
        await at.prefetch.round(None)
        assert at.cache.leases() == []
        assert [shop.state(number) for number in (0, 1)] == [
            "CLAIMED",
            "AVAILABLE",
        ]  # the first is not free: it is used
        await at.run.supervise()
        assert shop.state(0) is PackageState.INSTALLED
        assert await at.run.load(shop.chip(1)) is Lamp.FAIL
        assert (await at.last()).defects[0].code == "BPP.WITHDRAWN"


async def test_what_is_kept_is_for_its_product_and_its_job_order_alone(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(1)
        at.away()
        request = ClaimRequest(
            attempt_id="attempt",
            eid=str(shop.eid(0)),
            sku="TRACKER",
            region="EU",
            station_id="st01",
            head_id="h01",
            job_order_id=JOB.job_order_id,
        )
        for changes, code in (
            ({"region": "US"}, "BPP.OTHER_PRODUCT"),
            ({"customer": "acme"}, "BPP.OTHER_PRODUCT"),
            ({"job_order_id": "JO-2"}, "BPP.RESERVED"),
        ):
            wanted = msgspec.structs.replace(request, **changes)
            assert (await fault(partial(at.run.supplier.claim, wanted))).code == code
        claim = await at.run.supplier.claim(request)
        assert [package.package_id for package in claim.packages] == [shop.record(0).packages[0].package_id]


# ---- keeping ------------------------------------------------------------------------------------------


async def test_a_round_fills_up_for_a_job_of_this_station_alone(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01", units=3) as at:
        await at.prefetch.round(JOB)
        assert at.prefetch.holding.units == 0  # any station may get its chips
        await at.prefetch.round(MINE)
        assert at.prefetch.holding.units == 3
        await at.prefetch.round(MINE)
        assert at.prefetch.holding.units == 3


async def test_a_round_fills_up_with_the_chips_that_are_expected(shop: Shop, tmp_path: Path) -> None:
    eids = tmp_path / "st01.eids"
    eids.write_text(f"# next reel\n{shop.eid(2)}\n\n{shop.eid(1)}  # the last one\n{shop.eid(2)}\n")
    assert read_eids(eids) == [str(shop.eid(2)), str(shop.eid(1))]
    async with desk(shop, tmp_path / "st01", units=5, eids=eids) as at:
        await at.prefetch.round(JOB)
        assert {lease.eid for lease in at.cache.leases()} == {str(shop.eid(1)), str(shop.eid(2))}
    eids.write_text(f"{shop.eid(0)}\n12345\n")
    with pytest.raises(IfppError) as caught:
        read_eids(eids)
    assert (caught.value.code, caught.value.where) == ("SETTINGS.INVALID", f"{eids}:2")


async def test_another_job_order_gives_back_what_was_kept_for_the_last(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01", units=2) as at:
        await at.prefetch.round(MINE)
        at.away()
        assert await at.run.load(shop.chip(0)) is Lamp.PASS
        await at.back()
        other = msgspec.structs.replace(MINE, job_order_id="JO-2", region="US")
        await at.prefetch.round(other)
        assert [shop.state(number) for number in (0, 1)] == [
            "CLAIMED",
            "AVAILABLE",
        ]  # the used one waits for its result
        assert [lease.eid for lease in at.cache.leases()] == [str(shop.eid(0))]


async def test_a_lease_that_is_half_over_is_renewed(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01", units=1) as at:
        await at.prefetch.round(MINE)
        (before,) = at.cache.leases()
        shop.clock.advance(LEASE_S / 2 + 60)
        await at.prefetch.round(MINE)
        (after,) = at.cache.leases()
        assert (after.eid, after.lease_id != before.lease_id, after.until > before.until) == (before.eid, True, True)
        shop.clock.advance(LEASE_S / 2 + 60)
        at.away()
        number = next(number for number in range(4) if str(shop.eid(number)) == after.eid)
        assert await at.run.load(shop.chip(number)) is Lamp.PASS
        await at.back()
        await at.run.supervise()
        assert shop.state(number) is PackageState.INSTALLED


async def test_what_does_not_verify_is_not_kept_and_goes_back(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        claim = at.there.claim

        async def foreign(request: object) -> object:
            answer = await claim(request)  # type: ignore[arg-type]
            other = shop.factory.unit(shop.eid(3))
            assert other is not None
            (package,) = answer.packages
            changed = msgspec.structs.replace(package, iccid=other.packages[0].iccid)
            return msgspec.structs.replace(answer, packages=[changed])

        at.there.claim = foreign  # type: ignore[method-assign,assignment]
        done = await at.prefetch.fill(WANTED, [str(shop.eid(0))], 1)
        assert {fault.code for fault in done.refused.values()} == {"INTAKE.BINDING"}
        assert at.cache.holding().units == 0
        assert {shop.state(number) for number in range(4)} == {PackageState.AVAILABLE}


async def test_a_cache_that_cannot_be_written_gives_the_claim_back_and_says_so(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.fill(1)
        keep = at.cache.keep

        def full(*_: object) -> None:
            raise CustodyError("CACHE.WRITE", "database or disk is full", where="cache.db")

        at.cache.keep = full  # type: ignore[method-assign,assignment]
        refused = await fault(lambda: at.prefetch.fill(WANTED, [str(shop.eid(1))], 1))
        assert refused.code == "CACHE.WRITE"
        assert at.run.gate.attention.keys() == {"CACHE.WRITE"}
        assert [shop.state(number) for number in (0, 1)] == ["CLAIMED", "AVAILABLE"]
        assert (await fault(lambda: at.fill(1))).code == "CACHE.WRITE"  # what is kept already cannot be renewed now
        at.away()
        assert await at.run.load(shop.chip(0)) is Lamp.PASS
        await at.back()
        await at.prefetch.round(None)
        at.cache.keep = keep  # type: ignore[method-assign]
        await at.prefetch.fill(WANTED, [str(shop.eid(1))], 1)
        assert at.run.gate.attention == {}


async def test_a_start_without_broker_goes_on_with_the_last_job(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01") as at:
        await at.prefetch.note_job(msgspec.json.encode(_said([JOB])))
    async with desk(shop, tmp_path / "st01") as at:
        jobs, stopping = Jobs("st01"), asyncio.Event()
        assert jobs.job_order_id == ""
        await _recalled(at, jobs, stopping)
        assert jobs.job_order_id == JOB.job_order_id
        heard = Jobs("st01")
        heard.update(_said([]))
        await _recalled(at, heard, stopping)
        assert heard.job_order_id == ""  # what the line says now counts


async def test_what_is_shown(shop: Shop, tmp_path: Path) -> None:
    async with desk(shop, tmp_path / "st01", units=2) as at:
        await at.prefetch.round(MINE)
        at.away()
        shop.clock.advance(600)
        stopping = asyncio.Event()
        running = asyncio.create_task(at.prefetch.run(Jobs("st01"), stopping))
        while not at.run.supplier.away_since:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)
        stopping.set()
        await running
        labels = {"line": "L1", "station": "st01"}
        assert at.run.metrics.value("ifpp_cached_units", **labels) == 2
        assert at.run.metrics.value("ifpp_cached_oldest_seconds", **labels) == 600
        assert at.run.metrics.value("ifpp_cached_lease_seconds", **labels) == LEASE_S - 600
        assert at.prefetch.oldest_ms == 600_000


# ---- inside -------------------------------------------------------------------------------------------


def _said(jobs: list[Job]) -> JobState:
    return JobState(schema="job/1.0", id="", ts="", node_id="_line", boot_id="", epoch=1, jobs=jobs)


def _first(sent: Iterable[bytes], tag: bytes) -> int:
    return next(number for number, apdu in enumerate(sent) if apdu[5:7] == tag)


async def _recalled(at: Desk, jobs: Jobs, stopping: asyncio.Event) -> None:
    """Let the line stay silent for a minute."""
    recall = asyncio.create_task(at.prefetch.recall_job(jobs, stopping))
    for _ in range(20):  # until it sleeps
        await asyncio.sleep(0)
    at.shop.clock.advance(60)
    await recall


def _lost(*_: object) -> None:
    raise TransportError("CONTACT.LOST", "taken out before it was sealed")


async def _as_station(name: str, of: Shop, told: UnitResultEvent, *profiles: object) -> TakeResult:
    """Tell a result as another station would, under numbers of its own."""
    through = [row.seq for row in of.factory.parked(1000)]
    seq = len(of.factory.units(1000)) + len(through) + 1
    changed = msgspec.structs.replace(
        told,
        node_id=name,
        seq=seq,
        id=f"{told.id[:-4]}{seq:04d}",
        transaction_id=f"{told.transaction_id[:-4]}{seq:04d}",
        profiles=list(profiles) or told.profiles,
    )
    event = ReceivedEvent.parse(name, msgspec.json.encode(changed))
    (result,) = await asyncio.to_thread(of.factory.take_events, [event], of.clock.now())
    return result
