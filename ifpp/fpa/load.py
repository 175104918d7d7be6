"""Load one Bound Profile Package and judge what the chip says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ifpp.errors import CardError, IfppError, TransportError, VerificationError
from ifpp.fpa.chip import Chip, milliseconds_since
from ifpp.model.chip import (
    TEMPORARY_REASONS,
    BoundProfilePackage,
    BppCommand,
    DownloadError,
    InstallError,
    InstallResult,
    PrepareDownload,
    number_name,
)
from ifpp.model.ids import Eid, Iccid
from ifpp.model.states import PackageState
from ifpp.trust.chain import EuiccKey
from ifpp.trust.verify import ExpectedResult, check_install_result
from ifpp.wire import es10


@dataclass(frozen=True, slots=True)
class Order:
    """One package as the chip gets it: byte-exact, opaque, bound to `eid`. `profile_type` as ordered."""

    package_id: str
    eid: Eid
    iccid: Iccid
    transaction_id: bytes
    smdp_oid: str
    prepare: PrepareDownload
    bpp: BoundProfilePackage
    profile_type: str = ""


Progress = Callable[[int, int], None]
"""Told from the card's thread after each segment: so many bytes of so many have been taken."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one package, settled by what the chip signed or holds.

    `spent`: the one-time key can never be used again. `fault` is None exactly when the profile is installed.
    """

    state: PackageState
    spent: bool
    fault: IfppError | None
    pir: InstallResult | None
    apdus: int = 0
    load_ms: int = 0


def prepare(chip: Chip, order: Order) -> None:
    """PrepareDownload: the chip checks SM-DPf and order and reserves the one-time key; nothing is spent yet.

    The first command with long blocks, and one that may be repeated: here it shows which blocks the link carries.
    """
    # way of a unit, step 5
    answer = chip.codec.parse_prepared(chip.repeatable(chip.codec.prepare_request(order.prepare), loading=True))
    if answer.error is not None:
        raise CardError(
            "EUICC.PREPARE_REFUSED",
            f"PrepareDownload: {number_name(DownloadError, answer.error)}",
            where=f"ICCID {order.iccid}",
        )
    if answer.transaction_id != order.transaction_id:
        raise CardError(
            "EUICC.PREPARE_REFUSED", "PrepareDownload answered for another order", where=f"ICCID {order.iccid}"
        )


def load(chip: Chip, order: Order, key: EuiccKey, progress: Progress | None = None) -> Verdict:
    """Send the package and judge its result; after the first byte every ending is a Verdict, never an exception.

    A time-out, a pulled chip or a foreign signature gives UNKNOWN: only the chip can settle it (`settle`).
    """
    start, before = time.monotonic(), chip.apdus
    try:
        pir = _send(chip, order, progress)
        verdict = judge(pir, order, key)
    except (TransportError, CardError, VerificationError) as error:
        verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=error, pir=None)
    except IfppError as error:  # the chip answered with bytes that are no result
        fault = VerificationError("PIR.MALFORMED", error.detail, where=f"ICCID {order.iccid}")
        verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=fault, pir=None)
    return Verdict(
        verdict.state, verdict.spent, verdict.fault, verdict.pir, chip.apdus - before, milliseconds_since(start)
    )


def _send(chip: Chip, order: Order, progress: Progress | None) -> InstallResult:
    """Send segment by segment until the chip answers with a result (SGP.22 2.5.5: stop at the first data)."""
    # way of a unit, step 5
    total, done = sum(map(len, order.bpp.segments)), 0
    for segment in order.bpp.segments:
        if response := chip.command(segment, loading=True):
            return es10.parse_pir(response)
        done += len(segment)
        if progress is not None:
            progress(done, total)
    raise VerificationError("PIR.MISSING", "the last segment brought no result", where=f"ICCID {order.iccid}")


def judge(pir: InstallResult, order: Order, key: EuiccKey) -> Verdict:
    """Believe a result only when the chip signed it for this order; raises VerificationError."""
    # way of a unit, step 6
    expected = ExpectedResult(
        eid=order.eid, iccid=order.iccid, transaction_id=order.transaction_id, smdp_oid=order.smdp_oid
    )
    check_install_result(pir, expected, key)
    if pir.success:
        return Verdict(PackageState.INSTALLED, spent=True, fault=None, pir=pir)
    temporary = pir.reason in TEMPORARY_REASONS
    return Verdict(PackageState.FAILED, spent=not temporary, fault=install_fault(pir, order.iccid), pir=pir)


def install_fault(pir: InstallResult, iccid: Iccid) -> CardError:
    """Return the error that a result of a failed installation stands for."""
    code: dict[int | None, str] = {
        InstallError.INSUFFICIENT_MEMORY: "EUICC.NO_MEMORY",
        InstallError.INTERRUPTION: "EUICC.INTERRUPTED",
    }
    detail = f"{number_name(BppCommand, pir.command)}: {number_name(InstallError, pir.reason)}"
    if pir.pe_status:
        detail += f", profile element status {', '.join(map(str, pir.pe_status))}"
    return CardError(code.get(pir.reason, "EUICC.LOAD_REFUSED"), detail, where=f"ICCID {iccid}")


def read_back(chip: Chip, iccid: Iccid, pir: InstallResult) -> None:
    """Green means stored: the chip's own list must show the profile, disabled, under the AID it reported.

    Raises VerificationError PIR.READBACK.
    """
    # way of a unit, step 6
    for profile in chip.profiles():
        if profile.iccid == iccid:
            if pir.aid is not None and profile.aid != pir.aid:
                raise VerificationError("PIR.READBACK", "listed under another AID", where=f"ICCID {iccid}")
            return
    raise VerificationError("PIR.READBACK", "the profile is not in the chip's list", where=f"ICCID {iccid}")


def require_listed(chip: Chip, iccids: set[Iccid]) -> None:
    """The profiles an earlier attempt installed must still be there; raises VerificationError PIR.READBACK."""
    missing = iccids - {profile.iccid for profile in chip.profiles()}
    if missing:
        raise VerificationError("PIR.READBACK", "a profile of this unit is gone", where=f"ICCID {min(missing)}")
