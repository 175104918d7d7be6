"""What strangers, faults and old versions put on the bus: counted, kept where people look, and nothing stops."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest

from ifpp.bus.client import MAX_PAYLOAD
from ifpp.errors import SupplyError
from ifpp.line import hearing
from ifpp.model.messages import Online
from ifpp.roles.parked import show_parked
from ifpp.store.events import MOST_UNREADABLE
from tests.bus.node import TOPICS, Node, until
from tests.line.world import GatedFactory, Running, event, line, site_at, supervised
from tests.real.mosquitto import running

pytestmark = pytest.mark.breaks_the_contract
_VIOLATIONS = "ifpp_contract_violation_total"


def online(node_id: str, **changes: object) -> bytes:
    said = Online(schema="online/1.0", node_id=node_id, online=True, session=1, boot_id="b", ts="t")
    return msgspec.json.encode(msgspec.to_builtins(said) | changes)


def counted(supervisor: Running, schema: str, reason: str) -> bool:
    return supervisor.value(_VIOLATIONS, schema=schema, reason=reason) == 1


async def test_every_kind_of_nonsense_is_counted_by_its_reason(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, supervisor, station):

        async def say(topic: str, payload: bytes) -> None:
            await station.client.publish(topic, payload)

        evt = TOPICS.event("st01", "state_changed")
        await say(TOPICS.online("st05"), online("st06"))
        await say(TOPICS.online("st05"), online("st05", schema="online/2.0"))
        await say(TOPICS.online("st05"), online("st05", session="one"))
        await say(TOPICS.online("st05"), b"x" * 20_000)
        await say(TOPICS.birth("st05"), b'{"schema":"birth/1.0"}')
        await say(evt, event("st02", 1))
        await say(evt, b"\x00\xff")
        await say(evt, b"{" * (MAX_PAYLOAD + 1))
        await say(f"{TOPICS.base}/st 5/evt/alarm", b"{}")
        await say(evt, event("st01", 1, schema="state_changed/2.0"))
        await say(evt, event("st01", 2, new_code="many"))
        await say(TOPICS.answer("st01", "block_head"), b"an answer nobody asked for")
        await say(TOPICS.event("st01", "weather"), event("st01", 3, schema="weather/1.7", rain=True, more=[1]))
        await until(lambda: station.through == 3)
        wanted = [
            *(("online", reason) for reason in ("node", "version", "schema", "too_big")),
            *(("state_changed", reason) for reason in ("node", "envelope", "too_big")),
            ("birth", "schema"),
            ("unknown", "topic"),
        ]
        for schema, reason in wanted:
            await until(partial(counted, supervisor, schema, reason))
        assert "st05" not in station.line[-1].stations
        assert station.rejected == {1: "CUSTODY.EVENT_REFUSED", 2: "CUSTODY.EVENT_REFUSED"}
        kept = [(row.node_id, row.seq, row.text.split(":")[0]) for row in factory.parked()]
        assert sorted(kept) == sorted(
            [
                *[("st05", 0, "online")] * 4,
                ("st05", 0, "birth"),
                *[("st01", 0, "state_changed")] * 3,
                ("st01", 1, "state_changed of version 2.0"),
                ("st01", 2, next(row.text.split(":")[0] for row in factory.parked() if row.seq == 2)),
            ]
        )
        assert all(len(row.body) <= 20_000 for row in factory.parked()), "of what is too big the beginning"
        await say(evt, event("st01", 4))
        await until(lambda: station.through == 4)


async def test_retained_garbage_of_others_stops_no_supervisor(tmp_path: Path, factory: GatedFactory) -> None:
    async with running(tmp_path) as broker, AsyncExitStack() as stack:
        stranger = await stack.enter_async_context(Node(broker.port, "st66").up())
        for topic in (TOPICS.online("st07"), TOPICS.birth("st07"), TOPICS.event("st07", "alarm"), TOPICS.job):
            await stranger.client.publish(topic, b"\xfe " + topic.encode(), retain=True)
        for _ in range(2):  # a supervisor that comes again finds it again, and keeps it once
            async with supervised(site_at(broker.port), factory) as supervisor:
                for schema, reason in (("online", "schema"), ("birth", "schema"), ("alarm", "envelope")):
                    await until(partial(counted, supervisor, schema, reason))
        assert sorted(row.text.split(":")[0] for row in factory.parked()) == ["alarm", "birth", "online"]


async def test_a_clock_that_jumps_moves_no_event(tmp_path: Path, factory: GatedFactory) -> None:
    async with line(tmp_path, factory) as (_, _, station):
        times = ("1999-12-31T23:59:59.999Z", "2099-01-01T00:00:00.000Z", "2026-03-01T08:00:00.000Z")
        for at in times:
            station.record(1, ts=at, clock_ok=False)
        await station.send(1, 2, 3)
        await until(lambda: station.through == 3)
    assert factory.taken("st01") == [1, 2, 3]


async def test_a_line_has_so_many_stations_and_no_more(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifpp.line.supervisor.MOST_NODES", 3)
    async with line(tmp_path, factory) as (_, supervisor, station):
        for number in range(10, 15):
            await station.client.publish(TOPICS.online(f"st{number}"), online(f"st{number}"))
        await until(lambda: supervisor.value(_VIOLATIONS, schema="online", reason="many") == 3)
        await until(lambda: len(station.line[-1].stations) == 3)
        await station.send(*station.record(2))
        await until(lambda: station.through == 2)


def test_a_flood_of_nonsense_does_not_fill_the_database(factory: GatedFactory) -> None:
    for number in range(MOST_UNREADABLE + 5):
        factory.park("st01", b"%d" % number, "no", datetime.now(UTC))
    factory.park("st02", b"1", "no", datetime.now(UTC))
    nodes = [row.node_id for row in factory.parked(10_000)]
    assert (nodes.count("st01"), nodes.count("st02")) == (MOST_UNREADABLE, 1)


def test_what_is_parked_is_shown_and_does_nothing_to_the_terminal(
    tmp_path: Path, factory: GatedFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.toml"
    site.write_text('enterprise="a"\nsite="b"\narea="c"\nline="L1"\n[store]\ndatabase="sqlite:///factory.db"\n')
    show_parked(site, number=0, limit=5, as_json=False)
    assert capsys.readouterr().out == "nothing is parked\n"
    factory.park("st01", b"\x1b[2Jclear\xff", "online: no envelope", datetime.now(UTC))
    show_parked(site, number=0, limit=5, as_json=False)
    listed = capsys.readouterr().out
    assert "st01  no seq  CUSTODY.EVENT_REFUSED  10 bytes  online: no envelope" in listed
    show_parked(site, number=1, limit=5, as_json=False)
    assert capsys.readouterr().out.endswith("\\x1b[2Jclear\\xff\n")
    show_parked(site, number=0, limit=5, as_json=True)
    row = json.loads(capsys.readouterr().out)
    assert (row["number"], row["node_id"], row["body"]) == (1, "st01", "\\x1b[2Jclear\\xff")
    with pytest.raises(SupplyError, match=r"PARKED\.UNKNOWN|nothing is parked"):
        show_parked(site, number=2, limit=5, as_json=False)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[]", "schema"),
        (b"[" * 5000, "schema"),
        (b"x" * 17_000, "too_big"),
        (online("st02"), "node"),
        (online("st01", schema="online/9.0"), "version"),
        (online("st01", schema="online"), "version"),
    ],
)
def test_what_is_not_believed_has_a_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(hearing.UnheardError) as refused:
        hearing.read_online("st01", payload)
    assert refused.value.reason == reason


def test_additions_are_believed() -> None:
    assert hearing.read_online("st01", online("st01", schema="online/1.9", mood="good")).session == 1
