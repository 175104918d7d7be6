"""Who may say and hear what at the broker: Mosquitto's settings and list of rights for a line (line contract 4.1).

Mosquitto takes a client's name from its certificate (`use_identity_as_username`): the common name `<role>-<name>`, as
`ifpp pki` writes it. What a list of rights forbids is dropped in silence: PUBACK and SUBACK look as if it were granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ifpp.bus.client import MAX_PAYLOAD
from ifpp.bus.topics import LINE_NODE, MES_NODE, Topics, check_id, check_station

_STATION_SAYS = ("meta", "state", "evt", "req", "cmd_rsp", "tel")
_STATION_HEARS = ("ack", "cmd", "req_rsp")
_ALL_HEAR = ("meta", "state", "kpi")
_MES_SAYS = ("cmd", "req_rsp", "ack")
_HEARERS = ("planner", "auditor")


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Where things are on the broker's machine; all paths absolute. `folder` is writable by the broker."""

    ca: Path
    cert: Path
    key: Path
    crl: Path
    acl: Path
    folder: Path


def settings(host: str, port: int, files: BrokerFiles) -> str:
    """Return mosquitto.conf of a broker that wants certificates; each row beyond TLS is against a measured loss."""
    try:
        listener = f"listener {port} {ip_address(host)}"
    except ValueError:
        listener = f"listener {port}"
    rows = [
        "# Written by `ifpp pki broker`: mutual TLS, rights by certificate.",
        listener,
        "allow_anonymous false",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.2",
        f"cafile {files.ca}",
        f"certfile {files.cert}",
        f"keyfile {files.key}",
        f"crlfile {files.crl}",
        f"acl_file {files.acl}",
        "# Without it an answer takes 88 ms instead of 0.4.",
        "set_tcp_nodelay true",
        "# The defaults, 20 and 1000, drop messages in silence, retained ones for a new subscriber too.",
        "max_inflight_messages 1000",
        "max_queued_messages 100000",
        "# ifpp reads no more.",
        f"message_size_limit {MAX_PAYLOAD}",
        "# Retained documents outlive a restart; every 30 minutes would be the default.",
        "persistence true",
        f"persistence_location {files.folder}/",
        "autosave_interval 30",
        "persistent_client_expiration 1d",
    ]
    return "\n".join(rows) + "\n"


def rights(topics: Topics, clients: Iterable[tuple[str, str]]) -> str:
    """Return one line's part of the list: `clients` are (role, name) as in their certificates. Raises SettingsError."""
    base = topics.base
    rows = [f"# begin {base}"]
    for role, name in clients:
        rows.append(f"user {role}-{check_id(name, role)}")
        if role == "station":
            rows += _station(base, check_station(name))
        elif role == "supervisor":
            rows += _supervisor(topics)
        elif role == "mes":
            rows.append(f"topic read {base}/#")
            rows += [f"topic write {base}/{LINE_NODE}/{kind}/#" for kind in _MES_SAYS]
            rows.append(f"topic write {base}/{MES_NODE}/state/online")
        elif role == "scada":
            rows += _scada(topics, name)
        elif role in _HEARERS:
            rows.append(f"topic read {base}/#")
    rows.append(f"# end {base}")
    return "\n".join(rows) + "\n"


def put(known: str, part: str) -> str:
    """Return the list with one line's part in the place of the one before; other lines' parts stay."""
    first = part.splitlines()[0]
    last = first.replace("# begin ", "# end ")
    old = re.compile(rf"^{re.escape(first)}$.*?^{re.escape(last)}\n", re.DOTALL | re.MULTILINE)
    return old.sub("", known) + part


def _station(base: str, name: str) -> list[str]:
    own = f"{base}/{name}"
    return [
        *(f"topic write {own}/{kind}/#" for kind in _STATION_SAYS),
        *(f"topic read {own}/{kind}/#" for kind in _STATION_HEARS),
        *(f"topic read {base}/{LINE_NODE}/{kind}/#" for kind in _ALL_HEAR),
    ]


def _supervisor(topics: Topics) -> list[str]:
    """All of its line; and its view for SCADA, where that is switched on."""
    group, line = _edge(topics)
    return [
        f"topic readwrite {topics.base}/#",
        f"topic readwrite spBv1.0/{group}/+/{line}/#",
        "topic read spBv1.0/STATE/#",
    ]


def _scada(topics: Topics, name: str) -> list[str]:
    """The view, and nothing behind it; asking for a rebirth; its own state as a host, whose id is its name."""
    group, line = _edge(topics)
    return [
        f"topic read spBv1.0/{group}/+/{line}/#",
        f"topic write spBv1.0/{group}/NCMD/{line}",
        f"topic readwrite spBv1.0/STATE/{name}",
    ]


def _edge(topics: Topics) -> tuple[str, str]:
    _, _, site, area, line = topics.base.split("/")
    return f"{site}-{area}", line
