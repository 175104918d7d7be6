"""The screens as lines, for screen readers and logs: only what changed, one fact a line."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from ifpp.model.clock import Clock
from ifpp.tui import line_view
from ifpp.tui.heard import Heard
from ifpp.tui.line_heard import LineHeard
from ifpp.tui.link import Link, Said
from ifpp.tui.marks import ASCII, printable
from ifpp.tui.view import Banner, alarm_words, banner, head_state, progress, verdict
from ifpp.tui.words import Words

_LOOK_S = 0.25
Facts = Iterator[tuple[str, str]]
"""What a line is about, and the line."""


class _Teller(ABC):
    """Tells `say` a line for each change, until cancelled."""

    def __init__(self, words: Words, clock: Clock, say: Callable[[str], None]) -> None:
        self._words = words
        self._clock = clock
        self._say = say
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="listen")
            while True:
                self.look()
                await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Tell what is different from what was told last."""
        for what, line in self._lines():
            if self._told.get(what) != line:
                self._told[what] = line
                self._say(printable(f"{self._clock.now().astimezone():%H:%M:%S} {line}"))

    @abstractmethod
    async def _listen(self) -> None:
        """Hear until cancelled."""

    @abstractmethod
    def _lines(self) -> Facts:
        """Return everything there is to tell, as it stands now."""

    def _now(self, said: Banner, what: str) -> tuple[str, str]:
        text = " - ".join(part for part in (what, said.where, said.todo) if part)
        return "now", self._words("plain.now", text=text)


class PlainScreen(_Teller):
    """A station. Progress of loads is left out: it would never be silent."""

    def __init__(self, socket: Path, words: Words, clock: Clock, say: Callable[[str], None]) -> None:
        super().__init__(words, clock, say)
        self._heard = Heard()
        self._link = Link(socket, self._said, self._lost)

    async def _listen(self) -> None:
        await self._link.run()

    def _lines(self) -> Facts:
        heard, words = self._heard, self._words
        now_s = self._clock.monotonic()
        if heard.connected:
            yield "link", words("plain.connected", station=heard.station_id)
        elif "link" in self._told:
            yield "link", words("plain.lost")
        said = banner(heard, now_s, words)
        # how long the silence lasts changes all the time: that it is silent is the fact
        yield self._now(said, words("top.stale", age="").strip() if heard.stale(now_s) and heard.station else said.what)
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


class PlainLine(_Teller):
    """A line: what needs somebody, figures, stations, alarms. `follow` fills what was heard until cancelled."""

    def __init__(
        self,
        line: str,
        follow: Callable[[LineHeard], Awaitable[None]],
        words: Words,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(words, clock, say)
        self._heard = LineHeard(name=line)
        self._follow = follow

    async def _listen(self) -> None:
        await self._follow(self._heard)

    def _lines(self) -> Facts:
        heard, words = self._heard, self._words
        if heard.connected:
            yield "link", words("plain.connected", station=heard.name)
        elif "link" in self._told:
            yield "link", words("plain.lost")
        said = line_view.banner(heard, self._clock.monotonic(), words)
        yield self._now(said, words("line.stale") if not heard.connected and heard.names else said.what)
        if not heard.connected:
            return
        if heard.shift is not None and not heard.line_away:
            good, wanted = line_view.done(heard)
            fpy, final = line_view.percent(heard.shift.fpy), line_view.percent(heard.shift.final_yield)
            yield "figures", words("plain.figures", done=good, target=wanted, fpy=fpy, final=final)
        for name in heard.names:
            one = line_view.station_row(heard, name, words, ASCII)
            yield name, words("plain.station", station=name, state=one.word, job=one.job, out=one.out)
        yield from self._alarms()

    def _alarms(self) -> Facts:
        """Alarms as they come, are seen and go; what stood before and is not there any more has gone."""
        words, standing = self._words, dict(self._heard.standing())
        for key, one in standing.items():
            what, _ = alarm_words(one, words)
            state = words.of("alarmstate", one.state, one.state)
            yield f"alarm {key}", words("plain.alarm", code=one.code, source=one.source, state=state, text=what)
        for told in [one for one in self._told if one.startswith("alarm ")]:
            if told.removeprefix("alarm ") not in standing:
                yield told, words("plain.alarm_gone", left=len(standing))
                self._told.pop(told)
