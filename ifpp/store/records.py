"""What goes into the factory database and what comes out of it, as frozen values.

Times are aware UTC on the way in and RFC 3339 UTC text with milliseconds on the way out (fixed width, so that texts
sort like times). Binary ids are bytes on the way in and lower-case hex on the way out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import msgspec

from ifpp.errors import WireError
from ifpp.model.chip import OneTimeKey
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Rejected
from ifpp.wire.audit import Checkpoint, entry_bytes

MAX_SEQ = 2**53 - 1  # line contract 4.2
MAX_EVENT_BYTES = 256 * 1024

EventId = Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z._:-]{1,64}$")]


# ---- in: deliveries ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChipItem:
    """One eUICC of an Esed2 file: certificates as DER, `eum_chain` from the EUM up to but without the CI root.

    `otk_list` is the signed one-time-key list as received, `keys` what it says; a key without public point is spent
    and not taken.
    """

    eid: Eid
    certificate: bytes
    eum_chain: tuple[bytes, ...]
    info2: bytes
    otk_list: bytes
    keys: tuple[OneTimeKey, ...]


@dataclass(frozen=True, slots=True)
class PackageItem:
    """One package of an Esbpp delivery; `bpp` is opaque and kept byte for byte, `bpp_sha256` its digest in hex."""

    eid: Eid
    otk_id: bytes
    transaction_id: bytes
    iccid: Iccid
    profile_type: str
    sku: str
    region: str
    smdp_oid: str
    smdp_chain: tuple[bytes, ...]
    order_ref: str
    prepare_download: bytes
    bpp: bytes = field(repr=False)
    bpp_sha256: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TravellerItem:
    """What the MES says of one unit: serial number, SKU, and where it knows them the chip's EID and the job order."""

    sn: str
    sku: str
    eid: str = ""
    job_order_id: str = ""


@dataclass(frozen=True, slots=True)
class CodeItem:
    """One activation code (SGP.22 4.1) with its confirmation code; `address` in lower case, "" = what it lacks."""

    address: str
    matching_id: str = field(repr=False)
    profile_type: str
    sku: str
    region: str
    oid: str = ""
    confirmation_code: str = field(default="", repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """An imported file."""

    number: int
    kind: str
    name: str
    sha256: str
    imported_at: str
    chips: int
    packages: int
    jobs: int
    travellers: int = 0


@dataclass(frozen=True, slots=True)
class ChipRow:
    """One eUICC as the store knows it; `keys` maps the one-time-key id (hex) to its public point (65 bytes)."""

    eid: str
    certificate: bytes
    eum_chain: tuple[bytes, ...]
    info2: bytes
    otk_list: bytes
    keys: dict[str, bytes]
    clean_to_ship_at: str | None


# ---- in: events -------------------------------------------------------------------------------------


class _Envelope(msgspec.Struct):
    schema: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{1,40}/[0-9]{1,4}[.][0-9]{1,4}$")]
    id: EventId
    node_id: EventId
    seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One durable event as it came from a node: `body` is the JSON document byte for byte.

    Node ids are unique in one factory database: (node_id, seq) names an event for ever.
    """

    node_id: str
    seq: int
    id: str
    schema: str
    body: bytes

    @classmethod
    def parse(cls, node_id: str, body: bytes) -> ReceivedEvent:
        """Read the envelope of a document that came over the topic of `node_id`.

        Raises WireError when no (node_id, seq, id) can be told, or another node is named: such a document cannot be
        acknowledged; keep it with `Factory.park`.
        """
        if len(body) > MAX_EVENT_BYTES:
            raise WireError(f"an event of {len(body)} bytes, the limit is {MAX_EVENT_BYTES}", where=node_id)
        try:
            envelope = _ENVELOPE.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"no event envelope: {error}", where=node_id) from error
        if envelope.node_id != node_id:
            raise WireError(f"the document names node {envelope.node_id}", where=node_id)
        return cls(node_id, envelope.seq, envelope.id, envelope.schema, body)


@dataclass(frozen=True, slots=True)
class TakeResult:
    """What was taken from one node: `through` and `rejected` go into the ack, `fresh` are the seqs new by this call."""

    node_id: str
    through: int
    rejected: tuple[Rejected, ...]
    fresh: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """An event that was refused and kept for people; `seq` and `id` are 0 and "" when they could not be read."""

    node_id: str
    seq: int
    id: str
    code: str
    text: str
    body: bytes
    at: str
    number: int


# ---- out: the books ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """Mass balance of one SKU, region and SM-DPf; `holds` says whether the states add up to what was imported."""

    sku: str
    region: str
    smdp_oid: str
    imported: int
    available: int
    claimed: int
    sent: int
    installed: int
    failed: int
    unknown: int
    destroyed: int

    @property
    def holds(self) -> bool:
        states = (self.available, self.claimed, self.sent, self.installed, self.failed, self.unknown, self.destroyed)
        return self.imported == sum(states)


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """Exact unit figures of one job order and operation (line contract 5.1, 5.2): integers, no ratios."""

    job_order_id: str
    operation: str
    units: int
    attempts: int
    first_pass: int
    first_error: int
    final_pass: int
    final_fail: int
    retested: int
    recovered: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One step of one package; `from_state` is "" for its import."""

    entry: int
    revision: int
    from_state: str
    to_state: str
    at: str
    node_id: str
    head_id: str
    attempt_id: str
    event_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class WordRow:
    """What one unit_result said of a package, oldest first; `moved` is false for a late word that changed nothing."""

    node_id: str
    seq: int
    head_id: str
    state: str
    spent: bool
    reason: str
    pir_bytes: int
    moved: bool
    ended_at: str
    taken_at: str


@dataclass(frozen=True, slots=True)
class ReportedRow:
    """That a Profile Loading Report names a package as `state`; acknowledged when somebody said so, else "".

    `verdict` and `reason`: what the SM-DPf says of this item; "" = nothing yet.
    """

    report_id: str
    smdp_oid: str
    file: str
    created_at: str
    state: str
    acknowledged_at: str
    told_by: str
    verdict: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A written report and how far it has come; what has not happened is "".

    `verified`, `noted`, `refused`: items by the word of the SM-DPf, None before it has answered.
    """

    report_id: str
    smdp_oid: str
    file: str
    sha256: str
    items: int
    created_at: str
    key_id: str
    signature: bytes
    delivered_at: str
    delivered_to: str
    acknowledged_at: str
    told_by: str
    answered_at: str
    verified: int | None
    noted: int | None
    refused: int | None


@dataclass(frozen=True, slots=True)
class RefusedItemRow:
    """An item of a report that the SM-DPf does not accept, and why."""

    package_id: str
    eid: str
    iccid: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReworkRow:
    """One rework order and how far it has come.

    `sku`, `region`: what the unit becomes, "" = stock. `packages` profiles are to go, `gone` are gone; `failed`: the
    chip refused last; `reprovisioned`: a new profile of sku and region is on the chip.
    """

    rework_id: str
    eid: str
    sku: str
    region: str
    sealed: bool
    told_by: str
    reason: str
    at: str
    packages: int
    gone: int
    failed: bool
    reprovisioned: bool

    @property
    def removed(self) -> bool:
        """Whether nothing of it is left on the chip."""
        return self.gone == self.packages


@dataclass(frozen=True, slots=True)
class RemovalRow:
    """A profile that left its chip; `notification_b64` is the chip's signed word, "" where it kept none."""

    package_id: str
    rework_id: str
    at: str
    node_id: str
    seq: int
    result: int | None
    notification_b64: str


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One package: its steps, what was said of it and where it was reported, each oldest first.

    `removed`: how its profile left the chip again; None: it did not.
    """

    package_id: str
    iccid: str
    profile_type: str
    sku: str
    region: str
    smdp_oid: str
    transaction_id: str
    otk_id: str
    bpp_sha256: str
    state: str
    spent: bool
    lease_until: str | None
    history: tuple[LedgerRow, ...]
    words: tuple[WordRow, ...]
    reports: tuple[ReportedRow, ...]
    removed: RemovalRow | None = None

    @property
    def is_code(self) -> bool:
        """Whether it is an activation code: its ICCID is the package id until it is installed."""
        return self.transaction_id == self.package_id


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One work cycle of one unit, from its unit_result event, and when that was taken here.

    `firmware` to `block_size`: of the chip and the link to it; "" , None or 0 where the station did not learn them.
    """

    node_id: str
    seq: int
    event_id: str
    transaction_id: str
    sn: str
    eid: str
    operation: str
    job_order_id: str
    head_id: str
    attempt: int
    result: str
    outcome_class: str
    disposition: str
    clean_to_ship: bool
    defect: str
    started_at: str
    ended_at: str
    cycle_ms: int
    load_ms: int
    firmware: str
    atr: str
    protocol: str
    bit_rate: int | None
    block_size: int
    taken_at: str


@dataclass(frozen=True, slots=True)
class AskedLaterRow:
    """A work cycle nobody had allowed, and what the MES said when it was asked afterwards; `result` "": not yet."""

    node_id: str
    head_id: str
    operation: str
    job_order_id: str
    ended_at: str
    result: str
    code: str
    text: str
    answered_at: str

    @property
    def words(self) -> str:
        """The answer in words."""
        if not self.result:
            return "the MES has not been asked yet"
        return ": ".join(filter(None, (self.result, self.code, self.text)))


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """All that is known of one unit; `sns` are the serial numbers its eUICC was seen under."""

    eid: str
    sns: tuple[str, ...]
    clean_to_ship_at: str | None
    packages: tuple[PackageRow, ...]
    attempts: tuple[AttemptRow, ...]
    reworks: tuple[ReworkRow, ...] = ()
    asked_later: tuple[AskedLaterRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What a Profile Loading Report says of one package: its present state and the result that brought it there.

    `deleted_at`: when its profile left the chip again, "" = it did not; `notification`: the chip's signed word of that.
    """

    package_id: str
    eid: str
    iccid: str
    transaction_id: str
    state: str
    spent: bool
    reason: str
    pir: bytes | None
    node_id: str
    head_id: str
    started_at: str
    ended_at: str
    taken_at: str
    deleted_at: str = ""
    notification: bytes | None = None


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A package that is neither on the shelf nor settled, or one that never can be loaded any more (`stranded`).

    Since when it is so, who has or had it (`node_id`, `head_id`, `attempt_id`), and until when its lease runs.
    """

    package_id: str
    eid: str
    iccid: str
    sku: str
    region: str
    smdp_oid: str
    state: str
    since: str
    node_id: str
    head_id: str
    attempt_id: str | None
    lease_until: str | None
    detail: str
    stranded: bool


# ---- out: the audit log -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Where a chain of the audit log ends: `hash` is that of entry `number`."""

    chain_id: str
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of a chain; `facts` are canonical JSON, `cleared_eid` is set for a clean_to_ship entry only."""

    chain_id: str
    number: int
    at: str
    kind: str
    facts: bytes
    hash: bytes
    cleared_eid: str | None

    def canonical(self) -> bytes:
        """Return the bytes the hash covers, after the hash of the entry before."""
        return entry_bytes(self.chain_id, self.number, self.at, self.kind, self.facts)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A signature under a chain as it was at entry `number` (r||s, 64 bytes)."""

    chain_id: str
    number: int
    hash: bytes
    at: str
    key_id: str
    signature: bytes

    def statement(self, factory_id: str) -> Checkpoint:
        """Return what was signed."""
        return Checkpoint(
            at=self.at,
            chain=self.chain_id,
            factory_id=factory_id,
            hash=self.hash.hex(),
            key_id=self.key_id,
            number=self.number,
        )


@dataclass(slots=True)
class Refusal:
    """What the store refused, and how often in a short time; `who` is a caller or an address."""

    who: str
    operation: str
    code: str
    detail: str
    times: int = 1
