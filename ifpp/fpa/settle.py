"""Settle what an earlier attempt left open, by reading the chip and never by guessing."""

from __future__ import annotations

from ifpp.errors import CardError, VerificationError
from ifpp.fpa.chip import Chip, is_locked
from ifpp.fpa.load import Order, Verdict, judge
from ifpp.model.chip import InstallResult, OtkState
from ifpp.model.states import PackageState
from ifpp.trust.chain import EuiccKey
from ifpp.wire import es10

_INSTALL_EVENT = 0


def settle(chip: Chip, order: Order, otk_id: bytes, key: EuiccKey, stored: bytes | None = None) -> Verdict:
    """Decide what became of a package that was sent before.

    1. The newest kept result of this order, if the chip signed it, is the answer: installed, or failed. `stored` is a
       raw result of it that was stored elsewhere: it answers when the chip has dropped its own.
    2. Without a result the one-time key tells: still there means that nothing was installed and the same package may
       be sent again (FPX/1 10.7); gone without a result stays UNKNOWN and the unit is held.

    Raises TransportError when the chip cannot be read to the end (nothing is decided then).
    """
    where = f"ICCID {order.iccid}"
    pir = _newest_result(chip, order)
    if pir is None and stored is not None:
        pir = es10.parse_pir(stored)
    listed = any(profile.iccid == order.iccid for profile in chip.profiles())
    if pir is not None:
        try:
            verdict = judge(pir, order, key)
        except VerificationError as error:
            return Verdict(PackageState.UNKNOWN, spent=False, fault=error, pir=None)
        if verdict.state is PackageState.INSTALLED and not listed:
            fault = VerificationError("PIR.READBACK", "a success result without the profile", where=where)
            return Verdict(PackageState.UNKNOWN, spent=False, fault=fault, pir=pir)
        if verdict.state is PackageState.INSTALLED or verdict.spent:
            return verdict
    if listed:
        fault = VerificationError("PIR.MISSING", "the profile is on the chip but its result is gone", where=where)
        return Verdict(PackageState.UNKNOWN, spent=False, fault=fault, pir=None)
    if _key_usable(chip, otk_id):
        interrupted = CardError("EUICC.INTERRUPTED", "not installed, the same package may be sent again", where=where)
        return Verdict(PackageState.FAILED, spent=False, fault=interrupted, pir=pir)
    gone = VerificationError("PIR.MISSING", "the one-time key is gone and there is no result", where=where)
    return Verdict(PackageState.UNKNOWN, spent=False, fault=gone, pir=pir)


def results_of(chip: Chip, order: Order) -> list[InstallResult]:
    """Every install result of this order that the chip keeps, oldest first."""
    found: list[InstallResult] = []
    for entry in sorted(chip.notifications(), key=lambda entry: entry.seq_number):
        if _INSTALL_EVENT in entry.events and entry.iccid in (None, order.iccid):
            found += [pir for pir in chip.results(entry.seq_number) if pir.transaction_id == order.transaction_id]
    return found


def _newest_result(chip: Chip, order: Order) -> InstallResult | None:
    results = results_of(chip, order)
    return results[-1] if results else None


def _key_usable(chip: Chip, otk_id: bytes) -> bool:
    if is_locked(chip.status()):
        return False
    usable = (OtkState.AVAILABLE, OtkState.RESERVED)
    return any(key.otk_id == otk_id and key.state in usable for key in chip.keys().keys)
