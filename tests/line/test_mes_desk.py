"""The line and its MES over a real broker: orders down, results up, each once, through every kind of absence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ifpp.line import mes_desk as module
from ifpp.model.alarms import ActiveAlarms
from ifpp.model.messages import Ack, Rejected
from ifpp.settings import Mes, Site
from tests.bus.node import TOPICS, Node, until
from tests.line.world import (
    JOB,
    GatedFactory,
    Station,
    eid_of,
    profile_result,
    send_package,
    site_at,
    stock,
    supervised,
    unit_result,
)
from tests.real.mosquitto import running

L = f"{TOPICS.base}/_line"
START = b'{"schema":"job_order/1.0","request_id":"r-9","job_order_id":"JO-9","version":1,"command":"START"}'


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOKS_S", 0.05)
    monkeypatch.setattr(module, "_ROUND_S", 0.02)
    monkeypatch.setattr(module, "_RESEND_FIRST_S", 0.2)


def with_mes(port: int, **mes: Any) -> Site:
    """A line whose log holds what a test puts there: alarms take numbers, too, so none tells of low stock."""
    site = site_at(port)
    store = msgspec.structs.replace(site.store, low_stock_hours=0.0)
    return msgspec.structs.replace(site, store=store, mes=Mes(enabled=True, response_s=0.0, **mes))


class MesNode(Node):
    """An MES that keeps the contract."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "_mes", [f"{L}/evt/+", f"{L}/cmd_rsp/+", f"{L}/state/+"])

    async def command(self, command: str, *, request_id: str = "", **changes: Any) -> dict[str, Any]:
        request_id = request_id or str(uuid4())
        document: dict[str, Any] = {
            "schema": "job_order/1.0",
            "request_id": request_id,
            "job_order_id": "JO-1",
            "version": 1,
            "command": command,
            "product": {"part_number": "P-100"},
            "recipe": {"name": "load"},
            "region": "EU",
            "quantity": 2,
        }
        await self.client.publish(f"{L}/cmd/job_order", json.dumps(document | changes).encode())
        before = len(self.answers(request_id))
        await until(lambda: len(self.answers(request_id)) > before)
        return self.answers(request_id)[-1]

    def answers(self, request_id: str) -> list[dict[str, Any]]:
        found = [json.loads(body) for body in self.payloads(f"{L}/cmd_rsp/job_order")]
        return [one for one in found if one["request_id"] == request_id]

    def told(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.payloads(f"{L}/evt/{name}")]

    def orders(self) -> dict[str, Any]:
        found = self.payloads(f"{L}/state/job_orders")
        orders: dict[str, Any] = json.loads(found[-1])["orders"] if found else {}
        return orders

    async def acknowledge(self, through: int, *refused: int) -> None:
        rows = [Rejected(seq=seq, id="", code="MES.SCHEMA", text="no such unit") for seq in refused]
        ack = Ack(schema="ack/1.0", ts="2026-03-01T08:00:00.000Z", node_id="_line", epoch=1, through=through)
        ack = msgspec.structs.replace(ack, rejected=rows)
        await self.client.publish(f"{L}/ack/mes", msgspec.json.encode(ack))


@asynccontextmanager
async def plant(folder: Path, factory: GatedFactory, **mes: Any) -> AsyncIterator[tuple[MesNode, Station, Any]]:
    async with (
        running(folder) as broker,
        supervised(with_mes(broker.port, **mes), factory) as supervisor,
        MesNode(broker.port).up() as node,
        Station(broker.port).up() as station,
    ):
        yield node, station, supervisor


async def make(station: Station, factory: GatedFactory, *numbers: int) -> None:
    for number in numbers:
        seq = len(station.outbox) + 1
        profile = profile_result(send_package(factory, number, f"attempt-{seq}"), "INSTALLED", spent=True)
        station.outbox[seq] = unit_result("st01", seq, eid_of(number), profile)
        await station.send(seq, name="unit_result")


async def test_an_order_runs_from_start_to_response(tmp_path: Path, factory: GatedFactory) -> None:
    stock(factory, 3)
    async with plant(tmp_path, factory) as (mes, station, _):
        assert (await mes.command("START"))["dispatch_status"] == "RUNNING"
        await until(lambda: [job.dispatch_status for job in station.jobs[-1].jobs] == ["RUNNING"])
        await make(station, factory, 1, 2)
        await until(lambda: len(mes.told("job_response")) >= 1)
        await mes.acknowledge(3)
        await until(lambda: factory.line_log_state("L1").acknowledged == 3)
        await until(lambda: mes.orders()["JO-1"]["dispatch_status"] == "COMPLETED")
    response = mes.told("job_response")[0]
    assert (response["good"], response["units_in"], response["job_state"]) == (2, 2, "COMPLETED")
    assert {d["seq"] for d in mes.told("unit_result")} == {1, 2}
    assert mes.orders()["JO-1"]["good"] == 2


async def test_what_is_not_acknowledged_is_told_again(tmp_path: Path, factory: GatedFactory) -> None:
    factory.add_job(JOB)
    stock(factory, 4)
    async with plant(tmp_path, factory) as (mes, station, _):
        await make(station, factory, 1, 2, 3)
        await until(lambda: [d["seq"] for d in mes.told("unit_result")].count(3) >= 2)
        await mes.acknowledge(2)
        await until(lambda: factory.line_log_state("L1").acknowledged == 2)
        told = len(mes.told("unit_result"))
        await until(lambda: len(mes.told("unit_result")) >= told + 2)
        assert {d["seq"] for d in mes.told("unit_result")[told + 1 :]} == {3}


async def test_what_the_mes_refuses_is_told_no_more_and_rings(tmp_path: Path, factory: GatedFactory) -> None:
    factory.add_job(JOB)
    stock(factory, 2)
    async with plant(tmp_path, factory) as (mes, station, _):

        def codes() -> set[str]:
            said = msgspec.json.decode(mes.payloads(f"{L}/state/alarms")[-1], type=ActiveAlarms)
            return {one.code for one in said.alarms.values()}

        await make(station, factory, 1)
        await until(lambda: bool(mes.told("unit_result")))
        await mes.acknowledge(1, 1)
        await until(lambda: "A-150" in codes())
        assert factory.line_log_state("L1").acknowledged == 1


async def test_without_acknowledgement_everything_is_told_once(tmp_path: Path, factory: GatedFactory) -> None:
    factory.add_job(JOB)
    stock(factory, 3)
    async with plant(tmp_path, factory, ack="off") as (mes, station, _):
        await make(station, factory, 1, 2)
        await until(lambda: factory.line_log_state("L1").acknowledged == 2)
        await asyncio.sleep(0.5)
        assert [d["seq"] for d in mes.told("unit_result")] == [1, 2]


async def test_a_new_supervisor_goes_on_where_the_last_one_was(tmp_path: Path, factory: GatedFactory) -> None:
    factory.add_job(JOB)
    stock(factory, 3)
    async with running(tmp_path) as broker, MesNode(broker.port).up() as mes, Station(broker.port).up() as station:
        async with supervised(with_mes(broker.port), factory):
            await make(station, factory, 1)
            await until(lambda: bool(mes.told("unit_result")))
            await mes.acknowledge(1)
            await until(lambda: factory.line_log_state("L1").acknowledged == 1)
        told = len(mes.told("unit_result"))
        async with supervised(with_mes(broker.port), factory):
            await make(station, factory, 2)
            await until(lambda: len(mes.told("unit_result")) > told)
        assert {d["seq"] for d in mes.told("unit_result")[told:]} == {2}


async def test_the_same_request_is_done_once_and_conflicts_are_named(tmp_path: Path, factory: GatedFactory) -> None:
    async with plant(tmp_path, factory) as (mes, _, _supervisor):
        request_id = str(uuid4())
        assert (await mes.command("STORE", request_id=request_id))["status"] == "ACCEPTED"
        assert (await mes.command("STORE", request_id=request_id))["status"] == "DUPLICATE"
        assert (await mes.command("STORE", request_id=request_id, quantity=9))["code"] == "ORDER.REQUEST"
        assert (await mes.command("STORE", quantity=9))["code"] == "ORDER.CONFLICT"
        assert (await mes.command("STORE", version=2, quantity=9))["status"] == "ACCEPTED"
        assert (await mes.command("HOLD", version=1))["code"] == "STALE_VERSION"
        assert [job.quantity for job in factory.jobs("L1")] == [9]


@pytest.mark.breaks_the_contract
async def test_nonsense_is_counted_answered_where_it_can_be_and_stops_nothing(
    tmp_path: Path, factory: GatedFactory
) -> None:
    async with plant(tmp_path, factory) as (mes, _, supervisor):
        for payload in (b"", b"\xff", b"[]", b'{"request_id":7}', b"[" * 5000, b'{"a":"' + b"x" * 100_000 + b'"}'):
            await mes.client.publish(f"{L}/cmd/job_order", payload)
        for payload in (b"{}", b'{"through":"x"}', b"null"):
            await mes.client.publish(f"{L}/ack/mes", payload)
        await mes.acknowledge(99)
        answer = await mes.command("START", quantity="many")
        assert (answer["status"], answer["code"]) == ("REJECTED", "ORDER.SCHEMA")
        assert (await mes.command("START", quantity=-1))["code"] == "ORDER.SCHEMA"
        assert (await mes.command("DANCE"))["code"] == "ORDER.COMMAND"
        assert (await mes.command("START"))["status"] == "ACCEPTED"
        value = supervisor.value
        await until(lambda: value("ifpp_contract_violation_total", schema="job_order", reason="schema") == 8)
        await until(lambda: value("ifpp_contract_violation_total", schema="unknown", reason="mes") == 4)


async def test_a_retained_order_is_not_obeyed(tmp_path: Path, factory: GatedFactory) -> None:
    async with running(tmp_path) as broker, MesNode(broker.port).up() as mes:
        document = {
            "schema": "job_order/1.0",
            "request_id": "old",
            "job_order_id": "JO-9",
            "version": 1,
            "command": "START",
        }
        await mes.client.publish(f"{L}/cmd/job_order", json.dumps(document).encode(), retain=True)
        async with supervised(with_mes(broker.port), factory) as supervisor:
            value = supervisor.value
            await until(lambda: value("ifpp_contract_violation_total", schema="job_order", reason="retained") == 1)
    assert factory.jobs("L1") == []


async def test_without_an_mes_in_the_settings_nobody_listens(tmp_path: Path, factory: GatedFactory) -> None:
    async with (
        running(tmp_path) as broker,
        supervised(site_at(broker.port), factory),
        MesNode(broker.port).up() as mes,
        Station(broker.port).up() as station,
    ):
        await mes.client.publish(f"{L}/cmd/job_order", START)
        await station.send(*station.record(1))
        await until(lambda: station.through == 1)
    assert factory.jobs("L1") == []
