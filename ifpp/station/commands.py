"""What people tell a station: to block a head, release it, that it has a new socket, to take no units, to take them.

Each command is carried out once; to say again what it said is asked by whoever came late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec

from ifpp.errors import FAULTS, CustodyError, IfppError, SettingsError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, utc_ms_text, uuid7
from ifpp.model.messages import HeadAnswer, HeadCommand, OperatorAction
from ifpp.station.board import Board, show_life
from ifpp.station.journal import Journal
from ifpp.station.life import Lives
from ifpp.station.lock import LOCK_ROW, Lock

BLOCK_HEAD, CHANGE_SOCKET, LOCK, UNLOCK = "block_head", "change_socket", "lock", "unlock"
REPUBLISH = "republish"
NAMES = (BLOCK_HEAD, CHANGE_SOCKET, LOCK, UNLOCK, REPUBLISH)
"""Last topic level of the commands a station knows."""

_ACTION = {
    (BLOCK_HEAD, "BLOCK"): "BLOCK_HEAD",
    (BLOCK_HEAD, "UNBLOCK"): "UNBLOCK_HEAD",
    (CHANGE_SOCKET, ""): "CHANGE_SOCKET",
    (LOCK, ""): "LOCK",
    (UNLOCK, ""): "UNLOCK",
    (REPUBLISH, ""): "REPUBLISH",
}
_OF_STATION = ("LOCK", "UNLOCK", "REPUBLISH")
_LONGEST_NAME, _LONGEST_REASON = 64, 200
log = get_logger("station.commands")


class Commands:
    """Carries out commands one after another; belongs to the event loop.

    `say_again` says everything retained, and every event without an acknowledgement, once more; None: nobody hears.
    """

    def __init__(
        self,
        station_id: str,
        lives: Lives,
        board: Board,
        journal: Journal,
        metrics: Metrics,
        clock: Clock,
        lock: Lock,
        say_again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._station_id = station_id
        self._lives = lives
        self._board = board
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._lock = lock
        self._say_again = say_again
        self._unstored: set[str] = set()

    async def obey(self, name: str, payload: bytes) -> HeadAnswer:
        """Carry out one command and return the answer; raises msgspec.MsgspecError for what is no command.

        What is done stands at once and is stored in its turn, so a journal that cannot be written keeps nobody from
        taking a head out of work.
        """
        command = msgspec.json.decode(payload, type=HeadCommand)
        try:
            action = self._check(name, command)
            if name == REPUBLISH:
                return await self._republish(command)
            if command.request_id in self._unstored or await asyncio.wrap_future(
                self._journal.told(command.request_id)
            ):
                return self._answer(command, "DUPLICATE", "it was done when it was asked for first")
            return await self._carry_out(action, command)
        except IfppError as refusal:
            log.warning("command refused", name=name, head=command.head_id[:40], code=refusal.code)
            return self._answer(command, "REJECTED", str(refusal), refusal.code)

    def _check(self, name: str, command: HeadCommand) -> str:
        """Return the action, as it is recorded; raises SettingsError."""
        action = _ACTION.get((name, command.action))
        if action is None:
            raise SettingsError("COMMAND.INVALID", f"no action {command.action[:40]!r}", where=name)
        try:
            canonical = str(UUID(command.request_id))
        except ValueError:
            canonical = ""
        if canonical != command.request_id:
            raise SettingsError("COMMAND.INVALID", "request_id is no UUID in its usual form", where=name)
        if action not in _OF_STATION and command.head_id not in self._lives:
            known = ", ".join(self._lives)
            raise SettingsError("HEAD.UNKNOWN", f"{self._station_id} has {known}", where=command.head_id[:40])
        check_person(command.operator_id)
        if name in (BLOCK_HEAD, LOCK):
            check_reason(command.reason)
        return action

    async def _republish(self, command: HeadCommand) -> HeadAnswer:
        """Say everything again: it changes nothing, so it is done as often as it is asked and kept nowhere."""
        if self._say_again is not None:
            await self._say_again()
        log.info("republish", by=command.operator_id)
        return self._answer(command, "ACCEPTED", "all that is retained, and what is not acknowledged, is said again")

    async def _carry_out(self, action: str, command: HeadCommand) -> HeadAnswer:
        head_id, by = command.head_id, command.operator_id.strip()
        if action in _OF_STATION:
            text = self._lock.turn(action, by, command.reason.strip())
            target, kept_lives = self._station_id, {LOCK_ROW: self._lock.row()}
        else:
            text = self._act(action, head_id, by, command.reason.strip())
            show_life(head_id, self._lives, self._board, self._metrics)
            target, kept_lives = head_id, {head_id: self._lives.row(head_id)}
        now = self._clock.now()
        done = OperatorAction(
            schema="operator_action/1.0",
            id=command.request_id,
            ts=utc_ms_text(now),
            node_id=self._station_id,
            boot_id=self._journal.boot_id,
            action=action,
            operator_id=by,
            target=target,
            comment=command.reason.strip(),
        )
        log.warning("operator", action=action, target=target, by=by, reason=done.comment)
        kept = self._journal.events([("operator_action", done)], kept_lives)
        self._unstored.add(command.request_id)
        kept.stored.add_done_callback(lambda _stored: self._unstored.discard(command.request_id))
        try:
            stored = await asyncio.wrap_future(kept.tried)
        except CustodyError as fault:
            return self._answer(command, "ACCEPTED", f"{text}; not recorded: {fault.detail}", fault.code)
        if not stored:
            advice = FAULTS["JOURNAL.WRITE"].advice
            return self._answer(command, "ACCEPTED", f"{text}; recorded later. {advice}", "JOURNAL.WRITE")
        return self._answer(command, "ACCEPTED", text)

    def _act(self, action: str, head_id: str, by: str, reason: str) -> str:
        lives = self._lives
        before = lives[head_id].blocked
        if action == "BLOCK_HEAD":
            lives.quarantine(head_id, by, reason)
            return f"in quarantine already ({before})" if before else "in quarantine; a seated unit is finished"
        if action == "UNBLOCK_HEAD":
            lives.release(head_id, by)
            return f"released ({before})" if before else "was in no quarantine; its counts begin anew"
        cycles = lives[head_id].record.cycles
        lives.change_socket(head_id, by)
        return f"new socket noted, the old one had {cycles} insertions" + (
            f"; still in quarantine ({before})" if before else ""
        )

    def _answer(self, command: HeadCommand, status: str, text: str, code: str = "") -> HeadAnswer:
        now, head_id = self._clock.now(), command.head_id
        return HeadAnswer(
            schema="head_answer/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=self._station_id,
            boot_id=self._journal.boot_id,
            request_id=command.request_id,
            status=status,
            text=text,
            code=code,
            head=self._board.head(head_id) if head_id in self._lives else None,
        )


def check_person(name: str) -> None:
    """Refuse an act that nobody signs; raises SettingsError OPERATOR.UNNAMED."""
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise SettingsError("OPERATOR.UNNAMED", f"{name[:_LONGEST_NAME]!r} names nobody", where="operator_id")


def check_reason(reason: str) -> None:
    """Refuse an act without a reason; raises SettingsError OPERATOR.NO_REASON."""
    if not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise SettingsError("OPERATOR.NO_REASON", f"{reason[:40]!r} says nothing", where="reason")
