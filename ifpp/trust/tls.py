"""TLS to the store, where both sides show a certificate of the site's CA, and outward to SM-DP+: 1.2 or newer."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.log import get_logger

log = get_logger("trust.tls")


class ResumingContext(ssl.SSLContext):
    """A client's context that goes on with the last session of a host: a new connection costs no certificates.

    asyncio has no place for a session to be given; it asks the context for the connection's TLS object, so it is here.
    """

    def __init__(self, protocol: int) -> None:  # noqa: ARG002 - SSLContext takes it when it is made
        self._last: dict[str | bytes | None, ssl.SSLObject] = {}
        self._sessions: dict[str | bytes | None, ssl.SSLSession] = {}

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As of SSLContext, with the session of the last connection to this host."""
        made = super().wrap_bio(
            incoming, outgoing, server_side, server_hostname, session or self._session_of(server_hostname)
        )
        self._last[server_hostname] = made
        return made

    def _session_of(self, host: str | bytes | None) -> ssl.SSLSession | None:
        """The newest session of a host. From TLS 1.3 on it came with the first answer, not with the handshake."""
        last = self._last.get(host)
        if last is not None:
            with suppress(ValueError):  # its handshake is under way: there is none yet
                if (found := last.session) is not None:
                    self._sessions[host] = found
        return self._sessions.get(host)


class Renewed:
    """One side's files, read again when they change; what cannot be used then is logged, and the old stays in use."""

    def __init__(self, make: Callable[[Path, Path, Path], ssl.SSLContext], ca: Path, cert: Path, key: Path) -> None:
        """Read the files; raises as `make` does (`server_context`, `client_context`)."""
        self._make = make
        self.files = (ca, cert, key)
        self._seen = self._stamps()
        self._context = make(*self.files)

    def current(self) -> ssl.SSLContext:
        """Return what a new connection is made with."""
        stamps = self._stamps()
        if stamps != self._seen:
            try:
                self._context = self._make(*self.files)
            except SettingsError as error:  # a new key beside the old certificate: the other file is under way
                log.warning("certificates.unusable", error=error)
            self._seen = stamps
        return self._context

    def serving(self) -> ssl.SSLContext:
        """Return the context of a listening socket: each handshake takes the files as they are then."""

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self.current()

        context = self._make(*self.files)
        context.sni_callback = choose
        return context

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        return tuple(stamp(path) for path in self.files)


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file is replaced or written."""
    try:
        found = path.stat()
    except OSError:
        return (-1, -1)
    return found.st_mtime_ns, found.st_ino


def server_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """Return the store's side: callers need a certificate issued by a CA of the PEM file `ca`.

    Raises SettingsError SETTINGS.MISSING, SETTINGS.INVALID or SIGNER.EXPOSED.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # No resumption: a resumed session would not show its certificate again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    return _filled(context, ca, cert, key)


def client_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """Return a station's side: the store needs a certificate of `ca` in the name of the URL's host; errors as above."""
    return _filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca, cert, key)


def outward_context(ca: Path | None) -> ResumingContext:
    """Return our side towards a server that does not ask who we are, such as an SM-DP+ (SGP.22 2.6.6).

    Its certificate, in the name of the URL's host, comes from a CA of the PEM file `ca`; None takes the CAs of this
    machine. Raises SettingsError SETTINGS.MISSING or SETTINGS.INVALID.
    """
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    _trust(context, ca)
    return context


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    if not ca.is_file():
        raise SettingsError("SETTINGS.MISSING", "there is no such file", where=str(ca))
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError("SETTINGS.INVALID", "no CA certificates in PEM", where=str(ca)) from error


def _filled(context: ssl.SSLContext, ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _trust(context, ca)
    for path in (cert, key):
        if not path.is_file():
            raise SettingsError("SETTINGS.MISSING", "there is no such file", where=str(path))
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError("SIGNER.EXPOSED", f"has mode {mode:04o}, others may read the private key", where=str(key))
    try:
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        detail = "no certificate with this key in PEM, or the key is encrypted"
        raise SettingsError("SETTINGS.INVALID", detail, where=f"{cert}, {key}") from error
    return context
