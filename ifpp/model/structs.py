"""Message types made ready before threads decode them.

msgspec learns what it needs of a type when it is used first. Two threads that decode a type for the first time at the
same moment crash the process (measured with 0.22: a null pointer, SIGSEGV); once it is known they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec


def prepare_structs() -> None:
    """Let msgspec learn every type that is imported now; those it cannot decode are left alone."""
    for kind in structs():
        with suppress(TypeError):
            msgspec.json.Decoder(kind)


def structs(base: type[msgspec.Struct] = msgspec.Struct) -> Iterator[type[msgspec.Struct]]:
    """Give every type below `base` that is imported."""
    for kind in base.__subclasses__():
        yield kind
        yield from structs(kind)
