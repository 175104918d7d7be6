"""The supervisor with real brokers, a real database and stations that speak MQTT."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from ifpp.bus.broker import BrokerKind, free_port, start_demo_broker
from ifpp.bus.topics import LINE_NODE
from ifpp.errors import ServiceError
from ifpp.line import supervisor as supervisor_module
from ifpp.model.clock import SystemClock
from ifpp.model.messages import Online
from ifpp.store.records import ReceivedEvent
from ifpp.trust.signer import SoftwareSigner, create_key
from tests.bus.node import TOPICS, until
from tests.line.world import (
    JOB,
    GatedFactory,
    Running,
    Station,
    eid_of,
    line,
    profile_result,
    send_package,
    site_at,
    stock,
    supervised,
    unit_result,
)
from tests.real.mosquitto import both_brokers, running


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_BOOKS_S", 0.1)
    monkeypatch.setattr(supervisor_module, "_WATCH_S", 0.05)


@both_brokers
async def test_every_event_is_taken_once_and_acknowledged(
    kind: BrokerKind, tmp_path: Path, factory: GatedFactory
) -> None:
    async with running(tmp_path, kind) as broker, supervised(site_at(broker.port), factory) as supervisor:
        one, two = Station(broker.port, "st01"), Station(broker.port, "st02")
        async with one.up(), two.up():
            await asyncio.gather(one.send(*one.record(60)), two.send(*two.record(40)))
            await until(lambda: (one.through, two.through) == (60, 40))
            assert {ack.epoch for ack in one.acks} == {1}
            assert {ack.node_id for ack in one.acks} == {"st01"}
    assert factory.taken("st01") == list(range(1, 61))
    assert factory.taken("st02") == list(range(1, 41))
    assert supervisor.value("ifpp_events_total", outcome="taken") == 100
    assert factory.entered < 60  # groups, not single events


async def test_a_duplicate_is_acknowledged_again_and_stored_once(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):
        await station.send(*station.record(5))
        await until(lambda: station.through == 5)
        before = len(station.acks)
        await station.send(2, 2, 3)
        await until(lambda: len(station.acks) > before)
        assert station.acks[-1].through == 5
        await until(lambda: supervisor.value("ifpp_events_total", outcome="duplicate") == 3)
    assert factory.taken("st01") == [1, 2, 3, 4, 5]


async def test_through_stops_before_a_gap_and_jumps_when_it_is_filled(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, _, station):
        station.record(6)
        await station.send(6, 4, 2, 1)
        await until(lambda: station.through == 2)
        assert factory.taken("st01") == [1, 2, 4, 6]
        await station.send(3)
        await until(lambda: station.through == 4)
        await station.send(5)
        await until(lambda: station.through == 6)


async def test_nothing_is_acknowledged_before_it_is_committed(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):
        factory.gate.clear()
        await station.send(*station.record(3))
        await until(lambda: factory.entered == 1)
        await until(lambda: supervisor.value("ifpp_unacknowledged_oldest_seconds") > 0)
        assert station.acks == []
        factory.gate.set()
        await until(lambda: station.through == 3)
        await until(lambda: supervisor.value("ifpp_unacknowledged_oldest_seconds") == 0)


async def test_a_database_that_is_away_delays_and_loses_nothing(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):
        factory.faults = [ServiceError("DATABASE.UNREACHABLE", "gone") for _ in range(2)]
        await station.send(*station.record(3))
        await until(lambda: supervisor.value("ifpp_commit_failures_total") == 2)
        assert station.acks == []
        await until(lambda: station.through == 3)
    assert factory.taken("st01") == [1, 2, 3]


async def test_a_new_supervisor_has_a_new_epoch_and_takes_what_is_sent_again(
    tmp_path: Path, factory: GatedFactory
) -> None:
    async with running(tmp_path) as broker, Station(broker.port).up() as station:
        async with supervised(site_at(broker.port), factory):
            await station.send(*station.record(3))
            await until(lambda: station.through == 3)
        await until(lambda: station.online(LINE_NODE)[-1][0] is False)
        await station.send(*station.record(3))  # nobody listens; the broker says PUBACK all the same
        async with supervised(site_at(broker.port), factory):
            await until(lambda: [birth.epoch for birth in station.births] == [1, 2])
            assert station.through == 3
            await station.send(*station.outbox)
            await until(lambda: station.through == 6)
            assert {ack.epoch for ack in station.acks if ack.through == 6} == {2}
        sessions = [session for _, session in station.online(LINE_NODE)]
        assert sessions == sorted(sessions)
        assert len(set(sessions)) == 2
    assert factory.taken("st01") == [1, 2, 3, 4, 5, 6]


@pytest.mark.breaks_the_contract
async def test_poison_is_parked_and_the_line_goes_on(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):
        station.record(1)
        station.record(1, schema="unit_result/1.0")  # 2: a readable envelope, and nothing of a unit result
        station.record(1, id=None, ts=17)  # 3: the envelope is broken, node and number can be read
        station.record(1)
        station.outbox[77] = b"\x00\xffno json at all"
        await station.send(77, 1, 2, 3, 4)
        await until(lambda: station.through == 4)
        assert station.rejected == {2: "CUSTODY.EVENT_REFUSED", 3: "CUSTODY.EVENT_REFUSED"}
        await station.send(3)  # sent again, it is rejected again
        await until(lambda: sum(3 in {row.seq for row in ack.rejected} for ack in station.acks) == 2)
    assert factory.taken("st01") == [1, 4]
    assert sorted(row.seq for row in factory.parked()) == [0, 2, 3]
    assert supervisor.value("ifpp_events_total", outcome="rejected") == 3
    labels = {"schema": "state_changed", "reason": "envelope"}
    assert supervisor.value("ifpp_contract_violation_total", **labels) == 3


async def test_another_nodes_word_is_not_taken_for_the_senders(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):
        station.record(1, node_id="st02")
        await station.send(1)
        await until(
            lambda: supervisor.value("ifpp_contract_violation_total", schema="state_changed", reason="node") == 1
        )
        station.outbox.clear()
        await station.send(*station.record(1))  # the number it claimed is still free for the real event
        await until(lambda: station.through == 1)
    assert factory.taken("st01") == [1]
    assert [row.node_id for row in factory.parked()] == ["st01"]


async def test_a_cloned_disk_is_rejected(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, _, station):
        await station.send(*station.record(2))
        await until(lambda: station.through == 2)
        station.outbox.clear()
        station.record(2)
        await station.send(2)
        await until(lambda: station.rejected == {2: "CUSTODY.SEQ_CONFLICT"})


@both_brokers
async def test_a_killed_broker_costs_time_and_no_event(kind: BrokerKind, tmp_path: Path, factory: GatedFactory) -> None:
    factory.add_job(JOB)
    async with running(tmp_path, kind) as broker:
        port = broker.port
        async with Station(port).up() as station, supervised(site_at(port), factory) as supervisor:
            await station.send(*station.record(20))
            await until(lambda: station.through == 20)
            station.record(20)
            factory.gate.clear()
            before = factory.entered
            await station.send(21, 22, 23)
            await until(lambda: factory.entered > before)
            await broker.kill()
            await until(lambda: supervisor.value("ifpp_broker_connected", node="_line") == 0)
            factory.gate.set()  # committed, and the acknowledgement finds no broker
            await until(lambda: factory.taken("st01")[-1] > 20)
            again = await start_demo_broker(tmp_path / "again", port, SystemClock(), kind=kind)
            try:
                await until(lambda: len(station.connections) == 2 and station.client.connected)
                await until(lambda: supervisor.value("ifpp_broker_connections_total", node="_line") == 2)
                await station.send(*range(21, 41))
                await until(lambda: station.through == 40)
                await until(lambda: len(station.births) >= 2 and station.births[-1].epoch == 1)
                async with Station(port, "st99").up() as late:
                    await until(lambda: bool(late.jobs))  # what was retained has been said again
                await supervisor.end()
                station.stop.set()
                await until(lambda: not station.client.connected)
            finally:
                await again.stop()
    assert factory.taken("st01") == list(range(1, 41))


@both_brokers
async def test_a_late_station_finds_the_job_and_sees_it_change(
    kind: BrokerKind, tmp_path: Path, factory: GatedFactory
) -> None:
    factory.add_job(JOB)
    async with line(tmp_path, factory, kind) as (_, _, station):
        await until(lambda: bool(station.jobs))
        assert station.jobs[-1].jobs == [JOB]
        assert station.jobs[-1].epoch == 1
        changed = msgspec.structs.replace(JOB, version=2, quantity=50)
        await asyncio.to_thread(factory.add_job, changed)
        await until(lambda: station.jobs[-1].jobs == [changed])
        await asyncio.to_thread(factory.add_job, msgspec.structs.replace(JOB, version=3, dispatch_status="CLOSED"))
        await until(lambda: station.jobs[-1].jobs == [])


@both_brokers
async def test_the_line_knows_which_stations_are_there(kind: BrokerKind, tmp_path: Path, factory: GatedFactory) -> None:
    async with running(tmp_path, kind) as broker, supervised(site_at(broker.port), factory) as supervisor:
        watcher = Station(broker.port, "st00")
        async with watcher.up():
            async with Station(broker.port, "st01").up():
                await until(lambda: watcher.line[-1].stations == {"st00": True, "st01": True})
                await until(lambda: supervisor.value("ifpp_stations_online") == 2)
            await until(lambda: watcher.line[-1].stations == {"st00": True, "st01": False})
            await watcher.client.publish(TOPICS.online("st01"), b"", retain=True)  # decommissioned
            await until(lambda: watcher.line[-1].stations == {"st00": True})


@pytest.mark.breaks_the_contract
async def test_the_will_of_a_replaced_connection_does_not_count(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):

        async def say(*, online: bool, session: int) -> None:
            document = Online(schema="online/1.0", node_id="st09", online=online, session=session, boot_id="b", ts="t")
            await station.client.publish(TOPICS.online("st09"), msgspec.json.encode(document))

        await say(online=True, session=5)
        await say(online=False, session=4)
        await station.client.publish(TOPICS.online("st08"), b"[]")
        await until(lambda: supervisor.value("ifpp_contract_violation_total", schema="online", reason="schema") == 1)
        await until(lambda: station.line[-1].stations == {"st01": True, "st09": True})
        await say(online=False, session=5)
        await until(lambda: station.line[-1].stations == {"st01": True, "st09": False})


async def test_stopping_finishes_the_commit_acknowledges_and_says_offline(
    tmp_path: Path, factory: GatedFactory
) -> None:
    async with running(tmp_path) as broker, Station(broker.port).up() as station:
        async with supervised(site_at(broker.port), factory) as supervisor:
            factory.gate.clear()
            await station.send(*station.record(2))
            await until(lambda: factory.entered == 1)
            supervisor.stop.set()
            await asyncio.sleep(0.05)
            assert not supervisor.task.done()
            factory.gate.set()
            await supervisor.task
        await until(lambda: station.through == 2)
        await until(lambda: station.online(LINE_NODE)[-1][0] is False)
        acked, offline = (
            max(n for n, one in enumerate(station.received) if one.topic == topic)
            for topic in (TOPICS.ack("st01"), TOPICS.online(LINE_NODE))
        )
        assert acked < offline


async def test_a_second_supervisor_waits_until_the_line_is_free(tmp_path: Path, factory: GatedFactory) -> None:
    async with running(tmp_path) as broker, Station(broker.port).up() as station:
        async with supervised(site_at(broker.port, lease_s=2.0), factory) as first:
            second = Running(site_at(broker.port, lease_s=2.0), factory)
            await asyncio.sleep(2.2)  # more than a lease: the first one renews
            assert not second.ready.is_set()
            assert first.value("ifpp_line_epoch") == 1
            assert second.value("ifpp_line_epoch") == 0
        await until(second.ready.is_set)
        assert second.value("ifpp_line_epoch") == 2
        await station.send(*station.record(1))
        await until(lambda: station.through == 1)
        await second.end()


async def test_the_lease_of_a_dead_supervisor_with_a_wrong_clock_ends(tmp_path: Path, factory: GatedFactory) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    factory.acquire_line("L1", "dead", 1.0, tomorrow)
    async with running(tmp_path) as broker:
        supervisor = Running(site_at(broker.port, lease_s=1.0), factory)
        await asyncio.sleep(0.8)
        assert supervisor.value("ifpp_line_epoch") == 0  # it could be alive still
        await until(supervisor.ready.is_set)
        assert supervisor.value("ifpp_line_epoch") == 2
        await supervisor.end()


async def test_a_supervisor_that_lost_its_lease_leaves_the_line(tmp_path: Path, factory: GatedFactory) -> None:
    async with running(tmp_path) as broker:
        site = site_at(broker.port, lease_s=1.0)
        async with Station(broker.port).up() as station, supervised(site, factory) as supervisor:
            later = datetime.now(UTC) + timedelta(seconds=60)
            epoch = await asyncio.to_thread(factory.acquire_line, "L1", "another", 3600, later)
            assert epoch > 1
            await until(lambda: station.online(LINE_NODE)[-1][0] is False)
            await until(lambda: supervisor.value("ifpp_line_epoch") == 0)
            await station.send(*station.record(1))
            await asyncio.to_thread(factory.release_line, "L1", "another", datetime.now(UTC))
            await until(lambda: station.births[-1].epoch == epoch + 1)
            assert station.acks == []
            await station.send(1)
            await until(lambda: station.through == 1)


async def test_it_starts_before_broker_and_database_are_there(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, away = free_port(), ServiceError("DATABASE.UNREACHABLE", "gone")
    with monkeypatch.context() as patch:

        def refuse(*_: object, **__: object) -> int:
            raise away

        patch.setattr(factory, "acquire_line", refuse)
        supervisor = Running(site_at(port, lease_s=0.3), factory)
        await asyncio.sleep(0.2)
    async with running(tmp_path, port=port):
        await until(supervisor.ready.is_set)
        await supervisor.end()


async def test_the_books_become_gauges_and_the_line_document(tmp_path: Path, factory: GatedFactory) -> None:
    stock(factory, 3)
    factory.add_job(JOB)
    async with line(tmp_path, factory) as (_, supervisor, station):
        done, failed = (send_package(factory, number, f"attempt-{number}") for number in (1, 2))
        installed = profile_result(done, "INSTALLED", spent=True, pir=b"pir")
        refused = profile_result(failed, "FAILED", spent=True, error="EUICC.LOAD_REFUSED: no")
        station.outbox[1] = unit_result("st01", 1, eid_of(1), installed)
        station.outbox[2] = unit_result("st01", 2, eid_of(2), refused, result="FAIL")
        await station.send(1, 2, name="unit_result")
        await until(lambda: station.line[-1].units == 2)
        assert (station.line[-1].passed, station.line[-1].failed) == (1, 1)
        labels = {"sku": "P-100", "region": "EU", "smdp": "2.999.10"}
        await until(lambda: supervisor.metrics.value("ifpp_packages", **labels, state="INSTALLED") == 1)
        assert supervisor.metrics.value("ifpp_packages", **labels, state="FAILED") == 1
        assert supervisor.metrics.value("ifpp_packages", **labels, state="AVAILABLE") == 1
        assert supervisor.value("ifpp_line_units", verdict="passed") == 1


async def test_coverage_and_low_stock_are_gauges(tmp_path: Path, factory: GatedFactory) -> None:
    stock(factory, 3)
    installed = profile_result(send_package(factory, 1, "attempt-1"), "INSTALLED", spent=True, pir=b"pir")
    document = unit_result("st01", 1, eid_of(1), installed)
    factory.take_events([ReceivedEvent.parse("st01", document)], datetime.now(UTC))
    product = {"sku": "P-100", "region": "EU"}
    async with line(tmp_path, factory) as (_, supervisor, _station):
        await until(lambda: supervisor.metrics.value("ifpp_low_stock", **product) == 1)
        assert supervisor.metrics.value("ifpp_coverage_chips", **product) == 2
        assert supervisor.metrics.value("ifpp_coverage_hours", **product) == 2


async def test_the_oldest_open_package_has_an_age(tmp_path: Path, factory: GatedFactory) -> None:
    stock(factory, 1)
    async with line(tmp_path, factory) as (_, supervisor, station):
        await until(lambda: "ifpp_open_package_oldest_seconds" in supervisor.metrics.text().decode())
        assert supervisor.metrics.value("ifpp_open_package_oldest_seconds", state="SENT") == 0
        package = send_package(factory, 1, "attempt-1")
        await until(lambda: supervisor.metrics.value("ifpp_open_package_oldest_seconds", state="SENT") > 0)
        done = profile_result(package, "INSTALLED", spent=True, pir=b"pir")
        station.outbox[1] = unit_result("st01", 1, eid_of(1), done)
        await station.send(1, name="unit_result")
        await until(lambda: supervisor.metrics.value("ifpp_open_package_oldest_seconds", state="SENT") == 0)


async def test_a_supervisor_with_a_key_signs_what_it_takes(tmp_path: Path, factory: GatedFactory) -> None:
    stock(factory, 1)
    create_key(tmp_path / "audit.key")
    package = send_package(factory, 1, "attempt-1")
    signer = SoftwareSigner.load(tmp_path / "audit.key")
    async with (
        running(tmp_path) as broker,
        supervised(site_at(broker.port), factory, signer=signer) as supervisor,
        Station(broker.port).up() as station,
    ):
        station.outbox[1] = unit_result(
            "st01", 1, eid_of(1), profile_result(package, "INSTALLED", spent=True, pir=b"pir")
        )
        await station.send(1, name="unit_result")
        await until(lambda: factory.unit_gate(eid_of(1)).signed)
        assert supervisor.metrics.value("ifpp_audit_unsigned_entries", chain="factory") >= 0
    with factory.audit_log() as log:
        (head,) = log.heads()
        last = log.last_checkpoint("factory")
    assert last is not None
    assert last.number == head.number, "the last act of a supervisor is a signature under everything"
