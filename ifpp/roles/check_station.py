"""`ifpp check`: one station: its journal, its heads, its people, its screens.

A head that is not there is a warning: the station runs with the others and takes it up when it comes.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from ifpp.errors import IfppError, SettingsError
from ifpp.roles.check import Finding, Level, Probe, Role, Subject
from ifpp.roles.runtime import beside
from ifpp.settings import Site, Station, load_people
from ifpp.station.look import look_at_journal

_CONNECT_S = 1.0
_SOCKET_PATH = 107  # bytes of a Unix socket's path, unix(7)
_LATER = "The head is out of work until then; the others go on."


def probes(subject: Subject) -> list[tuple[str, Probe]]:
    """Return what is looked at for each station."""
    found: list[tuple[str, Probe]] = []
    if not subject.is_for(Role.STATION):
        return found
    for file, station in subject.stations.items():
        look = _Look(file, station, subject)
        found += [("journal", look.journal), ("head", look.heads), ("people", look.window), ("cache", look.cache)]
        found += [("certificate.name", look.certificate), ("rsp", look.downloads)]
    return found


class _Look:
    """The probes of one station."""

    def __init__(self, file: Path, station: Station, subject: Subject) -> None:
        self._file, self._station, self._site = file, station, subject.site
        self._running = subject.running

    def journal(self) -> Iterator[Finding]:
        """Its version, its owner, and whether somebody else has it."""
        path = beside(self._file, self._station.journal)
        if not path.is_file():
            yield Finding("journal", Level.NOTE, str(path), "is not there yet: the first start makes it")
            return
        seen = look_at_journal(path)
        facts = f"{seen.waiting} events wait to be sent, {seen.open_attempts} units were cut short"
        if seen.station_id != self._station.id:
            do = "A station takes its own journal only: mend `id` or `journal`."
            yield Finding("journal", Level.FAILURE, str(path), f"belongs to station {seen.station_id}", do)
        elif seen.in_use and not self._running:
            do = "Stop the station first, or look with --running."
            yield Finding("journal", Level.FAILURE, str(path), "a running station has it", do)
        else:
            yield Finding("journal", Level.OK, str(path), facts)

    def heads(self) -> Iterator[Finding]:
        """Each head once; what a running station holds is left in peace."""
        readers: list[str] | None = None
        for name, head in self._station.heads.items():
            where = f"{self._station.id}/{name} {head.port}"
            kind, _, rest = head.port.partition(":")
            try:
                if kind == "pcsc":
                    readers = self._readers() if readers is None else readers
                    yield _among(where, rest.strip(), readers)
                elif kind == "modem":
                    yield _device(where, Path(rest.partition("?")[0]))
                else:
                    yield self._slot(where, head.port)
            except IfppError as error:
                yield Finding("head", Level.WARNING, where, f"{error.code}: {error.detail}", error.advice)

    def _readers(self) -> list[str]:
        from ifpp.hw.pcsc import reader_names, use_socket

        use_socket(self._station.pcsc.socket)
        return reader_names()

    def _slot(self, where: str, url: str) -> Finding:
        from ifpp.hw.tcp import address_of, connect

        address = address_of(url)
        if self._running:
            return Finding("head", Level.NOTE, where, "not tried: it takes one connection, which the station has")
        try:
            connect(address, _CONNECT_S).close()
        except OSError as error:
            return Finding("head", Level.WARNING, where, f"cannot be reached ({error.strerror or error})", _LATER)
        return Finding("head", Level.OK, where, "can be reached")

    def window(self) -> Iterator[Finding]:
        """Who may act, and whether the socket can have its name."""
        window = self._station.window
        if not window.socket:
            return
        socket = beside(self._file, window.socket)
        if len(os.fsencode(socket)) > _SOCKET_PATH:
            do = f"It has {_SOCKET_PATH} bytes at most: name a shorter one, such as /run/ifpp/st01.sock."
            yield Finding("window", Level.FAILURE, str(socket), "the path is too long", do)
        elif not socket.parent.is_dir():
            do = f"Make it: install -d -m 750 {socket.parent}"
            yield Finding("window", Level.FAILURE, str(socket.parent), "there is no such folder", do)
        if not window.people:
            yield Finding("people", Level.NOTE, str(self._file), "no people file: screens only look")
            return
        people = load_people(beside(self._file, window.people)).people
        level, do = (Level.OK, "") if people else (Level.WARNING, "Add them: `ifpp people add`.")
        yield Finding("people", level, str(beside(self._file, window.people)), f"{len(people)} people may act", do)

    def cache(self) -> Iterator[Finding]:
        """The list of chips that packages are kept for."""
        if not (name := self._station.cache.eids):
            return
        path = beside(self._file, name)
        if not path.is_file():
            raise SettingsError("SETTINGS.MISSING", "there is no such file", where=str(path))
        yield Finding("cache", Level.OK, str(path), "the chips packages are kept for can be read")

    def downloads(self) -> Iterator[Finding]:
        """Who vouches for the SM-DP+ of recipes that download; raises SettingsError."""
        if not (name := self._station.rsp.tls_ca):
            return
        from ifpp.trust.tls import outward_context

        path = beside(self._file, name)
        outward_context(path)
        yield Finding("rsp", Level.OK, str(path), "certificates of SM-DP+ can be verified")

    def certificate(self) -> Iterator[Finding]:
        """Whether the certificate names this station: the store lets nobody else in."""
        if self._station.tls is None or not _wants_tls(self._site):
            return
        from ifpp.trust.callers import CallerRole, read_caller

        file = beside(self._file, self._station.tls.cert)
        caller = read_caller(ssl.PEM_cert_to_DER_cert(_first(file)))
        if (caller.role, caller.name) == (CallerRole.STATION, self._station.id):
            yield Finding("certificate.name", Level.OK, str(file), f"names {caller}")
            return
        do = f"Issue one to ifpp:station:{self._station.id}: `ifpp pki issue`."
        yield Finding("certificate.name", Level.FAILURE, str(file), f"names {caller}, not {self._station.id}", do)


def _wants_tls(site: Site | None) -> bool:
    return site is not None and (site.store.url.startswith("https:") or site.broker.tls is not None)


def _first(file: Path) -> str:
    """The first certificate of a PEM file: the station's own."""
    end = "-----END CERTIFICATE-----"
    try:
        return file.read_text(encoding="ascii").partition(end)[0] + end + "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("SETTINGS.INVALID", "no certificate in PEM can be read", where=str(file)) from error


def _among(where: str, name: str, readers: list[str]) -> Finding:
    if name in readers:
        return Finding("head", Level.OK, where, "pcscd lists it")
    seen = f"pcscd lists {', '.join(readers) or 'no reader'}"
    return Finding("head", Level.WARNING, where, seen, f"Plug it in, or name it as listed. {_LATER}")


def _device(where: str, device: Path) -> Finding:
    if not device.exists():
        do = f"Plug it in, or name another (`ifpp heads list`). {_LATER}"
        return Finding("head", Level.WARNING, where, f"there is no {device}", do)
    if not os.access(device, os.R_OK | os.W_OK):
        do = "Add the user to the group of the device (dialout), or install the udev rules."
        return Finding("head", Level.WARNING, where, f"{device} may not be read and written by this user", do)
    return Finding("head", Level.OK, where, f"{device} is there")
