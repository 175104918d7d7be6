"""A Sparkplug edge node without its connection: which message says what, in which order, under which number.

Eclipse Sparkplug 3.0.0, chapters 2.2 and 6.4: births tell every metric with its type, data only what has changed; the
node's death carries `bdSeq` alone and no `seq`, which counts all other messages from the birth's 0 to 255 and on
from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from ifpp.bus.sparkplug import BD_SEQ, NUMBERS, REBIRTH, DataType, EdgeTopics, Metric, encode
from ifpp.line.sparkplug_view import View

Said = tuple[str, bytes]
_NODE = ""


class EdgeNode:
    """One connection's worth of an edge node: `bd_seq` ties its births to its death."""

    def __init__(self, topics: EdgeTopics, bd_seq: int, deadband: float) -> None:
        self._topics = topics
        self._bd_seq = bd_seq
        self._deadband = deadband
        self._seq = 0
        self._told: dict[str, dict[str, Metric]] = {}

    @property
    def born(self) -> bool:
        """Whether a birth was made, and so a death is owed."""
        return _NODE in self._told

    def death(self, at_ms: int) -> Said:
        """Return the death of this connection: its will, and its last word."""
        return self._topics.node("NDEATH"), encode([self._number(at_ms)], at_ms, None, typed=True)

    def birth(self, view: View, at_ms: int) -> list[Said]:
        """Return the births of the node and of all its devices; `seq` begins anew."""
        self._seq, self._told = 0, {_NODE: _named(view.node)}
        control = Metric(REBIRTH, DataType.BOOLEAN, False, at_ms)
        own = [self._number(at_ms), control, *view.node]
        said = [(self._topics.node("NBIRTH"), encode(own, at_ms, 0, typed=True))]
        return said + [self._device_birth(name, metrics, at_ms) for name, metrics in view.devices.items()]

    def changes(self, view: View, at_ms: int) -> list[Said]:
        """Return what differs from what was told last: data, births of new devices, deaths of those that left."""
        gone = [name for name in self._told if name != _NODE and name not in view.devices]
        said = [self._message("DDEATH", name, [], at_ms, typed=False) for name in gone]
        for name in gone:
            del self._told[name]
        said += self._data(_NODE, view.node, at_ms)
        for name, metrics in view.devices.items():
            if self._told.get(name, {}).keys() == _named(metrics).keys():
                said += self._data(name, metrics, at_ms)
            else:  # a new device, or one with another set of metrics
                said.append(self._device_birth(name, metrics, at_ms))
        return said

    def _device_birth(self, name: str, metrics: Sequence[Metric], at_ms: int) -> Said:
        self._told[name] = _named(metrics)
        return self._message("DBIRTH", name, metrics, at_ms, typed=True)

    def _data(self, name: str, metrics: Sequence[Metric], at_ms: int) -> list[Said]:
        told = self._told[name]
        changed = [one for one in metrics if self._differs(told[one.name], one)]
        told.update(_named(changed))
        kind = "NDATA" if name == _NODE else "DDATA"
        return [self._message(kind, name, changed, at_ms, typed=False)] if changed else []

    def _differs(self, told: Metric, now: Metric) -> bool:
        """Whether it is worth telling: a real number that has hardly moved is not."""
        if isinstance(told.value, float) and isinstance(now.value, float):
            return abs(now.value - told.value) > self._deadband * abs(told.value)
        return told.value != now.value

    def _message(self, kind: str, name: str, metrics: Sequence[Metric], at_ms: int, *, typed: bool) -> Said:
        self._seq = (self._seq + 1) % NUMBERS
        topic = self._topics.node(kind) if name == _NODE else self._topics.device(kind, name)
        return topic, encode(metrics, at_ms, self._seq, typed=typed)

    def _number(self, at_ms: int) -> Metric:
        return Metric(BD_SEQ, DataType.INT64, self._bd_seq, at_ms)


def _named(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {one.name: one for one in metrics}
