"""`ifpp station prefetch`: packages for a shift without the store, fetched while the station stands still."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from ifpp.errors import ServiceError, SettingsError
from ifpp.log import configure
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import beside, load_trust
from ifpp.roles.station import own_tls
from ifpp.settings import load_site, load_station
from ifpp.station.cache import Cache, Wanted
from ifpp.station.gate import Gate
from ifpp.station.journal import Journal
from ifpp.station.prefetch import Fetched, Prefetch, read_eids
from ifpp.station.supplier import Supplier
from ifpp.store.client import StoreClient

_SHOWN = 20
Act = Callable[[Prefetch, Cache], Awaitable[int]]


def prefetch(site_file: Path, station_file: Path, wanted: Wanted, eids: Path | None, units: int | None) -> int:
    """Fetch, verify and keep; returns 0, or 1 when there is less than asked for. Raises IfppError."""
    listed = read_eids(eids) if eids is not None else None
    if listed is None and units is None:
        raise SettingsError("COMMAND.INVALID", "say for how many chips, or for which", where="--units or --eids")
    count = units if units is not None else len(listed or ())

    async def act(station: Prefetch, cache: Cache) -> int:
        kept = {lease.eid for lease in cache.leases()}
        if listed is None:
            done = await station.fill_any(wanted, count)
            missing = count - len(done.kept)
        else:
            done = await station.fill(wanted, [eid for eid in listed if eid not in kept], count)
            missing = min(count, len(listed)) - len(done.kept) - len(kept & set(listed))
        _say(done, cache)
        return 1 if missing > 0 else 0

    return _with_cache(site_file, station_file, act)


def give_back(site_file: Path, station_file: Path) -> int:
    """Give back what was kept and never used; returns 0. Raises IfppError."""

    async def act(station: Prefetch, cache: Cache) -> int:
        count = await station.give_back(cache.leases(), "given back by hand")
        sys.stdout.write(f"given back: {count} chips; still kept: {cache.holding().units}\n")
        return 0

    return _with_cache(site_file, station_file, act)


def _with_cache(site_file: Path, station_file: Path, act: Act) -> int:
    """Do something with the cache of a station that does not run, while its store is there."""
    configure()
    site, station = load_site(site_file), load_station(station_file)
    tls, trust, clock = own_tls(site, station, station_file), load_trust(site, site_file), SystemClock()
    cache = Cache.open(beside(station_file, station.cache.file), station.id, clock)
    try:
        journal = Journal.open(beside(station_file, station.journal), station.id, clock)
        try:

            async def main() -> int:
                gate, metrics = Gate(), Metrics(Role.STATION, line=site.line, station=station.id)
                async with StoreClient(
                    site.store.url, timeout_s=station.deadlines.store_s, tls=None if tls is None else tls.current
                ) as store:
                    supplier = Supplier(store, cache, journal, gate, clock, margin_s=station.cache.margin_s)
                    keeper = Prefetch(
                        supplier,
                        cache,
                        journal=journal,
                        trust=trust,
                        settings=station,
                        eids=None,
                        gate=gate,
                        metrics=metrics,
                        clock=clock,
                    )
                    if not await keeper.reconcile():
                        raise ServiceError("STORE.UNREACHABLE", "nothing was changed", where=site.store.url)
                    return await act(keeper, cache)

            return asyncio.run(main())
        finally:
            journal.close()
    finally:
        cache.close()


def _say(done: Fetched, cache: Cache) -> None:
    holding = cache.holding()
    lines = [f"kept now: {len(done.kept)} chips; in all: {holding.units}"]
    if holding.first_until:
        lines.append(f"loadable without the store until {holding.first_until} (the first), less the margin")
    for number, (eid, fault) in enumerate(done.refused.items()):
        if number == _SHOWN:
            lines.append(f"... and {len(done.refused) - _SHOWN} more")
            break
        lines.append(f"not kept: EID {eid}: {fault}")
    sys.stdout.write("\n".join(lines) + "\n")
