"""One profile fetched online for one chip: the station as an LPA in factory mode (SGP.22 v2, 3.1).

Round trips: InitiateAuthentication, AuthenticateClient, GetBoundProfilePackage, and HandleNotification for the result.
What could be lost is kept before it can be (`Custody`):

    OPENED     before AuthenticateServer: from here the SM-DP+ may tie the activation code to this chip
    LOADING    before the first byte of the package: from here only the chip knows what became of it
    CANCELLED  when the chip has ended the session and the SM-DP+ does not know it yet
    SETTLED    the chip's result is here, and owed as a notification, before the chip may forget it

A session that did not come to its end is ended before the next: by the chip's own result when the package was sent,
otherwise with CancelSession, "timeout", after which the SM-DP+ gives the same activation code to the same chip again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from ifpp.errors import (
    CardError,
    CustodyError,
    IfppError,
    Retry,
    ServiceError,
    SupplyError,
    TransportError,
    VerificationError,
)
from ifpp.fpa.chip import Chip, milliseconds_since
from ifpp.fpa.load import Progress, Verdict, install_fault
from ifpp.log import get_logger
from ifpp.model.chip import TEMPORARY_REASONS, DownloadError, InstallResult, NotificationEvent, number_name
from ifpp.model.ids import Eid, Iccid
from ifpp.model.rsp import (
    AuthenticateError,
    CancelReason,
    ChipWord,
    DownloadOrder,
    Function,
    Info1,
    Notice,
    Offer,
    OpenSession,
    Prepared,
    ServerWord,
    SessionStep,
)
from ifpp.model.states import PackageState
from ifpp.trust import rsp as checks
from ifpp.trust.chain import EuiccKey, SmdpIdentity, TrustStore
from ifpp.trust.verify import ExpectedResult, check_install_result
from ifpp.wire import es9, es10, rsp
from ifpp.wire.apdu import StatusError

log = get_logger("fpa.rsp")

_PPR_UPDATE_CONTROL = 0
# only these end the order at the SM-DP+ for good; after every other ending the same chip may have it again
_FOR_GOOD = {
    "RSP.OTHER_PROFILE": CancelReason.METADATA_MISMATCH,
    "FIT.RULE": CancelReason.PPR_NOT_ALLOWED,
    "RSP.MISMATCH": CancelReason.UNDEFINED,
    "TRUST.CHAIN": CancelReason.UNDEFINED,
    "TRUST.SIGNATURE": CancelReason.UNDEFINED,
}
_FORGOTTEN = frozenset({AuthenticateError.NO_SESSION_CONTEXT, DownloadError.NO_SESSION_CONTEXT})


class Es9(Protocol):
    """The way to the SM-DP+; blocking (see `es9.HeadEs9`)."""

    def call(self, address: str, function: Function, body: bytes) -> bytes:
        """One function of ES9+; raises ServiceError RSP.UNREACHABLE, RSP.TLS, RSP.ANSWER."""


class Custody(Protocol):
    """What a station keeps of online sessions. Everything is on the disk when a call returns; raises CustodyError."""

    def left_open(self, eid: Eid) -> OpenSession | None:
        """Return the session of this chip whose outcome nobody has taken over."""

    def keep(self, session: OpenSession) -> None:
        """Keep how far the session has come, in place of what was kept of it."""

    def end(self, session: OpenSession) -> None:
        """The session has ended without a result, and the SM-DP+ knows that or will find out by itself."""

    def settle(self, session: OpenSession, notice: Notice) -> None:
        """The session has ended with a result of the chip, which is owed to the SM-DP+ from now on.

        Session and result stay kept until the caller has the outcome in its books and says so (`taken`).
        """


class Outbox(Protocol):
    """Notifications a station owes to SM-DP+; as `Custody`."""

    def owe(self, found: Sequence[Notice]) -> None:
        """Keep notifications; those that are kept already do not change."""

    def owed_of(self, eid: Eid) -> tuple[Notice, ...]:
        """Return what no server has taken yet of one chip, in the order it came about."""

    def delivered(self, notice: Notice) -> None:
        """Its server has it: the chip may forget it."""

    def delivered_of(self, eid: Eid) -> tuple[int, ...]:
        """Return the sequence numbers of what servers have and this chip may still keep."""

    def forgotten(self, eid: Eid, seq_number: int) -> None:
        """Neither chip nor station need it any more."""


@dataclass(frozen=True, slots=True)
class Download:
    """What came of the order of one package. `iccid` is what the SM-DP+ offered; None when it came to no offer.

    `tied`: the SM-DP+ may have tied the activation code to this chip. `notice`: the chip's result, for the SM-DP+.
    `size`: bytes of the package where this attempt has sent it.
    """

    package_id: str
    verdict: Verdict
    iccid: Iccid | None = None
    tied: bool = False
    notice: Notice | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Lpa:
    """What a download needs besides chip and order.

    `now`: the time certificates are judged at (aware); `progress`: told after each segment of the package.
    """

    es9: Es9
    custody: Custody
    trust: TrustStore
    now: Callable[[], datetime]
    attempts: int = 3
    progress: Progress | None = None


def download(chip: Chip, order: DownloadOrder, lpa: Lpa, info1: Info1 | None = None) -> Download:
    """Fetch and load the profile of one activation code; an ending is a Download, not an exception.

    A session that an earlier attempt left open is ended first. What the network or the server's load prevents is tried
    again up to `lpa.attempts` times with a session of its own, as long as no byte of a package was sent. `info1` saves
    asking a chip for what is known. Once the package is installed, or its code spent, the same order brings the same
    outcome again, until the caller has taken it over (`Custody`). Raises CustodyError: when something cannot be kept
    (then it was not done), and when the outcome of another package of this chip was not taken over.
    """
    start, before = time.monotonic(), chip.apdus
    found = _attempt(chip, order, lpa, info1)
    for _ in range(lpa.attempts - 1):
        fault = found.verdict.fault
        if not isinstance(fault, ServiceError) or fault.fault.retry is not Retry.LATER:
            break
        again = _attempt(chip, order, lpa, info1)
        found = replace(again, tied=found.tied or again.tied)
    verdict = replace(found.verdict, apdus=chip.apdus - before, load_ms=milliseconds_since(start))
    return replace(found, verdict=verdict)


def close_left_open(chip: Chip, eid: Eid, lpa: Lpa) -> Download | None:
    """End the session an earlier attempt left open with this chip; None when there is none, or it had sent no package.

    Returns the outcome nobody has taken over. A package that was sent is settled by the chip's own result; where there
    is none and no profile, nothing was installed. Raises ServiceError when the SM-DP+ has to be told and cannot be, and
    what reading the chip raises.
    """
    session = lpa.custody.left_open(eid)
    if session is None:
        return None
    if session.step is SessionStep.SETTLED:
        return _outcome(es10.parse_pir(session.result), session, _key_of(session, lpa))
    if session.step is SessionStep.LOADING:
        found = _settled_by_chip(chip, session, lpa)
        if found is not None:
            return found
    signed = _sign_off(chip, session, CancelReason.TIMEOUT, lpa)
    if signed is not None:
        tell_cancelled(signed, lpa.es9, lpa.custody)
    return None


def outcome_of(package_id: str, raw: bytes) -> Download:
    """What a chip's result says that was verified and stored before; raises VerificationError PIR.MALFORMED."""
    pir = es10.parse_pir(raw)
    if pir.iccid is None:
        raise VerificationError("PIR.MALFORMED", "a stored result without an ICCID", where=package_id)
    return Download(package_id, _verdict(pir, pir.iccid), pir.iccid, tied=True)


def tell_cancelled(session: OpenSession, es9_: Es9, custody: Custody) -> None:
    """Tell the SM-DP+ what the chip has signed; one that no longer knows the session needs no telling.

    Raises ServiceError RSP.UNREACHABLE, RSP.TLS, RSP.ANSWER: the session is kept, to be told later.
    """
    body = es9.cancel_body(session.transaction_id, session.cancelled)
    with suppress(es9.RefusedError):
        es9.parse_cancelled(es9_.call(session.address, Function.CANCEL_SESSION, body))
    custody.end(session)


def require_accounted(chip: Chip, known: Collection[Iccid]) -> None:
    """What another station's session installed only that station can settle.

    Raises VerificationError PIR.MISSING when the chip keeps the result of a profile that it holds, not one of `known`.
    """
    listed = {profile.iccid for profile in chip.profiles()} - set(known) - {None}
    for entry in chip.notifications() if listed else ():
        if NotificationEvent.INSTALL in entry.events and entry.iccid in listed:
            detail = "it was installed in a session this station does not know: seat the unit where it was sent"
            raise VerificationError("PIR.MISSING", detail, where=f"ICCID {entry.iccid}")


def notify(chip: Chip, eid: Eid, es9_: Es9, outbox: Outbox) -> tuple[int, int]:
    """Take over everything the chip keeps for its servers, and deliver it; returns how many (were delivered, wait).

    What cannot be delivered now is no fault of the unit's: it stays kept. Raises what the chip raises, CustodyError.
    """
    outbox.owe(notices(chip, eid))
    owed = len(outbox.owed_of(eid))
    try:
        deliver(chip, eid, es9_, outbox)
    except ServiceError as error:
        log.warning("rsp.not_delivered", eid=eid, error=error)
    left = len(outbox.owed_of(eid))
    return owed - left, left


def deliver(chip: Chip, eid: Eid, es9_: Es9, outbox: Outbox) -> None:
    """Give a seated chip's kept notifications to their servers, in order; the chip forgets what was taken (3.5).

    Raises ServiceError at the first that is not taken, and what the chip raises: the rest stays kept. A server may
    get one twice, when a station ends between its taking and the note of it.
    """
    try:
        for notice in outbox.owed_of(eid):
            es9.parse_notified(es9_.call(notice.address, Function.HANDLE_NOTIFICATION, es9.notice_body(notice)))
            outbox.delivered(notice)
    finally:
        forget_delivered(chip, eid, outbox)


def forget_delivered(chip: Chip, eid: Eid, outbox: Outbox) -> None:
    """Have the chip drop what its servers have, whoever brought it to them."""
    for seq_number in outbox.delivered_of(eid):
        chip.forget(seq_number)
        outbox.forgotten(eid, seq_number)


def notices(chip: Chip, eid: Eid) -> tuple[Notice, ...]:
    """Read everything the chip keeps for its servers, in the order it came about, in one command."""
    return rsp.parse_notices(chip.command(rsp.notices_request()), eid)


# ---- one session ---------------------------------------------------------------------------------------


def _attempt(chip: Chip, order: DownloadOrder, lpa: Lpa, info1: Info1 | None) -> Download:
    """Run one session to its end, whatever that is; CustodyError passes."""
    try:
        earlier = close_left_open(chip, order.eid, lpa)
    except CustodyError:
        raise
    except IfppError as error:
        return Download(order.package_id, _unsettled(error, lpa.custody.left_open(order.eid)), tied=True)
    if earlier is not None and earlier.package_id != order.package_id:
        detail = f"the outcome of {earlier.package_id} was not taken over"
        raise CustodyError("CUSTODY.TRANSITION", detail, where=f"EID {order.eid}")
    if earlier is not None and earlier.verdict.spent:
        return earlier
    run = _Run(chip, order, lpa)
    try:
        run.authenticate(info1 or rsp.parse_info1(chip.command(rsp.info1_request())))
        run.agree()
        return run.load()
    except CustodyError:
        raise
    except IfppError as error:
        return Download(order.package_id, run.stop(error), run.iccid, tied=run.session is not None)


class _Run:
    """One session under way; `session` is what is kept of it, None before there is one or after its end."""

    def __init__(self, chip: Chip, order: DownloadOrder, lpa: Lpa) -> None:
        self.chip, self.order, self.lpa = chip, order, lpa
        self.session: OpenSession | None = None
        self.iccid: Iccid | None = None
        self._on_chip = False  # the chip holds a session that CancelSession can end
        self._server: ServerWord
        self._identity: SmdpIdentity
        self._word: ChipWord
        self._key: EuiccKey
        self._offer: Offer
        self._smdp: SmdpIdentity

    def authenticate(self, info1: Info1) -> None:
        """Server and chip prove themselves to each other (3.1.2); AuthenticateClient is the second round trip."""
        order, at = self.order, self.lpa.now()
        challenge = es10.parse_challenge(self.chip.command(es10.challenge_request()))
        body = es9.initiate_body(order.code.address, challenge, info1)
        self._server = es9.parse_initiated(self._call(Function.INITIATE_AUTHENTICATION, body))
        self._identity = checks.check_server(self._server, order.code, challenge, info1.ci_key_ids, self.lpa.trust, at)
        self._keep(
            OpenSession(
                eid=order.eid,
                package_id=order.package_id,
                address=order.code.address,
                transaction_id=self._server.transaction_id,
                smdp_oid=self._identity.oid,
                iccid=order.iccid,
            )
        )
        request = rsp.authenticate_request(self._server, order.code.matching_id, order.device)
        self._word = rsp.parse_authenticated(self.chip.repeatable(request, loading=True))
        if self._word.error is not None:
            name = number_name(AuthenticateError, self._word.error)
            raise _refused(self._word.error, f"AuthenticateServer: {name}", f"EID {order.eid}")
        self._on_chip = True
        self._key = checks.check_chip(self._word, self._server, order.eid, self.lpa.trust, at)
        self._offer = es9.parse_offer(self._call(Function.AUTHENTICATE_CLIENT, es9.authenticate_body(self._word)))
        self._smdp = checks.check_offer(self._offer, self._word, self._identity, order.iccid, self.lpa.trust, at)
        self.iccid = self._offer.metadata.iccid

    def agree(self) -> None:
        """Confirmation code and policy rules, before the chip is asked for its key (3.1.3, 2.9.2).

        The chip's Rules Authorisation Table is read only for a profile with rules; operators in it are the chip's
        matter.
        """
        if self._offer.confirmation and not self.order.confirmation_code:
            raise SupplyError("RSP.CONFIRMATION", "a confirmation code is wanted", where=self.order.code.address)
        rules = self._offer.metadata.pprs - {_PPR_UPDATE_CONTROL}
        if rules and not rules <= frozenset().union(*rsp.parse_rat(self.chip.command(rsp.rat_request()))):
            raise SupplyError("FIT.RULE", "no row of the chip's table allows them", where=f"ICCID {self.iccid}")

    def load(self) -> Download:
        """Fetch the package for the chip's key and load it: from its first byte on only the chip knows the outcome."""
        code = self.order.confirmation_code if self._offer.confirmation else ""
        hash_cc = rsp.hash_of_code(code, self._server.transaction_id) if code else b""
        prepared = self._prepare(hash_cc)
        bound = es9.parse_package(self._call(Function.GET_BOUND_PROFILE_PACKAGE, es9.package_body(prepared)))
        checks.check_bound(bound, self._offer, prepared, self._smdp)
        session = self._open()
        certificates = (self._word.euicc_certificate, *self._word.eum_chain)
        self._keep(replace(session, step=SessionStep.LOADING, iccid=self.iccid, certificates=certificates))
        found = _load(self.chip, bound.bpp.segments, self._open(), self._key, self.lpa.progress)
        if found.notice is not None:
            self.lpa.custody.settle(self._open(), found.notice)
        return replace(found, size=len(bound.bpp.raw))

    def stop(self, error: IfppError) -> Verdict:
        """End the session for this reason: chip and server are told, as far as either can be reached now.

        What cannot be done now stays kept and is done before the next session.
        """
        session = self.session
        if session is not None and not isinstance(error, TransportError):
            if isinstance(error, es9.RefusedError) or not self._on_chip:
                self.lpa.custody.end(session)
            else:
                self._cancel(session, error)
        return _failed(error)

    def _cancel(self, session: OpenSession, error: IfppError) -> None:
        with _unless_unkept():
            signed = _sign_off(self.chip, session, _FOR_GOOD.get(error.code, CancelReason.TIMEOUT), self.lpa)
            if signed is not None and error.code != "RSP.UNREACHABLE":
                tell_cancelled(signed, self.lpa.es9, self.lpa.custody)

    def _prepare(self, hash_cc: bytes) -> Prepared:
        prepared = rsp.parse_prepared(self.chip.repeatable(rsp.prepare_request(self._offer, hash_cc), loading=True))
        if prepared.error is not None:
            name = number_name(DownloadError, prepared.error)
            raise _refused(prepared.error, f"PrepareDownload: {name}", f"ICCID {self.iccid}")
        checks.check_prepared(prepared, self._offer, hash_cc, self._key)
        return prepared

    def _call(self, function: Function, body: bytes) -> bytes:
        return self.lpa.es9.call(self.order.code.address, function, body)

    def _keep(self, session: OpenSession) -> None:
        self.lpa.custody.keep(session)
        self.session = session

    def _open(self) -> OpenSession:
        if self.session is None:
            raise CustodyError("CUSTODY.TRANSITION", "a package without a session", where=f"EID {self.order.eid}")
        return self.session


def _load(
    chip: Chip, segments: tuple[bytes, ...], session: OpenSession, key: EuiccKey, progress: Progress | None
) -> Download:
    """Send segment by segment until the chip answers with its result (SGP.22 2.5.5); never raises an IfppError."""
    where, total, done = f"ICCID {session.iccid}", sum(map(len, segments)), 0
    try:
        for segment in segments:
            if answer := chip.command(segment, loading=True):
                return _outcome(es10.parse_pir(answer), session, key)
            done += len(segment)
            if progress is not None:
                progress(done, total)
        fault: IfppError = VerificationError("PIR.MISSING", "the last segment brought no result", where=where)
    except (TransportError, CardError, VerificationError) as error:
        fault = error
    except IfppError as error:
        fault = VerificationError("PIR.MALFORMED", error.detail, where=where)
    verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=fault, pir=None)
    return Download(session.package_id, verdict, session.iccid, tied=True)


def _outcome(pir: InstallResult, session: OpenSession, key: EuiccKey) -> Download:
    """Believe a result only when the chip signed it for this session; raises VerificationError."""
    iccid = session.iccid
    if iccid is None:
        raise VerificationError("PIR.MISMATCH", "a result for a package nobody offered", where=f"EID {session.eid}")
    check_install_result(pir, ExpectedResult(session.eid, iccid, session.transaction_id, session.smdp_oid), key)
    notice = rsp.notice_of_result(pir.raw, session.eid)
    return Download(session.package_id, _verdict(pir, iccid), iccid, tied=True, notice=notice)


def _verdict(pir: InstallResult, iccid: Iccid) -> Verdict:
    if pir.success:
        return Verdict(PackageState.INSTALLED, spent=True, fault=None, pir=pir)
    spent = pir.reason not in TEMPORARY_REASONS
    return Verdict(PackageState.FAILED, spent=spent, fault=install_fault(pir, iccid), pir=pir)


def _unsettled(error: IfppError, session: OpenSession | None) -> Verdict:
    """An earlier session could not be ended: its package, if one was sent, stays in the open."""
    sent = session is not None and session.step is SessionStep.LOADING
    return Verdict(PackageState.UNKNOWN if sent else PackageState.FAILED, spent=False, fault=error, pir=None)


def _failed(error: IfppError) -> Verdict:
    return Verdict(PackageState.FAILED, spent=False, fault=error, pir=None)


# ---- sessions that did not come to their end -------------------------------------------------------------


def _settled_by_chip(chip: Chip, session: OpenSession, lpa: Lpa) -> Download | None:
    """What the chip says of a package that was sent; None when it never took it.

    Raises VerificationError PIR.MISSING when the profile is there without its result: nobody may guess.
    """
    key = _key_of(session, lpa)
    for entry in reversed(chip.notifications()):
        if NotificationEvent.INSTALL not in entry.events or entry.iccid not in (None, session.iccid):
            continue
        for pir in chip.results(entry.seq_number):
            if pir.transaction_id == session.transaction_id:
                found = _outcome(pir, session, key)
                lpa.custody.settle(session, rsp.notice_of_result(pir.raw, session.eid))
                return found
    if any(profile.iccid == session.iccid for profile in chip.profiles()):
        detail = "the profile is on the chip but its result is gone"
        raise VerificationError("PIR.MISSING", detail, where=f"ICCID {session.iccid}")
    return None


def _key_of(session: OpenSession, lpa: Lpa) -> EuiccKey:
    certificate, *issuers = session.certificates
    return lpa.trust.euicc(certificate, issuers, session.eid, lpa.now())


def _sign_off(chip: Chip, session: OpenSession, reason: CancelReason, lpa: Lpa) -> OpenSession | None:
    """Have the chip end its session and sign that (SGP.22 5.7.14); it is kept before anybody is told.

    None when the chip has lost the session, with its power: there is nothing to sign, the SM-DP+ lets its own run out.
    """
    if session.cancelled:
        return session
    try:
        answer = rsp.parse_cancelled(chip.command(rsp.cancel_request(session.transaction_id, reason)))
    except StatusError:
        answer = None
    if answer is None or answer.error is not None:
        lpa.custody.end(session)
        return None
    signed = replace(session, step=SessionStep.CANCELLED, cancelled=answer.raw)
    lpa.custody.keep(signed)
    return signed


@contextmanager
def _unless_unkept() -> Iterator[None]:
    """Cancelling after a fault adds no second fault: only what could not be kept is one."""
    try:
        yield
    except CustodyError:
        raise
    except IfppError as error:
        log.warning("rsp.not_cancelled", error=error)


def _refused(error: int, detail: str, where: str) -> IfppError:
    """A chip that lost its session, with its power, may have another; every other refusal stands."""
    if error in _FORGOTTEN:
        return ServiceError("RSP.SESSION_LOST", detail, where=where)
    return CardError("RSP.CHIP_REFUSED", detail, where=where)
