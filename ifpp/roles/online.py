"""`ifpp chip download`: one profile over the network for one chip, without store and line (SGP.22).

Session and result are kept in a journal of their own: a command that was interrupted is taken up by the next one for
the same chip, and what could not be told to an SM-DP+ is told by the next one that reaches it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifpp.errors import IfppError, SettingsError
from ifpp.fpa.chip import Chip
from ifpp.fpa.es9 import Es9Client, HeadEs9
from ifpp.fpa.rsp import Download, Lpa, close_left_open, deliver, download
from ifpp.hw.port import CardPort
from ifpp.model.clock import SystemClock
from ifpp.model.ids import Iccid
from ifpp.model.rsp import ActivationCode, DownloadOrder
from ifpp.roles.probe import find_place, owned
from ifpp.station.journal import Journal
from ifpp.station.rsp_book import RspBook
from ifpp.station.rsp_outbox import RspOutbox
from ifpp.trust.chain import TrustStore
from ifpp.trust.tls import outward_context

_OWNER = "chip-download"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says. `tls_ca` None takes the CAs of this machine, `iccid` None whatever is offered."""

    head: str
    code: str
    ci: Sequence[Path]
    journal: Path
    tls_ca: Path | None = None
    station_file: Path | None = None
    confirmation_code: str = ""
    iccid: Iccid | None = None
    wait_s: float = 30.0
    timeout_s: float = 30.0


def download_profile(wishes: Wishes) -> int:
    """Download, print what came of it as JSON, and tell the SM-DP+; 1 when no profile is on the chip.

    Raises SettingsError and what reading the chip raises before the download began.
    """
    journal = Journal.open(wishes.journal, _OWNER, SystemClock())
    try:
        return asyncio.run(_download(wishes, journal))
    finally:
        journal.close()


async def _download(wishes: Wishes, journal: Journal) -> int:
    clock = SystemClock()
    book = RspBook(journal, clock)
    trust = TrustStore([_der(path) for path in wishes.ci])
    code = _code_of(wishes)
    async with Es9Client(outward_context(wishes.tls_ca), timeout_s=wishes.timeout_s) as client:
        lpa = Lpa(HeadEs9(client, asyncio.get_running_loop()), book, trust, clock.now)

        def work(port: CardPort) -> int:
            return _on_chip(port, wishes, code, lpa, book)

        failed = await owned(find_place(wishes.head, wishes.station_file), work)
        await RspOutbox(book, client, leave_s=0).deliver()
    return failed


def _on_chip(port: CardPort, wishes: Wishes, code: ActivationCode, lpa: Lpa, book: RspBook) -> int:
    if not port.wait_seated(wishes.wait_s):
        raise SettingsError("COMMAND.INVALID", f"no chip was seated in {wishes.wait_s:g} s", where=wishes.head)
    chip = Chip(port)
    try:
        chip.open()
        eid = chip.eid()
        order = DownloadOrder(
            package_id=str(code),
            eid=eid,
            code=code,
            iccid=wishes.iccid,
            confirmation_code=wishes.confirmation_code,
        )
        _take_over(chip, order, lpa, book)
        got = download(chip, order, lpa)
        if got.verdict.spent:
            book.taken(eid, order.package_id)
        told = _told(chip, got, lpa, book)
    finally:
        chip.close()
    return _show(str(eid), got, told=told)


def _take_over(chip: Chip, order: DownloadOrder, lpa: Lpa, book: RspBook) -> None:
    """Say what became of a download of another code that was interrupted on this chip: nobody else will."""
    earlier = close_left_open(chip, order.eid, lpa)
    if earlier is not None and earlier.package_id != order.package_id:
        fault = earlier.verdict.fault
        sys.stderr.write(
            f"earlier, {earlier.package_id}: {earlier.verdict.state}{'' if fault is None else f', {fault}'}\n"
        )
        book.taken(order.eid, earlier.package_id)


def _told(chip: Chip, got: Download, lpa: Lpa, book: RspBook) -> bool:
    """Whether the SM-DP+ has the chip's result; if not, it is kept."""
    if got.notice is None:
        return False
    try:
        deliver(chip, got.notice.eid, lpa.es9, book)
    except IfppError as error:
        sys.stderr.write(f"the result is kept, and told by the next download that reaches the SM-DP+: {error}\n")
        return False
    return True


def _show(eid: str, got: Download, *, told: bool) -> int:
    fault = got.verdict.fault
    document = {
        "eid": eid,
        "iccid": None if got.iccid is None else str(got.iccid),
        "state": got.verdict.state.value,
        "told": told,
        "apdus": got.verdict.apdus,
        "ms": got.verdict.load_ms,
        "error": "" if fault is None else str(fault),
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    return 0 if fault is None else 1


def _code_of(wishes: Wishes) -> ActivationCode:
    try:
        return ActivationCode.parse(wishes.code)
    except ValueError as error:
        raise SettingsError("COMMAND.INVALID", str(error), where=wishes.code[:80]) from error


def _der(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return ssl.PEM_cert_to_DER_cert(content.decode("ascii")) if content.startswith(b"-----") else content
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", f"no certificate ({error})", where=str(path)) from error
