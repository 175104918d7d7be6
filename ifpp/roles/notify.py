"""What the service manager is told of this process: it serves, how it stands, that it goes on, that it stops.

The protocol is that of sd_notify(3): datagrams of `NAME=value` lines to the socket named by $NOTIFY_SOCKET. A process
that nobody manages has no such socket: then nothing is told, and nothing else is different.
"""

from __future__ import annotations

import faulthandler
import os
import socket

from ifpp.log import get_logger

_SEND_S = 1.0
_STDERR = 2

log = get_logger("notify")


def managed() -> bool:
    """Whether a service manager listens."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watched() -> bool:
    """Whether it ends this process when that does not go on (WatchdogSec=; sd_watchdog_enabled(3))."""
    return "WATCHDOG_USEC" in os.environ and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())


def trace_hangs() -> None:
    """Write where every thread stands to stderr when the watchdog ends this process, which it does by SIGABRT."""
    if managed():
        faulthandler.enable(_STDERR)


def ready(standing: str) -> None:
    """It serves now; `standing` is the one line that `systemctl status` shows."""
    _tell("READY=1", _status(standing))


def beat(standing: str) -> None:
    """It has come round once more: to be called by the work that must not hang, never by a timer beside it."""
    _tell(*(["WATCHDOG=1"] if watched() else []), _status(standing))


def stopping() -> None:
    """It takes nothing new and comes to its end."""
    _tell("STOPPING=1", _status("finishes what is under way"))


def _status(standing: str) -> str:
    return f"STATUS={' '.join(standing.split())}"


def _tell(*facts: str) -> None:
    """Send one datagram; one that does not arrive is no reason to stop a line."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # a name in the abstract namespace, unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_SEND_S)
            channel.connect(address)
            channel.sendall("\n".join(facts).encode())
    except OSError as error:
        log.warning("notify.unheard", facts=facts, reason=str(error))
