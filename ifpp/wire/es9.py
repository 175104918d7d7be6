"""ES9+ as JSON over HTTPS (SGP.22 v2, 6.5.2): request bodies, and answers read with bounds.

Signed objects travel as base64 of complete TLVs, transaction ids as hexadecimal digits. A function the SM-DP+ does
not carry out answers with a status in its header: that raises RefusedError with a code of ours.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import msgspec

from ifpp.errors import ServiceError, WireError
from ifpp.model.rsp import Bound, ChipWord, Function, Info1, Notice, Offer, Prepared, ServerWord
from ifpp.wire import rsp
from ifpp.wire.bpp import parse_bpp

_MOST_TRANSACTION_DIGITS = 32
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SUCCESS = frozenset({"Executed-Success", "Executed-WithWarning"})


class _Code(msgspec.Struct, rename="camel"):
    subject_code: str = ""
    reason_code: str = ""
    message: str = ""


class _Status(msgspec.Struct, rename="camel"):
    status: str
    status_code_data: _Code | None = None


class _Header(msgspec.Struct, rename="camel"):
    function_execution_status: _Status


class _Answer(msgspec.Struct, rename="camel"):
    header: _Header


class _Initiated(_Answer, rename="camel"):
    transaction_id: str
    server_signed1: str
    server_signature1: str
    server_certificate: str
    # two spellings stand in the specification
    ci: str = msgspec.field(name="euiccCiPKIdToBeUsed", default="")
    ci_annex: str = msgspec.field(name="euiccCiPKIdTobeUsed", default="")


class _Offered(_Answer, rename="camel"):
    transaction_id: str
    profile_metadata: str
    smdp_signed2: str
    smdp_signature2: str
    smdp_certificate: str


class _Packed(_Answer, rename="camel"):
    transaction_id: str
    bound_profile_package: str


A = TypeVar("A", bound=_Answer)


class RefusedError(ServiceError):
    """The SM-DP+ did not carry out the function and said why; with that its session has ended (SGP.22 3.1)."""


# subject and reason code (SGP.22 5.2.6) -> ours; "" stands for every reason of a subject
_REFUSALS: dict[tuple[str, str], str] = {
    ("8.8.2", ""): "FIT.CI_KEY",
    ("8.8.4", ""): "FIT.CI_KEY",
    ("8.11.1", ""): "FIT.CI_KEY",
    ("8.1", "4.8"): "EUICC.NO_MEMORY",
    ("8.1.1", ""): "RSP.NOT_ELIGIBLE",
    ("8.1.2", ""): "RSP.NOT_ELIGIBLE",
    ("8.1.3", ""): "RSP.NOT_ELIGIBLE",
    ("8.2.5", ""): "RSP.NOT_ELIGIBLE",
    ("8.8.3", ""): "RSP.NOT_ELIGIBLE",
    ("8.2.6", ""): "RSP.CODE_REFUSED",
    ("8.2.7", ""): "RSP.CONFIRMATION",
    ("8.2.7", "6.4"): "RSP.USED_UP",
    ("8.8.5", ""): "RSP.USED_UP",
    ("8.2", "3.7"): "RSP.USED_UP",
    ("8.10.1", ""): "RSP.SESSION_LOST",
}


def initiate_body(address: str, challenge: bytes, info1: Info1) -> bytes:
    """InitiateAuthentication."""
    return _body(euiccChallenge=challenge, euiccInfo1=info1.raw, smdpAddress=address)


def parse_initiated(body: bytes) -> ServerWord:
    """Return the server's first word; raises RefusedError, ServiceError RSP.ANSWER."""
    what = Function.INITIATE_AUTHENTICATION
    said = _read(body, _Initiated, what)
    objects = (said.server_signed1, said.server_signature1, said.ci or said.ci_annex, said.server_certificate)
    with _objects(what):
        return rsp.server_word(_digits(said.transaction_id, what), *map(_bytes, objects), what=what)


def authenticate_body(chip: ChipWord) -> bytes:
    """AuthenticateClient: also the chip's refusal, for the server's books."""
    return _body(chip.transaction_id, authenticateServerResponse=chip.raw)


def parse_offer(body: bytes) -> Offer:
    """Return what the server offers; raises as `parse_initiated` does."""
    what = Function.AUTHENTICATE_CLIENT
    said = _read(body, _Offered, what)
    objects = (said.profile_metadata, said.smdp_signed2, said.smdp_signature2, said.smdp_certificate)
    with _objects(what):
        return rsp.offer(_digits(said.transaction_id, what), *map(_bytes, objects), what=what)


def package_body(prepared: Prepared) -> bytes:
    """GetBoundProfilePackage."""
    return _body(prepared.transaction_id, prepareDownloadResponse=prepared.raw)


def parse_package(body: bytes) -> Bound:
    """Return the bound package, its structure checked; raises as `parse_initiated` does."""
    what = Function.GET_BOUND_PROFILE_PACKAGE
    said = _read(body, _Packed, what)
    with _objects(what):
        return Bound(_digits(said.transaction_id, what), parse_bpp(_bytes(said.bound_profile_package)))


def notice_body(notice: Notice) -> bytes:
    """HandleNotification; its answer has no body."""
    return _body(pendingNotification=notice.raw)


def parse_notified(body: bytes) -> None:
    """Check that the server took a notification: it answers nothing, or success; raises as `parse_initiated` does."""
    if body:
        _read(body, _Answer, Function.HANDLE_NOTIFICATION)


def cancel_body(transaction_id: bytes, signed: bytes) -> bytes:
    """CancelSession with the chip's signed word."""
    return _body(transaction_id, cancelSessionResponse=signed)


def parse_cancelled(body: bytes) -> None:
    """Check that the server took the word; raises as `parse_initiated` does."""
    _read(body, _Answer, Function.CANCEL_SESSION)


def _body(transaction_id: bytes = b"", **objects: bytes | str) -> bytes:
    document: dict[str, str] = {"transactionId": transaction_id.hex().upper()} if transaction_id else {}
    for name, value in objects.items():
        document[name] = value if isinstance(value, str) else base64.b64encode(value).decode()
    return msgspec.json.encode(document)


def _read(body: bytes, kind: type[A], what: Function) -> A:
    """Read the header first: a refusal has no other members."""
    try:
        status = msgspec.json.decode(body, type=_Answer).header.function_execution_status
    except _NO_JSON as error:
        raise _unreadable(error, what) from None
    if status.status not in _SUCCESS:
        _refuse(status, what)
    try:
        return msgspec.json.decode(body, type=kind)
    except _NO_JSON as error:
        raise _unreadable(error, what) from None


def _unreadable(error: Exception, what: Function) -> ServiceError:
    return ServiceError("RSP.ANSWER", f"no answer of this function: {str(error)[:200]}", where=what)


def _refuse(status: _Status, what: Function) -> NoReturn:
    code = status.status_code_data or _Code()
    ours = _REFUSALS.get((code.subject_code, code.reason_code)) or _REFUSALS.get((code.subject_code, ""), "RSP.REFUSED")
    detail = f"the SM-DP+ refuses: {code.subject_code or '?'}/{code.reason_code or '?'} {_shown(code.message)}"
    raise RefusedError(ours, detail.rstrip(), where=what)


def _shown(text: str) -> str:
    return "".join(letter for letter in text[:120] if letter.isprintable())


def _digits(text: str, what: Function) -> bytes:
    try:
        value = bytes.fromhex(text) if len(text) <= _MOST_TRANSACTION_DIGITS else b""
    except ValueError:
        value = b""
    if not value:
        raise ServiceError("RSP.ANSWER", "a transaction id that is not 1 to 16 bytes in hexadecimal", where=what)
    return value


@contextmanager
def _objects(what: Function) -> Iterator[None]:
    """Bytes that do not parse are the server's here, not the chip's."""
    try:
        yield
    except WireError as error:
        raise ServiceError("RSP.ANSWER", error.detail, where=error.where or what) from error


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise WireError("an object that is not base64") from None
