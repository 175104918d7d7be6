"""A simulated SM-DP+: the functions of ES9+ over its orders (SGP.22 v2, 3.1 and 5.6), without the HTTPS around them.

An order waits under its matching id; the first chip that asks for it keeps it. What the server believes it verifies:
CERT.EUICC up to its CI, every signature of the chip, the confirmation code. A package bound once is bound again to the
same key when the chip still has it, so an interrupted download costs no profile. `lies` makes it a wrong server.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ifpp.sim import binder, evidence, pki
from ifpp.sim.euicc.chain import CURVES, key_identifier
from ifpp.sim.profiles import Profile, iccid_swapped
from ifpp.sim.tlv import Node, boolean, parse_one, read_integer, read_oid, tlv

_HOST_ID = b"SMDPPLUS"
_FOR_LATER = frozenset({1, 2})  # cancelled as postponed or timed out
_TEMPORARY = frozenset({10, 11})  # no memory, interrupted
_FREE_NVM = 0x82


class State(StrEnum):
    """What an order has come to (SGP.22 3.1.6)."""

    RELEASED = "RELEASED"
    LINKED = "LINKED"
    DOWNLOADED = "DOWNLOADED"
    INSTALLED = "INSTALLED"
    ERROR = "ERROR"
    EXPIRED = "EXPIRED"


@dataclass(slots=True)
class Order:
    """One profile under one matching id. `eid` "" until a chip has it; `code` is its confirmation code, "" for none.

    `round_trips`: calls of the sessions that were for it, up to the package; what is told afterwards is not counted.
    """

    matching_id: str
    profile: Profile
    metadata: bytes
    eid: str = ""
    code: str = ""
    eligible: bool = True
    state: State = State.RELEASED
    attempts_left: int = 5
    code_attempts_left: int = 3
    bindings: int = 0
    round_trips: int = 0
    otk_public: bytes = b""
    dp_key: ec.EllipticCurvePrivateKey | None = None


@dataclass(slots=True)
class _Session:
    challenge: bytes
    order: Order | None = None
    euicc: ec.EllipticCurvePublicKey | None = None
    eid: str = ""
    smdp_signature2: bytes = b""


class FailedError(Exception):
    """The function was not carried out: subject and reason code (SGP.22 5.2.6)."""

    def __init__(self, subject: str, reason: str, message: str) -> None:
        super().__init__(f"{subject}/{reason} {message}")
        self.subject, self.reason, self.message = subject, reason, message


@dataclass(slots=True)
class SmdpPlus:
    """One SM-DP+ under `address`. `ci` is the root (DER) it verifies chips with; `calls` counts what was asked.

    `lies`, any of: "any_ci" (serves chips that cannot trust it), "challenge", "address", "transaction", "signature1",
    "signature2", "bind_signature", "metadata" (another profile than offered), "bpp_transaction".
    """

    dpauth: pki.Holder
    dppb: pki.Holder
    ci: bytes
    address: str = "localhost"
    orders: dict[str, Order] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    notifications: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[tuple[str, int]] = field(default_factory=list)  # transaction (hex), reason
    _sessions: dict[bytes, _Session] = field(default_factory=dict)
    _bound: dict[bytes, tuple[Order, ec.EllipticCurvePublicKey]] = field(default_factory=dict)

    @classmethod
    def create(cls, tree: pki.Pki) -> SmdpPlus:
        """Make one below the CI of `tree`, with its CERT.DPpb and a CERT.DPauth of its own."""
        dpauth = pki.below(tree.ci, pki.DPAUTH, pki.name_of("IFPP Sim SM-DP+", "DPauth"))
        return cls(dpauth, tree.dppb, tree.ci.der)

    def release(self, matching_id: str, profile: Profile, **details: Any) -> Order:
        """Take an order; `details` set fields of Order."""
        metadata = binder.store_metadata(
            iccid_swapped(profile.iccid),
            profile.provider,
            profile.profile_type,
            fqdn=self.address,
            mcc_mnc=profile.mcc_mnc,
        )
        self.orders[matching_id] = Order(matching_id, profile, metadata, **details)
        return self.orders[matching_id]

    def call(self, function: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Carry out one function; None: nothing to answer. Raises FailedError; KeyError for an unknown function."""
        functions: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]] = {
            "initiateAuthentication": self._initiate,
            "authenticateClient": self._authenticate,
            "getBoundProfilePackage": self._bind,
            "handleNotification": self._notified,
            "cancelSession": self._cancel,
        }
        carry_out = functions[function]
        self.calls[function] += 1
        try:
            return carry_out(request)
        except evidence.EvidenceError as error:
            raise FailedError("8.1", "6.1", str(error)) from error
        except (ValueError, KeyError) as error:
            raise FailedError("8.10", "2.2", f"the request does not parse ({error})") from error

    def write_evidence(self, path: Path) -> None:
        """Write what was issued and what came back, as one JSON document."""
        orders = [
            {
                "matching_id": order.matching_id,
                "iccid": order.profile.iccid,
                "eid": order.eid,
                "state": order.state,
                "bindings": order.bindings,
                "round_trips": order.round_trips,
            }
            for order in self.orders.values()
        ]
        document = {
            "format": "ifpp.smdp_plus",
            "version": "1.0",
            "orders": orders,
            "notifications": self.notifications,
            "cancelled": [{"transaction_id": each, "reason": reason} for each, reason in self.cancelled],
            "open_sessions": len(self._sessions),
            "calls": dict(self.calls),
        }
        path.write_text(json.dumps(document, indent=1))

    # ---- the functions ---------------------------------------------------------------------------------------------

    def _initiate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if str(request["smdpAddress"]).lower() != self.address.lower():
            raise FailedError("8.8.1", "3.8", "another address")
        info1 = parse_one(_bytes(request["euiccInfo1"]), 0xBF20)
        ci = key_identifier(self.ci)
        if "any_ci" not in self.lies and ci not in {key.value for key in info1.need(0xA9).children()}:
            raise FailedError("8.8.2", "3.1", "none of the chip's CI keys is known")
        transaction_id, session = secrets.token_bytes(16), _Session(secrets.token_bytes(16))
        self._sessions[transaction_id] = session
        said = secrets.token_bytes(16) if "challenge" in self.lies else _bytes(request["euiccChallenge"])
        address = "elsewhere.example" if "address" in self.lies else self.address
        signed1 = tlv(
            0x30,
            tlv(0x80, transaction_id),
            tlv(0x81, said),
            tlv(0x83, address.encode()),
            tlv(0x84, session.challenge),
        )
        named = secrets.token_bytes(16) if "transaction" in self.lies else transaction_id
        return {
            "transactionId": named.hex().upper(),
            "serverSigned1": _text(signed1),
            "serverSignature1": _text(self._signature(self.dpauth, signed1, "signature1")),
            "euiccCiPKIdToBeUsed": _text(tlv(0x04, ci)),
            "serverCertificate": _text(self.dpauth.der),
        }

    def _authenticate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        transaction_id, session = self._session(request)
        answer = parse_one(_bytes(request["authenticateServerResponse"]), 0xBF38)
        if answer.first(0xA0) is None:
            self._end(transaction_id)
            raise FailedError("8.1", "6.1", "the chip refuses")
        signed1, signature1, chip, eum = answer.need(0xA0).children()[:4]
        try:
            session.euicc, session.eid = self._chip(chip.raw, eum.raw)
            evidence.verify_raw(session.euicc, signed1.raw, signature1.value)
            if signed1.need(0x84).value != session.challenge or signed1.need(0x80).value != transaction_id:
                raise FailedError("8.1", "6.1", "it answers another session")
            order = session.order = self._eligible(session, signed1)
        except (FailedError, evidence.EvidenceError):
            self._end(transaction_id)
            raise
        key = tlv(0x5F49, order.otk_public) if order.otk_public else b""
        signed2 = tlv(0x30, tlv(0x80, transaction_id), tlv(0x01, boolean(bool(order.code))), key)
        session.smdp_signature2 = self._signature(self.dppb, signed2 + signature1.raw, "signature2")
        return {
            "transactionId": transaction_id.hex().upper(),
            "profileMetadata": _text(order.metadata),
            "smdpSigned2": _text(signed2),
            "smdpSignature2": _text(session.smdp_signature2),
            "smdpCertificate": _text(self.dppb.der),
        }

    def _bind(self, request: Mapping[str, Any]) -> dict[str, Any]:
        transaction_id, session = self._session(request)
        order, euicc = session.order, session.euicc
        answer = parse_one(_bytes(request["prepareDownloadResponse"]), 0xBF21)
        if order is None or euicc is None or answer.first(0xA0) is None:
            self._end(transaction_id)
            raise FailedError("8.1", "6.1", "the chip refuses, or did not authenticate")
        order.round_trips += 1
        signed2, signature2 = answer.need(0xA0).children()
        evidence.verify_raw(euicc, signed2.raw + session.smdp_signature2, signature2.value)
        if signed2.need(0x80).value != transaction_id:
            raise FailedError("8.1", "6.1", "it prepared another session")
        try:
            _check_code(order, signed2, transaction_id)
        except FailedError:
            self._end(transaction_id)
            raise
        package = self._package(order, session, signed2.need(0x5F49).value, transaction_id)
        order.state = State.DOWNLOADED
        self._bound[transaction_id] = (order, euicc)
        self._end(transaction_id)
        return {"transactionId": transaction_id.hex().upper(), "boundProfilePackage": _text(package)}

    def _notified(self, request: Mapping[str, Any]) -> None:
        raw = _bytes(request["pendingNotification"])
        holder = parse_one(raw)
        about = holder.need(0xBF27).need(0xBF2F) if holder.tag == 0xBF37 else holder.need(0xBF2F)
        entry = {
            "kind": "result" if holder.tag == 0xBF37 else "other",
            "sequence": read_integer(about.need(0x80).value),
            "raw": _text(raw),
            "verified": False,
        }
        self.notifications.append(entry)
        if holder.tag == 0xBF37:
            transaction_id = holder.need(0xBF27).need(0x80).value
            order, euicc = self._bound[transaction_id]
            said = evidence.installation(raw, euicc)
            entry |= {"verified": True, "iccid": order.profile.iccid, "eid": order.eid, "installed": said.installed}
            if order.state is State.DOWNLOADED:
                failed = State.DOWNLOADED if said.reason in _TEMPORARY else State.ERROR
                order.state = State.INSTALLED if said.installed else failed
            return
        signed, signature, chip, eum = holder.children()[:4]
        euicc, entry["eid"] = self._chip(chip.raw, eum.raw)
        evidence.verify_raw(euicc, signed.raw, signature.value)
        entry["verified"] = True

    def _cancel(self, request: Mapping[str, Any]) -> dict[str, Any]:
        transaction_id = bytes.fromhex(request["transactionId"])
        session = self._sessions.get(transaction_id)
        if session is None and transaction_id not in self._bound:
            raise FailedError("8.10.1", "3.9", "unknown transaction")
        order, euicc = (session.order, session.euicc) if session is not None else self._bound[transaction_id]
        signed, signature = parse_one(_bytes(request["cancelSessionResponse"]), 0xBF41).need(0xA0).children()
        if euicc is not None:
            evidence.verify_raw(euicc, signed.raw, signature.value)
        if read_oid(signed.need(0x81).value) != _oid_of(self.dpauth):
            raise FailedError("8.8", "3.10", "another SM-DP+")
        reason = read_integer(signed.need(0x82).value)
        self.cancelled.append((transaction_id.hex(), reason))
        self._end(transaction_id)
        if order is not None and order.state is not State.INSTALLED:
            order.state = State.RELEASED if reason in _FOR_LATER else State.ERROR
        return {}

    # ---- parts -----------------------------------------------------------------------------------------------------

    def _session(self, request: Mapping[str, Any]) -> tuple[bytes, _Session]:
        transaction_id = bytes.fromhex(request["transactionId"])
        if transaction_id not in self._sessions:
            raise FailedError("8.10.1", "3.9", "unknown transaction")
        return transaction_id, self._sessions[transaction_id]

    def _end(self, transaction_id: bytes) -> None:
        self._sessions.pop(transaction_id, None)

    def _chip(self, certificate: bytes, eum: bytes) -> tuple[ec.EllipticCurvePublicKey, str]:
        """Return key and EID of a chip whose certificate holds; raises FailedError."""
        try:
            subject = x509.load_der_x509_certificate(certificate).subject
            eid = str(subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value)
            return evidence.euicc_key(certificate, [eum], self.ci, eid), eid
        except (ValueError, IndexError) as error:
            raise FailedError("8.1.2", "6.1", str(error)) from error

    def _eligible(self, session: _Session, signed1: Node) -> Order:
        """Return the order this chip may have; it is the chip's from now on."""
        asked = signed1.need(0xA0).first(0x80)
        order = self.orders.get(asked.value.decode() if asked else "")
        if order is None or order.state is State.INSTALLED:
            raise FailedError("8.2.6", "3.8", "no such matching id")
        if order.eid not in ("", session.eid):
            raise FailedError("8.1.1", "3.8", "the order is for another chip")
        if not order.eligible:
            raise FailedError("8.2.5", "4.3", "no profile for such a chip")
        if order.state is State.EXPIRED:
            raise FailedError("8.8.5", "4.10", "expired")
        if order.state is State.ERROR or order.attempts_left == 0:
            raise FailedError("8.8.5", "6.4", "tried too often")
        free = next(each.value for each in signed1.need(0xBF22).need(0x84).children() if each.tag == _FREE_NVM)
        if int.from_bytes(free, "big") < len(order.profile.upp):
            raise FailedError("8.1", "4.8", "not enough memory")
        order.eid, order.state = session.eid, State.LINKED
        order.attempts_left -= 1
        order.round_trips += 2  # InitiateAuthentication, which did not say for which order, and this
        return order

    def _package(self, order: Order, session: _Session, otk_public: bytes, transaction_id: bytes) -> bytes:
        """Bind, anew or again: the same key of the chip gets the same session keys under the new transaction."""
        if order.otk_public != otk_public or order.dp_key is None:
            curve = next(each for each in CURVES.values() if each.name == self.dppb.key.curve.name)
            order.otk_public, order.dp_key = otk_public, ec.generate_private_key(curve)
            order.bindings += 1
        metadata = order.metadata
        if "metadata" in self.lies:
            metadata = metadata.replace(order.profile.provider.encode(), order.profile.provider.encode().swapcase())
        return binder.bind(
            binder.BindingTarget(session.eid, otk_public),
            order.profile.upp,
            metadata,
            dp_one_time=order.dp_key,
            transaction_id=secrets.token_bytes(16) if "bpp_transaction" in self.lies else transaction_id,
            host_id=_HOST_ID,
            sign=lambda data: parse_one(self._signature(self.dppb, data, "bind_signature")).value,
        )

    def _signature(self, holder: pki.Holder, data: bytes, name: str) -> bytes:
        """The TLV 5F37 over `data`; a lie of this name changes its last bit."""
        raw = pki.sign_raw(holder.key, data)
        if name in self.lies:
            raw = raw[:-1] + bytes((raw[-1] ^ 1,))
        return tlv(0x5F37, raw)


def _check_code(order: Order, signed2: Node, transaction_id: bytes) -> None:
    """Compare the hash of the confirmation code; a few wrong ones end the order."""
    if not order.code:
        return
    said = signed2.first(0x04)
    if said is None:
        raise FailedError("8.2.7", "2.2", "a confirmation code is needed")
    if said.value == hashlib.sha256(hashlib.sha256(order.code.encode()).digest() + transaction_id).digest():
        return
    order.code_attempts_left -= 1
    if order.code_attempts_left == 0:
        order.state = State.ERROR
        raise FailedError("8.2.7", "6.4", "too many wrong confirmation codes")
    raise FailedError("8.2.7", "3.8", "a wrong confirmation code")


def _oid_of(holder: pki.Holder) -> str:
    names = holder.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.RegisteredID)[0].dotted_string


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
