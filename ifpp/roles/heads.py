"""`ifpp heads quarantine|release|socket`: a person acts on one head of a running station, over the bus."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ifpp.bus.client import BrokerAddress
from ifpp.bus.topics import Topics, check_station
from ifpp.bus.visit import tell
from ifpp.model.messages import HeadCommand, HeadState
from ifpp.roles.runtime import broker_tls
from ifpp.settings import load_site
from ifpp.station.commands import BLOCK_HEAD, CHANGE_SOCKET, check_person, check_reason


@dataclass(frozen=True, slots=True)
class Act:
    """What a person does to a head: `by` is the person's name; `wait_s` how long the answer is waited for."""

    station: str
    head: str
    by: str
    reason: str = ""
    wait_s: float = 10.0


def quarantine(site_file: Path, act: Act) -> int:
    """Take a head out of work; a seated unit is finished first. Returns the exit code, raises as `tell`."""
    check_reason(act.reason)
    return _tell(site_file, act, BLOCK_HEAD, "BLOCK")


def release(site_file: Path, act: Act) -> int:
    """Let a head work again. Returns the exit code, raises as `tell`."""
    check_reason(act.reason)
    return _tell(site_file, act, BLOCK_HEAD, "UNBLOCK")


def new_socket(site_file: Path, act: Act) -> int:
    """Say that a head got a new socket. Returns the exit code, raises as `tell`."""
    return _tell(site_file, act, CHANGE_SOCKET, "")


def _tell(site_file: Path, act: Act, name: str, action: str) -> int:
    """Ask the station, print its answer; 1 when it refuses. Raises SettingsError before anything is asked."""
    check_station(act.station)
    check_person(act.by)
    site = load_site(site_file)
    command = HeadCommand(
        schema=f"{name}/1.0",
        request_id=str(uuid4()),
        head_id=act.head,
        operator_id=act.by,
        action=action,
        reason=act.reason,
    )
    topics = Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix)
    shown = broker_tls(site, site_file)
    address = BrokerAddress(site.broker.host, site.broker.port, tls=shown.current if shown else None)
    answer = asyncio.run(tell(address, topics, act.station, name, command, act.wait_s))
    sys.stdout.write(f"{act.station} {act.head}: {answer.text}\n{_shown(answer.head)}")
    return 1 if answer.status == "REJECTED" else 0


def _shown(head: HeadState | None) -> str:
    if head is None:
        return ""
    words = [
        head.phase,
        f"{head.cycles} insertions of this socket" + (", change due" if head.maintenance_due else ""),
        f"{head.contact_failures} of {head.contact_units} units lost contact",
        *head.alarms,
    ]
    return f"  {'; '.join(words)}\n"
