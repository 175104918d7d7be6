"""AT commands over a stream of bytes: one outstanding command, its information lines, its final result.

    command   ATxyz<CR>; whatever the modem repeats of it (echo, once or twice) is thrown away
    answer    lines between <CR> and <LF>: those with the wanted prefix are the answer, a final result ends it
              (V.250 5.7.1: OK, ERROR; 3GPP TS 27.007 9.2: +CME ERROR: <number or text>), any other line is unsolicited
    late      a modem answers in order, but may do so after the deadline. An answer that is still owed is waited for
              and thrown away before the next command: `AT+CMEE` is asked for and changed, and only the changed value is
              believed (27.007 9.1), so an older answer cannot be taken for a newer one.

Pure: no device, no clock but the one given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

DEADLINE_S = 10.0
RECOVERY_S = 30.0
_PROBE_S = 1.0
_MAX_LINE_BYTES = 256 * 1024  # twice the longest answer of a card, in hex
_NEWLINE = re.compile(rb"[\r\n]+")
_REFUSAL = re.compile(r"\+CM[ES] ERROR:\s*(.*)")
_CARD_ANSWER = re.compile(r'(\d+)\s*,\s*"?([0-9A-Fa-f]*)"?')
BARE_HANDLE = re.compile(r'"?([0-9A-Fa-f]{16}|\d{1,10})"?')
_NO_REASON = frozenset({"ERROR", "ABORTED", "NO CARRIER", "COMMAND NOT SUPPORT"})


class Stream(Protocol):
    """The bytes to and from a modem."""

    def write(self, data: bytes) -> None:
        """Send all of it."""

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, waiting for it a while and at most so long (0: not at all); b"" for nothing."""


class RefusedError(Exception):
    """The modem's final result was not OK; `reason` is the number or text of +CME ERROR, "" for a bare ERROR."""

    def __init__(self, command: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{_verb(command)} answered {f'+CME ERROR: {reason}' if reason else 'ERROR'}")


class SilentError(Exception):
    """No final result in time; `heard` tells whether anything at all came."""

    def __init__(self, command: str, timeout_s: float, *, heard: bool) -> None:
        self.heard = heard
        super().__init__(f"{_verb(command)} was not answered in {timeout_s:g} s")


class RestartedError(Exception):
    """The modem started anew: what it was doing is lost."""


class GarbledError(Exception):
    """An answer that is not what 27.007 says."""


class AtLine:
    """The command line of one modem.

    `unsolicited` hears every line that answers nothing; it returns True for one that says that the modem has started
    anew. Before the first command and whenever an answer is owed the line is synchronised, which switches the echo off
    and the reasons of errors on. Errors: RefusedError, SilentError, RestartedError, GarbledError.
    """

    def __init__(self, stream: Stream, unsolicited: Callable[[str], bool], monotonic: Callable[[], float]) -> None:
        self._stream = stream
        self._unsolicited = unsolicited
        self._monotonic = monotonic
        self._buffer = b""
        self._heard = False
        self.in_step = False

    def ask(
        self,
        command: str,
        *,
        prefix: str = "",
        bare: re.Pattern[str] | None = None,
        timeout_s: float = DEADLINE_S,
    ) -> list[str]:
        """Send a command and return its information lines: those with `prefix`, which is cut off, or like `bare`."""
        if not self.in_step:
            self.synchronise(RECOVERY_S)
        self._heard = False
        self._drain()
        return self._exchange(command, prefix, bare, timeout_s)

    def ask_card(self, command: str, prefix: str, timeout_s: float) -> bytes:
        """Ask with a command that carries an APDU and return the card's answer; raises GarbledError as well."""
        lines = self.ask(command, prefix=prefix, timeout_s=timeout_s)
        if len(lines) != 1:
            self.in_step = False
            raise GarbledError(f"{_verb(command)} answered {len(lines)} lines {prefix}")
        return card_answer(lines[0])

    def synchronise(self, timeout_s: float) -> None:
        """Wait until no answer is owed, echo off, errors with a reason; raises SilentError."""
        self.in_step = False
        self._heard = False
        deadline_s = self._monotonic() + timeout_s
        while True:
            left_s = deadline_s - self._monotonic()
            if left_s <= 0:
                raise SilentError("AT+CMEE?", timeout_s, heard=self._heard)
            try:
                self._fence(min(left_s, _PROBE_S))
            except (SilentError, RestartedError, RefusedError):
                continue  # busy, starting, or between two answers
            self.in_step = True
            return

    def _fence(self, timeout_s: float) -> None:
        """Pass a point that no older answer can pass."""
        self._drain()
        before = self._exchange("AT+CMEE?", "+CMEE:", None, timeout_s, wanted=re.compile(r"[012]"))[-1]
        value = 2 if before == "1" else 1
        with suppress(RefusedError):  # then the echo stays
            self._exchange("ATE0", "", None, DEADLINE_S)
        self._exchange(f"AT+CMEE={value}", "", None, DEADLINE_S)
        self._exchange("AT+CMEE?", "+CMEE:", None, DEADLINE_S, wanted=re.compile(str(value)))

    def _exchange(
        self,
        command: str,
        prefix: str,
        bare: re.Pattern[str] | None,
        timeout_s: float,
        wanted: re.Pattern[str] | None = None,
    ) -> list[str]:
        """One command. With `wanted` nothing counts before a line whose value looks like that."""
        was_in_step, self.in_step = self.in_step, False
        self._stream.write(command.encode("ascii") + b"\r")
        found: list[str] = []
        for line in self._lines(command, timeout_s):
            if prefix and line.startswith(prefix):
                value = line[len(prefix) :].strip()
                if wanted is None or wanted.fullmatch(value):
                    found.append(value)
            elif bare is not None and bare.fullmatch(line):
                found.append(line)
            elif (reason := _final(line)) is None:
                self._hear(line)
            elif wanted is None or found:
                self.in_step = was_in_step
                if reason == "OK":
                    return found
                raise RefusedError(command, reason)
        raise SilentError(command, timeout_s, heard=self._heard)

    def _lines(self, command: str, timeout_s: float) -> Iterator[str]:
        """The lines that come until the deadline, without the echo."""
        deadline_s = self._monotonic() + timeout_s
        while True:
            for line in self._take_lines():
                if line != command:
                    yield line
            left_s = deadline_s - self._monotonic()
            if left_s <= 0:
                return
            self._fill(left_s)

    def _take_lines(self) -> Iterator[str]:
        """The whole lines in the buffer; a caller that has enough leaves the rest there."""
        while (end := _NEWLINE.search(self._buffer)) is not None:
            line, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
            if line:
                yield line.decode("latin-1").strip()

    def _fill(self, timeout_s: float) -> None:
        chunk = self._stream.read(timeout_s)
        self._heard = self._heard or bool(chunk)
        self._buffer += chunk
        if len(self._buffer) > _MAX_LINE_BYTES:
            self._buffer = b""
            raise GarbledError(f"a line longer than {_MAX_LINE_BYTES} bytes")

    def _drain(self) -> None:
        """Hear what came unasked; nothing of it can be the next answer."""
        while True:
            before = len(self._buffer)
            self._fill(0)
            if len(self._buffer) == before:
                break
        for line in self._take_lines():
            self._hear(line)
        self._buffer = b""

    def _hear(self, line: str) -> None:
        if self._unsolicited(line):
            self.in_step = False
            raise RestartedError(f"the modem started anew ({line[:40]})")


def card_answer(value: str) -> bytes:
    """Return the bytes of `<length>,"<hex>"` (27.007 8.17, 8.43: length counts hex digits); raises GarbledError."""
    match = _CARD_ANSWER.fullmatch(value.strip())
    if match is None or len(match[2]) != int(match[1]) or len(match[2]) % 2:
        raise GarbledError("an answer of the card is not <length>,<hex>")
    return bytes.fromhex(match[2])


def session_handle(values: list[str], *, numbered: bool) -> str:
    """Return the session handle of +CCHO (27.007 8.45; bare, quoted, or 16 hex digits); raises GarbledError.

    `numbered`: it must be the number of a logical channel.
    """
    match = BARE_HANDLE.fullmatch(values[-1].strip()) if values else None
    if match is None or (numbered and not (len(match[1]) <= 2 and 1 <= int(match[1]) <= 19)):
        raise GarbledError("AT+CCHO answered no session handle")
    return match[1]


def _final(line: str) -> str | None:
    """Return "OK", the reason of an error ("" without one), or None for a line that ends nothing."""
    if line == "OK":
        return "OK"
    if line in _NO_REASON:
        return ""
    refusal = _REFUSAL.fullmatch(line)
    return None if refusal is None else refusal[1].strip().strip('"')


def _verb(command: str) -> str:
    """Name a command without what it carries."""
    return command.split("=", 1)[0]
