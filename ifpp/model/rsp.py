"""What passes between chip, station and SM-DP+ in an online download (SGP.22 v2), as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from ifpp.model.chip import BoundProfilePackage, StoreMetadata
from ifpp.model.ids import Eid, Iccid

_FORMAT = "1"
_MOST_ADDRESS = 255
_MOST_MATCHING_ID = 255


class AuthenticateError(IntEnum):
    """AuthenticateErrorCode (SGP.22 5.7.13)."""

    INVALID_CERTIFICATE = 1
    INVALID_SIGNATURE = 2
    UNSUPPORTED_CURVE = 3
    NO_SESSION_CONTEXT = 4
    INVALID_OID = 5
    EUICC_CHALLENGE_MISMATCH = 6
    CI_PK_UNKNOWN = 7
    UNDEFINED = 127


class CancelReason(IntEnum):
    """CancelSessionReason (SGP.22 5.7.14). After POSTPONED and TIMEOUT the download may be tried again."""

    END_USER_REJECTION = 0
    POSTPONED = 1
    TIMEOUT = 2
    PPR_NOT_ALLOWED = 3
    METADATA_MISMATCH = 4
    LOAD_EXECUTION_ERROR = 5
    UNDEFINED = 127


class Function(StrEnum):
    """The functions of ES9+ by their place in the URL (SGP.22 6.5.2)."""

    INITIATE_AUTHENTICATION = "initiateAuthentication"
    AUTHENTICATE_CLIENT = "authenticateClient"
    GET_BOUND_PROFILE_PACKAGE = "getBoundProfilePackage"
    HANDLE_NOTIFICATION = "handleNotification"
    CANCEL_SESSION = "cancelSession"


@dataclass(frozen=True, slots=True)
class ActivationCode:
    """Where a profile waits and under which name (SGP.22 4.1). `oid`: the only SM-DP+ it may be taken from, or ""."""

    address: str
    matching_id: str
    oid: str = ""
    confirmation: bool = False

    @classmethod
    def parse(cls, text: str) -> ActivationCode:
        """Read ``1$address$matching id[$OID[$1]]``, with or without ``LPA:``; raises ValueError."""
        parts = text.removeprefix("LPA:").split("$")
        if not 3 <= len(parts) <= 5 or parts[0] != _FORMAT:
            raise ValueError("an activation code is 1$address$matching id")
        oid, flag = (*parts[3:], "", "")[:2]
        if not is_address(parts[1]) or len(parts[2]) > _MOST_MATCHING_ID or flag not in ("", "1"):
            raise ValueError("no address, a matching id that is too long, or a flag other than 1")
        if not all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in parts[2]):
            raise ValueError("a matching id is made of letters, digits and -")
        return cls(parts[1], parts[2], oid, flag == "1")

    def __str__(self) -> str:
        tail = f"${self.oid}" if self.oid or self.confirmation else ""
        return f"1${self.address}${self.matching_id}{tail}{'$1' if self.confirmation else ''}"


def is_address(text: str) -> bool:
    """Say whether a text can be the address of an SM-DP+: a host name, perhaps with a port, and nothing of a URL."""
    host, _, port = text.partition(":")
    letters = all(letter.isascii() and (letter.isalnum() or letter in "-.") for letter in host)
    return 0 < len(text) <= _MOST_ADDRESS and bool(host) and letters and (not port or port.isdecimal())


@dataclass(frozen=True, slots=True)
class Info1:
    """EUICCInfo1 (SGP.22 5.7.8): `raw` as the chip gave it, and the CI keys it verifies servers with."""

    raw: bytes
    ci_key_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ServerWord:
    """What an SM-DP+ says first (InitiateAuthentication): objects as received, and the members of serverSigned1."""

    session_id: bytes  # the transactionId beside the signed objects
    signed_raw: bytes
    signature_raw: bytes
    signature: bytes
    ci_raw: bytes
    ci_key_id: bytes
    certificate: bytes
    transaction_id: bytes
    euicc_challenge: bytes
    address: str
    server_challenge: bytes


@dataclass(frozen=True, slots=True)
class ChipWord:
    """The chip's proof (AuthenticateServer), or its AuthenticateErrorCode in `error`."""

    raw: bytes
    transaction_id: bytes
    error: int | None = None
    signed_raw: bytes = b""
    signature_raw: bytes = b""
    signature: bytes = b""
    address: str = ""
    server_challenge: bytes = b""
    euicc_certificate: bytes = b""
    eum_chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What an SM-DP+ offers to a chip it has recognised (AuthenticateClient)."""

    session_id: bytes
    metadata: StoreMetadata
    signed_raw: bytes
    signature_raw: bytes
    signature: bytes
    certificate: bytes
    transaction_id: bytes
    confirmation: bool
    otk_public: bytes = b""  # bppEuiccOtpk: the key it bound to before


@dataclass(frozen=True, slots=True)
class Prepared:
    """The chip's answer to PrepareDownload: the key to bind to, or a DownloadErrorCode in `error`."""

    raw: bytes
    transaction_id: bytes
    error: int | None = None
    signed_raw: bytes = b""
    signature: bytes = b""
    otk_public: bytes = b""
    hash_cc: bytes = b""


@dataclass(frozen=True, slots=True)
class Bound:
    """A package bound in this session (GetBoundProfilePackage)."""

    session_id: bytes
    bpp: BoundProfilePackage


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The chip's word that it ended a session (CancelSession), or the error number it gave."""

    raw: bytes
    error: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification the chip keeps for a server, byte for byte."""

    eid: Eid
    seq_number: int
    address: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Device:
    """What the chip is told of its device (DeviceInfo, SGP.22 4.2): 4 bytes TAC, 8 bytes IMEI or nothing."""

    tac: bytes = bytes(4)
    imei: bytes = b""


@dataclass(frozen=True, slots=True)
class DownloadOrder:
    """One profile to be fetched for one chip. `iccid` None: whichever the SM-DP+ has under this code."""

    package_id: str
    eid: Eid
    code: ActivationCode
    iccid: Iccid | None = None
    confirmation_code: str = ""
    device: Device = Device()


class SessionStep(StrEnum):
    """How far an online session has come, as it is kept before the step is taken."""

    OPENED = "OPENED"  # chip and server may know of it; the order may be tied to this chip
    LOADING = "LOADING"  # the first byte of the package may have reached the chip
    CANCELLED = "CANCELLED"  # the chip has ended it, the server may not know
    SETTLED = "SETTLED"  # the chip's result is here, and nobody has taken it into the books


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session whose outcome is not in the books.

    `certificates`: CERT.EUICC and its EUM chain once a package is sent. `cancelled`: the chip's signed word for the
    server, `result`: its raw result, when there is one.
    """

    eid: Eid
    package_id: str
    address: str
    transaction_id: bytes
    smdp_oid: str
    step: SessionStep = SessionStep.OPENED
    iccid: Iccid | None = None
    certificates: tuple[bytes, ...] = ()
    cancelled: bytes = b""
    result: bytes = b""
