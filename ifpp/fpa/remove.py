"""Delete one profile from a chip, and gather the evidence that it is gone (SGP.41 annex A.4)."""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.errors import CardError, VerificationError
from ifpp.fpa.chip import Chip
from ifpp.log import get_logger
from ifpp.model.chip import NotificationEvent, ProfileInfo, SignedNotification
from ifpp.model.ids import Iccid
from ifpp.trust.chain import EuiccKey
from ifpp.trust.verify import check_deletion
from ifpp.wire import es10
from ifpp.wire.apdu import StatusError

_OK, _ENABLED = 0, 1
log = get_logger("fpa.remove")


@dataclass(frozen=True, slots=True)
class Removal:
    """The profile is not on the chip: that was read back.

    `result`: what DeleteProfile answered, None when the profile was gone before, as an earlier attempt left it.
    `notice`: the chip's signed word of the deletion, verified; None when it keeps none.
    """

    result: int | None
    notice: SignedNotification | None


def remove(chip: Chip, iccid: Iccid, key: EuiccKey | None) -> Removal:
    """Disable and delete a profile, read back that it is gone, and fetch the chip's signed word of it.

    `key` None: of a chip whose certificate nobody knows; its word proves nothing here, its list does.

    Safe to repeat, wherever it was interrupted: the chip is read first. Raises CardError EUICC.NOT_REMOVED when the
    chip refuses or lists the profile still, TransportError, WireError.
    """
    result = None
    listed = _listed(chip, iccid)
    if listed is not None:
        if listed.state == _ENABLED:
            _require(es10.parse_disable(_ask(chip, es10.disable_request(iccid), iccid)), "DisableProfile", iccid)
        result = es10.parse_delete(_ask(chip, es10.delete_request(iccid), iccid))
        _require(result, "DeleteProfile", iccid)
        if _listed(chip, iccid) is not None:
            raise CardError("EUICC.NOT_REMOVED", "deleted, and listed by the chip still", where=f"ICCID {iccid}")
    return Removal(result, _notice(chip, iccid, key))


def _listed(chip: Chip, iccid: Iccid) -> ProfileInfo | None:
    return next((profile for profile in chip.profiles() if profile.iccid == iccid), None)


def _ask(chip: Chip, request: bytes, iccid: Iccid) -> bytes:
    """A status word of refusal means that the chip did nothing: such a chip cannot be reworked."""
    try:
        return chip.command(request)
    except StatusError as error:
        raise CardError("EUICC.NOT_REMOVED", f"the chip refuses: {error.detail}", where=f"ICCID {iccid}") from error


def _require(result: int, what: str, iccid: Iccid) -> None:
    if result != _OK:
        raise CardError("EUICC.NOT_REMOVED", f"{what} answered {result}", where=f"ICCID {iccid}")


def _notice(chip: Chip, iccid: Iccid, key: EuiccKey | None) -> SignedNotification | None:
    """The newest notification of the deletion that the chip really signed; the profile is gone with or without it."""
    if key is None:
        return None
    entries = [entry for entry in chip.notifications() if entry.iccid == iccid]
    for entry in sorted(entries, key=lambda entry: -entry.seq_number):
        if NotificationEvent.DELETE not in entry.events:
            continue
        for notice in es10.parse_other_notifications(chip.command(es10.retrieve_request(entry.seq_number))):
            try:
                check_deletion(notice, iccid, key)
            except VerificationError as error:
                log.warning("no evidence", eid=key.eid, iccid=iccid, code=error.code, detail=error.detail)
                continue
            return notice
    return None
