"""Who is at the door: the caller of a request, by the certificate of its connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import lru_cache

from aiohttp import web

from ifpp.errors import VerificationError
from ifpp.model.clock import Clock
from ifpp.trust.callers import Caller, Revocations, check_dates, read_caller

_read_caller = lru_cache(maxsize=1024)(read_caller)


class Door:
    """Knows callers by the certificates of their connections, and refuses those that count no longer."""

    def __init__(self, clock: Clock, revocations: Revocations | None) -> None:
        self._clock = clock
        self._revocations = revocations

    def caller(self, request: web.Request) -> Caller:
        """Return who asks; raises VerificationError STORE.FORBIDDEN."""
        secured = None if request.transport is None else request.transport.get_extra_info("ssl_object")
        certificate = None if secured is None else secured.getpeercert(binary_form=True)
        if not certificate:
            raise VerificationError("STORE.FORBIDDEN", "no client certificate")
        caller = _read_caller(certificate)
        now = self._clock.now()
        check_dates(caller, now)
        if self._revocations is not None:
            self._revocations.check(caller, now)
        return caller


def watch_handshakes(context: ssl.SSLContext, refused: Callable[[str], None]) -> None:
    """Call `refused` with the reason whenever a handshake fails; nobody else hears of it."""

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                refused(getattr(error, "verify_message", "") or error.reason or "no TLS")
                raise

    context.sslobject_class = Watched
