"""The online session of SGP.22 on the chip: challenge, AuthenticateServer, PrepareDownload, CancelSession (5.7).

A session begins with a challenge and is one with an SM-DP+ once AuthenticateServer has proved it. It ends with the
result of a load, with CancelSession, with a new challenge and, on most chips, with the power. Without a session,
PrepareDownload and CancelSession are those of the factory (prepare).
"""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import evidence, pki
from ifpp.sim.euicc import prepare
from ifpp.sim.euicc.chain import CURVES, ChainError, CurveError, Signer, authenticate, key_identifier
from ifpp.sim.euicc.chip import ONLINE, Chip, members
from ifpp.sim.euicc.nvm import Reservation, Session, SessionKey
from ifpp.sim.euicc.prepare import RefusedError, Request
from ifpp.sim.tlv import Node, integer, oid, tlv

# AuthenticateErrorCode
INVALID_CERTIFICATE = 1
INVALID_SIGNATURE = 2
UNSUPPORTED_CURVE = 3
NO_SESSION_CONTEXT = 4
CHALLENGE_MISMATCH = 6
CI_UNKNOWN = 7


def get_challenge(chip: Chip, _request: Node) -> bytes:
    """GetEUICCChallenge: begins a session and discards an earlier one."""
    chip.end_session()
    chip.nvm.challenge = secrets.token_bytes(16)
    return tlv(0xBF2E, tlv(0x80, chip.nvm.challenge))


def authenticate_server(chip: Chip, request: Node) -> bytes:
    """AuthenticateServer (5.7.13): prove the server, answer with the chip's own proof or an AuthenticateErrorCode.

    Raises ValueError or KeyError for a request that does not parse.
    """
    signed, signature, ci, certificate, context = request.children()
    if [part.tag for part in (signed, signature, ci, certificate, context)] != [0x30, 0x5F37, 0x04, 0x30, 0xA0]:
        raise ValueError("members of AuthenticateServer")
    said = members(signed.value)
    transaction_id, address, server_challenge = said[0x80], said[0x83].decode(), said[0x84]
    if not 1 <= len(transaction_id) <= 16 or len(server_challenge) != 16:
        raise ValueError("sizes")
    try:
        server = _server(chip, signed, signature.value, ci.value, certificate.raw)
    except RefusedError as refused:
        return tlv(0xBF38, tlv(0xA1, tlv(0x80, transaction_id), tlv(0x02, integer(refused.code))))
    own = tlv(
        0x30,
        tlv(0x80, transaction_id),
        tlv(0x83, said[0x83]),
        tlv(0x84, server_challenge),
        chip.info2(),
        context.raw,
    )
    signature1 = chip.sign(own)
    chip.end_session()
    chip.nvm.session = Session(transaction_id, address, server.oid, server.curve, ci.value, signature1)
    return tlv(0xBF38, tlv(0xA0, own, signature1, chip.card.euicc_certificate, chip.card.eum_certificate))


def prepare_download(chip: Chip, request: Node) -> bytes:
    """PrepareDownload (5.7.5) within the session; without one it is the factory's."""
    session = chip.nvm.session
    if session is None:
        return prepare.prepare_download(chip, request)
    parsed = prepare.parse_request(request)
    try:
        key = _session_key(chip, session, parsed)
    except RefusedError as refused:
        return prepare.refusal(parsed, refused)
    hash_cc = b"" if parsed.hash_cc is None else tlv(0x04, parsed.hash_cc)
    signed2 = tlv(0x30, tlv(0x80, parsed.transaction_id), tlv(0x5F49, key), hash_cc)
    return tlv(0xBF21, tlv(0xA0, signed2, chip.sign(signed2 + parsed.signature.raw)))


def cancel_session(chip: Chip, request: Node) -> bytes:
    """CancelSession (5.7.14): end the session with a signed word for the SM-DP+; otherwise it is the factory's."""
    found = members(request.value)
    transaction_id, reason = found[0x80], found[0x81]
    session = chip.nvm.session
    if session is None or session.transaction_id != transaction_id:
        return prepare.cancel_session(chip, request)
    chip.end_session()
    signed = tlv(0x30, tlv(0x80, transaction_id), tlv(0x81, oid(session.smdp_oid)), tlv(0x82, reason))
    return tlv(0xBF41, tlv(0xA0, signed, chip.sign(signed)))


def _server(chip: Chip, signed: Node, signature: bytes, ci: bytes, certificate: bytes) -> Signer:
    """The checks of 5.7.13 in their order: CI, CERT.DPauth, serverSignature1, challenge."""
    if not chip.nvm.challenge:
        raise RefusedError(NO_SESSION_CONTEXT)
    server = _certified(chip, (certificate,), ci, pki.POLICY_DPAUTH)
    _check_signature(server, signed.raw, signature)
    if members(signed.value)[0x81] != chip.nvm.challenge:
        raise RefusedError(CHALLENGE_MISMATCH)
    return server


def _certified(chip: Chip, chain: tuple[bytes, ...], ci: bytes, policy: str) -> Signer:
    roots = tuple(root for root in chip.card.ci_certificates if key_identifier(root) == ci)
    if not roots:
        raise RefusedError(CI_UNKNOWN)
    try:
        return authenticate(chain, roots, policy)
    except ChainError:
        raise RefusedError(INVALID_CERTIFICATE) from None
    except CurveError:
        raise RefusedError(UNSUPPORTED_CURVE) from None


def _check_signature(server: Signer, data: bytes, signature: bytes) -> None:
    curve = next(curve for curve in CURVES.values() if curve.name == server.curve)
    try:
        evidence.verify_raw(ec.EllipticCurvePublicKey.from_encoded_point(curve, server.point), data, signature)
    except evidence.EvidenceError:
        raise RefusedError(INVALID_SIGNATURE) from None


def _session_key(chip: Chip, session: Session, request: Request) -> bytes:
    """Check the SM-DP+'s second word and reserve the key pair it shall bind to: an earlier one, or a fresh one."""
    if request.transaction_id != session.transaction_id:
        raise RefusedError(prepare.INVALID_TRANSACTION)
    smdp = _certified(chip, request.chain, session.ci, pki.POLICY_DPPB)
    if smdp.oid != session.smdp_oid:  # CERT.DPauth and CERT.DPpb are of one SM-DP+
        raise RefusedError(prepare.INVALID_CERTIFICATE)
    if smdp.curve != session.curve:
        raise RefusedError(prepare.UNSUPPORTED_CURVE)
    _check_signature(smdp, request.signed + session.signature1, request.signature.value)
    if request.code_required and request.hash_cc is None:
        raise RefusedError(prepare.UNDEFINED)
    kept = (key for key in chip.nvm.session_keys if key.smdp_oid == smdp.oid and key.public == request.otk_public)
    key = next(kept, None) or _fresh_key(chip, smdp)
    session.key = key.public
    session.reservation = Reservation(request.transaction_id, smdp.oid, smdp.point)
    chip.nvm.current = ONLINE
    return key.public


def _fresh_key(chip: Chip, smdp: Signer) -> SessionKey:
    alg, curve = next((alg, curve) for alg, curve in CURVES.items() if curve.name == smdp.curve)
    private = ec.generate_private_key(curve)
    key = SessionKey(smdp.oid, alg, pki.point(private.public_key()), pki.scalar(private))
    chip.keep_session_key(key)
    return key
