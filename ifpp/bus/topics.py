"""The topic scheme of the line contract (4.1).

``{prefix}/{enterprise}/{site}/{area}/{line}/{node}/{class}/{name}``: always 8 levels. `node` is a station id, ``_line``
(the supervisor) or ``_mes``. Classes: `meta` and `state` are retained, `evt` is durable and acknowledged by `ack`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ifpp.errors import SettingsError, WireError

PREFIX = "ifpp1"
LINE_NODE = "_line"
MES_NODE = "_mes"
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a received message belongs: `node`, class (`kind`) and `name`."""

    node: str
    kind: str
    name: str


def check_id(text: str, what: str) -> str:
    """Return an identifier that may be a topic level; raises SettingsError (SETTINGS.INVALID) otherwise."""
    if not _ID.fullmatch(text):
        raise SettingsError("SETTINGS.INVALID", f"{text[:40]!r} is not 1 to 32 of A-Z a-z 0-9 _ -", where=what)
    return text


def check_station(text: str) -> str:
    """Return a station id; the leading underscore belongs to ``_line`` and ``_mes``. Raises SettingsError."""
    if text.startswith("_"):
        raise SettingsError("SETTINGS.INVALID", f"{text[:40]!r} must not begin with an underscore", where="station id")
    return check_id(text, "station id")


class Topics:
    """All topics of one line."""

    def __init__(self, enterprise: str, site: str, area: str, line: str, prefix: str = PREFIX) -> None:
        levels = {"prefix": prefix, "enterprise": enterprise, "site": site, "area": area, "line": line}
        self.line = line
        self.base = "/".join(check_id(text, what) for what, text in levels.items())

    def client_id(self, node: str) -> str:
        """The fixed MQTT client identifier of a node: ``ifpp-{line}-{node}``."""
        return f"ifpp-{self.line}-{node}"

    # ---- any node: a station id or LINE_NODE ----

    def birth(self, node: str) -> str:
        return self._of(node, "meta", "birth")

    def online(self, node: str) -> str:
        return self._of(node, "state", "online")

    # ---- stations ----

    def station_state(self, station: str) -> str:
        return self._of(station, "state", "station")

    def alarms(self, node: str) -> str:
        """The alarms of a station, or of the whole line."""
        return self._of(node, "state", "alarms")

    def event(self, station: str, name: str) -> str:
        """Durable event of a station, for example `unit_result` or `state_changed`."""
        return self._of(station, "evt", name)

    def ack(self, station: str) -> str:
        """Where the supervisor acknowledges a station's events."""
        return self._of(station, "ack", "evt")

    def command(self, station: str, name: str) -> str:
        """Where a station is asked to do something, for example `block_head`."""
        return self._of(station, "cmd", name)

    def answer(self, station: str, name: str) -> str:
        """Where a station answers a command of this name."""
        return self._of(station, "cmd_rsp", name)

    def question(self, node: str, name: str) -> str:
        """Where a node asks, for example `route_check`."""
        return self._of(node, "req", name)

    def reply(self, node: str, name: str) -> str:
        """Where a node is told the answer to what it asked."""
        return self._of(node, "req_rsp", name)

    # ---- the line ----

    @property
    def job(self) -> str:
        return self._of(LINE_NODE, "state", "job")

    @property
    def line_state(self) -> str:
        return self._of(LINE_NODE, "state", "line")

    def kpi(self, window: str) -> str:
        """The line's figures of its present hour, shift or job (`window`)."""
        return self._of(LINE_NODE, "kpi", window)

    # ---- subscriptions of the supervisor ----

    @property
    def every_event(self) -> str:
        return f"{self.base}/+/evt/#"

    @property
    def every_online(self) -> str:
        return f"{self.base}/+/state/online"

    @property
    def every_birth(self) -> str:
        return f"{self.base}/+/meta/birth"

    def parse(self, topic: str) -> Place:
        """Return where a received topic belongs; raises WireError when it is not one of this line's."""
        levels = topic.split("/")
        if len(levels) != _LEVELS or not topic.startswith(f"{self.base}/"):
            raise WireError("not a topic of this line", where=topic[:200])
        node, kind, name = levels[-3:]
        if not (_ID.fullmatch(node) and _ID.fullmatch(kind) and _ID.fullmatch(name)):
            raise WireError("a topic level is not an identifier", where=topic[:200])
        return Place(node, kind, name)

    def _of(self, node: str, kind: str, name: str) -> str:
        return f"{self.base}/{node}/{kind}/{name}"
