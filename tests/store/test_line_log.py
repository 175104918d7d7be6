"""What the MES is told: each result once, without a gap, in the order of its station; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sqlalchemy import insert

from ifpp.bus import contract
from ifpp.errors import CustodyError
from ifpp.model.mes import JobResponse
from ifpp.store import line_log
from ifpp.store.factory import Factory
from ifpp.store.figure_tables import station_line
from ifpp.store.records import ReceivedEvent
from tests.clock import START
from tests.contract import check
from tests.store.world import Node, later, outcome, request, send_all, stock, take_one

EXAMPLES = Path(contract.__file__).parent / contract.PUBLISHED / "examples"


@pytest.fixture(autouse=True)
def stations(factory: Factory) -> None:
    stock(factory, 12)
    with factory._writing(START) as (connection, _):
        rows = [{"node_id": "st01", "line": "L1"}, {"node_id": "st02", "line": "L1"}, {"node_id": "st09", "line": "L9"}]
        connection.execute(insert(station_line), rows)


def work(factory: Factory, node: Node, *numbers: int) -> None:
    for number in numbers:
        claim = factory.claim(request(number), START)
        send_all(factory, claim)
        factory.take_events(
            [
                node.result(
                    number,
                    claim.attempt_id,
                    [outcome(number, 0, "INSTALLED", package_id=claim.packages[0].package_id, pir_b64="AAAA")],
                )
            ],
            START,
        )


def told(factory: Factory, line: str = "L1") -> list[dict[str, object]]:
    while factory.collect_line_log(line, "boot", later(9)):
        pass
    rows = factory.line_log_page(line, 0, 1000)
    for row in rows:
        check(f"a/b/c/d/{line}/_line/evt/{row.name}", row.body)
    return [json.loads(row.body) for row in rows]


def test_every_result_is_told_once_and_without_the_chips_signature(factory: Factory) -> None:
    first, second, foreign = Node("st01"), Node("st02"), Node("st09")
    work(factory, first, 1, 2)
    work(factory, second, 3)
    work(factory, foreign, 4)
    assert [(d["seq"], d["source_node"], d["source_seq"]) for d in told(factory)] == [
        (1, "st01", 1),
        (2, "st01", 2),
        (3, "st02", 1),
    ]
    work(factory, first, 5)
    documents = told(factory)
    assert [(d["seq"], d["source_node"], d["source_seq"]) for d in documents][3:] == [(4, "st01", 3)]
    assert "pir_b64" not in json.dumps(documents)
    assert {d["node_id"] for d in documents} == {"_line"}
    assert [d["source_node"] for d in told(factory, "L9")] == ["st09"]


def test_alarms_of_stations_are_told_with_the_place_they_are_at(factory: Factory) -> None:
    example = json.loads((EXAMPLES / "st01.evt.alarm.json").read_bytes())
    for node, source in (("st01", "h03"), ("st02", "st02")):
        body = json.dumps(example | {"node_id": node, "seq": 1, "id": f"alarm of {node}", "source": source}).encode()
        take_one(factory, ReceivedEvent(node, 1, f"alarm of {node}", "alarm/1.0", body))
    assert [(d["seq"], d["code"], d["source"], d["source_node"]) for d in told(factory)] == [
        (1, "A-110", "st01/h03", "st01"),
        (2, "A-110", "st02", "st02"),
    ]


def test_what_comes_late_is_told_when_the_gap_is_closed(factory: Factory) -> None:
    node = Node("st01")
    events = []
    for number in (1, 2, 3):
        claim = factory.claim(request(number), START)
        send_all(factory, claim)
        events.append(
            node.result(
                number, claim.attempt_id, [outcome(number, 0, "INSTALLED", package_id=claim.packages[0].package_id)]
            )
        )
    factory.take_events([events[2], events[0]], START)
    assert [d["source_seq"] for d in told(factory)] == [1]
    factory.take_events([events[1], events[1]], START)
    assert [d["source_seq"] for d in told(factory)] == [1, 2, 3]


def test_small_pages_lose_nothing(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_log, "_SCAN", 2)
    nodes = [Node("st01"), Node("st02")]
    numbers = list(range(1, 11))
    random.Random(3).shuffle(numbers)
    for number in numbers:
        work(factory, nodes[number % 2], number)
    documents = told(factory)
    assert [d["seq"] for d in documents] == list(range(1, 11))
    assert sorted((d["source_node"], d["source_seq"]) for d in documents) == sorted(
        (node.node_id, seq) for node in nodes for seq in range(1, 6)
    )


def test_the_lines_own_documents_share_the_numbers(factory: Factory) -> None:
    work(factory, Node("st01"), 1)
    told(factory)
    response = JobResponse(
        schema="job_response/1.0",
        id="01930b3e-7c1a-7d10-8a52-0c1d2e3f4a5b",
        ts="2026-03-01T08:00:00.000Z",
        node_id="_line",
        boot_id="boot",
        job_order_id="JO-1",
        version=1,
        job_state="COMPLETED",
        quantity=1,
        units_in=1,
        good=1,
        failed=0,
        attempts=1,
        first_pass=1,
    )
    assert factory.append_line_log("L1", "job_response", response, START) == 2
    assert [(d["seq"], d["schema"]) for d in told(factory)] == [(1, "unit_result/1.0"), (2, "job_response/1.0")]


def test_the_mes_acknowledges_what_it_has(factory: Factory) -> None:
    work(factory, Node("st01"), 1, 2, 3)
    told(factory)
    assert factory.acknowledge_line_log("L1", 2, START).acknowledged == 2
    assert factory.acknowledge_line_log("L1", 1, START).acknowledged == 2
    with pytest.raises(CustodyError, match=r"LINE_LOG\.AHEAD"):
        factory.acknowledge_line_log("L1", 4, START)
    state = factory.line_log_state("L1")
    assert (state.last, state.acknowledged) == (3, 2)
    assert [row.seq for row in factory.line_log_page("L1", state.acknowledged)] == [3]
