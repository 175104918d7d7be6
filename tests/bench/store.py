"""The store at size: claims with many packages against few, 16 stations at once, handing packages out.

Claims are made by 16 threads of one process, in turn on a small and on a large database, so that both see the same
machine. Stations and hand-outs go through `ifpp store serve`, over HTTP. The databases are filled past the intake
(`tests.bench.stock`), with packages of a few bytes where their content does not matter: 45 GB would not fit.
Sizes: IFPP_BENCH_STORE="10000 1000000". With IFPP_BENCH_INTAKE set, the intake's benchmark follows.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from ifpp.model.messages import ClaimRequest
from ifpp.roles.children import Children
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from tests.bench import intake, stock
from tests.bench.table import goal, row
from tests.real import postgres
from tests.real.postgres import Postgres

_SIZES = "10000 1000000"
_ROUNDS, _STATIONS, _FETCHERS = 5, 16, 4
_SHARE = 20  # a round claims one in so many of the small database's packages
_PACKAGE_BYTES, _PACKAGES = 45_000, 500
_serial = count(1)


def run() -> bool:
    small, large = (int(size) for size in os.environ.get("IFPP_BENCH_STORE", _SIZES).split())
    met = True
    with tempfile.TemporaryDirectory(prefix="ifpp-bench-") as name:
        folder = Path(name)
        met &= _claims("SQLite", lambda: f"sqlite:///{folder}/factory-{next(_serial)}.db", small, large)
        met &= asyncio.run(_service("SQLite", f"sqlite:///{folder}/served.db", folder, small))
    with _server() as server:
        if server is None:
            sys.stdout.write("PostgreSQL is not installed: nothing of it was measured\n")
            return False
        with tempfile.TemporaryDirectory(prefix="ifpp-bench-") as name:
            met &= _claims("PostgreSQL", server.own_database, small, large)
            met &= asyncio.run(_service("PostgreSQL", server.own_database(), Path(name), small))
    if "IFPP_BENCH_INTAKE" in os.environ:
        met &= intake.run()
    return met


@contextmanager
def _server() -> Iterator[Postgres | None]:
    """A PostgreSQL server that syncs as one in a factory does; None where there is none."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and shutil.which("initdb") is None:
        yield None
        return
    with postgres.running(sync=True) as server:
        yield server


# ---- claims, with many packages and with few --------------------------------------------------------


def _claims(name: str, new: Callable[[], str], small: int, large: int) -> bool:
    urls = {size: new() for size in (small, large)}
    for size, url in urls.items():
        start = time.monotonic()
        stock.fill(url, size)
        sys.stdout.write(f"{name}: {size} packages written past the intake in {time.monotonic() - start:.0f} s\n")
        sys.stdout.flush()
    rates: dict[int, list[float]] = {size: [] for size in urls}
    with ThreadPoolExecutor(_STATIONS) as threads:
        chosen = {size: _chosen(size, _ROUNDS * small // _SHARE) for size in urls}
        for _ in range(_ROUNDS):
            for size, url in urls.items():
                rates[size].append(_round(threads, url, [next(chosen[size]) for _ in range(small // _SHARE)]))
    few, many = (row(f"{name}: claims a second, {size} packages", rates[size], "/s") for size in urls)
    met = goal(f"{name}: claims, {large} / {small} packages", many / few, 0.8, at_least=True)
    met &= goal(f"{name}: claims a second, {large} packages", many, 1000, at_least=True)
    for size, url in urls.items():
        with closing(Factory.open(url)) as factory:
            start = time.monotonic()
            factory.stock_levels(datetime.now(UTC))
            row(f"{name}: stock levels, {size} packages", [time.monotonic() - start], "s")
            start = time.monotonic()
            factory.expire_leases(datetime.now(UTC))
            row(f"{name}: looking for leases that ran out", [time.monotonic() - start], "s")
    return met


def _chosen(size: int, number: int) -> Iterator[int]:
    """Chips at random places, each once."""
    return iter(random.Random(1).sample(range(1, size + 1), number))


def _round(threads: ThreadPoolExecutor, url: str, numbers: list[int]) -> float:
    with closing(Factory.open(url)) as factory:
        factory.claim(_request(numbers.pop(), "st00"), datetime.now(UTC))  # what is done once a process
        start = time.monotonic()
        for _ in threads.map(lambda n: factory.claim(_request(n, "st01"), datetime.now(UTC)), numbers):
            pass
        return len(numbers) / (time.monotonic() - start)


def _request(number: int, station: str) -> ClaimRequest:
    name = f"{station}-{next(_serial)}"
    return ClaimRequest(
        attempt_id=name,
        eid=stock.eid(number),
        sku=stock.SKU,
        region=stock.REGION,
        station_id=station,
        head_id="h01",
        job_order_id="JO-1",
        sn=f"SN{number}",
    )


# ---- the service ------------------------------------------------------------------------------------


async def _service(name: str, url: str, folder: Path, small: int) -> bool:
    await asyncio.to_thread(stock.fill, url, min(small, 2000), package_bytes=_PACKAGE_BYTES)
    async with _serving(url, folder) as (port, cpu_s):
        start, cpu = time.monotonic(), cpu_s()
        waits = await asyncio.gather(*(_station(port, place, min(small, 2000)) for place in range(_STATIONS)))
        took, cpu = time.monotonic() - start, cpu_s() - cpu
        every = [wait for station in waits for wait in station]
        row(f"{name}: claims a second over HTTP", [len(every) / took], "/s")
        row(f"{name}: the store's CPU a claim over HTTP", [1000 * cpu / len(every)], "ms")
        row(f"{name}: wait of a claim, {_STATIONS} stations", [1000 * wait for wait in every], "ms")
        longest = max(every) / statistics.median(every)
        met = goal(f"{name}: longest / median wait, {_STATIONS} stations", longest, 10, at_least=False)
        rate = await asyncio.to_thread(_fetch, port, min(small, _PACKAGES))
        return met & goal(f"{name}: packages of 45 kB handed out a second", rate, 2000, at_least=True)


@asynccontextmanager
async def _serving(url: str, folder: Path) -> AsyncIterator[tuple[int, Callable[[], float]]]:
    """`ifpp store serve` as a process of its own; gives its port and how much CPU it has used."""
    site = folder / "site.toml"
    site.write_text(
        'enterprise = "bench"\nsite = "site"\narea = "area"\nline = "L1"\n'
        f'[store]\nport = 0\nmetrics_port = 0\ndatabase = "{url}"\n'
    )
    children = Children(folder / "logs", lambda _name: [sys.executable, "-m", "ifpp"])
    try:
        store = await children.start_ifpp("store", "store", "serve", "--config", str(site))
        await store.wait_ready()
        yield store.facts["port"], store.cpu_s
    finally:
        await children.stop_all()


async def _station(port: int, place: int, size: int) -> list[float]:
    """One station claims one chip after another; return how long each claim took, in seconds."""
    waits = []
    async with StoreClient(f"http://127.0.0.1:{port}", timeout_s=30) as store:
        await store.claim(_request(place + 1, f"st{place:02d}"))  # the connection
        for number in range(place + 1 + _STATIONS, size + 1, _STATIONS):
            start = time.perf_counter()
            await store.claim(_request(number, f"st{place:02d}"))
            waits.append(time.perf_counter() - start)
    return waits


def _fetch(port: int, packages: int) -> float:
    """Fetch packages over kept connections, one after another on each; return packages a second."""
    numbers = [range(first, packages + 1, _FETCHERS) for first in range(1, _FETCHERS + 1)]
    done: list[int] = []

    def work(mine: range) -> None:
        with socket.create_connection(("127.0.0.1", port)) as stream, stream.makefile("rb") as answers:
            done.extend(_get(stream, answers.readline, answers.read, stock.sha256(n)) for _ in range(4) for n in mine)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in numbers]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    if len(done) != 4 * packages or set(done) != {_PACKAGE_BYTES}:
        raise AssertionError(f"{len(done)} answers of {set(done)} bytes")
    return len(done) / took


def _get(stream: socket.socket, line: Callable[[], bytes], read: Callable[[int], bytes], sha256: str) -> int:
    """The least an HTTP client can do, so that the store is what is measured."""
    stream.sendall(f"GET /v1/packages/{sha256} HTTP/1.1\r\nHost: store\r\n\r\n".encode())
    status, size = line(), 0
    while (header := line()) != b"\r\n":
        if header.lower().startswith(b"content-length:"):
            size = int(header.split(b":")[1])
    body = read(size)
    return len(body) if b" 200 " in status else 0
