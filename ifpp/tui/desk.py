"""What a person does at a screen: scans, keys, questions and answers; knows no terminal.

Everything is typed into one line and ends with Enter, as scanners do; what acts are function keys, so that no bar code
can act. A question is answered on the same line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ifpp.tui.heard import Heard
from ifpp.tui.link import Said
from ifpp.tui.marks import Level, Marks
from ifpp.tui.view import head_state, progress
from ifpp.tui.words import Words

_TWICE_S = 2.0
_LONGEST_SCAN = 256
_SHORTEST_BADGE = 4
_EID_DIGITS = 32
_YES = "YES"
_SHELVE_MIN = 60
_NOBODY, _LEAVE = "-", "0"
SCAN_UNIT, HAND_OVER = "scan_unit", "hand_over"
Ask = Callable[..., bool]


@dataclass(frozen=True, slots=True)
class Question:
    """Something to be answered before `ask` is sent with `document`; `choice` empty = YES is wanted.

    `hint`: what may be typed, where it is neither; `secret`: it must not be read over a shoulder; `badge`: whose was
    shown before.
    """

    what: str
    ask: str
    document: dict[str, Any]
    choice: tuple[str, ...] = ()
    hint: str = ""
    secret: bool = False
    badge: str = field(default="", repr=False)


@dataclass(slots=True)
class Desk:
    """The state of one screen. `ask` sends a wish to the station and says whether it went out."""

    heard: Heard
    words: Words
    marks: Marks
    ask: Ask
    head: str = ""
    typed: str = ""
    message: str = ""
    message_level: Level = Level.NORMAL
    question: Question | None = None
    overlay: str = ""
    alarm: int = 0
    opened: str = ""
    changes: int = 0
    _last_scan: tuple[str, float] = ("", float("-inf"))
    _asked: list[str] = field(default_factory=list)

    # ---- typing and scanning --------------------------------------------------------------------

    def type(self, characters: str) -> None:
        """Take characters, as fast as they come; what no scan has is left out."""
        self.typed += "".join(one for one in characters if one.isprintable())
        self.changes += 1

    def erase(self) -> None:
        """Take the last character back."""
        self.typed = self.typed[:-1]
        self.changes += 1

    def leave(self) -> None:
        """Leave what was begun: the question, the page, the typing."""
        self.typed, self.question, self.overlay = "", None, ""
        self._say("")

    def enter(self, now_s: float) -> None:
        """What was typed or scanned is complete."""
        text, self.typed = self.typed.strip(), ""
        if not text:
            self._say(self.words("scan.blank"), Level.LOW)
        elif len(text) > _LONGEST_SCAN:
            self._say(self.words("scan.long"), Level.LOW)
        elif self.question is not None:
            self._reply(self.question, text)
        elif text == self._last_scan[0] and now_s - self._last_scan[1] < _TWICE_S:
            self._say(self.words("scan.twice"), Level.LOW)
        else:
            self._last_scan = (text, now_s)
            self._scanned(text)

    def _scanned(self, text: str) -> None:
        heads = list(self.heard.station.heads) if self.heard.station else []
        number = [head for head in heads if head == text or (text.isdigit() and head.lstrip("h0") == text.lstrip("0"))]
        if number:
            self.head = number[0]
            self._say("")
        elif self._unit(text) or self._traveller(text):
            pass
        elif len(text) < _SHORTEST_BADGE:
            self._say(self.words("scan.no_choice", text=text), Level.LOW)
        else:
            self._send(
                "login", "", badge=text, head_id=self.head if self.head in heads or len(heads) != 1 else heads[0]
            )

    def _unit(self, text: str) -> bool:
        """Say where a unit is; False when this is no unit's code."""
        station = self.heard.station
        shown = text[-6:]
        for head_id, state in station.heads.items() if station else ():
            if text in (state.eid, state.sn):
                self.head = head_id
                word = head_state(state, self.words, self.marks)[1]
                self._say(self.words("scan.unit_seated", unit=shown, head=head_id, state=word))
                return True
        if station and (reason := station.held.get(text)):
            self._say(self.words("scan.unit_held", unit=shown, reason=reason), Level.MEDIUM)
            return True
        if len(text) == _EID_DIGITS and text.isdigit():
            self._say(self.words("scan.unit_unknown", unit=shown))
            return True
        return False

    def _traveller(self, text: str) -> bool:
        """Say how a job order stands; False when this is none."""
        heard = self.heard
        jobs = {job.job_order_id: job.dispatch_status for job in (heard.jobs.jobs if heard.jobs else ())}
        for name, order in (heard.orders.orders if heard.orders else {}).items():
            jobs[name] = order.dispatch_status
        if text not in jobs:
            return False
        now = self.heard.station.job_order_id if self.heard.station else ""
        if text == now:
            done, target = progress(self.heard)
            self._say(self.words("scan.job_now", job=text, done=done, target=target))
        else:
            self._say(self.words("scan.job_other", job=text, status=jobs[text], now=now or "-"), Level.LOW)
        return True

    # ---- keys -----------------------------------------------------------------------------------

    def press(self, key: str, at: str = "") -> None:
        """Act on a function key, `at` by the clock on the wall; keys without a meaning do nothing."""
        act = {
            "f1": lambda: self._page("help"),
            "f2": self._start_stop,
            "f3": self._block_release,
            "f4": self._socket,
            "f5": self._retry,
            "f6": self._acknowledge,
            "f7": self._shelve,
            "f8": lambda: self._page("alarms"),
            "f9": lambda: self._hand_over(at),
            "escape": self.leave,
        }.get(key)
        if act is not None:
            self.question = None
            act()
            self.changes += 1

    def move(self, step: int) -> None:
        """Choose the next or the last head; on the page of alarms, alarm."""
        if self.overlay == "alarms":
            count = len(self.heard.standing())
            self.alarm = min(max(0, self.alarm + (1 if step > 0 else -1)), max(0, count - 1))
        elif self.heard.station is not None:
            heads = list(self.heard.station.heads)
            at = heads.index(self.head) if self.head in heads else -1 if step > 0 else len(heads)
            self.head = heads[min(max(0, at + step), len(heads) - 1)]
        self.changes += 1

    def _page(self, name: str) -> None:
        self.overlay, self.alarm = ("" if self.overlay == name else name), 0

    def _start_stop(self) -> None:
        station = self.heard.station
        if station is not None and station.locked:
            self._send("unlock", self.words("ask.unlock"), document=self._command("unlock"))
        else:
            self._why(self.words("ask.lock"), "lock", self._command("lock"))

    def _block_release(self) -> None:
        if (head := self._chosen()) is None:
            return
        state = self.heard.station.heads[head] if self.heard.station else None
        blocked = state is not None and (state.phase == "QUARANTINED" or bool(state.reason))
        action, key = ("UNBLOCK", "ask.release") if blocked else ("BLOCK", "ask.block")
        self._why(self.words(key, head=head), "block_head", self._command("block_head", head_id=head, action=action))

    def _socket(self) -> None:
        if (head := self._chosen()) is None or self.heard.station is None:
            return
        cycles = self.heard.station.heads[head].cycles
        what = self.words("ask.socket", head=head, cycles=cycles)
        self.question = Question(what, "change_socket", self._command("change_socket", head_id=head))

    def _retry(self) -> None:
        if (head := self._chosen()) is None or self.heard.station is None:
            return
        lamp, phase = self.heard.station.heads[head].lamp, self.heard.station.heads[head].phase
        again = phase == "VERDICT" and lamp in ("RESEAT", "HOLD")
        self._say(self.words("scan.retry" if again else "scan.no_retry", head=head))

    def _acknowledge(self) -> None:
        if (found := self._alarm()) is not None:
            self._send("alarm", *found)

    def _shelve(self) -> None:
        if (found := self._alarm("SHELVE", "ask.shelve", minutes=_SHELVE_MIN)) is not None:
            self._why(found[0], "alarm", self._command("alarm", **found[1]))

    def _alarm(self, action: str = "ACK", key: str = "ask.ack", **more: object) -> Any:
        standing = self.heard.standing()
        if not standing:
            self._say(self.words("scan.no_alarm"))
            return None
        alarm_id, alarm = standing[min(self.alarm, len(standing) - 1)]
        return self.words(key, alarm=f"{alarm.code} {alarm.source}"), {"alarm_id": alarm_id, "action": action, **more}

    def _hand_over(self, at: str) -> None:
        """Show what the next person has to know; who is logged in hands over to that one, or only leaves."""
        if self.overlay == "hand":
            self.overlay = ""
            return
        self.overlay, self.opened = "hand", at
        if not self.heard.operator:
            self._say(self.words("scan.badge_first"), Level.LOW)
            return
        hint = self.words("ask.comes_hint", nobody=_NOBODY, leave=_LEAVE)
        self.question = Question(self.words("ask.comes"), HAND_OVER, {}, hint=hint, secret=True)

    def _comes(self, text: str) -> None:
        """A badge, nobody's yet, or no hand-over at all."""
        self.question = None
        if text == _LEAVE:
            self._send("logout", "")
        elif text != _NOBODY and len(text) < _SHORTEST_BADGE:
            self._say(self.words("scan.no_choice", text=text), Level.LOW)
        else:
            nothing, badge = self.words("hand.nothing"), "" if text == _NOBODY else text
            self.question = Question(self.words("ask.comment"), HAND_OVER, {}, (nothing,), badge=badge)
            self._say("")

    # ---- questions and wishes -------------------------------------------------------------------

    def _chosen(self) -> str | None:
        """The chosen head; the first one that is out of work or wants somebody when none was chosen."""
        heads = self.heard.station.heads if self.heard.station else {}
        if self.head not in heads:
            wanting = [name for name, state in heads.items() if state.phase in ("QUARANTINED", "RETIRED")]
            self.head = next(iter([*wanting, *heads]), "")
        return self.head or None

    def _why(self, what: str, ask: str, document: dict[str, Any]) -> None:
        """Ask for the reason: a number of the choice, or in words."""
        self.question = Question(what, ask, document, tuple(self.words.reasons()))
        self._say("")

    def _reply(self, question: Question, text: str) -> None:
        if question.secret:
            self._comes(text)
            return
        if not question.choice:
            good = text.upper() == _YES
            more = {}
        else:
            number = int(text) if text.isdigit() and len(text) <= 2 else 0
            good = 1 <= number <= len(question.choice) or not text.isdigit()
            more = {"reason": question.choice[number - 1] if number else text}
        if not good:
            self._say(self.words("scan.no_choice", text=text[:20]), Level.LOW)
            return
        self.question = None
        badge = {"badge": question.badge} if question.ask == HAND_OVER else {}
        self._send(question.ask, question.what.split(":")[0], document=question.document | more, **badge)

    def _command(self, name: str, **more: object) -> dict[str, Any]:
        return {"schema": f"{name}/1.0", "request_id": str(uuid4()), "operator_id": "", **more}

    def _send(self, ask: str, what: str, document: dict[str, Any] | None = None, **more: object) -> None:
        if ask not in ("login", "logout") and not self.heard.operator:
            self._say(self.words("scan.badge_first"), Level.LOW)
            return
        if document is not None and "request_id" not in document:
            document = self._command(ask, **document)
        sent = self.ask(ask, **more) if document is None else self.ask(ask, document=document, **more)
        if not sent:
            self._say(self.words("scan.no_link"), Level.HIGH)
            return
        self._asked.append(what)
        self._say(self.words("scan.sent", what=what) if what else "")

    # ---- answers --------------------------------------------------------------------------------

    def answered(self, said: Said) -> None:
        """Take the station's answer to a wish, or its word that nobody is logged in any more."""
        mine = bool(self._asked)
        what = self._asked.pop(0) if mine else ""
        if said.status == "REJECTED":
            why = self.words.of("advice", said.code, said.text)
            self._say(self.words("scan.refused", text=f"{said.code} {why}"), Level.LOW)
        elif said.ask == SCAN_UNIT:
            self._say(self.words.of("done", SCAN_UNIT, said.text).format(unit=said.unit[-6:], head=said.head_id))
        elif said.ask == "login":
            self.heard.operator, self.heard.role = said.operator, said.role
            self._say(self.words("scan.welcome", name=said.operator, role=said.role))
        elif said.ask == HAND_OVER:
            name, self.heard.operator, self.heard.role = self.heard.operator, said.operator, said.role
            self._say(self.words("hand.done", by=name, to=said.operator or self.words("hand.nobody")))
        elif said.ask == "logout":
            name, self.heard.operator, self.heard.role = self.heard.operator, "", ""
            self._say(self.words("scan.bye", name=name) if mine else self.words("scan.idle"))
        else:
            self._say(self.words("scan.answered", what=what, text=self.words.of("done", said.ask, said.text)))

    def lost(self) -> None:
        """The connection ended, and with it the session."""
        self._asked.clear()
        self.heard.connected = False
        self.heard.operator, self.heard.role = "", ""
        self.changes += 1

    def _say(self, text: str, level: Level = Level.NORMAL) -> None:
        self.message, self.message_level = text, level
        self.changes += 1
