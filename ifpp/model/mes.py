"""The documents between a line and its MES: job orders, route checks, the line's own log (line contract 4.1, 4.3).

Words and states are ISA-95's (B2MML JobOrder, DispatchStatus). Readers ignore unknown keys and accept unknown words.
Everything the MES sends has a `request_id` (UUID): the same one twice is answered alike and done once.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ifpp.model.messages import Message, Product, Recipe, UnitRef, UnitResultEvent

Command = Annotated[
    str, msgspec.Meta(examples=["STORE", "START", "HOLD", "RESUME", "STOP", "ABORT", "CLOSE"], max_length=32)
]
DispatchStatus = Annotated[
    str,
    msgspec.Meta(
        examples=["WAITING", "PENDING", "READY", "RUNNING", "HELD", "SUSPENDED", "COMPLETED", "ABORTED", "CANCELLED"]
    ),
]
RoutePolicy = Annotated[str, msgspec.Meta(examples=["BLOCK", "CACHE", "ALLOW_AND_RECONCILE", "OFF"])]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class ProfileNeed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """So many profiles of one type on every unit of a job."""

    type: Name
    per_unit: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class EidList(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The chips a job is made of, in a file: SHA-256 in hex and the number of EIDs."""

    url: str
    sha256: str
    count: Count


class JobOrder(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`L/cmd/job_order` (MES -> line): idempotent on (`job_order_id`, `version`, `command`); answered within 5 s.

    STORE creates or changes an order that has not ended; all else acts on one that is stored, except that START of an
    unknown order stores it first. `route_policy`: what happens to a unit whose route check has no answer; "OFF" asks
    nothing. `due_at`, `start_at`: RFC 3339 UTC.
    """

    schema: str
    request_id: Name
    job_order_id: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    command: Command
    product: Product | None = None
    region: Text = ""
    recipe: Recipe | None = None
    quantity: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None
    operation: Text = "PROFILE_LOAD"
    work_order_id: Text = ""
    lot_id: Text = ""
    customer: Text = ""
    stations: list[Name] = []
    priority: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    start_at: Text = ""
    due_at: Text = ""
    profile_types: list[ProfileNeed] = []
    eids_ref: EidList | None = None
    route_policy: RoutePolicy = "BLOCK"
    reason: Text = ""


class JobOrderAnswer(Message, kw_only=True):
    """`L/cmd_rsp/job_order`: `status` is ACCEPTED, REJECTED (then `code` says why) or DUPLICATE."""

    request_id: str
    job_order_id: str
    status: str
    dispatch_status: DispatchStatus = ""
    code: str = ""
    text: str = ""


class JobOrderState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One order: where it stands. `good` units are clean to ship, `started` have a first attempt."""

    version: int
    dispatch_status: DispatchStatus
    quantity: int
    started: int
    good: int
    failed: int
    since: str
    work_order_id: str = ""
    due_at: str = ""
    reason: str = ""


class JobOrders(Message, kw_only=True):
    """`L/state/job_orders`, retained: every order that has not been closed for a day, by its id."""

    epoch: int
    orders: dict[str, JobOrderState]


class RouteCheck(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`S/req/route_check` and `L/req/route_check`: may this unit be worked on, here, now?

    The same `request_id` may come once more after half of `deadline_ms`; it is answered alike. `worked_at`: when it was
    worked on already, for nobody answered then (ALLOW_AND_RECONCILE); "" = it waits for the answer.
    """

    schema: str
    request_id: Name
    unit: UnitRef
    operation: Text
    station_id: Name
    head_id: Name
    job_order_id: Text
    recipe: Recipe
    checks: tuple[str, ...] = ("ROUTE", "STATUS", "DUPLICATE_EID", "MATERIAL")
    deadline_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)] = 2000
    worked_at: str = ""


class RouteAnswer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`S/req_rsp/route_check` and `L/req_rsp/route_check`.

    `result`: PASS, FAIL, SKIPPED or ERROR. `source`: MES, CACHE or OFF - who decided. `sku`: what the traveller says
    the unit is, where the MES knows it.
    """

    schema: str
    request_id: Name
    result: str
    code: Text = ""
    text: Text = ""
    source: str = "MES"
    attempt_no: int | None = None
    valid_until: str = ""
    sku: Text = ""
    sn: Text = ""


class LineUnitResult(UnitResultEvent, kw_only=True):
    """`L/evt/unit_result`: a station's result as the MES gets it, under the line's own `seq`, without the PIR.

    `source_node` and `source_seq` name the station's event.
    """

    source_node: str
    source_seq: int
    rework: bool = False


class Material(Message, kw_only=True):
    """`S/evt/material`, `L/evt/material`: used up. `kind` BPP: `ref` is its SHA-256; SOCKET: the socket's id."""

    kind: str
    qty_used: int
    qty_spoiled: int = 0
    remaining: int | None = None
    profile_type: str = ""
    ref: str = ""
    unit: UnitRef | None = None
    job_order_id: str = ""
    source_node: str = ""


class MaterialActual(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a job used of one profile type."""

    profile_type: str
    consumed: int
    spoiled: int


class JobResponse(Message, kw_only=True):
    """`L/evt/job_response`: an order has ended; the figures are those of the event log (ISA-95 JobResponse)."""

    job_order_id: str
    version: int
    job_state: DispatchStatus
    quantity: int
    units_in: int
    good: int
    failed: int
    attempts: int
    first_pass: int
    started_at: str = ""
    ended_at: str = ""
    work_order_id: str = ""
    product: Product | None = None
    reason: str = ""
    materials: tuple[MaterialActual, ...] = ()


class TypeStock(msgspec.Struct, kw_only=True):
    need: int
    have: int


class JobStock(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How far the packages of one job reach; `hours_left` at the present rate, absent when nothing is used."""

    expected_units: int
    eids_known: int
    covered: int
    uncovered: int
    spare: int
    spoiled: int
    coverage_ratio: float
    hours_left: float | None = None
    profile_types: dict[str, TypeStock] = {}


class Stock(Message, kw_only=True):
    """`L/state/stock`, retained: coverage of each open job by its id."""

    epoch: int
    jobs: dict[str, JobStock]


class PlrReady(Message, kw_only=True):
    """`L/evt/plr_ready`: a Profile Loading Report was written; the file itself never goes over MQTT."""

    plr_id: str
    smdp_f: str
    from_: str = msgspec.field(name="from")
    to: str
    records: int
    sha256: str
    url: str
    signed_by: str = ""
