"""A station without a broker: real heads over sockets in this process, a real journal, a real store on the loopback.

The supervisor's part is done by hand (`supervise`), so that a test says when the books hear of something.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ifpp.errors import TransportError
from ifpp.fpa.es9 import Es9Client
from ifpp.hw.port import CardPort, make_port
from ifpp.line.intake import import_file
from ifpp.metrics import Metrics, Role
from ifpp.model.ids import Eid
from ifpp.model.messages import Job, JobState, Product, Recipe
from ifpp.model.states import Lamp, PackageState
from ifpp.recipes import RecipeBook
from ifpp.settings import Head as HeadSettings
from ifpp.settings import Life, Outbox, Station
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.fleet import card_contents
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.station.board import Board
from ifpp.station.cache import Cache
from ifpp.station.commands import Commands
from ifpp.station.downloads import Downloads
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.floor import Floor
from ifpp.station.gate import Gate
from ifpp.station.head import Head
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.life import Lives
from ifpp.station.lock import Lock
from ifpp.station.permits import Permits
from ifpp.station.recovery import recover
from ifpp.station.rsp_book import RspBook
from ifpp.station.supplier import Supplier
from ifpp.station.watch import Watch
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent, UnitRecord
from ifpp.trust.chain import TrustStore
from ifpp.trust.tls import outward_context
from tests.clock import FakeClock
from tests.memory_port import MemoryPort
from tests.storefront.conftest import serving

PATIENCE_S = 60.0
BPP_TAG = b"\xbf\x36"
_MEMORY = "memory://"
JOB = Job(
    job_order_id="JO-1",
    version=1,
    product=Product(part_number="TRACKER"),
    region="EU",
    recipe=Recipe(name="load"),
    quantity=9,
)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    """Four units with one small profile each."""
    plan = [JobPlan(JOB.job_order_id, "TRACKER", "EU", ["st01"])]
    return build_world(tmp_path_factory.mktemp("world"), units=4, seed=7, jobs=plan, profile_kb=(4, 6))


class Socket(MemoryPort):
    """A head's socket: a test seats and takes out chips and waits for what the lamp shows."""

    def __init__(self) -> None:
        super().__init__(Euicc.__new__(Euicc))
        self._change = threading.Condition()
        self._seated = False
        self._taken = False  # and the station has not seen it yet
        self._cut: tuple[int, bool] | None = None
        self._hurried = False
        self._watched = False

    def seat(self, chip: Euicc, cut: tuple[int, bool] | None = None, *, from_power_up: bool = False) -> None:
        """`cut`: contact is lost at this APDU of the package, or from power-up on, and whether the chip executes it."""
        with self._change:
            self.chip, self._seated, self._cut, self.pull_at = chip, True, cut, 0
            if from_power_up and cut is not None:
                self.pull_at, self.executed = cut
            self.lamps.clear()
            self._change.notify_all()

    def take(self) -> None:
        with self._change:
            self._seated, self._taken = False, True
            self.chip.power_off()
            self._change.notify_all()

    def hurry(self) -> None:
        """The station stops: it need not wait for units any more."""
        with self._change:
            self._hurried = True
            self._change.notify_all()

    async def shows(self, *lamps: Lamp) -> Lamp:
        """Wait until the lamp shows one of these; returns it."""
        shown = await asyncio.to_thread(self._wait, lambda: bool(self.lamps) and self.lamps[-1] in lamps, PATIENCE_S)
        assert shown, f"{lamps} expected, shown were {self.lamps}"
        return self.lamps[-1]

    async def watched(self) -> None:
        """Wait until the station waits for a unit."""
        assert await asyncio.to_thread(self._wait, lambda: self._watched, PATIENCE_S)

    def wait_seated(self, timeout_s: float) -> bool:
        with self._change:
            self._watched = True
            self._change.notify_all()
        self._wait(lambda: self._seated or self._hurried, timeout_s)
        return self._seated

    def wait_removed(self, timeout_s: float) -> bool:
        self._wait(lambda: not self._seated or self._taken or self._hurried, timeout_s)
        gone, self._taken = not self._seated or self._taken, False
        return gone

    def power_up(self) -> bytes:
        if not self._seated:
            raise TransportError("CONTACT.NO_ATR", "nothing is seated", where=self.url)
        return super().power_up()

    def power_down(self) -> None:
        if self._seated:
            super().power_down()

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        if not self._seated:
            raise TransportError("CONTACT.LOST", "taken out by the test", where=self.url)
        if self._cut is not None and not self.pull_at and apdu[5:7] == BPP_TAG:
            self.pull_at, self.executed = len(self.sent) + self._cut[0], self._cut[1]
        return super().transmit(apdu, timeout_s)

    def lamp(self, lamp: Lamp) -> None:
        with self._change:
            super().lamp(lamp)
            self._change.notify_all()

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        with self._change:
            return self._change.wait_for(condition, timeout_s)


class Shop:
    """One station `st01` with heads h01, h02 ... over sockets; `start` as often as processes of it are to live.

    `tls_ca`: who issued the certificates of the SM-DP+ it may download from; None: it downloads nothing.
    """

    def __init__(self, folder: Path, world: WorldSummary, factory: Factory, store_url: str, clock: FakeClock) -> None:
        self.path = folder / "journal.db"
        self.world = world
        self.factory = factory
        self.clock = clock
        self.store_url = store_url
        self.settings = Station(id="st01", heads={"h01": HeadSettings(port=_MEMORY)})
        self.trust = TrustStore([world.ci.read_bytes()])
        self.taken = 0
        self.permits: Permits | None = None
        self.recipes = RecipeBook()
        self.tls_ca: Path | None = None

    @asynccontextmanager
    async def start(
        self,
        at_edge: AtEdge = pass_by,
        heads: int = 1,
        outbox: Outbox | None = None,
        *,
        life: Life | None = None,
        ports: dict[str, str] | None = None,
        cache: Cache | None = None,
    ) -> AsyncIterator[Run]:
        """Recover and run the heads for the block; then stop in order.

        `ports`: URL of each head's port, instead of `heads` sockets a test feeds by hand.
        """
        journal = Journal.open(self.path, "st01", self.clock, busy_timeout_s=0.05, retry_s=(0.02, 0.1))
        urls = ports or {f"h{number:02d}": _MEMORY for number in range(1, heads + 1)}
        run = Run(self, journal, at_edge, urls, outbox or Outbox(), life or Life(), cache)
        try:
            async with run.working():
                yield run
        finally:
            await asyncio.to_thread(journal.close)

    def chip(self, number: int = 0) -> Euicc:
        """A unit of the world as it left personalisation."""
        return Euicc.load(self.world.directory / "cards" / f"{self.world.units[number].eid}.card.json")

    def eid(self, number: int = 0) -> Eid:
        return Eid(self.world.units[number].eid)

    def record(self, number: int = 0) -> UnitRecord:
        """What the books say of a unit."""
        found = self.factory.unit(self.eid(number))
        assert found is not None
        return found

    def state(self, number: int = 0) -> PackageState:
        (package,) = self.record(number).packages
        return PackageState(package.state)

    async def supervise(self, journal: Journal) -> list[ReceivedEvent]:
        """Take every waiting event into the books and acknowledge it, as a supervisor would."""
        rows = await asyncio.wrap_future(journal.unacked(0, 1000))
        events = [ReceivedEvent.parse("st01", row.body) for row in rows]
        if events:
            (result,) = await asyncio.to_thread(self.factory.take_events, events, self.clock.now())
            assert result.rejected == ()
            await asyncio.wrap_future(journal.acknowledge(result.through, []))
        return events


class Run:
    """One life of the station."""

    def __init__(
        self,
        shop: Shop,
        journal: Journal,
        at_edge: AtEdge,
        ports: dict[str, str],
        outbox: Outbox,
        life: Life,
        cache: Cache | None = None,
    ) -> None:
        self._shop = shop
        self.journal = journal
        self.gate = Gate()
        self.metrics = Metrics(Role.STATION, line="L1", station="st01")
        self.board = Board("st01", journal.boot_id, shop.clock)
        self.watch = Watch(journal, self.gate, outbox, self.metrics, shop.clock)
        self.stopping = asyncio.Event()
        self.jobs = Jobs("st01")
        self.jobs.update(JobState(schema="job/1.0", id="", ts="", node_id="_line", boot_id="", epoch=1, jobs=[JOB]))
        self.sockets = [Socket() for url in ports.values() if url == _MEMORY]
        self.lives = Lives(ports, life, clock=shop.clock)
        self.lock = Lock(self.gate)
        self.commands = Commands("st01", self.lives, self.board, journal, self.metrics, shop.clock, self.lock)
        self.store = StoreClient(shop.store_url, timeout_s=30)
        self.supplier = Supplier(
            self.store, cache, journal, self.gate, shop.clock, margin_s=shop.settings.cache.margin_s
        )
        self.downloads = (
            None
            if shop.tls_ca is None
            else Downloads(
                Es9Client(outward_context(shop.tls_ca), timeout_s=PATIENCE_S),
                RspBook(journal, shop.clock),
                shop.trust,
                shop.clock,
            )
        )
        floor = Floor(
            settings=Station(
                id="st01",
                heads={name: HeadSettings(port=url) for name, url in ports.items()},
                outbox=outbox,
                recipe=shop.settings.recipe,
            ),
            permits=shop.permits,
            clock=shop.clock,
            journal=journal,
            store=self.supplier,
            trust=shop.trust,
            jobs=self.jobs,
            board=self.board,
            gate=self.gate,
            lives=self.lives,
            metrics=self.metrics,
            stopping=self.stopping,
            at_edge=at_edge,
            downloads=self.downloads,
            recipes=shop.recipes,
        )
        made: list[CardPort] = list(self.sockets) or [make_port(url) for url in ports.values()]
        self._heads = [Head(name, port, floor) for name, port in zip(ports, made, strict=True)]

    @property
    def socket(self) -> Socket:
        return self.sockets[0]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.journal.watch(lambda fault: loop.call_soon_threadsafe(self.watch.trouble, fault))
        await recover(self.journal, "st01", list(self.board.rows), self._shop.clock)
        lives = await asyncio.wrap_future(self.journal.lives())
        self.lives.restore(lives)
        self.lock.restore(lives)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            if self.downloads is not None:
                await stack.enter_async_context(self.downloads.client)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            for head in self._heads:
                tasks.create_task(head.run(), name=head.head_id)
            try:
                yield
            finally:
                self.stopping.set()
                for socket in self.sockets:
                    socket.hurry()
        self.journal.watch(lambda _fault: None)

    async def load(self, chip: Euicc, *lamps: Lamp) -> Lamp:
        """Seat a chip, wait for a verdict, take it out and wait until the head has seen that."""
        self.socket.seat(chip)
        lamp = await self.socket.shows(*(lamps or (Lamp.PASS, Lamp.FAIL, Lamp.RESEAT, Lamp.HOLD)))
        self.socket.take()
        await self.socket.shows(Lamp.OFF)
        return lamp

    async def supervise(self) -> list[ReceivedEvent]:
        return await self._shop.supervise(self.journal)

    async def held(self) -> dict[str, str]:
        return await asyncio.wrap_future(self.journal.held())


@asynccontextmanager
async def open_shop(folder: Path, world: WorldSummary) -> AsyncIterator[Shop]:
    """A store with everything of a world imported, and a station that has not begun yet."""
    clock = FakeClock(datetime.now(UTC))
    factory = Factory.open(f"sqlite:///{folder / 'factory.db'}")
    trust = TrustStore([world.ci.read_bytes()])
    for file in filter(None, (world.esed, *world.deliveries)):
        import_file(file, factory, trust, now=clock.now(), line="L1")
    async with serving(factory, clock) as url:
        yield Shop(folder, world, factory, url, clock)
    factory.close()


@pytest.fixture
async def shop(tmp_path: Path, world: WorldSummary) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, world) as opened:
        yield opened


def truth(chip: Euicc) -> tuple[int, int, bool]:
    """What a chip really holds: (profiles, one-time keys that could still be used, whether it is locked)."""
    contents = card_contents(chip)
    return len(contents["profiles"]), contents["keys_left"], contents["fpa_locked"]
