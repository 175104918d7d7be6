"""The line contract as data: every topic, who says what on it, and its document's type.

From this one table come the AsyncAPI 3 document and the JSON Schemas in `ifpp/bus/published`, which the package ships:
`ifpp contract` writes them, a test holds them to the table. The hash of the AsyncAPI document stands in every birth.

A release freezes its document: `make contract` copies it to `tests/bus/released` under the version and writes its
digest into SHA256SUMS there. A frozen one never changes again, and later contracts may only add to each of them.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import msgspec

from ifpp.model import alarms, kpi, mes, messages

MAJOR = 1
PUBLISHED = "published"
ASYNCAPI = "asyncapi.json"
_SCHEMA = "#/components/schemas/{name}"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ABOUT = """Stations, the supervisor of a line (`_line`) and the plant's MES (`_mes`) speak over MQTT 3.1.1, in JSON.

Readers ignore unknown keys and accept unknown words. `meta`, `state` and `kpi` are retained; an `evt` carries `seq` and
is sent again until the reader's `ack` says that it is stored: a PUBACK proves nothing."""


class Node(StrEnum):
    """Whose topics: the node level."""

    STATION = "{station}"
    LINE = "_line"
    MES = "_mes"


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic below a line: `node`/`kind`/`name`, the document on it, and who says it to whom."""

    node: Node
    kind: str
    name: str
    document: type
    sender: str
    reader: str

    @property
    def retained(self) -> bool:
        return self.kind in ("meta", "state", "kpi")

    @property
    def address(self) -> str:
        return f"{self.node}/{self.kind}/{self.name}"

    @property
    def id(self) -> str:
        return f"{self.node.strip('{}_')}_{self.kind}_{self.name}"


def _both(kind: str, name: str, document: type, reader: str = "all") -> list[Channel]:
    return [
        Channel(Node.STATION, kind, name, document, "station", reader),
        Channel(Node.LINE, kind, name, document, "supervisor", reader),
    ]


def _asked(
    node: Node, name: str, ask: type, answer: type, asker: str, asked: str, *, up: bool = False
) -> list[Channel]:
    """A question and its answer; `up`: the node itself asks."""
    question, reply = ("req", "req_rsp") if up else ("cmd", "cmd_rsp")
    return [
        Channel(node, question, name, ask, asker, asked),
        Channel(node, reply, name, answer, asked, asker),
    ]


CHANNELS: tuple[Channel, ...] = (
    *_both("meta", "birth", messages.Birth),
    *_both("state", "online", messages.Online),
    Channel(Node.MES, "state", "online", messages.Online, "mes", "supervisor"),
    Channel(Node.STATION, "state", "station", messages.StationState, "station", "all"),
    Channel(Node.LINE, "state", "line", messages.LineState, "supervisor", "all"),
    Channel(Node.LINE, "state", "job", messages.JobState, "supervisor", "station"),
    Channel(Node.LINE, "state", "job_orders", mes.JobOrders, "supervisor", "mes"),
    Channel(Node.LINE, "state", "stock", mes.Stock, "supervisor", "mes"),
    *(Channel(Node.LINE, "kpi", window, kpi.Kpi, "supervisor", "all") for window in ("hour", "shift", "job")),
    *_both("state", "alarms", alarms.ActiveAlarms),
    Channel(Node.STATION, "evt", "unit_result", messages.UnitResultEvent, "station", "supervisor"),
    Channel(Node.STATION, "evt", "state_changed", messages.StateChanged, "station", "supervisor"),
    Channel(Node.STATION, "evt", "alarm", messages.Alarm, "station", "supervisor"),
    Channel(Node.STATION, "evt", "operator_action", messages.OperatorAction, "station", "supervisor"),
    Channel(Node.STATION, "evt", "material", mes.Material, "station", "supervisor"),
    Channel(Node.STATION, "ack", "evt", messages.Ack, "supervisor", "station"),
    Channel(Node.LINE, "evt", "unit_result", mes.LineUnitResult, "supervisor", "mes"),
    Channel(Node.LINE, "evt", "job_response", mes.JobResponse, "supervisor", "mes"),
    Channel(Node.LINE, "evt", "material", mes.Material, "supervisor", "mes"),
    Channel(Node.LINE, "evt", "alarm", messages.Alarm, "supervisor", "mes"),
    Channel(Node.LINE, "evt", "operator_action", messages.OperatorAction, "supervisor", "mes"),
    Channel(Node.LINE, "evt", "plr_ready", mes.PlrReady, "supervisor", "mes"),
    Channel(Node.LINE, "ack", "mes", messages.Ack, "mes", "supervisor"),
    *_asked(Node.STATION, "block_head", messages.HeadCommand, messages.HeadAnswer, "supervisor", "station"),
    *_asked(Node.STATION, "change_socket", messages.HeadCommand, messages.HeadAnswer, "supervisor", "station"),
    *_asked(Node.STATION, "lock", messages.HeadCommand, messages.HeadAnswer, "supervisor", "station"),
    *_asked(Node.STATION, "unlock", messages.HeadCommand, messages.HeadAnswer, "supervisor", "station"),
    *_asked(Node.STATION, "republish", messages.HeadCommand, messages.HeadAnswer, "supervisor", "station"),
    *_asked(Node.STATION, "alarm", alarms.AlarmCommand, alarms.AlarmAnswer, "supervisor", "station"),
    *_asked(Node.LINE, "alarm", alarms.AlarmCommand, alarms.AlarmAnswer, "people", "supervisor"),
    *_asked(Node.LINE, "job_order", mes.JobOrder, mes.JobOrderAnswer, "mes", "supervisor"),
    *_asked(Node.STATION, "route_check", mes.RouteCheck, mes.RouteAnswer, "station", "supervisor", up=True),
    *_asked(Node.LINE, "route_check", mes.RouteCheck, mes.RouteAnswer, "supervisor", "mes", up=True),
)


def channel(node: str, kind: str, name: str) -> Channel | None:
    """Return the channel a topic belongs to; None when the contract has none."""
    where = Node(node) if node in (Node.LINE, Node.MES) else Node.STATION
    return _by_place().get((where, kind, name))


@cache
def _by_place() -> dict[tuple[Node, str, str], Channel]:
    return {(one.node, one.kind, one.name): one for one in CHANNELS}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    documents = sorted({one.document for one in CHANNELS}, key=lambda kind: kind.__name__)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "ifpp line contract", "version": f"{MAJOR}.0.0", "description": _ABOUT},
        "defaultContentType": "application/json",
        "channels": {one.id: _channel(one) for one in CHANNELS},
        "operations": {f"send_{one.id}": _operation(one) for one in CHANNELS},
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in documents},
            "schemas": _components(),
        },
    }


def schemas() -> dict[str, dict[str, Any]]:
    """Return a JSON Schema of each document that stands for itself, by the document's name."""
    found = {}
    for kind in {one.document for one in CHANNELS}:
        (root,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
        found[kind.__name__] = {"$schema": _DIALECT, **root, "$defs": dict(sorted(parts.items()))}
    return dict(sorted(found.items()))


def render(document: object) -> bytes:
    """Return a document as it is published: the same bytes every time."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


@cache
def published_sha256() -> str:
    """SHA-256, hex, of the AsyncAPI document this package ships: tells a reader whether it knows the same contract."""
    return sha256((files("ifpp.bus") / PUBLISHED / ASYNCAPI).read_bytes()).hexdigest()


def told() -> dict[str, str | int]:
    """Return what a birth says of the contract."""
    return {"major": MAJOR, "asyncapi_sha256": published_sha256()}


def _components() -> dict[str, Any]:
    kinds = sorted({one.document for one in CHANNELS}, key=lambda kind: kind.__name__)
    _, parts = msgspec.json.schema_components(kinds, ref_template=_SCHEMA)
    return dict(sorted(parts.items()))


def _channel(one: Channel) -> dict[str, Any]:
    path = f"{{prefix}}/{{enterprise}}/{{site}}/{{area}}/{{line}}/{one.address}"
    levels = ["prefix", "enterprise", "site", "area", "line"] + (["station"] if one.node is Node.STATION else [])
    return {
        "address": path,
        "parameters": {level: {"description": f"{level}: 1 to 32 of A-Z a-z 0-9 _ -"} for level in levels},
        "messages": {one.document.__name__: {"$ref": f"#/components/messages/{one.document.__name__}"}},
        "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
    }


def _operation(one: Channel) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{one.id}"},
        "summary": f"{one.sender} to {one.reader}",
        "bindings": {"mqtt": {"qos": 1, "retain": one.retained, "bindingVersion": "0.2.0"}},
    }


def _message(kind: type) -> dict[str, Any]:
    return {
        "name": kind.__name__,
        "summary": inspect.cleandoc(kind.__doc__ or "").splitlines()[0],
        "payload": {"$ref": _SCHEMA.format(name=kind.__name__)},
    }
