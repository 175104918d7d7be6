"""ES10b.LoadBoundProfilePackage: one BPP in the segments of SGP.22 2.5.5, one ES10 command each, on one channel.

Segments: BF36 header with the whole BF23 | the whole A0 | the A1 header | each 88 | the whole A2, if any |
the A3 header | each 86. A segment that neither ends nor fails answers no data; the last one, or the first that fails,
answers the ProfileInstallationResult (BF37). The lengths of the A1 and A3 headers say which 88 and 86 is the last.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import bsp, evidence
from ifpp.sim.euicc import install
from ifpp.sim.euicc.chain import CURVES
from ifpp.sim.euicc.chip import CONDITIONS, ONLINE, Chip, StatusWordError
from ifpp.sim.euicc.install import LoadError
from ifpp.sim.euicc.metadata import ClassError, Metadata, rat_allows, read_metadata
from ifpp.sim.euicc.nvm import LoadMark, Profile, Reservation
from ifpp.sim.euicc.profile_walk import STATUS_REQUEST_FORMAT, ElementError, IccidError, ProfileWalk
from ifpp.sim.tlv import Node, parse, parse_one, read_integer, split_header, tlv

_INSTALL_BOUND_PROFILE_PACKAGE = 1
_MAX_CONFIGURE_DATA = 128
_WRONG_LENGTH = ElementError(STATUS_REQUEST_FORMAT).sima_response()
_Step = Callable[[bytes], bytes | None]


class Load:
    """One load from an accepted BF23 to its result. `channel` is the logical channel it is bound to."""

    def __init__(self, chip: Chip, channel: int, mark: LoadMark, session: bsp.Bsp, left: int) -> None:
        self.channel = channel
        self._chip = chip
        self._mark = mark
        self._session = session
        self._left = left  # bytes of the BPP still to come
        self._group = 0  # bytes of the current A1 or A3 still to come
        self._step: _Step = self._configure_isdp
        self._dp_proprietary = b""
        self._metadata_text = b""
        self._metadata: Metadata  # from the last 88 on
        self._walk: ProfileWalk  # from the last 88 on
        self._upp = hashlib.sha256()

    def segment(self, data: bytes) -> bytes | None:
        """Take the next segment: None to go on, or the result; raises LoadError."""
        self._left -= len(data)
        return self._step(data)

    def refuse(self, error: LoadError) -> bytes:
        return install.refuse(self._chip, self._mark, error)

    def _configure_isdp(self, data: bytes) -> None:
        self._mark.command = install.CONFIGURE_ISDP
        text = self._open_group(data, 0xA0)
        try:
            request = parse_one(text, 0xBF24)
            proprietary = parse(request.value)
        except ValueError:
            raise LoadError(install.CONFIGURE_ISDP, install.INCORRECT_INPUT_VALUES) from None
        if any(node.tag != 0xB8 for node in proprietary) or len(request.value) > _MAX_CONFIGURE_DATA:
            raise LoadError(install.CONFIGURE_ISDP, install.INCORRECT_INPUT_VALUES)
        self._dp_proprietary = request.value
        self._step = self._metadata_header

    def _metadata_header(self, data: bytes) -> None:
        self._mark.command = install.STORE_METADATA
        self._group = self._lone_header(data, 0xA1)
        self._step = self._metadata_block

    def _metadata_block(self, data: bytes) -> None:
        text = self._checked(self._session.verify, data)
        self._metadata_text += text
        self._group -= len(data)
        if self._group < 0:
            raise LoadError(self._mark.command, install.STRUCTURE_ERROR)
        if self._group > 0:
            self._mark.command = install.STORE_METADATA2
            return
        self._mark.command = install.STORE_METADATA
        self._store_metadata()
        self._step = self._after_metadata

    def _store_metadata(self) -> None:
        command = install.STORE_METADATA
        try:
            metadata = read_metadata(self._metadata_text)
        except ClassError:
            raise LoadError(command, install.UNSUPPORTED_PROFILE_CLASS) from None
        except (ValueError, KeyError):
            raise LoadError(command, install.INCORRECT_INPUT_VALUES) from None
        self._mark.iccid = metadata.iccid
        self._mark.address = self._mark.address or metadata.result_address
        if self._chip.find_profile(metadata.iccid):
            raise LoadError(command, install.ICCID_EXISTS)
        if not rat_allows(self._chip.nvm.rat, metadata.pprs, metadata.owner):
            raise LoadError(command, install.PPR_NOT_ALLOWED)
        self._metadata = metadata
        self._walk = ProfileWalk(metadata.iccid)

    def _after_metadata(self, data: bytes) -> None:
        """Either the replacement of the session keys (A2) or at once the profile (A3)."""
        if data[0] == 0xA3:
            self._elements_header(data)
            return
        self._mark.command = install.REPLACE_SESSION_KEYS
        text = self._open_group(data, 0xA2)
        try:
            keys = parse_one(text, 0xBF26).children()
        except ValueError:
            keys = []
        if [(key.tag, len(key.value)) for key in keys] != [(0x80, 16), (0x81, 16), (0x82, 16)]:
            raise LoadError(install.REPLACE_SESSION_KEYS, install.INCORRECT_INPUT_VALUES)
        mcv, encryption, mac = (key.value for key in keys)
        self._session = bsp.Bsp(encryption, mac, mcv)
        self._step = self._elements_header

    def _elements_header(self, data: bytes) -> None:
        self._mark.command = install.LOAD_PROFILE_ELEMENTS
        self._group = self._lone_header(data, 0xA3)
        if self._group != self._left:
            raise LoadError(install.LOAD_PROFILE_ELEMENTS, install.PE_PROCESSING, _WRONG_LENGTH)
        self._step = self._element_block

    def _element_block(self, data: bytes) -> bytes | None:
        command = install.LOAD_PROFILE_ELEMENTS
        if data[0] != 0x86:
            raise LoadError(command, install.STRUCTURE_ERROR)
        text = self._checked(self._session.decrypt, data)
        self._group -= len(data)
        self._upp.update(text)
        try:
            if self._group < 0:
                raise ElementError(STATUS_REQUEST_FORMAT)
            if self._walk.total + len(text) + len(self._metadata_text) > self._chip.free_nvm:
                raise LoadError(command, install.INSUFFICIENT_MEMORY)
            self._walk.feed(text)
            if self._group:
                return None
            self._walk.finish()
        except ElementError as error:
            raise LoadError(command, install.PE_PROCESSING, error.sima_response()) from None
        except IccidError:
            raise LoadError(command, install.DATA_MISMATCH) from None
        return self._install()

    def _install(self) -> bytes:
        profile = Profile(
            iccid=self._metadata.iccid,
            aid=self._chip.next_isdp_aid(),
            metadata=self._metadata.raw,
            size=self._walk.total + len(self._metadata.raw),
            upp_sha256=self._upp.digest(),
            dp_proprietary=self._dp_proprietary,
        )
        return install.install(self._chip, self._mark, self._metadata, profile)

    def _open_group(self, data: bytes, tag: int) -> bytes:
        """Decrypt all 87 of one complete A0 or A2."""
        try:
            blocks = parse_one(data, tag).children()
        except ValueError:
            blocks = []
        if not blocks or any(block.tag != 0x87 for block in blocks):
            raise LoadError(self._mark.command, install.STRUCTURE_ERROR)
        return b"".join(self._checked(self._session.decrypt, block.raw) for block in blocks)

    def _lone_header(self, data: bytes, tag: int) -> int:
        """Read a header that stands alone in its segment; returns the length it announces."""
        try:
            found, length, end = split_header(data)
        except ValueError:
            found, length, end = 0, 0, 0
        if found != tag or end != len(data) or length == 0:
            raise LoadError(self._mark.command, install.STRUCTURE_ERROR)
        return length

    def _checked(self, take_apart: Callable[[bytes], bytes], block: bytes) -> bytes:
        try:
            return take_apart(block)
        except bsp.StructureError:
            raise LoadError(self._mark.command, install.STRUCTURE_ERROR) from None
        except bsp.SecurityError:
            raise LoadError(self._mark.command, install.SECURITY_ERROR) from None


def begin(chip: Chip, channel: int, data: bytes) -> tuple[Load | None, bytes | None]:
    """Take the first segment: a running load, or the result of one that failed at once.

    Raises StatusWordError: 6985 when no key is prepared, or when the key has already accepted another package.
    """
    index, reservation = chip.nvm.current, chip.reservation
    if index is None or reservation is None:
        raise StatusWordError(CONDITIONS)
    try:
        _, length, value_at = split_header(data)
    except ValueError:  # no header: then there is no BF23 either
        length, value_at = 0, len(data)
    channel_request = data[value_at:]
    digest = hashlib.sha256(channel_request).digest()
    if reservation.bf23_sha256 is not None and not hmac.compare_digest(digest, reservation.bf23_sha256):
        raise StatusWordError(CONDITIONS)
    mark = LoadMark(index, reservation.transaction_id, reservation.smdp_oid)
    if index == ONLINE and chip.nvm.session is not None:
        mark.address = chip.nvm.session.address  # the SM-DP+ that is spoken to gets the result (SGP.22 3.1.3.3)
    try:
        session = _initialise_secure_channel(chip, index, reservation, channel_request)
    except LoadError as error:
        return None, install.refuse(chip, mark, error)
    install.accept(chip, mark, digest)
    return Load(chip, channel, mark, session, length - len(channel_request)), None


def _initialise_secure_channel(chip: Chip, index: int, reservation: Reservation, request: bytes) -> bsp.Bsp:
    """Check BF23 (SGP.22 5.5.1): form, operation, transaction, key template, signature; derive the session keys."""
    command = install.INITIALISE_SECURE_CHANNEL
    operation, transaction, template, smdp_otpk, signature = _channel_members(request)
    if read_integer(operation.value) != _INSTALL_BOUND_PROFILE_PACKAGE:
        raise LoadError(command, install.UNSUPPORTED_REMOTE_OPERATION)
    if transaction.value != reservation.transaction_id:
        raise LoadError(command, install.INVALID_TRANSACTION_ID)
    host_id = _host_id(template)
    key = chip.one_time_key(index)
    curve = CURVES[key.alg]
    signed = b"".join(part.raw for part in (operation, transaction, template, smdp_otpk)) + tlv(0x5F49, key.public)
    smdp = ec.EllipticCurvePublicKey.from_encoded_point(curve, reservation.smdp_point)
    try:
        evidence.verify_raw(smdp, signed, signature.value)
        return bsp.derive(chip.one_time_private(index), smdp_otpk.value, host_id, chip.eid16)
    except ValueError:  # no signature of this SM-DPf, or no point of the key's curve
        raise LoadError(command, install.INVALID_SIGNATURE) from None


def _channel_members(request: bytes) -> list[Node]:
    """The five members of BF23 in their order and sizes."""
    try:
        found = parse_one(request, 0xBF23).children()
    except ValueError:
        found = []
    sizes = {0x82: (1, 1), 0x80: (1, 16), 0xA6: (1, 127), 0x5F49: (65, 65), 0x5F37: (64, 64)}
    fits = [node.tag for node in found] == list(sizes) and all(
        sizes[node.tag][0] <= len(node.value) <= sizes[node.tag][1] for node in found
    )
    if not fits:
        raise LoadError(install.INITIALISE_SECURE_CHANNEL, install.INCORRECT_INPUT_VALUES)
    return found


def _host_id(template: Node) -> bytes:
    """ControlRefTemplate: AES, 16-byte keys, hostId of 1 to 16 bytes."""
    try:
        parts = template.children()
    except ValueError:
        raise LoadError(install.INITIALISE_SECURE_CHANNEL, install.INCORRECT_INPUT_VALUES) from None
    if [part.tag for part in parts] != [0x80, 0x81, 0x84]:
        raise LoadError(install.INITIALISE_SECURE_CHANNEL, install.INCORRECT_INPUT_VALUES)
    key_type, key_length, host_id = (part.value for part in parts)
    supported = key_type == bytes((bsp.KEY_TYPE_AES,)) and key_length == bytes((bsp.KEY_LENGTH,))
    if not supported or not 1 <= len(host_id) <= 16:
        raise LoadError(install.INITIALISE_SECURE_CHANNEL, install.UNSUPPORTED_CRT_VALUES)
    return host_id
