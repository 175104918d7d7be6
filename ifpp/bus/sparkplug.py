"""Sparkplug B on the wire: topics and payloads, as far as a read-only edge node needs them.

Eclipse Sparkplug 3.0.0, chapter 4 (topics) and 6 (payloads). The payload is a Protocol Buffers message; its fields are
named here by their numbers, so there is no generated code. Readers skip fields they do not know (aliases, properties,
data sets, templates): nothing here writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from ifpp.errors import SettingsError, WireError
from ifpp.model.clock import parse_utc

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
NUMBERS = 256
"""`seq` and `bdSeq` are 0 to 255, then 0 again."""
Value = str | int | float | bool | None


class DataType(IntEnum):
    """Types of a metric (6.4.16), those in use here."""

    INT32 = 3
    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13


_FIELD = {
    DataType.INT32: "int_value",
    DataType.INT64: "long_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
    DataType.DATE_TIME: "long_value",
}
_BITS = {DataType.INT32: 32, DataType.INT64: 64, DataType.DATE_TIME: 64}
# name, number, type: the published numbers of payload and metric; 4, 13 ... are FieldDescriptorProto.Type
_UINT64, _UINT32, _BOOL, _STRING, _DOUBLE, _FLOAT, _MESSAGE = 4, 13, 8, 9, 1, 2, 11
_METRIC_FIELDS = (
    ("name", 1, _STRING),
    ("timestamp", 3, _UINT64),
    ("datatype", 4, _UINT32),
    ("is_null", 7, _BOOL),
)
_VALUE_FIELDS = (
    ("int_value", 10, _UINT32),
    ("long_value", 11, _UINT64),
    ("float_value", 12, _FLOAT),
    ("double_value", 13, _DOUBLE),
    ("boolean_value", 14, _BOOL),
    ("string_value", 15, _STRING),
)
_PACKAGE = "ifpp.sparkplug"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: `at_ms` is when its value came to be (Unix milliseconds); None is null: not known."""

    name: str
    kind: DataType
    value: Value
    at_ms: int


class EdgeTopics:
    """Topics of one edge node; raises nothing: its parts were checked as identifiers."""

    def __init__(self, group: str, node: str) -> None:
        self._group = group
        self._node = node

    def node(self, message: str) -> str:
        """Where the node says or hears `message`: NBIRTH, NDATA, NDEATH, NCMD."""
        return f"{NAMESPACE}/{self._group}/{message}/{self._node}"

    def device(self, message: str, device: str) -> str:
        """Where one of its devices does: DBIRTH, DDATA, DDEATH, DCMD."""
        return f"{self.node(message)}/{device}"


def state_topic(host: str) -> str:
    """Where a primary host application says, retained, whether it is online."""
    return f"{NAMESPACE}/STATE/{host}"


def unix_ms(text: str) -> int | None:
    """Return an RFC 3339 time in Unix milliseconds, None when it is none or before 1970."""
    try:
        at_ms = int(parse_utc(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return at_ms if at_ms >= 0 else None


def encode(metrics: Iterable[Metric], at_ms: int, seq: int | None, *, typed: bool) -> bytes:
    """Return a payload; `seq` None for a death of the node, `typed` for births alone.

    Numbers beyond their type are written as null: what is not known.
    """
    payload = _payload_class()(timestamp=at_ms)
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        _write(payload.metrics.add(), metric, typed=typed)
    encoded: bytes = payload.SerializeToString()
    return encoded


def decode(body: bytes) -> list[tuple[str, Value]]:
    """Return names and values of a payload's metrics, "" for one without a name; raises WireError."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - an extra

    payload = _payload_class()()
    try:
        payload.ParseFromString(body)
        return [(metric.name, _read(metric)) for metric in payload.metrics]
    except (DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"no Sparkplug payload: {error}", where="sparkplug") from error


def ready() -> None:
    """Raise SettingsError SETTINGS.MISSING when the machine lacks what payloads are written with."""
    _payload_class()


def _write(row: Any, metric: Metric, *, typed: bool) -> None:
    row.name = metric.name
    row.timestamp = metric.at_ms
    if typed:
        row.datatype = metric.kind
    value, bits = metric.value, _BITS.get(metric.kind)
    if isinstance(value, int) and bits and not -(1 << bits - 1) <= value < 1 << bits - 1:
        value = None
    if value is None:
        row.is_null = True
    elif bits:
        setattr(row, _FIELD[metric.kind], int(value) & (1 << bits) - 1)  # two's complement in an unsigned field
    else:
        setattr(row, _FIELD[metric.kind], value)


def _read(metric: Any) -> Value:
    field = metric.WhichOneof("value")
    value: Value = None if field is None or metric.is_null else getattr(metric, field)
    return value


@cache
def _payload_class() -> Any:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError("SETTINGS.MISSING", "install the extra ifpp[sparkplug]", where="sparkplug") from None
    optional, repeated = 1, 3
    file = descriptor_pb2.FileDescriptorProto(name="ifpp/sparkplug.proto", package=_PACKAGE, syntax="proto2")
    metric = file.message_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for name, number, kind in _METRIC_FIELDS:
        metric.field.add(name=name, number=number, type=kind, label=optional)
    for name, number, kind in _VALUE_FIELDS:
        metric.field.add(name=name, number=number, type=kind, label=optional, oneof_index=0)
    payload = file.message_type.add(name="Payload")
    payload.field.add(name="timestamp", number=1, type=_UINT64, label=optional)
    metrics_type = f".{_PACKAGE}.Metric"
    payload.field.add(name="metrics", number=2, type=_MESSAGE, label=repeated, type_name=metrics_type)
    payload.field.add(name="seq", number=3, type=_UINT64, label=optional)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))
