"""A service manager's ear: the datagram socket that sd_notify(3) speaks to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PATIENCE_S = 60.0


class Manager:
    """Hears datagrams; each is its lines. `address` as in $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._passed: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def waiting(self) -> list[list[str]]:
        """Return what was sent and not heard yet."""
        heard = []
        with suppress(BlockingIOError):
            while True:
                heard.append(self._socket.recv(4096, socket.MSG_DONTWAIT).decode().split("\n"))
        return heard

    def until(self, fact: str) -> list[str]:
        """Return the first datagram that says `fact`, of those this method passed over or still to come.

        Fails the test after PATIENCE_S.
        """
        self._socket.settimeout(PATIENCE_S)
        while (found := next((said for said in self._passed if fact in said), None)) is None:
            self._passed.append(self._socket.recv(4096).decode().split("\n"))
        return found

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(folder: Path, monkeypatch: pytest.MonkeyPatch, *, watchdog: bool = True) -> Iterator[Manager]:
    """Be the manager of this process for the block."""
    manager = Manager(str(folder / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if watchdog:
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    else:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    yield manager
    manager.close()
