"""The documents that processes exchange: MQTT contract (ifpp1) and the store's HTTP interface.

Field names and meaning: the line contract. Readers ignore unknown keys; an absent key means unknown.
Counts and `*_ms` are integers, ids are strings, times are RFC 3339 UTC with milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ifpp.model.recipe_run import RecipeRun

# What the store's HTTP interface takes: checked when a document is read, written into its OpenAPI description.
Id = Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z][0-9A-Za-z._:-]{0,127}$")]
EidText = Annotated[str, msgspec.Meta(pattern="^[0-9]{32}$")]
CACHE_HEAD = "station.cache"
"""Head id of a claim made ahead, for a station to work without the store; no head can be called so."""
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
MaybeWords = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Message(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The common envelope of every MQTT document; `seq` only on durable events.

    `clock_ok` false: the sender's clock is off by more than half a second from the supervisor's, so `ts` may be, too.
    """

    schema: str
    id: str
    ts: str
    node_id: str
    boot_id: str
    clock_ok: bool = True
    seq: int | None = None


class UnitRef(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Which unit: device serial number and eUICC."""

    sn: str = ""
    eid: str = ""
    carrier_id: str = ""
    position: int | None = None


class Product(msgspec.Struct, omit_defaults=True, kw_only=True):
    part_number: str
    revision: str = ""


class Recipe(msgspec.Struct, omit_defaults=True, kw_only=True):
    name: str
    revision: str = "1"


class ProfileResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What became of one package in this attempt; `package_state` is the ledger state it settles.

    `lease_id`: the claim it was loaded under where that was made ahead of this attempt, "" = the attempt's own. `tied`
    false: of an activation code that FAILED unspent; its SM-DP+ cannot have tied it to this chip, so any may have it.
    """

    package_id: str
    iccid: str
    profile_type: str
    bpp_sha256: str
    bytes: int
    apdus: int
    retries: int
    load_ms: int
    result: str
    package_state: str
    key_consumed: bool
    pir_b64: str = ""
    error: str = ""
    lease_id: str = ""
    tied: bool = True


class RemovedProfile(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What became of one profile that a rework order takes off its chip (SGP.41 A.4).

    `state`: GONE = read back, the chip does not list it; PRESENT = the chip refused; UNKNOWN = the chip must be read
    again. `result`: what DeleteProfile answered, None when it was gone before. `notification_b64`: the chip's
    signed delete notification, verified.
    """

    package_id: str
    iccid: str
    state: str
    result: int | None = None
    notification_b64: str = ""
    error: str = ""


class Defect(msgspec.Struct, omit_defaults=True, kw_only=True):
    code: str
    text: str
    phase: str


class SealProof(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the chip showed after it was sealed: the proof behind `clean_to_ship` (SGP.41 GENS13, EUICCF03).

    `fpa_absent`: the chip has no factory services: there are no one-time keys, and nothing that could be locked.
    """

    keys_deleted: int
    keys_remaining: int
    fpa_locked: bool
    lpa_answers: bool
    fpa_absent: bool = False


class Link(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The path to the chip: ATR in hex, "T=0" or "T=1", bit/s, bytes in a block; what is not known is left out."""

    atr: str = ""
    protocol: str = ""
    bit_rate: int | None = None
    block_size: int = 0


class RouteNote(msgspec.Struct, kw_only=True):
    """A unit's route check: `result` PASS, FAIL, SKIPPED or ERROR; `source` MES, CACHE or OFF (nobody decided)."""

    request_id: str
    result: str
    source: str


class UnitResultEvent(Message, kw_only=True):
    """`S/evt/unit_result`: one work cycle of one unit on one head. `firmware`: of its chip, see `firmware_name`.

    `rework_id`: the rework order of this unit, "" = none; `removed`: the profiles that were to leave its chip. `run`:
    the recipe it was taken through, and how; `recipe` is what the job order calls it.
    """

    transaction_id: str
    operation: str
    unit: UnitRef
    job_order_id: str
    product: Product
    region: str
    recipe: Recipe
    head_id: str
    attempt: int
    result: str
    outcome_class: str
    disposition: str
    clean_to_ship: bool
    started_at: str
    ended_at: str
    cycle_ms: int
    load_ms: int
    handling_ms: int
    profiles: list[ProfileResult] = []
    removed: list[RemovedProfile] = []
    rework_id: str = ""
    defects: list[Defect] = []
    seal: SealProof | None = None
    link: Link | None = None
    firmware: str = ""
    work_order_id: str = ""
    lot_id: str = ""
    socket_id: str = ""
    operator_id: str = ""
    sw_version: str = ""
    route_check: RouteNote | None = None
    run: RecipeRun | None = None


class StateChanged(Message, kw_only=True):
    """`S/evt/state_changed`: every E10 transition of station or head.

    `inferred`: nobody was there to see it; said afterwards, of a process that had died.
    """

    resource: str
    old: str
    old_code: int
    old_duration_ms: int
    new: str
    new_code: int
    reason: str = ""
    inferred: bool = False


class Alarm(Message, kw_only=True):
    """`S/evt/alarm`: a change of an alarm's state; `source` is a head or the station (ISA-18.2, line contract 4.3)."""

    alarm_id: str
    code: str
    source: str
    priority: int
    kind: str = msgspec.field(name="class")
    state: str
    old_state: str
    text: str
    action: str
    first_at: str
    value: float | None = None
    limit: float | None = None
    operator_id: str = ""
    reason: str = ""
    shelved_until: str = ""
    count: int = 1


class OperatorAction(Message, kw_only=True):
    """`S/evt/operator_action`: what a person did; `id` is the request's id, so that a repetition is told once.

    `target`: the head, alarm or station acted on; of a HAND_OVER, who came (the station when nobody did).
    """

    action: str
    operator_id: str
    target: str
    reason_code: str = ""
    comment: str = ""


class HeadCommand(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`S/cmd/block_head` (`action` BLOCK or UNBLOCK) and `S/cmd/change_socket`: a person acts on one head; `S/cmd/lock`
    and `S/cmd/unlock`: on the station, which takes no new unit or takes them again, with `head_id` "";
    `S/cmd/republish`: it says again what is retained, and what is not acknowledged.

    `request_id` is a UUID: the same one twice is carried out once. `operator_id` names the person.
    """

    schema: str
    request_id: str
    operator_id: str
    head_id: str = ""
    action: str = ""
    reason: str = ""


class HeadState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One head. `blocked`: it takes no new unit, for `reason`.

    `cycles`: insertions of its socket, `maintenance_due` when that is all it is made for; `contact_failures` of
    `contact_units`: units whose contact failed, of those remembered; `alarms`: codes of the alarms that stand. `eid`:
    the chip seated now; `loaded` of `to_load` bytes have reached it. `lamp` came with the verdict `last` and says what
    becomes of the unit (PASS, FAIL, RESEAT, HOLD), `fault` is the code of what went wrong.
    """

    e10: str
    code: int
    phase: str
    since: str
    sn: str = ""
    last: str = ""
    ok: int = 0
    ng: int = 0
    blocked: bool = False
    reason: str = ""
    cycles: int = 0
    maintenance_due: bool = False
    contact_failures: int = 0
    contact_units: int = 0
    seconds_per_kb: float = 0.0
    alarms: list[str] = []
    eid: str = ""
    loaded: int = 0
    to_load: int = 0
    lamp: str = ""
    fault: str = ""


class HeadAnswer(Message, kw_only=True):
    """`S/cmd_rsp/...`: answer to a HeadCommand. `status` is ACCEPTED, REJECTED (then `code` says why) or DUPLICATE."""

    request_id: str
    status: str
    text: str
    code: str = ""
    head: HeadState | None = None


class HandOver(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A station went from one person to the next: `to` "" = nobody came yet; `comment`: what the next one must know."""

    at: str
    by: str
    to: str = ""
    comment: str = ""


class StationState(Message, kw_only=True):
    """`S/state/station`, retained.

    `refusing`: the fault code for which no new unit is taken, "" when units are taken; `attention`: fault code -> what
    to do; `held`: EID -> why the unit must not go on and what to do with it, the longest held first, at most 100 of
    `held_units`; `outbox_rejected`: events the supervisor put aside; `cached_units`: chips whose packages are kept
    here, the oldest for `cached_oldest_ms`; `store_away_since`: since when the station works from them alone, "" = it
    does not; `hand_over`: the last one.
    """

    e10: str
    e10_code: int
    phase: str
    since: str
    heads: dict[str, HeadState]
    job_order_id: str = ""
    operator_id: str = ""
    locked: bool = False
    lock_reason: str = ""
    outbox_depth: int = 0
    outbox_oldest_ms: int = 0
    outbox_rejected: int = 0
    refusing: str = ""
    attention: dict[str, str] = {}
    held: dict[str, str] = {}
    held_units: int = 0
    cached_units: int = 0
    cached_oldest_ms: int = 0
    store_away_since: str = ""
    hand_over: HandOver | None = None


class Online(msgspec.Struct, omit_defaults=False, kw_only=True):
    """`state/online`, retained, also the will."""

    schema: str
    node_id: str
    online: bool
    session: int
    boot_id: str
    ts: str


class HeadBirth(msgspec.Struct, omit_defaults=True, kw_only=True):
    reader: str
    socket_id: str = ""
    socket_cycles: int = 0


class OutboxRange(msgspec.Struct, kw_only=True):
    first_seq: int
    next_seq: int


class Birth(Message, kw_only=True):
    """`meta/birth`, retained: who am I. A supervisor carries its `epoch`."""

    session: int
    sw_version: str
    vendor: str = "ifpp"
    model: str = ""
    heads: dict[str, HeadBirth] = {}
    operations: list[str] = []
    contract: dict[str, str | int] = {}
    outbox: OutboxRange | None = None
    epoch: int | None = None


class Rejected(msgspec.Struct, omit_defaults=True, kw_only=True):
    seq: int
    id: str
    code: str
    text: str


class Ack(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`S/ack/evt`: everything up to and including `through` is committed; `rejected` is parked."""

    schema: str
    ts: str
    node_id: str
    epoch: int
    through: int
    rejected: list[Rejected] = []


class Job(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One job order as stations need it. `stations` empty = every station of the line.

    `route_policy`: what a head does when its route check has no answer: BLOCK, CACHE or ALLOW_AND_RECONCILE; OFF does
    not ask. Of several orders a station works on the one with the highest `priority`, then the earliest `due_at`.
    """

    job_order_id: str
    version: int
    product: Product
    region: str
    recipe: Recipe
    quantity: int
    operation: str = "PROFILE_LOAD"
    work_order_id: str = ""
    lot_id: str = ""
    customer: str = ""
    stations: list[str] = []
    dispatch_status: str = "READY"
    priority: int = 0
    due_at: str = ""
    route_policy: str = "OFF"


class FirstArticles(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A job order that no person has released for series yet: a station makes no more units of it than it has to show.

    `wanted`: units that passed in a row, and golden units, of a station that has made none; `left`: those a station has
    still to show; `made`: every attempt of it that the line knows.
    """

    wanted: int
    left: dict[str, int] = {}
    made: dict[str, int] = {}


class JobState(Message, kw_only=True):
    """`L/state/job`, retained: the desired state stations converge to after any restart.

    `first_articles`: by job order, those of `jobs` that are not open for series.
    """

    epoch: int
    jobs: list[Job]
    first_articles: dict[str, FirstArticles] = {}


class LineState(Message, kw_only=True):
    """`L/state/line`, retained."""

    epoch: int
    stations: dict[str, bool]
    units: int
    passed: int
    failed: int


# ---- the store's HTTP interface ------------------------------------------------------------------


class ClaimRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/claims`: the packages of one chip for one SKU and region; idempotent by `attempt_id`.

    Where a profile plan holds for them, or for them and the customer, those it names; else all. `job_order_id`: the job
    they are for; `sn`: the serial number on the unit, where the station can read it.
    """

    attempt_id: Id
    eid: EidText
    sku: Words
    region: Words
    station_id: Id
    head_id: Id
    lease_s: Annotated[int, msgspec.Meta(ge=1, le=7 * 24 * 3600)] = 900
    customer: MaybeWords = ""
    job_order_id: MaybeWords = ""
    sn: MaybeWords = ""


class ClaimedPackage(msgspec.Struct, kw_only=True):
    """A package as a head needs it; the BPP itself comes from `GET /v1/packages/{sha256}`.

    `kind` "code": no package but an `activation_code` (SGP.22 4.1, without "LPA:"), and the confirmation code where it
    asks for one. Then `iccid` is "" until the profile is installed, `smdp_oid` is the address of the SM-DP+, and there
    are no bytes: `bpp_sha256`, `otk_id`, `transaction_id` and `prepare_download_b64` are "".
    """

    package_id: str
    iccid: str
    profile_type: str
    smdp_oid: str
    transaction_id: str
    otk_id: str
    state: str
    bpp_sha256: str
    bytes: int
    prepare_download_b64: str
    sku: str = ""
    region: str = ""
    kind: str = "package"
    activation_code: str = ""
    confirmation_code: str = ""


class Claim(msgspec.Struct, kw_only=True):
    """Answer to a claim.

    `packages` are to be loaded in order; `unresolved` (SENT or UNKNOWN) must be settled by reading this chip first;
    `installed` are done, but the unit is not clean to ship yet: verify and seal it. `denied`: profile type -> firmware
    of this chip's maker that must not get it (`ifpp denylist`). `sn`: the serial number of the unit, as its traveller
    says, "" without one. `remove`: these profiles leave the chip before anything is loaded, under rework order
    `rework_id`, which stays named in later claims of the chip.
    """

    attempt_id: str
    eid: str
    lease_until: str
    euicc_certificate_b64: str
    eum_chain_b64: list[str]
    packages: list[ClaimedPackage]
    unresolved: list[ClaimedPackage] = []
    installed: list[ClaimedPackage] = []
    denied: dict[str, list[str]] = {}
    sn: str = ""
    remove: list[ClaimedPackage] = []
    rework_id: str = ""


class SentNotice(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/packages/{package_id}/sent`: from here on the lease never expires."""

    attempt_id: Id
    station_id: Id


class ReleaseNotice(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/claims/{attempt_id}/release`: nothing was sent; the packages are free again."""

    station_id: Id


class LeaseQuestion(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/leases`: how the claims that this station made ahead stand."""

    station_id: Id
    leases: Annotated[list[Id], msgspec.Meta(max_length=100)]


class LeaseAnswer(msgspec.Struct, kw_only=True):
    """Those claims that still hold packages which were not sent; those of them whose delivery was withdrawn."""

    held: list[str]
    withdrawn: list[str]


class ExpectedQuestion(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/expected`: chips this station may claim ahead for a product, by EID from `after` on."""

    station_id: Id
    sku: Words
    region: Words
    job_order_id: MaybeWords = ""
    after: Annotated[str, msgspec.Meta(pattern="^([0-9]{32})?$")] = ""


class ExpectedAnswer(msgspec.Struct, kw_only=True):
    """The next EIDs with a package on the shelf, in order, none at the end; of chips the job reserved, if it did."""

    eids: list[str]


class SignedEntry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An entry of the audit log that can be checked without the factory (see ifpp.wire.audit): hex and base64.

    `hash` = SHA-256(`previous` || canonical JSON of `entry`); `signature` over the canonical JSON of `checkpoint`.
    """

    entry: dict[str, Any]
    previous: str
    hash: str
    checkpoint: dict[str, Any] | None = None
    signature_b64: str = ""
    public_key_b64: str = ""


class UnitGate(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Answer to `GET /v1/units/{eid}/gate`: may this unit leave? If not, `code`, `reason` and `advice` say why.

    `signed` is true when the signature under the clean-to-ship entry was checked and holds.
    """

    eid: str
    clean_to_ship: bool
    signed: bool = False
    since: str = ""
    code: str = ""
    reason: str = ""
    advice: str = ""
    proof: SignedEntry | None = None


class Problem(msgspec.Struct, kw_only=True):
    """An error over HTTP: a fault code, what happened, what to do."""

    code: str
    detail: str
    advice: str
    where: str = ""


class Health(msgspec.Struct, kw_only=True):
    """Answer to `GET /healthz`."""

    alive: bool


class Readiness(msgspec.Struct, kw_only=True):
    """Answer to `GET /readyz`; while the database does not answer there is a Problem instead."""

    ready: bool
    factory_id: str
