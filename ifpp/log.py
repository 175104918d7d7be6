"""JSON lines on stderr, and the guard that keeps key material out of them.

One line an event: ``{"ts", "level", "logger", "event", "fields"}``; ``ts`` is UTC with milliseconds. EID and ICCID may
be logged. Bytes longer than a status word or tag are never printed, only their length and a SHA-256 prefix; objects
of unknown type are named by their class, because a foreign ``repr`` may show what it holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from enum import Enum
from functools import singledispatch
from itertools import islice
from pathlib import Path
from typing import Any, Never, TextIO

from ifpp.errors import IfppError
from ifpp.model.clock import utc_ms_text

_SHOWN_BYTES = 4
_SHOWN_BITS = 64
_MAX_TEXT = 2000
_MAX_ITEMS = 32
_MAX_DEPTH = 4
_BYTES_LITERAL = re.compile(r"""\bb'(?:[^'\\]|\\.)*'|\bb"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_FIELDS = "ifpp_fields"


class Secret:
    """Key material: bytes that no repr, str, format, comparison text or pickle ever shows.

    ``reveal()`` is the one way to the bytes, so that every use can be found by name.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes; never pass them to anything that logs, formats or stores."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __reduce__(self) -> Never:
        raise TypeError("a secret cannot be pickled or copied")


class EventLogger:
    """Logs named events with fields; `bind` fixes fields for everything that follows."""

    def __init__(self, logger: logging.Logger, bound: Mapping[str, object]) -> None:
        self._logger = logger
        self._bound = dict(bound)

    def bind(self, **fields: object) -> EventLogger:
        return EventLogger(self._logger, {**self._bound, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """As `error`, with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, trace=True)

    def _write(self, level: int, event: str, fields: Mapping[str, object], *, trace: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={_FIELDS: {**self._bound, **fields}}, exc_info=trace)


def get_logger(name: str) -> EventLogger:
    """Return the logger `ifpp.<name>`, for example ``get_logger("station.head")``."""
    return EventLogger(logging.getLogger(f"ifpp.{name}"), {})


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record of the process to `stream` (default stderr) as JSON lines; may be called again.

    `level` holds for ifpp's own loggers; libraries are heard from WARNING upwards.
    """
    root = logging.getLogger()
    for handler in [known for known in root.handlers if isinstance(known, _LineHandler)]:
        root.removeHandler(handler)
    handler = _LineHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("ifpp").setLevel(level)


class JsonLines(logging.Formatter):
    """Formats any log record, ours or a library's, as one JSON line without key material."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, _FIELDS, None)
        line: dict[str, object] = {
            "ts": utc_ms_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "event": _scrub(_message(record)),
        }
        if fields:
            line["fields"] = printable(fields)
        if record.exc_info and record.exc_info[0] is not None:
            line["trace"] = _scrub("".join(traceback.format_exception(*record.exc_info)), limit=4 * _MAX_TEXT)
        return json.dumps(line)


class _LineHandler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class named it
        """Lose the line: a full disk must not stop the line, and the default would print raw arguments."""


def printable(value: object, depth: int = 0) -> Any:
    """Return what may be shown of a value, as a JSON value bounded in depth, length and number of items."""
    if not isinstance(value, Mapping | Sequence | Set) or isinstance(value, str | bytes | bytearray | memoryview):
        return _scalar(value)
    if depth >= _MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        pairs = islice(value.items(), _MAX_ITEMS)
        return {str(printable(key, depth + 1)): printable(item, depth + 1) for key, item in pairs}
    shown = [printable(item, depth + 1) for item in islice(value, _MAX_ITEMS)]
    return [*shown, f"<{len(value) - _MAX_ITEMS} more>"] if len(value) > _MAX_ITEMS else shown


@singledispatch
def _scalar(value: object) -> Any:
    return None if value is None else f"<{type(value).__name__}>"


@_scalar.register
def _(value: str) -> str:
    return _scrub(str.__str__(value))


@_scalar.register
def _(value: int) -> int | str:
    # A private key may be held as one long number.
    return value if value.bit_length() <= _SHOWN_BITS else f"<{value.bit_length()} bits>"


@_scalar.register
def _(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


@_scalar.register(bytes)
@_scalar.register(bytearray)
@_scalar.register(memoryview)
def _(value: bytes) -> str:
    shown = bytes(value)
    if len(shown) <= _SHOWN_BYTES:
        return shown.hex()
    return f"<{len(shown)} bytes sha256:{hashlib.sha256(shown).hexdigest()[:12]}>"


@_scalar.register(Path)
@_scalar.register(Secret)
def _(value: object) -> str:
    return _scrub(str(value))


@_scalar.register
def _(value: Enum) -> str:
    return value.name


@_scalar.register
def _(value: datetime) -> str:
    return utc_ms_text(value) if value.tzinfo else value.isoformat()


@_scalar.register
def _(value: BaseException) -> str:
    return _scrub(f"{type(value).__name__}: {value}")


@_scalar.register
def _(value: IfppError) -> dict[str, str]:
    shown = {"code": value.code, "detail": _scrub(value.detail), "where": _scrub(value.where)}
    return {name: text for name, text in shown.items() if text}


def _scrub(text: str, limit: int = _MAX_TEXT) -> str:
    """Take bytes literals out of a text (a library may have put a payload's repr there) and bound its length."""
    clean = _BYTES_LITERAL.sub("<bytes>", text[: 2 * limit])
    return clean if len(clean) <= limit else f"{clean[:limit]}<cut>"


def _message(record: logging.LogRecord) -> str:
    """Return a library's message with its arguments made printable before they are put in."""
    args = record.args
    if not args:
        return str(record.msg)
    try:
        if isinstance(args, Mapping):
            return str(record.msg) % {name: printable(value) for name, value in args.items()}
        return str(record.msg) % tuple(printable(value) for value in args)
    except (TypeError, ValueError, KeyError):  # a placeholder that wants a number and now gets a text
        return str(record.msg)
