"""What a log line looks like, and what can never get into one."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import SupplyError
from ifpp.log import EventLogger, JsonLines, Secret, configure, get_logger, printable
from ifpp.model.ids import Eid
from ifpp.model.states import PackageState, UnitResult

KEY = bytes.fromhex("8c2f61d0a4937be5c8d1400f9e2277aa")


class Colour(Enum):
    RED = 1


@dataclass
class Holder:
    key: bytes


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, own = logging.getLogger(), logging.getLogger("ifpp")
    before = (list(root.handlers), root.level, own.level)
    text = io.StringIO()
    configure("DEBUG", text)
    yield text
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_event_is_one_json_line(stream: io.StringIO) -> None:
    get_logger("station.head").bind(head="h01").info("unit.seated", attempt=2, result=UnitResult.PASS)
    (line,) = lines(stream)
    assert line["event"] == "unit.seated"
    assert line["level"] == "INFO"
    assert line["logger"] == "ifpp.station.head"
    assert line["fields"] == {"head": "h01", "attempt": 2, "result": "PASS"}
    assert datetime.fromisoformat(line["ts"]).tzinfo is UTC
    assert len(line["ts"]) == len("2026-03-01T08:00:00.000Z")


def test_level_is_obeyed_and_configure_replaces(stream: io.StringIO) -> None:
    other = io.StringIO()
    configure("WARNING", other)
    get_logger("x").info("quiet")
    get_logger("x").warning("loud")
    assert [line["event"] for line in lines(other)] == ["loud"]
    assert stream.getvalue() == ""


def test_libraries_are_heard_from_warning(stream: io.StringIO) -> None:
    logging.getLogger("some.library").info("chatter %d", 1)
    logging.getLogger("some.library").warning("trouble %d of %s", 1, "two")
    assert [line["event"] for line in lines(stream)] == ["trouble 1 of two"]


def test_eid_is_shown(stream: io.StringIO) -> None:
    eid = Eid("89049032123451234512345678901235")
    get_logger("x").info("e", eid=eid)
    assert lines(stream)[0]["fields"]["eid"] == str(eid)


def test_an_error_shows_code_detail_and_place(stream: io.StringIO) -> None:
    get_logger("x").error("claim.refused", error=SupplyError("BPP.NOT_FOUND", "no package", where="h01"))
    assert lines(stream)[0]["fields"]["error"] == {"code": "BPP.NOT_FOUND", "detail": "no package", "where": "h01"}


def _raise_with_repr(log: EventLogger) -> None:
    try:
        raise ValueError(f"cannot parse {KEY!r}")
    except ValueError:
        log.exception("failed")


LEAKS: dict[str, Callable[[EventLogger], None]] = {
    "secret": lambda log: log.info("e", key=Secret(KEY)),
    "bytes": lambda log: log.info("e", key=KEY),
    "bytearray": lambda log: log.info("e", key=bytearray(KEY)),
    "memoryview": lambda log: log.info("e", key=memoryview(KEY)),
    "nested": lambda log: log.info("e", key={"a": [{"b": (KEY,)}]}),
    "mapping key": lambda log: log.info("e", key={KEY: 1}),
    "object": lambda log: log.info("e", key=Holder(KEY)),
    "object in a set": lambda log: log.info("e", key=frozenset({KEY})),
    "repr in a text": lambda log: log.info("e", key=f"got {KEY!r}"),
    "number": lambda log: log.info("e", key=int.from_bytes(KEY)),
    "error text": lambda log: log.info("e", key=ValueError(KEY)),
    "traceback": _raise_with_repr,
    "library argument": lambda _: logging.getLogger("lib").error("payload %s", KEY),
    "library argument by name": lambda _: logging.getLogger("lib").error("payload %(p)s", {"p": KEY}),
    "library object": lambda _: logging.getLogger("lib").error("payload %r", Holder(KEY)),
    "library text": lambda _: logging.getLogger("lib").error(f"payload {Holder(KEY)}"),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
def test_key_material_never_shows(stream: io.StringIO, leak: Callable[[EventLogger], None]) -> None:
    leak(get_logger("x"))
    text = stream.getvalue()
    assert len(lines(stream)) == 1
    for form in (
        KEY.hex(),
        KEY.hex().upper(),
        repr(KEY)[2:-1],
        json.dumps(repr(KEY))[3:-2],
        str(list(KEY)),
        str(int.from_bytes(KEY)),
    ):
        assert form not in text


def test_a_library_placeholder_that_wants_a_number_is_left_open() -> None:
    record = logging.LogRecord("lib", logging.ERROR, "f.py", 1, "payload %d", (KEY,), None)
    assert json.loads(JsonLines().format(record))["event"] == "payload %d"


def test_a_failing_stream_is_survived_in_silence(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    stream.close()
    get_logger("x").info("e", key=KEY)
    assert capsys.readouterr().err == ""


def test_bytes_longer_than_a_status_word_become_length_and_digest() -> None:
    assert printable(b"\x90\x00") == "9000"
    assert printable(b"12345") == "<5 bytes sha256:5994471abb01>"


def test_sizes_are_bounded() -> None:
    assert len(printable("x" * 10_000)) < 2100
    assert printable(list(range(100)))[-1] == "<68 more>"
    assert len(printable({n: n for n in range(100)})) == 32
    assert printable([[[[[1]]]]]) == [[[["<list>"]]]]


def test_other_values() -> None:
    assert printable(Path("a/b")) == "a/b"
    assert printable(datetime(2026, 3, 1, tzinfo=UTC)) == "2026-03-01T00:00:00.000Z"
    assert printable([None, True, 1.5, float("inf")]) == [None, True, 1.5, "inf"]
    assert printable(PackageState.SENT) == "SENT"
    assert printable({Colour.RED: "x"}) == {"RED": "x"}


def test_secret_shows_nothing_and_gives_its_bytes() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert {repr(secret), str(secret), f"{secret}", f"{secret:>9}", "%s" % secret} == {"<secret>"}  # noqa: UP031
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            copier(secret)
    assert not hasattr(secret, "__dict__")
