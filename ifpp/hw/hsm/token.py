"""One token: one login for the process's life, one session for each of a few threads, and waits that end.

A call into a PKCS#11 library cannot be interrupted. Ours run on daemon threads of their own; whoever waits gives up
after `timeout_s`, and a thread that hangs keeps neither him nor the process. What was lost (token pulled, daemon dead)
is begun anew and tried once more; while that fails, calls within a short pause are refused without trying.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from pkcs11 import exceptions as faults

from ifpp.errors import IfppError, ServiceError
from ifpp.hw.hsm.library import Library, LostError, fault_of
from ifpp.log import Secret, get_logger
from ifpp.metrics import KEY_OPERATIONS, KEY_RECONNECTS, KEY_SECONDS, KEY_TOKEN_PRESENT, KEY_WAIT_SECONDS, Metrics

_PAUSE_S = 0.5
_log = get_logger("hw.hsm")
T = TypeVar("T")


class Session:
    """One thread's session, and the keys found in it so far by name."""

    def __init__(self, raw: Any, where: str) -> None:
        self.raw, self.where = raw, where
        self.found: dict[str, Any] = {}

    def gone(self) -> bool:
        """Whether a token that finds nothing is no longer there, as SoftHSM's is when its folder has gone."""
        try:
            self.raw.token.slot.get_token()
        except faults.PKCS11Error:
            return True
        return False


class Token:
    """The token with a label behind a library; see the module."""

    def __init__(
        self, path: str, label: str, pin: Secret, *, timeout_s: float, sessions: int, metrics: Metrics | None
    ) -> None:
        self.where = f"token {label}"
        self._label, self._pin, self._timeout_s, self._metrics = label, pin, timeout_s, metrics
        self._library = Library.take(path)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._login: Any = None
        self._generation = 0
        self._refused: IfppError | None = None
        self._away_until_s, self._present = 0.0, False
        self._own = threading.local()
        self._closed = False
        self._steps: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"hsm-{number}", daemon=True) for number in range(sessions)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, kind: str, work: Callable[[Session], T], *, again: bool = True) -> T:
        """Do some work in a session and return what it returns; blocks for at most `timeout_s`.

        `kind`: what it is, for the metrics. `again`: it may be done twice, so it is when the token was lost.
        Raises ServiceError KEYS.UNREACHABLE, SettingsError KEYS.PIN, KEYS.PIN_LOCKED, KEYS.NO_TOKEN, CustodyError
        KEYS.ATTRIBUTES, and what the work raises.
        """
        if os.getpid() != self._process:
            raise ServiceError("KEYS.UNREACHABLE", "was opened before a fork: open it in the child", where=self.where)
        if self._closed:
            raise ServiceError("KEYS.UNREACHABLE", "was closed", where=self.where)
        asked_s = time.perf_counter()
        with self._counted(kind):
            future: Future[T] = Future()
            self._steps.put((future, lambda: self._work(work, asked_s, again=again)))
            try:
                return future.result(self._timeout_s)
            except TimeoutError:
                waiting = future.cancel()
                busy = f"all {len(self._threads)} sessions are busy for {self._timeout_s:g} s"
                detail = busy if waiting else f"no answer in {self._timeout_s:g} s"
                raise ServiceError("KEYS.UNREACHABLE", detail, where=self.where) from None

    def close(self) -> None:
        """End; the last user of a library logs out. Waits for calls that are inside, at most `timeout_s`."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._steps.put(None)
        if os.getpid() == self._process:
            until_s = time.monotonic() + self._timeout_s
            for thread in self._threads:
                thread.join(max(0.0, until_s - time.monotonic()))
            self._library.give_back(max(0.0, until_s - time.monotonic()))

    # ---- on the threads ---------------------------------------------------------------------------

    def _serve(self) -> None:
        while (step := self._steps.get()) is not None:
            future, work = step
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, work, step  # a result may be a secret: keep none while waiting

    def _work(self, work: Callable[[Session], T], asked_s: float, *, again: bool) -> T:
        if self._metrics:
            self._metrics.observe(KEY_WAIT_SECONDS, time.perf_counter() - asked_s, token=self._label)
        if self._refused is not None:
            raise self._refused
        if time.monotonic() < self._away_until_s:
            raise ServiceError("KEYS.UNREACHABLE", "the token is away", where=self.where)
        try:
            try:
                return self._attempt(work, again=again)
            except LostError as lost:
                self._recover(lost)
                return self._attempt(work, again=again)
        except LostError as lost:
            self._away(str(lost))
            raise ServiceError("KEYS.UNREACHABLE", f"the token was lost ({lost})", where=self.where) from lost

    def _attempt(self, work: Callable[[Session], T], *, again: bool) -> T:
        with self._library.call() as (library, generation):
            try:
                session = self._session(library, generation)
            except faults.PKCS11Error as error:
                raise fault_of(error, self.where) or LostError(generation, type(error).__name__) from error
            try:
                return work(session)
            except faults.PKCS11Error as error:
                if fault := fault_of(error, self.where):
                    raise fault from error
                if not again:
                    raise ServiceError("KEYS.UNREACHABLE", type(error).__name__, where=self.where) from error
                raise LostError(generation, type(error).__name__) from error

    def _recover(self, lost: LostError) -> None:
        try:
            self._library.begin_anew(lost.generation, self._timeout_s)
        except ServiceError as error:
            self._away(error.detail)
            raise

    def _away(self, reason: str) -> None:
        self._away_until_s = time.monotonic() + _PAUSE_S
        if self._present:
            _log.warning("keys.lost", token=self._label, reason=reason)
        self._show(present=False)

    def _session(self, library: Any, generation: int) -> Session:
        """Return this thread's session in this beginning of the library."""
        with self._lock:
            if self._generation != generation:
                self._connect(library)
                self._generation = generation
        if getattr(self._own, "generation", 0) != generation:
            self._own.session = Session(self._login.token.open(rw=True), self.where)
            self._own.generation = generation
        session: Session = self._own.session
        return session

    def _connect(self, library: Any) -> None:
        """Log in. A PIN that was refused is never tried again: that would lock the token."""
        if self._refused is not None:
            raise self._refused
        try:
            token = library.get_token(token_label=self._label)
            self._login = _log_in(token, self._pin)
        except faults.PKCS11Error as error:
            fault = fault_of(error, self.where)
            if fault is not None and fault.code in ("KEYS.PIN", "KEYS.PIN_LOCKED"):
                self._refused = fault
            if self._generation and isinstance(error, faults.NoSuchToken):  # it was there: it has been pulled
                raise faults.TokenNotPresent from error
            raise
        if self._generation:
            _log.info("keys.back", token=self._label)
            if self._metrics:
                self._metrics.add(KEY_RECONNECTS, token=self._label)
        self._show(present=True)

    # ---- metrics ----------------------------------------------------------------------------------

    def _show(self, *, present: bool) -> None:
        self._present = present
        if self._metrics:
            self._metrics.set(KEY_TOKEN_PRESENT, int(present), token=self._label)

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        if self._metrics is None:
            yield
            return
        result = "INTERNAL"
        try:
            with self._metrics.timed(KEY_SECONDS, token=self._label, operation=kind):
                yield
            result = "ok"
        except IfppError as error:
            result = error.code
            raise
        finally:
            self._metrics.add(KEY_OPERATIONS, token=self._label, operation=kind, result=result)


def _log_in(token: Any, pin: Secret) -> Any:
    try:
        text = pin.reveal().decode()
    except UnicodeDecodeError:
        raise faults.PinInvalid from None
    try:
        return token.open(rw=True, user_pin=text)
    except faults.UserAlreadyLoggedIn:  # another provider of this process has done it
        return token.open(rw=True)
