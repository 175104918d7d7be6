"""The station screen as lines, for screen readers and logs: only what changed, one fact a line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from ifpp.model.clock import Clock
from ifpp.tui.heard import Heard
from ifpp.tui.link import Link, Said
from ifpp.tui.marks import ASCII, printable
from ifpp.tui.view import banner, head_state, progress, verdict
from ifpp.tui.words import Words

_LOOK_S = 0.25


class PlainScreen:
    """Tells `say` a line for each change. Progress of loads is left out: it would never be silent."""

    def __init__(self, socket: Path, words: Words, clock: Clock, say: Callable[[str], None]) -> None:
        self._heard = Heard()
        self._link = Link(socket, self._said, self._lost)
        self._words = words
        self._clock = clock
        self._say = say
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._link.run(), name="link")
            while True:
                self.look()
                await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Tell what is different from what was told last."""
        for what, line in self._lines():
            if self._told.get(what) != line:
                self._told[what] = line
                self._say(printable(f"{self._clock.now().astimezone():%H:%M:%S} {line}"))

    def _lines(self) -> Iterator[tuple[str, str]]:
        heard, words = self._heard, self._words
        now_s = self._clock.monotonic()
        if heard.connected:
            yield "link", words("plain.connected", station=heard.station_id)
        elif "link" in self._told:
            yield "link", words("plain.lost")
        said = banner(heard, now_s, words)
        # how long the silence lasts changes all the time: that it is silent is the fact
        what = words("top.stale", age="").strip() if heard.stale(now_s) and heard.station else said.what
        yield "now", words("plain.now", text=" - ".join(part for part in (what, said.where, said.todo) if part))
        if heard.station is None or heard.stale(now_s):
            return
        done, target = progress(heard)
        if heard.station.job_order_id:
            yield "job", words("plain.job", job=heard.station.job_order_id, done=done, target=target)
        if heard.station.operator_id or "operator" in self._told:
            yield "operator", words("plain.operator", name=heard.station.operator_id or words("top.nobody"))
        for head_id, state in heard.station.heads.items():
            yield head_id, words("plain.head", head=head_id, state=head_state(state, words, ASCII)[1])
            if state.last:
                yield f"{head_id} last", words("plain.last", head=head_id, state=verdict(state, words, ASCII)[1])

    def _said(self, said: Said) -> None:
        if said.at:
            self._heard.connected = True
            self._heard.take(said.at, said.document, self._clock.monotonic())

    def _lost(self) -> None:
        self._heard.connected = False
