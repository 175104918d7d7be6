"""A chip without factory keys, an SM-DP+ behind HTTPS on a loop of its own, and a station's book, for online tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.fpa.chip import Chip
from ifpp.fpa.es9 import Es9Client, HeadEs9
from ifpp.fpa.rsp import Download, Lpa, download
from ifpp.model.clock import SystemClock
from ifpp.model.ids import Eid, Iccid
from ifpp.model.rsp import ActivationCode, DownloadOrder
from ifpp.sim import pki
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.eum import Eum
from ifpp.sim.profiles import Profile, ProfileStock
from ifpp.sim.smdp_plus import Order, SmdpPlus
from ifpp.sim.smdp_server import SmdpServer
from ifpp.sim.template import build_template
from ifpp.station.journal import Journal
from ifpp.station.rsp_book import RspBook
from ifpp.trust.chain import TrustStore
from ifpp.trust.tls import outward_context
from tests.memory_port import MemoryPort

T = TypeVar("T")
TLS_NAMES = ("localhost", "127.0.0.1")
TEMPLATE = build_template(4_000, seed=3)


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(60)

    def close(self) -> None:
        self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_others() -> None:
    """What waits for a time-out is not waited for."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Seat:
    """One chip on one port."""

    def __init__(self, euicc: Euicc) -> None:
        self.euicc = euicc
        self.port = MemoryPort(euicc)
        self.chip = Chip(self.port)
        self.chip.open()
        self.eid = Eid(euicc.chip.card.eid)

    def seat_again(self) -> None:
        """Take the power away and give it again, as when a unit is seated anew."""
        self.port.pull_at = 0
        self.chip.close()
        self.chip.open()

    @property
    def iccids(self) -> set[Iccid | None]:
        return {profile.iccid for profile in self.chip.profiles()}


class Site:
    """One CI for everybody, an EUM, an SM-DP+, a station with journal and client. `close` ends it."""

    def __init__(self, folder: Path, **server: Any) -> None:
        self.loop = Loop()
        self.folder = folder
        self.tree = pki.Pki.create()
        self.eum = Eum(self.tree, seed=5)
        self.smdp = SmdpPlus.create(self.tree)
        self.ca = folder / "ci.pem"
        self.ca.write_bytes(self.tree.ci.certificate.public_bytes(Encoding.PEM))
        self.server = self.serve(self.smdp, self.tls_holder(), **server)
        self.clock = SystemClock()
        self.journal = Journal.open(folder / "journal.db", "st01", self.clock)
        self.book = RspBook(self.journal, self.clock)
        self.client = Es9Client(outward_context(self.ca), timeout_s=20)
        self._clients = [self.client]
        self._stock = ProfileStock(
            "tracker", [TEMPLATE], provider="Test", iccid_prefix="8988247", imsi_prefix="00101", first_serial=1
        )

    def tls_holder(self, **changes: Any) -> pki.Holder:
        profile = replace(pki.DPTLS, hosts=TLS_NAMES)
        return pki.below(self.tree.ci, profile, pki.name_of("SM-DP+", "localhost"), **changes)

    def serve(self, smdp: SmdpPlus, tls: pki.Holder, **options: Any) -> SmdpServer:
        server = SmdpServer(smdp, tls, **options)
        self.loop.run(server.start())
        return server

    def seat(self, **options: Any) -> Seat:
        """A fresh chip without one-time keys; `keeps_session` and others as of `Eum.issue`."""
        keeps = options.pop("keeps_session", False)
        euicc = Euicc(self.eum.issue(keys=0, **options).card)
        euicc.nvm.keeps_session = keeps
        return Seat(euicc)

    def profile(self) -> Profile:
        return self._stock.take()

    def release(self, matching_id: str = "M-1", **details: Any) -> Order:
        return self.smdp.release(matching_id, self.profile(), **details)

    def order(self, seat: Seat, matching_id: str = "M-1", **changes: Any) -> DownloadOrder:
        code = ActivationCode(self.smdp.address, matching_id)
        return replace(DownloadOrder("P-1", seat.eid, code), **changes)

    def es9(self, client: Es9Client | None = None) -> HeadEs9:
        return HeadEs9(client or self.client, self.loop.loop)

    def lpa(self, **changes: Any) -> Lpa:
        lpa = Lpa(self.es9(), self.book, TrustStore([self.tree.ci.der]), lambda: datetime.now(UTC))
        return replace(lpa, **changes)

    def client_for(self, **options: Any) -> Es9Client:
        """Another client, with a short time-out for instance."""
        client = Es9Client(outward_context(self.ca), **options)
        self._clients.append(client)
        return client

    def download(self, seat: Seat, matching_id: str = "M-1", **changes: Any) -> Download:
        return download(seat.chip, self.order(seat, matching_id, **changes), self.lpa())

    def empty(self, sql: str) -> None:
        """Run one statement in the journal."""
        self.journal.write(lambda connection: connection.execute(sql)).result()

    def close(self) -> None:
        for client in self._clients:
            self.loop.run(client.close())
        self.loop.run(self.server.stop())
        self.journal.close()
        self.loop.close()
