"""A Sparkplug host of our own: reads payloads byte by byte by the published field numbers, and follows one edge node.

Shares nothing with ifpp: neither code nor the library that ifpp writes payloads with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}  # Int8 to Int64
_KINDS = {10: {3, 5, 6, 7}, 11: {4, 8, 13}, 13: {10}, 14: {11}, 15: {12}}  # value field -> data types it is for


@dataclass(frozen=True)
class Metric:
    name: str = ""
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    historical: bool = False
    null: bool = False
    field: int = 0
    raw: int | float | str | bool | None = None

    def value(self, datatype: int) -> int | float | str | bool | None:
        bits = _SIGNED.get(datatype)
        if isinstance(self.raw, int) and bits and self.raw >> (bits - 1):
            return self.raw - (1 << bits)
        return self.raw


@dataclass(frozen=True)
class Payload:
    timestamp: int | None
    seq: int | None
    metrics: list[Metric]

    def metric(self, name: str) -> Metric:
        (found,) = [one for one in self.metrics if one.name == name]
        return found

    @property
    def names(self) -> set[str]:
        return {one.name for one in self.metrics}


def read(data: bytes) -> Payload:
    """Read a payload; raises AssertionError or IndexError for what is none."""
    timestamp = seq = None
    metrics = []
    for number, value in _fields(data):
        if number == 1:
            timestamp = _number(value)
        elif number == 2:
            assert isinstance(value, bytes)
            metrics.append(_metric(value))
        else:
            assert number == 3, f"field {number} of a payload is not in use here"
            seq = _number(value)
    return Payload(timestamp, seq, metrics)


def check(topic: str, body: bytes) -> None:
    """Hold one message of an edge node to the rules every host relies on."""
    kind, payload = topic.split("/")[2], read(body)
    assert payload.timestamp is not None
    assert all(one.name and one.alias is None and not one.historical for one in payload.metrics)
    assert len(payload.names) == len(payload.metrics)
    if kind == "NDEATH":
        assert payload.seq is None
        assert payload.names == {"bdSeq"}
        return
    assert payload.seq is not None
    assert 0 <= payload.seq <= 255
    assert all(one.timestamp is not None and one.null == (one.raw is None) for one in payload.metrics)
    if kind in ("NBIRTH", "DBIRTH"):
        for one in payload.metrics:
            assert one.datatype is not None
            assert one.null or one.datatype in _KINDS[one.field], one.name
    if kind == "NBIRTH":
        assert payload.seq == 0
        assert {"bdSeq", "Node Control/Rebirth"} <= payload.names


@dataclass
class Host:
    """What a host believes of one edge node after every message; `faults` is what the node did wrong."""

    alive: bool = False
    bd_seq: int = -1
    numbers: list[int] = field(default_factory=list)
    births: int = 0
    stale_deaths: list[int] = field(default_factory=list)
    devices: dict[str, bool] = field(default_factory=dict)
    values: dict[str, int | float | str | bool | None] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    last: Payload = field(default_factory=lambda: Payload(None, None, []))
    _seq: int = 0

    def hear(self, topic: str, body: bytes) -> None:
        _, _, kind, _, *device = topic.split("/")
        if kind in ("NCMD", "DCMD"):
            return
        check(topic, body)
        self.last = payload = read(body)
        self.kinds.append(kind)
        if kind == "NDEATH":
            self._die(int(payload.metric("bdSeq").raw or 0))
            return
        if kind == "NBIRTH":
            self.alive, self.devices, self.values, self.types, self._seq = True, {}, {}, {}, -1
            self.bd_seq = int(payload.metric("bdSeq").raw or 0)
            self.births += 1
            if not self.numbers or self.numbers[-1] != self.bd_seq:
                self.numbers.append(self.bd_seq)
        if not self.alive:
            self.faults.append(f"{kind} of a node that is not born")
        if payload.seq != (self._seq + 1) % 256:
            self.faults.append(f"{kind} has seq {payload.seq} after {self._seq}")
        self._seq = payload.seq or 0
        self._take(kind, device[0] if device else "", payload)

    def _die(self, number: int) -> None:
        if number == self.bd_seq:
            self.alive, self.devices = False, dict.fromkeys(self.devices, False)
        else:
            self.stale_deaths.append(number)

    def _take(self, kind: str, device: str, payload: Payload) -> None:
        if kind in ("DBIRTH", "DDEATH"):
            self.devices[device] = kind == "DBIRTH"
        elif kind == "DDATA" and not self.devices.get(device):
            self.faults.append(f"data of {device}, which is not born")
        for one in payload.metrics:
            name = f"{device}/{one.name}" if device else one.name
            if one.datatype is not None:
                self.types[name] = one.datatype
            if name not in self.types:
                self.faults.append(f"{name} was in no birth")
            self.values[name] = one.value(self.types.get(name, 0))


def command(name: str, *, boolean: bool | None = None, text: str | None = None) -> bytes:
    """Write a payload as a host does: one metric with a value."""
    value = _tag(14, 0) + bytes([bool(boolean)]) if text is None else _text(15, text)
    metric = _text(1, name) + _tag(4, 0) + bytes([11 if text is None else 12]) + value
    return _tag(1, 0) + b"\x01" + _tag(2, 2) + bytes([len(metric)]) + metric


def _tag(number: int, wire: int) -> bytes:
    return bytes([number << 3 | wire])


def _text(number: int, text: str) -> bytes:
    return _tag(number, 2) + bytes([len(text)]) + text.encode()


def _metric(data: bytes) -> Metric:
    found: dict[str, object] = {}
    names = {2: "alias", 3: "timestamp", 4: "datatype", 5: "historical", 7: "null"}
    for number, value in _fields(data):
        if number == 1:
            assert isinstance(value, bytes)
            found["name"] = value.decode()
        elif number in names:
            found[names[number]] = bool(value) if number in (5, 7) else value
        else:
            assert number in _KINDS, f"field {number} of a metric is not in use here"
            found |= {"field": number, "raw": _raw(number, value)}
    return Metric(**found)  # type: ignore[arg-type]


def _raw(number: int, value: int | bytes) -> int | float | str | bool:
    if number == 15:
        assert isinstance(value, bytes)
        return value.decode()
    if number == 13:
        assert isinstance(value, bytes)
        return float(struct.unpack("<d", value)[0])
    return bool(value) if number == 14 else _number(value)


def _number(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[wire]
        assert at + size <= len(data), "cut off"
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
