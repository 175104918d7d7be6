"""Every kind of card port over the same virtual slot; a new kind is one more row of KINDS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ifpp.fpa.chip import Chip
from ifpp.fpa.load import Verdict, load, prepare, read_back
from ifpp.hw.port import CardPort, make_port
from ifpp.sim.doors import Door
from ifpp.sim.euicc import Euicc
from ifpp.sim.lamps import LampServer
from ifpp.sim.modem import ModemServer
from ifpp.sim.readers import ReaderServer
from ifpp.sim.slots import Cut, Slot, SlotServer
from tests.fpa.conftest import Case
from tests.real import pcscd

T = TypeVar("T")
Slots = Mapping[str, Slot]


@dataclass(frozen=True)
class Kind:
    """How a station reaches a slot. `raw`: it carries the bytes of every APDU as they are.

    `netns` names the network namespace the chips live in; `patience_s` is how long a change of units may stay unseen.
    """

    door: Callable[[Slots, Path], Door]
    own_lamp: bool = False
    raw: bool = True
    patience_s: float = 20.0
    netns: Callable[[], str] = str


def _readers(slots: Slots, _folder: Path) -> Door:
    readers = pcscd.running()
    addresses = dict(zip(slots, readers.addresses, strict=False))
    return ReaderServer(slots, addresses, dict(zip(slots, readers.readers, strict=False)))


KINDS: dict[str, Kind] = {
    "tcp": Kind(lambda slots, _folder: SlotServer(slots), own_lamp=True),
    "unix": Kind(SlotServer, own_lamp=True),
    "modem-cgla": Kind(ModemServer, raw=False),
    "modem-csim": Kind(lambda slots, folder: ModemServer(slots, folder, "csim-only")),
    "pcsc": Kind(_readers, netns=lambda: pcscd.running().netns),
}


class Bench:
    """An event loop for virtual chips on a thread of its own."""

    def __init__(self, netns: str = "") -> None:
        self._loop = asyncio.new_event_loop()
        self._netns = netns
        self._thread = threading.Thread(target=self._run, name="chips")
        self._thread.start()

    def do(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function on the chips' thread and return its result."""

        async def step() -> T:
            return function(*args)

        return self.run(step())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the chips' thread and return its result."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        if self._netns:
            pcscd.enter(self._netns)
        self._loop.run_forever()


class Rig:
    """Some slots behind one kind of port, each with a lamp; `h01` is the one most tests use."""

    def __init__(self, kind: Kind, bench: Bench, slots: dict[str, Slot], door: Door, lamps: LampServer) -> None:
        self.kind = kind
        self.bench = bench
        self.slots = slots
        self._door = door
        self._lamps = lamps

    @property
    def slot(self) -> Slot:
        return self.slots["h01"]

    def url(self, head: str = "h01") -> str:
        """What a station file names as the port of a head."""
        return self._door.urls[head]

    def port(self, head: str = "h01") -> CardPort:
        """A port that is not opened yet."""
        return make_port(self._door.urls[head], "" if self.kind.own_lamp else self._lamps.urls[head])

    def seat(self, chip: Euicc | None, cut: Cut | None = None, *, head: str = "h01") -> None:
        self.bench.do(self.slots[head].seat, chip, cut)

    def unseat(self, head: str = "h01") -> None:
        self.bench.do(self.slots[head].unseat)

    def hang(self, seconds: float, head: str = "h01") -> None:
        """Let the chip answer no APDU for so long."""
        self.bench.do(setattr, self.slots[head], "apdu_s", seconds)


@contextmanager
def rig_of(kind: Kind, folder: Path, *, heads: int = 1) -> Iterator[Rig]:
    """Slots h01, h02 ... behind ports of a kind, for the block."""
    slots = {f"h{number:02d}": Slot(f"h{number:02d}") for number in range(1, heads + 1)}
    bench = Bench(kind.netns())
    door, lamps = kind.door(slots, folder), LampServer(slots, folder)
    try:
        bench.run(lamps.start())
        bench.run(door.start())
        yield Rig(kind, bench, slots, door, lamps)
    finally:
        bench.run(_stop(door, lamps))
        bench.close()


async def _stop(door: Door, lamps: LampServer) -> None:
    door.stop()
    lamps.stop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.02)  # connections say good-bye


def loaded(port: CardPort, case: Case) -> Verdict:
    """Take the seated chip through a load; raises what its reading raises, after the first byte never."""
    talker = Chip(port)
    talker.open()
    assert talker.identify(talker.eid()).eid == case.order.eid
    prepare(talker, case.order)
    verdict = load(talker, case.order, case.key)
    if verdict.pir is not None:
        read_back(talker, case.order.iccid, verdict.pir)
    talker.close()
    return verdict
