"""A plant's MES in one process: keeps the line contract, or breaks it as it is told to.

It sends the job orders of a world, answers route checks, acknowledges the line's log, and counts all it was told.
stdin    "go": STORE and START of every order; "finish": STOP of those still running; end of file or SIGTERM: the end
stdout   {"ready": true} once it is connected
result   `out`, see `Told.document`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiomqtt

_RETRY_S = 0.3
_ACK_EVERY_S = 0.1
_AGAIN_S = 5.0  # an order's command without an answer is sent again
_WICKED_EVERY_S = 0.5
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Character:
    """How the MES behaves. `slow_s` before each answer; `absent` from one second after "go" to another.

    `contradictory`: answers a route check again with the opposite, sends orders with other content under the same
    version. `malicious`: garbage, giants, wrong types and words in other names. `refuse`: EIDs it lets go nowhere;
    `route_policy` of its orders.
    """

    slow_s: float = 0.0
    absent: tuple[float, float] | None = None
    contradictory: bool = False
    malicious: bool = False
    refuse: frozenset[str] = frozenset()
    route_policy: str = "BLOCK"


@dataclass(slots=True)
class Order:
    """A job order as the MES has it; `answers`: command -> how it was answered."""

    content: dict[str, Any]
    waiting: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    response: dict[str, Any] | None = None


@dataclass(slots=True)
class Told:
    """What the MES was told, by the numbers of the line's log."""

    log: dict[int, tuple[str, str]] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    material: dict[str, str] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    doubles: int = 0
    conflicts: int = 0
    unreadable: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    through: int = 0

    def take(self, name: str, document: dict[str, Any]) -> None:
        """Note one document of the line's log; the same number again is a double, with other content a conflict."""
        seq, what = int(document["seq"]), (name, str(document["id"]))
        if seq in self.log:
            self.doubles += 1
            self.conflicts += self.log[seq] != what
            return
        self.log[seq] = what
        self.names[name] += 1
        if name == "unit_result":
            self.results.append(document)
        if name == "material" and document.get("kind") in ("BPP", "CODE"):
            self.material[str(document["ref"])] = "spoiled" if document.get("qty_spoiled") else "consumed"
        while self.through + 1 in self.log:
            self.through += 1

    def document(self, orders: dict[str, Order]) -> dict[str, Any]:
        """The MES's own figures; `units`: of each order, by EID and last result; chips without an EID are one."""
        last: dict[tuple[str, str], dict[str, Any]] = {}
        for result in sorted(self.results, key=lambda one: (one["started_at"], one["source_seq"])):
            last[result["job_order_id"], result["unit"].get("eid", "")] = result
        units = {name: [one for (job, _), one in last.items() if job == name] for name in orders}
        return {
            "orders": {name: order.answers for name, order in orders.items()},
            "responses": {name: order.response for name, order in orders.items() if order.response is not None},
            "units": {
                name: {"units": len(those), "good": sum(one["result"] in ("PASS", "SKIPPED") for one in those)}
                for name, those in units.items()
            },
            "results": len(self.results),
            "told": dict(sorted(self.names.items())),
            "packages": dict(sorted(Counter(self.material.values()).items())),
            "doubles": self.doubles,
            "conflicts": self.conflicts,
            "unreadable": self.unreadable,
            "gaps": max(self.log, default=0) - len(self.log),
            "route_checks": dict(sorted(self.checks.items())),
            "unchecked": sum((one.get("route_check") or {}).get("source") == "OFF" for one in self.results),
            "acknowledged": self.through,
        }


class Mes:
    """One MES towards one line. `base` is the topic prefix of the line, five levels."""

    def __init__(self, host: str, port: int, base: str, orders: Sequence[Path], character: Character) -> None:
        self._host, self._port, self._base = host, port, base
        self._line = f"{base}/_line"
        self._character = character
        self._orders: dict[str, Order] = {}
        for path in orders:
            job = json.loads(path.read_bytes())["job"]
            self._orders[job["job_order_id"]] = Order(_content(job, character.route_policy))
        self._told = Told()
        self._answered: dict[str, dict[str, Any]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._client: aiomqtt.Client | None = None
        self._session = 0
        self._ready = False
        self._gone_at: float | None = None

    async def run(self, over: asyncio.Event) -> dict[str, Any]:
        """Be there until `over`; return what was told."""
        ending = asyncio.create_task(over.wait())
        while not over.is_set():
            life = asyncio.create_task(self._live())
            while not (life.done() or over.is_set() or self._absence_s()):
                await asyncio.wait([life, ending], return_when=asyncio.FIRST_COMPLETED, timeout=_LOOK_S)
            life.cancel()
            with contextlib.suppress(aiomqtt.MqttError, asyncio.CancelledError):
                await life
            self._client = None
            pause_s = self._absence_s() or _RETRY_S
            await asyncio.wait([ending], timeout=pause_s)
        ending.cancel()
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        return self._told.document(self._orders)

    def go(self) -> None:
        """Send every order and start it."""
        self._gone_at = time.monotonic()
        for order in self._orders.values():
            self._later(self._start(order))
        if self._character.malicious:
            self._later(self._annoy())

    def finish(self) -> None:
        """Stop what is not complete."""
        for order in self._orders.values():
            if order.response is None:
                self._later(self._command(order, "STOP"))

    # ---- connection ----

    async def _live(self) -> None:
        self._session += 1
        online = f"{self._base}/_mes/state/online"
        will = aiomqtt.Will(online, self._online(is_it=False), qos=1, retain=True)
        async with aiomqtt.Client(
            self._host, self._port, identifier=f"mes-{self._base.rsplit('/', 1)[1]}", will=will, keepalive=15
        ) as client:
            for name in ("evt/+", "cmd_rsp/job_order", "req/route_check", "state/job_orders"):
                await client.subscribe(f"{self._line}/{name}", qos=1)
            await client.publish(online, self._online(is_it=True), qos=1, retain=True)
            self._client = client
            if not self._ready:
                self._ready = True
                sys.stdout.write('{"ready": true}\n')
                sys.stdout.flush()
            acknowledging = asyncio.create_task(self._acknowledge())
            try:
                async for message in client.messages:
                    self._hear(str(message.topic), bytes(message.payload or b""))
            finally:
                acknowledging.cancel()
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.publish(online, self._online(is_it=False), qos=1, retain=True, timeout=1)

    def _online(self, *, is_it: bool) -> bytes:
        document = {"schema": "online/1.0", "node_id": "_mes", "online": is_it, "session": self._session}
        return json.dumps(document | {"boot_id": "mes", "ts": _now()}).encode()

    def _absence_s(self) -> float:
        absent = self._character.absent
        if absent is None or self._gone_at is None:
            return 0.0
        passed = time.monotonic() - self._gone_at
        return absent[1] - passed if absent[0] <= passed < absent[1] else 0.0

    async def _say(self, topic: str, document: object, *, retain: bool = False) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        while True:
            client = self._client
            if client is not None:
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.publish(topic, body, qos=1, retain=retain)
                    return
            await asyncio.sleep(_RETRY_S)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # ---- what it hears ----

    def _hear(self, topic: str, payload: bytes) -> None:
        kind, name = topic.split("/")[-2:]
        try:
            document = json.loads(payload)
            if kind == "evt":
                self._told.take(name, document)
                if name == "job_response":
                    self._responded(document)
            elif kind == "cmd_rsp":
                self._answer_came(document)
            elif kind == "req":
                self._later(self._check(document))
        except (ValueError, KeyError, TypeError):
            self._told.unreadable += 1

    def _responded(self, document: dict[str, Any]) -> None:
        order = self._orders.get(document["job_order_id"])
        if order is not None and order.response is None:
            order.response = document
            self._later(self._command(order, "CLOSE"))

    def _answer_came(self, document: dict[str, Any]) -> None:
        order = self._orders.get(document["job_order_id"])
        command = order.waiting.pop(document["request_id"], None) if order is not None else None
        if order is not None and command is not None:
            order.answers[command] = document["status"]

    # ---- what it says ----

    async def _start(self, order: Order) -> None:
        await self._command(order, "STORE")
        await self._command(order, "START")
        if self._character.contradictory:
            await self._command(order, "STORE", "conflict", quantity=order.content["quantity"] + 1)
            await self._command(order, "START", "again")

    async def _command(self, order: Order, command: str, label: str = "", **changes: object) -> None:
        """Send one command until it is answered: always the same document."""
        request_id = str(uuid4())
        order.waiting[request_id] = f"{command} {label}".strip()
        document = order.content | {"request_id": request_id, "command": command} | changes
        while request_id in order.waiting:
            await self._say(f"{self._line}/cmd/job_order", document)
            end = time.monotonic() + _AGAIN_S
            while request_id in order.waiting and time.monotonic() < end:  # noqa: ASYNC110 - the line's doing
                await asyncio.sleep(0.02)

    async def _check(self, ask: dict[str, Any]) -> None:
        request_id, eid = ask["request_id"], ask["unit"].get("eid", "")
        before = self._answered.get(request_id)
        self._told.checks["asked" if before is None else "repeated"] += 1
        if self._character.slow_s:
            await asyncio.sleep(self._character.slow_s)
        answer = before or {"schema": "route_check/1.0", "request_id": request_id, **self._verdict(eid)}
        if before is None:
            self._answered[request_id] = answer
            self._told.checks[answer["result"].lower()] += 1
        reply = f"{self._line}/req_rsp/route_check"
        await self._say(reply, answer)
        if self._character.contradictory:
            opposite = {"PASS": "FAIL", "FAIL": "PASS"}[answer["result"]]
            await self._say(reply, answer | {"result": opposite})

    def _verdict(self, eid: str) -> dict[str, str]:
        if eid in self._character.refuse:
            return {"result": "FAIL", "code": "ROUTE", "text": "this unit belongs to bin 7"}
        return {"result": "PASS"}

    async def _acknowledge(self) -> None:
        said = 0
        while True:
            await asyncio.sleep(max(_ACK_EVERY_S, self._character.slow_s))
            if self._told.through != said:
                said = self._told.through
                ack = {"schema": "ack/1.0", "ts": _now(), "node_id": "_line", "epoch": 1, "through": said}
                await self._say(f"{self._line}/ack/mes", ack)

    async def _annoy(self) -> None:
        """Everything an MES must not do, again and again; what is retained it leaves behind."""
        garbage = [
            b"",
            b"\xff\xfe not JSON",
            b"[" * 100_000,
            b'{"request_id": 7, "command": ["START"]}',
            b'"' + b"x" * 2_000_000 + b'"',
        ]
        wild = {"schema": "job_order/1.0", "request_id": "w", "job_order_id": "W", "version": -1, "command": "EXPLODE"}
        ahead = {"schema": "ack/1.0", "ts": _now(), "node_id": "_line", "epoch": 1, "through": 10**12}
        topics = [f"{self._line}/{name}" for name in ("cmd/job_order", "req_rsp/route_check", "ack/mes")]
        topics.append(f"{self._base}/stranger/evt/unit_result")
        left = [f"{self._base}/nobody/state/online", f"{self._line}/cmd/job_order", f"{self._line}/req_rsp/route_check"]
        while True:
            for topic in topics:
                for body in garbage:
                    await self._say(topic, body)
            for topic in left:
                await self._say(topic, b'{"old": "garbage"}', retain=True)
            await self._say(f"{self._line}/cmd/job_order", wild)
            await self._say(f"{self._line}/ack/mes", ahead)
            nobody = {"schema": "route_check/1.0", "request_id": str(uuid4()), "result": "FAIL"}
            await self._say(f"{self._line}/req_rsp/route_check", nobody)
            await asyncio.sleep(_WICKED_EVERY_S)


def play(mes: Mes, out: Path) -> None:
    """Run an MES on stdin's word until the end of it or SIGTERM; write what it was told."""
    told = asyncio.run(_play(mes))
    out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


async def _play(mes: Mes) -> dict[str, Any]:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    listening = asyncio.create_task(_listen(reader, mes, over))
    try:
        return await mes.run(over)
    finally:
        listening.cancel()
        transport.close()


async def _listen(reader: asyncio.StreamReader, mes: Mes, over: asyncio.Event) -> None:
    while text := await reader.readline():
        word = text.strip()
        if word == b"go":
            mes.go()
        elif word == b"finish":
            mes.finish()
    over.set()


def _content(job: dict[str, Any], route_policy: str) -> dict[str, Any]:
    kept = ("job_order_id", "version", "product", "region", "recipe", "quantity", "stations", "priority", "due_at")
    order = {key: job[key] for key in kept if key in job}
    return {"schema": "job_order/1.0", **order, "route_policy": route_policy}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
