"""What an eUICC says and what an SM-DPf sends, as frozen values; signed parts stay the bytes that were received.

Field names follow SGP.22 where it has one; `*_raw` is a complete TLV cut out of the received bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ifpp.model.ids import Eid, Iccid


class FpaState(IntEnum):
    """State of the FPA services (FPX/1, GetFpaStatus); ABSENT is no answer of a chip: it does not know the function."""

    ABSENT = -1
    LOCKED = 0
    OPEN = 1
    PREPARED = 2
    LOADING = 3


class OtkState(IntEnum):
    """State of one one-time key in the eUICC (FPX/1, ListOneTimeKeys)."""

    AVAILABLE = 0
    RESERVED = 1
    CONSUMED = 2
    DELETED = 3


class NotificationEvent(IntEnum):
    """Bit numbers of NotificationEvent (SGP.22 4.1.1.1)."""

    INSTALL = 0
    ENABLE = 1
    DISABLE = 2
    DELETE = 3


class DeleteResult(IntEnum):
    """Result of DeleteOneTimeKeys (FPX/1)."""

    OK = 0
    NOTHING_TO_DELETE = 1
    KEY_NOT_FOUND = 2
    SESSION_IN_PROGRESS = 3
    NOT_AUTHORISED = 4
    UNDEFINED = 127


class LockResult(IntEnum):
    """Result of LockFpaServices (FPX/1)."""

    OK = 0
    ALREADY_LOCKED = 1
    ONE_TIME_KEYS_REMAINING = 2
    SESSION_IN_PROGRESS = 3
    NOT_AUTHORISED = 4
    UNDEFINED = 127


@dataclass(frozen=True, slots=True)
class Permit:
    """The device maker's word for one deletion or lock on one chip: a challenge new to it (16 bytes), and the MAC."""

    challenge: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class FpaStatus:
    """Answer to GetFpaStatus. `state` stays a plain int when the number is unknown."""

    state: int
    otk_remaining: int
    dialect: bytes
    flags: int = 0
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class OneTimeKey:
    """One entry of the one-time-key list; `public` is the 65-byte uncompressed point, None once spent."""

    slot: int
    otk_id: bytes
    state: int
    alg: int
    public: bytes | None


@dataclass(frozen=True, slots=True)
class OtkList:
    """A (possibly signed) one-time-key list: `signed_raw` is the TLV 30 that `signature` (64 bytes r||s) covers."""

    eid: Eid
    challenge: bytes | None
    remaining: int
    keys: tuple[OneTimeKey, ...]
    signed_raw: bytes
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class OtkDeletion:
    """Answer to DeleteOneTimeKeys: `result` (DeleteResult), keys deleted by this command, keys that remain."""

    result: int
    deleted: int
    remaining: int


class Tre(IntEnum):
    """Bit numbers of treProperties in EUICCInfo2 (SGP.22 v2.3 on, SGP.32)."""

    DISCRETE = 0
    INTEGRATED = 1
    REMOTE_MEMORY = 2


@dataclass(frozen=True, slots=True)
class EuiccInfo2:
    """The members of EUICCInfo2 (BF22) the line decides on; `raw` keeps everything. Versions are 3 bytes.

    `highest_svn` is b"" when the chip names one `svn` only; `further_profile_versions` are those it also takes.
    `tre`: bits of its tamper resistant element (Tre), None when it does not say; `tre_product`: whose it is.
    `iot_versions`: those of SGP.32 it supports, () on a chip for consumers; `ipa_mode`: 0 in the device, 1 in the chip.
    """

    raw: bytes
    profile_version: bytes
    svn: bytes
    firmware: bytes
    free_nvm: int
    rsp_capability: frozenset[int]
    ci_pkids_verification: tuple[bytes, ...]
    ci_pkids_signing: tuple[bytes, ...]
    forbidden_pprs: frozenset[int]
    highest_svn: bytes = b""
    further_profile_versions: tuple[bytes, ...] = ()
    tre: frozenset[int] | None = None
    tre_product: str = ""
    iot_versions: tuple[bytes, ...] = ()
    ipa_mode: int | None = None

    @property
    def kind(self) -> str:
        """What the chip says it is: "iot" (SGP.32) or "consumer" (SGP.22)."""
        return "iot" if self.iot_versions else "consumer"

    @property
    def form(self) -> str:
        """How it is built: "integrated", "discrete", "" when it does not say."""
        if self.tre is None:
            return ""
        return "integrated" if Tre.INTEGRATED in self.tre else "discrete" if Tre.DISCRETE in self.tre else ""


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """One profile on the chip (E3 of GetProfilesInfo). `iccid` is None when its digits do not hold."""

    iccid: Iccid | None
    aid: bytes
    state: int
    profile_class: int
    name: str
    provider: str
    nickname: str = ""
    pprs: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Answer to GetEuiccConfiguredAddresses: the default SM-DP+ ("" = none) and the root SM-DS."""

    default_dp: str
    root_ds: str


@dataclass(frozen=True, slots=True)
class Authorisation:
    """One row of the RulesAuthorisationTable: profile policy rules, for the operators (mccMnc in hex, E = any)."""

    pprs: frozenset[int]
    operators: tuple[str, ...]
    consent: bool


@dataclass(frozen=True, slots=True)
class EimData:
    """EimConfigurationData (SGP.32 2.11.1) as far as a factory sets it; `certificate` is DER, b"" when there is none.

    `id_type`: 1 OID, 2 FQDN, 3 proprietary; `protocols`: bits of eimSupportedProtocol.
    """

    id: str
    fqdn: str = ""
    id_type: int | None = None
    counter: int | None = None
    certificate: bytes = b""
    protocols: frozenset[int] = frozenset()
    indirect_download: bool = False


@dataclass(frozen=True, slots=True)
class InitialiseSecureChannel:
    """BF23: `signed_raw` is its first four members exactly as encoded (what smdpSign covers, before 5F49 OTK)."""

    raw: bytes
    remote_op: int
    transaction_id: bytes
    key_type: int
    key_length: int
    host_id: bytes
    smdp_otpk: bytes
    smdp_sign: bytes
    signed_raw: bytes


@dataclass(frozen=True, slots=True)
class StoreMetadata:
    """The StoreMetadataRequest (BF25) as it stands, MACed but in clear, in the 88 TLVs of a BPP.

    `service_data`, `iot`: it has members that only chips with these capabilities take.
    """

    iccid: Iccid
    provider: str
    name: str
    profile_class: int
    pprs: frozenset[int]
    notification_addresses: tuple[str, ...]
    service_data: bool = False
    iot: bool = False


@dataclass(frozen=True, slots=True)
class BoundProfilePackage:
    """A BPP by shape: the bytes, the clear head of it, and the segments an FPA sends (SGP.22 2.5.5)."""

    raw: bytes
    channel: InitialiseSecureChannel
    metadata: StoreMetadata
    segments: tuple[bytes, ...]
    ppk: bool


@dataclass(frozen=True, slots=True)
class PrepareDownload:
    """The factory form of PrepareDownload (BF21, FPX/1): which key, which order, signed by whom."""

    raw: bytes
    transaction_id: bytes
    otk_public: bytes
    smdp_signed2_raw: bytes
    smdp_signature2: bytes
    smdp_certificate: bytes
    other_certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PrepareAnswer:
    """Answer to PrepareDownload: the one-time key taken, or `error` (DownloadErrorCode)."""

    transaction_id: bytes | None
    otk_public: bytes | None
    error: int | None


@dataclass(frozen=True, slots=True)
class InstallResult:
    """ProfileInstallationResult (BF37). Success has `aid`; failure has `command` and `reason` (SGP.22 5.7.5).

    `signed_raw` is the complete BF27 TLV as received, which `signature` covers.
    """

    raw: bytes
    signed_raw: bytes
    signature: bytes
    transaction_id: bytes
    seq_number: int
    events: frozenset[int]
    notification_address: str
    iccid: Iccid | None
    smdp_oid: str
    success: bool
    aid: bytes | None
    command: int | None
    reason: int | None
    sima_response: bytes
    pe_status: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PirEntry:
    """A result kept by the chip, found in its notification list: sequence number and, when fetched, the result."""

    seq_number: int
    events: frozenset[int]
    iccid: Iccid | None


@dataclass(frozen=True, slots=True)
class SignedNotification:
    """An OtherSignedNotification (SGP.22 2.8.1): of an enabling, disabling or deletion, signed by the eUICC.

    `signed_raw` is the complete NotificationMetadata TLV (BF2F) as received, which `signature` covers.
    """

    raw: bytes
    signed_raw: bytes
    signature: bytes
    seq_number: int
    events: frozenset[int]
    iccid: Iccid | None


class RspCapability(IntEnum):
    """Bit numbers of rspCapability in EUICCInfo2 (SGP.22 v2/v3) that a package may need."""

    ADDITIONAL_PROFILE = 0
    TEST_PROFILE = 3
    SERVICE_SPECIFIC_DATA = 5
    IOT_SPECIFIC_METADATA = 26


class InstallError(IntEnum):
    """errorReason of a ProfileInstallationResult (SGP.22 v2/v3); readers keep unknown numbers as they are."""

    INCORRECT_INPUT_VALUES = 1
    INVALID_SIGNATURE = 2
    INVALID_TRANSACTION_ID = 3
    UNSUPPORTED_CRT_VALUES = 4
    UNSUPPORTED_REMOTE_OPERATION_TYPE = 5
    UNSUPPORTED_PROFILE_CLASS = 6
    BSP_STRUCTURE_ERROR = 7
    BSP_SECURITY_ERROR = 8
    ICCID_ALREADY_EXISTS = 9
    INSUFFICIENT_MEMORY = 10
    INTERRUPTION = 11
    PE_PROCESSING_ERROR = 12
    DATA_MISMATCH = 13
    INVALID_NAA_KEY = 14
    PPR_NOT_ALLOWED = 15
    ENTERPRISE_PROFILES_NOT_SUPPORTED = 17
    ENTERPRISE_RULES_NOT_ALLOWED = 18
    ENTERPRISE_PROFILE_NOT_ALLOWED = 19
    ENTERPRISE_OID_MISMATCH = 20
    ENTERPRISE_RULES_ERROR = 21
    ENTERPRISE_PROFILES_ONLY = 22
    LPR_NOT_SUPPORTED = 23
    UNKNOWN_TLV_IN_METADATA = 26
    INSUFFICIENT_MINIMUM_SECURITY_LEVEL = 31
    SERVER_ADDRESS_ABSENT = 32
    UNKNOWN_ERROR = 127


# Only these reasons leave the one-time key usable for the byte-identical package (FPX/1 10.7, SGP.22 retry rule).
TEMPORARY_REASONS = frozenset({InstallError.INSUFFICIENT_MEMORY, InstallError.INTERRUPTION})


class BppCommand(IntEnum):
    """bppCommandId of a failed installation."""

    INITIALISE_SECURE_CHANNEL = 0
    CONFIGURE_ISDP = 1
    STORE_METADATA = 2
    STORE_METADATA2 = 3
    REPLACE_SESSION_KEYS = 4
    LOAD_PROFILE_ELEMENTS = 5


class DownloadError(IntEnum):
    """DownloadErrorCode of PrepareDownload."""

    INVALID_CERTIFICATE = 1
    INVALID_SIGNATURE = 2
    UNSUPPORTED_CURVE = 3
    NO_SESSION_CONTEXT = 4
    INVALID_TRANSACTION_ID = 5
    UNDEFINED = 127


def number_name(kind: type[IntEnum], number: int | None) -> str:
    """Name a result number in words; an unknown one keeps its number."""
    if number is None:
        return "none"
    try:
        return f"{kind(number).name.lower()}({number})"
    except ValueError:
        return f"unknown({number})"


def version_text(version: bytes) -> str:
    """Write a version of EUICCInfo2 the way people do: 2.6.0."""
    return ".".join(map(str, version))


def version_bytes(text: str) -> bytes:
    """Return what `version_text` wrote; b"" for ""."""
    return bytes(map(int, text.split("."))) if text else b""


def firmware_name(eid: Eid, info2: EuiccInfo2) -> str:
    """Name a chip's firmware, as in 89049032/1.4.2: versions are the maker's, so its number in the EID goes before."""
    return f"{eid[:8]}/{version_text(info2.firmware)}"
