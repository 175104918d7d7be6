"""A broker on the loopback for demo and tests: Mosquitto where it is installed, else amqtt in pure Python.

Both run as a process of their own, so that killing one is a real broker failure. Never for production: no TLS, no
passwords, no access rules.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ifpp.errors import ServiceError, SettingsError
from ifpp.log import get_logger
from ifpp.model.clock import Clock

LOOPBACK = "127.0.0.1"
_TRY_EVERY_S = 0.02
_STOP_S = 5.0

log = get_logger("bus.broker")


class BrokerKind(StrEnum):
    MOSQUITTO = "mosquitto"
    AMQTT = "amqtt"


@dataclass(frozen=True, slots=True)
class DemoBroker:
    """A running broker process on the loopback; `logfile` has what it says."""

    kind: BrokerKind
    port: int
    process: asyncio.subprocess.Process
    logfile: Path

    async def stop(self) -> None:
        """End the process in good order; kills it when it does not obey."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the process as a power cut would."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def mosquitto_path() -> str | None:
    """Return where Mosquitto is installed; /usr/sbin is not on every user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a TCP port of the loopback nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def start_demo_broker(
    folder: Path, port: int, clock: Clock, *, kind: BrokerKind | None = None, persistence: bool = False
) -> DemoBroker:
    """Start a broker on 127.0.0.1 and return once it accepts connections.

    `folder` (made if missing) holds its configuration, log and, with `persistence` (Mosquitto only), its database;
    `kind` None takes Mosquitto if it is there. Raises SettingsError (SETTINGS.MISSING) when the machine has neither,
    ServiceError (PROCESS.DIED, BROKER.UNREACHABLE) when it does not come up.
    """
    chosen = kind or (BrokerKind.MOSQUITTO if mosquitto_path() else BrokerKind.AMQTT)
    guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []  # it ends with us, however we end
    command = [*guard, *_prepare(chosen, folder, port, persistence)]
    logfile = folder / "broker.log"
    with logfile.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    broker = DemoBroker(chosen, port, process, logfile)
    try:
        await wait_until_open(port, clock, process=process)
    except BaseException as error:  # also when cancelled: no process may stay behind
        await broker.kill()
        if isinstance(error, ServiceError):
            raise ServiceError(error.code, error.detail, where=str(logfile)) from error
        raise
    log.info("broker.started", kind=chosen, port=port, pid=process.pid)
    return broker


async def wait_until_open(
    port: int, clock: Clock, *, timeout_s: float = 10.0, process: asyncio.subprocess.Process | None = None
) -> None:
    """Return once 127.0.0.1:`port` accepts a connection.

    Raises ServiceError: BROKER.UNREACHABLE after `timeout_s`, PROCESS.DIED when `process` has ended.
    """
    end = clock.monotonic() + timeout_s
    while clock.monotonic() < end:
        if process is not None and process.returncode is not None:
            raise ServiceError("PROCESS.DIED", f"the broker ended with status {process.returncode}")
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await clock.sleep(_TRY_EVERY_S)
            continue
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return
    raise ServiceError("BROKER.UNREACHABLE", f"no answer within {timeout_s:g} s", where=f"broker {LOOPBACK}:{port}")


def _prepare(kind: BrokerKind, folder: Path, port: int, persistence: bool) -> list[str]:
    """Make the folder and what the broker reads there; returns the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    return _mosquitto(folder.resolve(), port, persistence) if kind is BrokerKind.MOSQUITTO else _amqtt(port)


def _mosquitto(folder: Path, port: int, persistence: bool) -> list[str]:
    path = mosquitto_path()
    if path is None:
        raise SettingsError("SETTINGS.MISSING", "mosquitto is not installed", where="broker")
    lines = [
        f"listener {port} {LOOPBACK}",
        "allow_anonymous true",
        "set_tcp_nodelay true",
        # The defaults (20 and 1000) drop messages in silence.
        "max_inflight_messages 1000",
        "max_queued_messages 100000",
        f"persistence {str(persistence).lower()}",
        f"persistence_location {folder}/",
        # Started by root it would become the user `mosquitto`, who may not write into the folder.
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    conf = folder / "mosquitto.conf"
    conf.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path, "-c", str(conf)]


def _amqtt(port: int) -> list[str]:
    if importlib.util.find_spec("amqtt") is None:
        raise SettingsError("SETTINGS.MISSING", "install mosquitto or the extra ifpp[demo]", where="broker")
    return [sys.executable, "-m", "ifpp.bus.demo_broker", "--port", str(port)]
