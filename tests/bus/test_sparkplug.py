"""Sparkplug payloads as bytes: read back by a reader that shares nothing with what writes them."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from ifpp.bus import sparkplug
from ifpp.bus.sparkplug import DataType, EdgeTopics, Metric, decode, encode, state_topic, unix_ms
from ifpp.errors import SettingsError, WireError
from tests import sparkplug_host
from tests.sparkplug_host import command


@pytest.mark.parametrize(
    ("kind", "value", "number"),
    [
        (DataType.INT32, -1, 3),
        (DataType.INT32, 2**31 - 1, 3),
        (DataType.INT64, -(2**63), 4),
        (DataType.INT64, 2**63 - 1, 4),
        (DataType.DOUBLE, 0.1, 10),
        (DataType.DOUBLE, 1, 10),
        (DataType.BOOLEAN, False, 11),
        (DataType.STRING, "Größe", 12),
        (DataType.DATE_TIME, 1_772_352_000_000, 13),
    ],
)
def test_every_type_reads_as_it_was_written(kind: DataType, value: Any, number: int) -> None:
    payload = sparkplug_host.read(encode([Metric("a/b", kind, value, 7)], 9, 3, typed=True))
    (metric,) = payload.metrics
    assert (payload.timestamp, payload.seq, metric.name, metric.timestamp, metric.datatype) == (9, 3, "a/b", 7, number)
    assert metric.value(number) == value
    assert (metric.null, metric.alias, metric.historical) == (False, None, False)


@pytest.mark.parametrize(
    ("kind", "value"), [(DataType.DOUBLE, None), (DataType.INT32, 2**31), (DataType.INT64, -(2**63) - 1)]
)
def test_what_is_not_known_or_does_not_fit_is_null(kind: DataType, value: Any) -> None:
    (metric,) = sparkplug_host.read(encode([Metric("a", kind, value, 7)], 9, 0, typed=True)).metrics
    assert (metric.null, metric.raw, metric.datatype) == (True, None, kind)


def test_data_carry_no_type_and_a_death_no_number() -> None:
    payload = sparkplug_host.read(encode([Metric("a", DataType.INT32, 1, 7)], 9, None, typed=False))
    assert (payload.seq, payload.metrics[0].datatype) == (None, None)


def test_commands_are_read_and_garbage_is_refused() -> None:
    assert decode(command("Node Control/Rebirth", boolean=True)) == [("Node Control/Rebirth", True)]
    assert decode(command("e10", text="PRD")) == [("e10", "PRD")]
    assert decode(b"") == []
    with pytest.raises(WireError, match="no Sparkplug payload"):
        decode(b"\x12\xff\xff\xff")
    with pytest.raises(WireError, match="no Sparkplug payload"):
        decode(b'{"online": true}')


def test_topics_are_those_of_the_specification() -> None:
    topics = EdgeTopics("north-hall1", "L1")
    assert topics.node("NBIRTH") == "spBv1.0/north-hall1/NBIRTH/L1"
    assert topics.device("DDATA", "st01") == "spBv1.0/north-hall1/DDATA/L1/st01"
    assert state_topic("scada") == "spBv1.0/STATE/scada"


def test_times_are_unix_milliseconds() -> None:
    assert unix_ms("2026-03-01T08:00:00.123Z") == 1_772_352_000_123
    for odd in ("soon", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"):
        assert unix_ms(odd) is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("google"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    sparkplug._payload_class.cache_clear()
    try:
        with pytest.raises(SettingsError, match=r"ifpp\[sparkplug\]"):
            sparkplug.ready()
    finally:
        sparkplug._payload_class.cache_clear()
