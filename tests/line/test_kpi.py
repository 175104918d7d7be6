"""Figures against a brute-force count of the same events: shuffled, doubled, late; on both databases."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ifpp.line import kpi_desk
from ifpp.line.kpi import figures_of, percentile
from ifpp.line.kpi_book import KpiBook
from ifpp.line.shifts import Window
from ifpp.model.clock import utc_ms_text
from ifpp.model.kpi import Figures
from ifpp.model.kpi import Kpi as KpiDocument
from ifpp.model.messages import Job, Product, Recipe, StateChanged, UnitRef, UnitResultEvent
from ifpp.settings import Calendar, Kpi, Shift, Site
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from tests.bus.node import TOPICS, Node, until
from tests.line.world import JOB, GatedFactory, eid_of, site_at, supervised, unit_result
from tests.real import postgres
from tests.real.mosquitto import running

T0 = datetime(2026, 3, 2, 6, tzinfo=UTC)
WINDOW = Window(
    "shift",
    "2026-03-02/early",
    T0,
    T0 + timedelta(hours=8),
    ((T0 + timedelta(hours=4), T0 + timedelta(hours=4, minutes=15)),),
)
NOW = T0 + timedelta(hours=9)
PLANNED = Kpi(planned_cycle_s=12.0)
JOBS = {
    name: Job(
        job_order_id=name,
        version=1,
        product=Product(part_number=f"SKU-{name}"),
        region="EU",
        recipe=Recipe(name="r"),
        quantity=100,
    )
    for name in ("A", "B")
}


@dataclass(frozen=True)
class Try:
    """One attempt: `at` and `took` in seconds from T0."""

    station: str
    head: str
    job: str
    operation: str
    unit: str
    attempt: int
    result: str
    at: int
    took: int


@dataclass(frozen=True)
class Stay:
    station: str
    head: str
    e10: str
    code: int
    at: int
    took: int
    next_e10: str
    next_code: int


CODES = {"PRD": 1100, "SBY": 2202, "UDT": 5300, "SDT": 4500, "ENG": 3100}


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Any]:
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
def new_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Makes empty factories on one kind of database."""
    opened: list[Factory] = []

    def make() -> Factory:
        url = f"sqlite:///{tmp_path}/{len(opened)}.db"
        if request.param == "postgres":
            url = request.getfixturevalue("servers").new_database()
        factory = Factory.open(url)
        opened.append(factory)
        for name, job in JOBS.items():
            with factory.intake("job", name, name, T0) as intake:
                intake.add_job("L1", job)
        return factory

    yield make
    for factory in opened:
        factory.close()


def events(tries: list[Try], stays: list[Stay]) -> list[ReceivedEvent]:
    """The events that stations would have told, each with its number."""
    seqs: dict[str, int] = defaultdict(int)
    found = []
    both: list[Try | Stay] = [*tries, *stays]
    for one in sorted(both, key=lambda item: item.at + item.took):
        seqs[one.station] += 1
        seq = seqs[one.station]
        end = utc_ms_text(T0 + timedelta(seconds=one.at + one.took))
        name = str(UUID(int=hash((one.station, seq)) & (1 << 128) - 1))
        found.append(_try(one, seq, name, end) if isinstance(one, Try) else _stay(one, seq, name, end))
    return [ReceivedEvent.parse(event.node_id, msgspec.json.encode(event)) for event in found]


def _try(one: Try, seq: int, name: str, end: str) -> UnitResultEvent:
    classes = {"PASS": "PASS", "FAIL": "PRODUCT", "ERROR": "CONTACT"}
    return UnitResultEvent(
        schema="unit_result/1.0",
        id=name,
        ts=end,
        node_id=one.station,
        seq=seq,
        boot_id="boot",
        transaction_id=name,
        operation=one.operation,
        unit=UnitRef(sn=one.unit),
        job_order_id=one.job,
        product=JOBS[one.job].product,
        region="EU",
        recipe=JOBS[one.job].recipe,
        head_id=one.head,
        attempt=one.attempt,
        result=one.result,
        outcome_class=classes[one.result],
        disposition="CONTINUE",
        clean_to_ship=False,
        started_at=utc_ms_text(T0 + timedelta(seconds=one.at)),
        ended_at=end,
        cycle_ms=one.took * 1000,
        load_ms=one.took * 900,
        handling_ms=0,
    )


def _stay(one: Stay, seq: int, name: str, end: str) -> StateChanged:
    return StateChanged(
        schema="state_changed/1.0",
        id=name,
        ts=end,
        node_id=one.station,
        seq=seq,
        boot_id="boot",
        resource=one.head,
        old=one.e10,
        old_code=one.code,
        old_duration_ms=one.took * 1000,
        new=one.next_e10,
        new_code=one.next_code,
    )


# ---- the same by brute force ---------------------------------------------------------------------------


def brute(tries: list[Try], part: Any = lambda _one: True) -> dict[str, int]:
    """Count attempts as people would: unit by unit."""
    found: dict[str, int] = defaultdict(int)
    units: dict[tuple[str, str], list[Try]] = defaultdict(list)
    numbered = {id(one): seq for seq, one in enumerate(sorted(tries, key=lambda one: one.at + one.took))}
    for one in tries:
        if one.unit:
            units[one.operation, one.unit].append(one)
        elif inside(one) and part(one):
            found["unidentified"] += 1
    for of_unit in units.values():
        of_unit.sort(key=lambda one: (one.attempt, one.at, one.station, numbered[id(one)]))
        for place, one in enumerate(of_unit):
            if not inside(one) or not part(one):
                continue
            first, last = place == 0, place == len(of_unit) - 1
            passed = one.result == "PASS"
            found["attempts"] += 1
            found["units_in"] += first
            found["first_pass"] += first and passed
            found["first_error"] += first and one.result == "ERROR"
            found["units_out"] += last
            found["final_pass"] += last and passed
            found["units_retested"] += place == 1
            found["recovered"] += last and passed and not first
            found["reseats"] += not first and of_unit[place - 1].result == "ERROR"
    return found


def inside(one: Try) -> bool:
    return 0 <= one.at + one.took < 8 * 3600


def brute_states(stays: list[Stay]) -> dict[str, int]:
    """Look at every second of every head."""
    found: dict[str, int] = defaultdict(int)
    heads: dict[tuple[str, str], list[Stay]] = defaultdict(list)
    for stay in stays:
        heads[stay.station, stay.head].append(stay)
    for of_head in heads.values():
        last = max(of_head, key=lambda stay: stay.at + stay.took)
        open_at = last.at + last.took
        beyond = Stay(
            last.station, last.head, last.next_e10, last.next_code, open_at, max(0, 8 * 3600 - open_at), "", 0
        )
        for stay in [*of_head, beyond]:
            for second in range(max(0, stay.at), min(8 * 3600, stay.at + stay.took)):
                planned = not 4 * 3600 <= second < 4 * 3600 + 900
                found[stay.e10 if planned or stay.e10 == "PRD" else "NST"] += 1000
    return {name: ms for name, ms in found.items() if ms}


# ---- made-up lines ---------------------------------------------------------------------------------------

attempts = st.builds(
    Try,
    station=st.sampled_from(["st01", "st02"]),
    head=st.sampled_from(["h01", "h02"]),
    job=st.sampled_from(["A", "B"]),
    operation=st.sampled_from(["LOAD", "TEST"]),
    unit=st.sampled_from(["", *(f"U{number}" for number in range(6))]),
    attempt=st.integers(1, 3),
    result=st.sampled_from(["PASS", "FAIL", "ERROR"]),
    at=st.integers(-600, 8 * 3600),
    took=st.integers(1, 900),
)


@st.composite
def lives(draw: st.DrawFn) -> list[Stay]:
    """Stays of two heads, one after another, from before the window to within it or beyond."""
    found = []
    for station, head in (("st01", "h01"), ("st02", "h02")):
        at = draw(st.integers(-3600, 3600))
        names = draw(st.lists(st.sampled_from(sorted(CODES)), min_size=1, max_size=8))
        for number, name in enumerate(names):
            took = draw(st.integers(1, 3 * 3600))
            after = names[number + 1] if number + 1 < len(names) else "SBY"
            found.append(Stay(station, head, name, CODES[name], at, took, after, CODES[after]))
            at += took
    return found


@given(
    tries=st.lists(attempts, max_size=30, unique_by=lambda one: (one.station, one.at + one.took)),
    stays=lives(),
    seed=st.integers(0, 99),
)
@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_figures_are_those_of_a_count_by_hand(new_factory: Any, tries: list[Try], stays: list[Stay], seed: int) -> None:
    factory = new_factory()
    tries = [
        *tries,
        Try("st01", "h01", "A", "LOAD", "X", 1, "PASS", 100, 3),
        Try("st02", "h02", "A", "LOAD", "Y", 1, "PASS", 200, 4),
    ]
    told, random = events(tries, stays), Random(seed)
    late = random.sample(told, len(told) // 4)
    random.shuffle(told)
    for part in (told[: len(told) // 2], told, late, told[:3]):
        factory.take_events(part, NOW)
    content = figures_of(factory, "L1", WINDOW, PLANNED, now=NOW, jobs=JOBS)
    check(content["total"], brute(tries))
    for station, figures in content["stations"].items():
        check(figures, brute(tries, lambda one, station=station: one.station == station))
    for operation, figures in content["operations"].items():
        check(figures, brute(tries, lambda one, operation=operation: one.operation == operation))
    for sku, figures in content["skus"].items():
        check(figures, brute(tries, lambda one, sku=sku: f"SKU-{one.job}" == sku))
    assert content["total"].state_ms == brute_states(stays)
    assert (
        content["cycle_ms_p50"]
        == sorted(one.took * 1000 for one in tries if inside(one))[(sum(map(inside, tries)) + 1) // 2 - 1]
    )
    check_oee(content["total"], stays)


def check(figures: Figures, wanted: dict[str, int]) -> None:
    for name in (
        "units_in",
        "first_pass",
        "first_error",
        "units_out",
        "final_pass",
        "attempts",
        "unidentified",
        "units_retested",
        "recovered",
        "reseats",
    ):
        assert getattr(figures, name) == wanted[name], name
    assert figures.fpy == (wanted["first_pass"] / wanted["units_in"] if wanted["units_in"] else None)


def check_oee(figures: Figures, stays: list[Stay]) -> None:
    oee, states = figures.oee, brute_states(stays)
    assert oee is not None
    assert oee.pbt_ms == sum(states.get(name, 0) for name in ("PRD", "SBY", "UDT"))
    assert oee.apt_ms == states.get("PRD", 0)
    assert oee.planned_ms == 12_000 * oee.pq
    if oee.apt_ms and oee.oee is not None:
        assert oee.availability is not None
        assert oee.effectiveness is not None
        assert oee.quality is not None
        assert math.isclose(oee.oee, oee.availability * oee.effectiveness * oee.quality)


def test_late_events_make_the_next_revision_and_nothing_else_does(new_factory: Any) -> None:
    factory = new_factory()
    site = Site("e", "s", "a", "L1", calendar=Calendar(shifts=(Shift("early", "06:00", "14:00"),)), kpi=PLANNED)
    book = KpiBook(site, factory)
    tries = [Try("st01", "h01", "A", "LOAD", f"U{number}", 1, "PASS", 60 * number, 12) for number in range(10)]
    after = Try("st01", "h01", "A", "LOAD", "late", 1, "PASS", 8 * 3600 + 10, 12)
    told = events([*tries, after], [])
    window = book.shifts.named("2026-03-02/early", NOW)
    factory.take_events([*told[:4], *told[5:]], NOW)
    first = book.write(window, NOW, keep=True)
    assert (first.revision, first.content["complete"], first.content["total"].good) == (1, False, 9)
    assert book.write(window, NOW + timedelta(hours=1), keep=True).revision == 1
    factory.take_events([told[4]], NOW)
    assert book.write(window, NOW).revision == 2  # as it would be told
    second = book.write(window, NOW, keep=True)
    assert (second.revision, second.content["complete"], second.content["total"].good) == (2, True, 10)
    assert second.content["total"].fpy == 1.0
    factory.take_events(told, NOW)  # all of it again
    assert book.write(window, NOW, keep=True).revision == 2


def test_a_window_is_complete_when_every_station_was_heard_beyond_it(new_factory: Any) -> None:
    factory = new_factory()
    tries = [Try(station, "h01", "A", "LOAD", station, 1, "PASS", 60, 12) for station in ("st01", "st02")]
    beyond = [replace(one, at=8 * 3600, unit=f"{one.unit}b") for one in tries]
    told = events([*tries, *beyond], [])
    factory.take_events(told[:3], NOW)
    assert not figures_of(factory, "L1", WINDOW, PLANNED, now=NOW, jobs=JOBS)["complete"]
    factory.take_events(told, NOW)
    assert figures_of(factory, "L1", WINDOW, PLANNED, now=NOW, jobs=JOBS)["complete"]
    running = figures_of(factory, "L1", WINDOW, PLANNED, now=T0 + timedelta(hours=2), jobs=JOBS)
    assert not running["complete"]


def test_failures_repair_and_what_costs_most(new_factory: Any) -> None:
    factory = new_factory()
    stays = [
        Stay("st01", "h01", "PRD", 1100, 0, 3600, "UDT", 5100),
        Stay("st01", "h01", "UDT", 5100, 3600, 600, "UDT", 5300),
        Stay("st01", "h01", "UDT", 5300, 4200, 300, "PRD", 1100),
        Stay("st01", "h01", "PRD", 1100, 4500, 1800, "UDT", 5300),
        Stay("st01", "h01", "UDT", 5300, 6300, 100, "SBY", 2202),
    ]
    tries = [
        Try("st01", "h01", "A", "LOAD", "U1", 1, "ERROR", 10, 40),
        Try("st01", "h01", "A", "LOAD", "U1", 2, "PASS", 60, 12),
    ]
    factory.take_events(events(tries, stays), NOW)
    content = figures_of(factory, "L1", WINDOW, PLANNED, now=T0 + timedelta(seconds=6400), jobs=JOBS)
    head = content["heads"]["st01/h01"]
    assert (head.failures, head.down_ms, head.repair_ms) == (2, 1_000_000, 400_000)
    assert (head.mtbf_s, head.mdt_s, head.mttr_s) == (2700.0, 500.0, 200.0)
    assert list(content["losses"])[:2] == ["UDT 5100", "UDT 5300"]
    assert content["losses"]["?"].ms == 40_000
    assert content["top_defects"] == {"?": 1}
    assert (head.recovered, head.reseats, head.fpy_product) == (1, 1, None)


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 20), (0.95, 40), (0.25, 10), (0.26, 20), (1.0, 40)])
def test_percentiles_are_nearest_rank(share: float, wanted: int) -> None:
    assert percentile({20: 1, 10: 1, 40: 1, 30: 1}, share) == wanted
    assert percentile({}, share) is None
    assert percentile({10: 3, 20: 1}, share) == (10 if share < 0.9 else 20)


async def test_the_supervisor_tells_hour_shift_and_job_and_shows_exact_gauges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kpi_desk, "KPI_S", 0.1)
    factory = GatedFactory.at(tmp_path)
    try:
        factory.add_job(JOB)
        factory.take_events(
            [ReceivedEvent.parse("st01", unit_result("st01", 1, eid=str(eid_of(1))))], datetime.now(UTC)
        )
        async with running(tmp_path) as broker, supervised(site_at(broker.port), factory) as supervisor:
            async with Node(
                broker.port, "reader", [TOPICS.kpi(kind) for kind in ("hour", "shift", "job")]
            ).up() as reader:
                await until(lambda: all(reader.payloads(TOPICS.kpi(kind)) for kind in ("hour", "shift", "job")))
                told = msgspec.json.decode(reader.payloads(TOPICS.kpi("job"))[-1], type=KpiDocument)
            assert (told.window.job_order_id, told.units_in, told.good, told.revision) == ("JO-1", 1, 1, 0)
            assert supervisor.value("ifpp_kpi_units", window="job", count="good") == 1
            assert supervisor.value("ifpp_kpi_ratio", window="shift", ratio="fpy") == 1
    finally:
        factory.close()


def told_at(number: int, ended: datetime) -> ReceivedEvent:
    """A unit that passed at that time, as the station's next event."""
    document = msgspec.json.decode(unit_result("st01", number, eid=str(eid_of(number))), type=UnitResultEvent)
    end = utc_ms_text(ended)
    return ReceivedEvent.parse("st01", msgspec.json.encode(msgspec.structs.replace(document, ts=end, ended_at=end)))


async def test_the_last_document_of_an_hour_and_its_revisions_go_out_beside_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kpi_desk, "KPI_S", 0.05)
    monkeypatch.setattr(kpi_desk, "_SHARE", 0)  # windows that ended are counted one a round: all day's hours go by
    factory = GatedFactory.at(tmp_path)
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    try:
        factory.add_job(JOB)
        factory.take_events([told_at(1, hour + timedelta(minutes=5)), told_at(3, now)], now)
        async with running(tmp_path) as broker, supervised(site_at(broker.port), factory):
            async with Node(broker.port, "reader", [TOPICS.kpi("hour")]).up() as reader:

                def told() -> list[KpiDocument]:
                    found = [
                        msgspec.json.decode(body, type=KpiDocument) for body in reader.payloads(TOPICS.kpi("hour"))
                    ]
                    return [one for one in found if one.window.start == utc_ms_text(hour)]

                await until(lambda: bool(told()))
                assert [(one.revision, one.complete, one.good) for one in told()] == [(1, False, 1)]
                factory.take_events([told_at(2, hour + timedelta(minutes=50))], now)
                await until(lambda: len(told()) == 2)
                assert [(one.revision, one.complete, one.good) for one in told()[1:]] == [(2, True, 2)]
            async with Node(broker.port, "late", [TOPICS.kpi("hour")]).up() as reader:
                await until(lambda: bool(reader.payloads(TOPICS.kpi("hour"))))
                standing = msgspec.json.decode(reader.payloads(TOPICS.kpi("hour"))[0], type=KpiDocument)
                assert standing.window.start > utc_ms_text(hour)
    finally:
        factory.close()


def test_a_job_order_that_ended_has_revisions_and_one_that_is_due_a_takt(new_factory: Any) -> None:
    factory = new_factory()
    book = KpiBook(Site("e", "s", "a", "L1", kpi=PLANNED), factory)
    factory.take_events(events([Try("st01", "h01", "A", "LOAD", "U1", 1, "PASS", 60, 12)], []), NOW)
    window = book.job("A")
    assert window is not None
    assert book.write(window, NOW, job="A", keep=True).revision == 0
    due = utc_ms_text(NOW + timedelta(hours=1))
    for version, changes in ((2, {"due_at": due}), (3, {"due_at": due, "dispatch_status": "COMPLETED"})):
        with factory.intake("job", "A", f"A-{version}", NOW) as intake:
            intake.add_job("L1", msgspec.structs.replace(JOBS["A"], version=version, **changes))
        written = book.write(window, NOW, job="A", keep=True)
        if version == 2:
            assert written.content["takt_s"] == 3600 / 99
    assert written.revision == 1
    factory.take_events(events([Try("st02", "h01", "A", "LOAD", "U2", 1, "PASS", 61, 12)], []), NOW)
    assert book.write(book.job("A") or window, NOW, job="A", keep=True).revision == 2
