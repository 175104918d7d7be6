"""A station process that kills itself with SIGKILL at a named instant: real journal, real store, chips elsewhere.

It is forked from a server that has imported everything, so that it lives within milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ifpp.fpa.es9 import Es9Client
from ifpp.hw.tcp import TcpPort
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.model.messages import JobState
from ifpp.model.recipe import Recipe
from ifpp.recipes import RecipeBook
from ifpp.settings import Head as HeadSettings
from ifpp.settings import Life, Station
from ifpp.station.board import Board
from ifpp.station.downloads import Downloads
from ifpp.station.edges import Edge
from ifpp.station.floor import Floor
from ifpp.station.gate import Gate
from ifpp.station.head import Head
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.life import Lives
from ifpp.station.recovery import recover
from ifpp.station.rsp_book import RspBook
from ifpp.station.supplier import Supplier
from ifpp.store.client import StoreClient
from ifpp.trust.chain import TrustStore
from ifpp.trust.tls import outward_context
from tests.station.shop import BPP_TAG, JOB


@dataclass(frozen=True)
class Doom:
    """Where the process dies: passing an edge for the `times`-th time, or after an APDU of the package (from 1)."""

    edge: Edge | None = None
    apdu: int = 0
    times: int = 1

    def __str__(self) -> str:
        return self.edge or f"APDU-{self.apdu}"


class DoomedPort(TcpPort):
    """Dies after an APDU of the package was answered."""

    def __init__(self, url: str, apdu: int) -> None:
        super().__init__(url)
        self._apdu = apdu
        self._sent = 0

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        answer = super().transmit(apdu, timeout_s)
        if self._sent or apdu[5:7] == BPP_TAG:
            self._sent += 1
            if self._sent == self._apdu:
                die()
        return answer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def start(
    journal: Path,
    port: int,
    store_url: str,
    ci: bytes,
    doom: Doom,
    recipes: Sequence[Recipe] = (),
    tls_ca: Path | None = None,
) -> ForkServerProcess:
    """Start a station `st01` with the head h01 over a slot; it works until it dies. `tls_ca`: of SM-DP+."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_main, args=(journal, port, store_url, ci, doom, recipes, tls_ca), daemon=True)
    process.start()
    return process


def _main(
    journal: Path, port: int, store_url: str, ci: bytes, doom: Doom, recipes: Sequence[Recipe], tls_ca: Path | None
) -> None:
    asyncio.run(_work(journal, port, store_url, ci, doom, recipes, tls_ca))


async def _work(
    path: Path, port: int, store_url: str, ci: bytes, doom: Doom, recipes: Sequence[Recipe], tls_ca: Path | None
) -> None:
    clock = SystemClock()
    journal = Journal.open(path, "st01", clock)
    await recover(journal, "st01", ["h01"], clock)
    jobs = Jobs("st01")
    jobs.update(JobState(schema="job/1.0", id="", ts="", node_id="_line", boot_id="", epoch=1, jobs=[JOB]))

    passed: list[Edge] = []

    def at_edge(edge: Edge) -> None:
        passed.append(edge)
        if doom.edge is not None and passed.count(doom.edge) == doom.times:
            die()

    async with StoreClient(store_url, timeout_s=30) as store:
        trust = TrustStore([ci])
        client = None if tls_ca is None else Es9Client(outward_context(tls_ca))
        downloads = None if client is None else Downloads(client, RspBook(journal, clock), trust, clock)
        floor = Floor(
            settings=Station(id="st01", heads={"h01": HeadSettings(port="")}),
            clock=clock,
            journal=journal,
            store=Supplier(store, None, journal, Gate(), clock, margin_s=60),
            trust=trust,
            jobs=jobs,
            board=Board("st01", journal.boot_id, clock),
            gate=Gate(),
            lives=Lives(["h01"], Life(), clock=clock),
            metrics=Metrics(Role.STATION, line="L1", station="st01"),
            stopping=asyncio.Event(),
            at_edge=at_edge,
            downloads=downloads,
            recipes=RecipeBook(recipes),
        )
        await Head("h01", DoomedPort(f"tcp://127.0.0.1:{port}", doom.apdu), floor).run()
