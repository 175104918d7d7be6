"""What nodes say of themselves on the bus: a topic is no proof, and a broker keeps whatever it was given.

Every refusal has a reason, one word that is a label of `ifpp_contract_violation_total`:

  topic     not a topic of this line              schema   not the document its topic promises
  too_big   longer than a node may say            version  of a major version nobody here knows
  node      names another node than its topic     many     more nodes than a line can have
  envelope  an event whose envelope is broken     retained a command a broker kept
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ifpp.errors import WireError
from ifpp.model.messages import Birth, Online

MOST_NODES = 1000
_LONGEST = 16 * 1024  # bytes of a birth; an online document has 200
_MAJOR = "1"
T = TypeVar("T", Online, Birth)


class UnheardError(WireError):
    """A document that is not believed; `reason` is one word of the list above."""

    def __init__(self, reason: str, detail: str, *, where: str) -> None:
        super().__init__(detail, where=where)
        self.reason = reason


def read_online(node: str, payload: bytes) -> Online:
    """Return what a node says of its connection; raises UnheardError."""
    return _read(node, payload, Online)


def read_birth(node: str, payload: bytes) -> Birth:
    """Return what a node says of itself; raises UnheardError."""
    return _read(node, payload, Birth)


def _read(node: str, payload: bytes, kind: type[T]) -> T:
    if len(payload) > _LONGEST:
        raise UnheardError("too_big", f"{len(payload)} bytes", where=node)
    try:
        said = msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnheardError("schema", str(error)[:200], where=node) from error
    if said.schema.partition("/")[2].partition(".")[0] != _MAJOR:
        raise UnheardError("version", f"schema {said.schema[:60]!r}", where=node)
    if said.node_id != node:
        raise UnheardError("node", f"the document names node {said.node_id[:60]!r}", where=node)
    return said
