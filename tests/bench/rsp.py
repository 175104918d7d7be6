"""Online downloads: 16 heads at 5 ms a command and 20 ms a round trip against 16 times one head, in one run.

Chips, station and journal in one process as at a station with virtual heads, the SM-DP+ behind HTTPS in one of its
own. A download is one profile from GetEUICCInfo1 to the notification's delivery and its removal from the chip.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from ifpp.fpa.rsp import deliver, download
from ifpp.sim import pki
from ifpp.sim.profiles import ProfileStock
from ifpp.sim.smdp_plus import SmdpPlus
from ifpp.sim.smdp_server import SmdpServer
from ifpp.sim.template import build_template
from tests.bench.table import goal, row
from tests.fpa.online import Seat, Site

_HEADS, _DOWNLOADS, _RUNS = 16, 6, 3
_ORDERS_A_RUN = (1 + _HEADS) * _DOWNLOADS
_APDU_S, _ROUND_TRIP_S = 0.005, 0.020
_PROFILE_BYTES = 30_000


def run() -> bool:
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        server = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs, site.tree, site.tls_holder()))
        server.start()
        site.smdp.address = ours.recv()
        try:
            _counts(site)
            for number in range(_RUNS):
                alone = _seconds(site, heads=1, first=number * _ORDERS_A_RUN)
                together = _seconds(site, heads=_HEADS, first=number * _ORDERS_A_RUN + _DOWNLOADS)
                ratios.append(alone / together)
        finally:
            ours.send(None)
            server.join()
            site.close()
    return goal(f"downloads/s of {_HEADS} heads / {_HEADS} x one head", row("ratio", ratios, ""), 0.9, at_least=True)


def _counts(site: Site) -> None:
    seat, es9 = site.seat(), site.es9()
    got = download(seat.chip, site.order(seat, "counted"), site.lpa(es9=es9))
    if got.verdict.fault is not None:
        raise got.verdict.fault
    deliver(seat.chip, seat.eid, es9, site.book)
    sys.stdout.write(f"a download: {got.verdict.apdus} APDUs, {es9.round_trips} round trips with its notification\n")


def _seconds(site: Site, *, heads: int, first: int) -> float:
    """The time of `_DOWNLOADS` downloads on each of so many heads."""
    seats = [[_slow(site.seat()) for _ in range(_DOWNLOADS)] for _ in range(heads)]

    def work(head: int) -> None:
        lpa = site.lpa()
        for number, seat in enumerate(seats[head]):
            got = download(seat.chip, site.order(seat, f"M-{first + head * _DOWNLOADS + number}"), lpa)
            if got.verdict.fault is not None:
                raise got.verdict.fault
            deliver(seat.chip, seat.eid, lpa.es9, site.book)

    started = time.monotonic()
    with ThreadPoolExecutor(heads) as pool:
        list(pool.map(work, range(heads)))
    return time.monotonic() - started


def _slow(seat: Seat) -> Seat:
    """A chip whose every command takes its time."""
    transmit = seat.port.transmit

    def slowly(apdu: bytes, timeout_s: float) -> bytes:
        due = time.monotonic() + _APDU_S
        answer = transmit(apdu, timeout_s)
        time.sleep(max(0.0, due - time.monotonic()))
        return answer

    seat.port.transmit = slowly  # type: ignore[method-assign]
    return seat


def _serve(station: Connection, tree: pki.Pki, tls: pki.Holder) -> None:
    """The SM-DP+'s process; ends when the station says so."""
    smdp = SmdpPlus.create(tree)
    stock = ProfileStock(
        "tracker",
        [build_template(_PROFILE_BYTES, seed=3)],
        provider="Test",
        iccid_prefix="8988247",
        imsi_prefix="00101",
        first_serial=1,
    )

    async def serve() -> None:
        server = SmdpServer(smdp, tls, round_trip_s=_ROUND_TRIP_S)
        address = await server.start()
        for name in ("counted", *(f"M-{number}" for number in range(_RUNS * _ORDERS_A_RUN))):
            smdp.release(name, stock.take())
        station.send(address)
        await asyncio.to_thread(station.recv)
        await server.stop()

    asyncio.run(serve())
