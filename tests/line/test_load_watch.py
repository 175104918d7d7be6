"""A socket that wears: its head's load times leave their chart, the line calls an operator, and calls no more."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import msgspec
import pytest

from ifpp.line.load_watch import LoadWatch
from ifpp.line.quality import limits_from, strata
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import UnitResultEvent
from ifpp.store import loads as loads_module
from ifpp.store.records import ReceivedEvent
from tests.clock import FakeClock
from tests.line.test_alarm_watch import Line
from tests.line.world import JOB, GatedFactory, eid_of, profile_result, send_package, stock, unit_result


class Heads:
    """A station whose heads load one profile again and again, as fast as their sockets let them."""

    def __init__(self, factory: GatedFactory, clock: FakeClock) -> None:
        factory.add_job(JOB)
        stock(factory, 1)
        self._factory = factory
        self._clock = clock
        self._package = send_package(factory, 1, "attempt-1")
        self._random = Random(7)
        self._seq = 0

    def load(self, *heads: str, units: int, wear: float = 1.0) -> None:
        """Load `units` on each head; `wear`: so many times as long as a good socket takes."""
        events = [self._event(head, wear) for _ in range(units) for head in heads]
        self._factory.take_events(events, self._clock.now())

    def _event(self, head: str, wear: float) -> ReceivedEvent:
        self._seq += 1
        ms = round(wear * 1000 * self._random.lognormvariate(0, 0.05))
        profile = msgspec.structs.replace(profile_result(self._package, "INSTALLED", spent=True), load_ms=ms)
        done = msgspec.json.decode(unit_result("st01", self._seq, eid_of(1), profile), type=UnitResultEvent)
        done = msgspec.structs.replace(done, head_id=head, ended_at=utc_ms_text(self._clock.now()))
        return ReceivedEvent.parse("st01", msgspec.json.encode(done))

    def freeze(self) -> None:
        """Freeze limits of what was loaded so far."""
        now, day = self._clock.now(), timedelta(days=1)
        ((name, values),) = strata(self._factory.figures.load_times("L1", now - day, now + day)).items()
        limits = limits_from(name, values, "", "")
        assert limits is not None
        self._factory.figures.freeze_limits("L1", limits, "anna", "a good week", self._clock.now())


@pytest.fixture
def line(factory: GatedFactory) -> Line:
    return Line(factory).start()


@pytest.fixture
def heads(factory: GatedFactory, line: Line) -> Heads:
    return Heads(factory, line.clock)


async def test_a_worn_socket_calls_an_operator_until_it_is_cleaned(line: Line, heads: Heads) -> None:
    heads.load("h01", "h02", units=75)
    assert await line.after() == {}, "no limits are frozen"
    heads.freeze()
    await line.after(10)
    heads.load("h01", units=10)
    heads.load("h02", units=5, wear=1.3)
    assert await line.after(10) == {}, "once is no call"
    heads.load("h02", units=5, wear=1.3)
    assert await line.after(10) == {"A-114 st01/h02": "UNACK_ALARM"}
    (alarm,) = line.last.alarms.values()
    assert (alarm.priority, "1 beyond 3 sigma" in alarm.text) == (3, True)
    line.start()  # the next supervisor reads the newest loads and says the same
    assert await line.after(10) == {"A-114 st01/h02": "UNACK_ALARM"}
    heads.load("h02", units=10)
    await line.after(10)
    assert await line.after(30) == {"A-114 st01/h02": "RTN_UNACK"}
    assert [code for code, _ in line.log()] == ["A-114", "A-114"]


async def test_every_load_is_read_once(
    line: Line, heads: Heads, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads.load("h01", units=125)
    heads.freeze()
    read: list[int] = []
    real = factory.figures.new_loads

    def counted(line: str, after: dict[str, int]) -> loads_module.NewLoads:
        found = real(line, after)
        read.append(len(found.loads))
        return found

    monkeypatch.setattr(factory.figures, "new_loads", counted)
    monkeypatch.setattr(loads_module, "_MOST", 20)
    watch = LoadWatch(factory, "L1", line.clock)
    for units in (30, 0, 3):
        heads.load("h01", units=units) if units else None
        await watch.look()
        await watch.look()  # it is not time yet
        line.clock.advance(5)
    await watch.look()
    assert read == [20, 0, 3, 0], "the newest page, then what is new"
    heads.load("h01", units=50)
    for _ in range(4):
        line.clock.advance(5)
        await watch.look()
    assert read[4:] == [19, 19, 12, 0], "a page at a time; the last unit of a full one comes with the next"


async def test_a_head_that_loads_no_more_is_called_for_no_more(line: Line, heads: Heads, factory: GatedFactory) -> None:
    heads.load("h01", units=125)
    heads.freeze()
    watch = LoadWatch(factory, "L1", line.clock)
    await watch.look()
    heads.load("h01", units=10, wear=1.3)
    line.clock.advance(5)
    await watch.look()
    assert list(watch.calls) == ["st01/h01"]
    line.clock.advance(24 * 3600 + 1)
    await watch.look()
    assert watch.calls == {}
