"""States of a station that its screen must show: made by hand, told to a screen as the station would."""

from __future__ import annotations

from typing import Any

import msgspec

from ifpp.model.alarms import ActiveAlarm, ActiveAlarms
from ifpp.model.kpi import Figures, Kpi, KpiWindow
from ifpp.model.mes import JobOrders, JobOrderState, JobStock, Stock
from ifpp.model.messages import HandOver, HeadState, Job, JobState, Product, Recipe, StationState

AT = "2026-11-22T08:15:30.250Z"
ENVELOPE: dict[str, Any] = {"id": "01930b3e-7c1a-7d10-8a52-0c1d2e3f4a5b", "ts": AT, "boot_id": "b"}
LOADED, TO_LOAD = 28_000, 45_000


def head(phase: str = "EMPTY", last: str = "PASS", **more: Any) -> HeadState:
    shown = {"e10": "PRD", "code": 1100, "since": AT, "ok": 310, "ng": 2, "cycles": 5120, "lamp": last}
    return HeadState(**{**shown, "phase": phase, "last": last, **more})


def eid(number: int) -> str:
    return f"{89049032_0000_0000_0000_0000_0000_0000 + number}"


def heads(count: int = 8) -> dict[str, HeadState]:
    loading = [
        head("LOADING", eid=eid(n), sn=f"SN{n:05}", loaded=LOADED * (n % 5) // 4, to_load=TO_LOAD)
        for n in range(1, count + 1)
    ]
    found = {f"h{n:02}": one for n, one in enumerate(loading, 1)}
    found["h01"] = head("EMPTY")
    if count > 3:
        found["h04"] = head("VERDICT", eid=eid(4), sn="SN00004")
    return found


def station(states: dict[str, HeadState] | None = None, **more: Any) -> StationState:
    told: dict[str, Any] = {"e10": "PRD", "e10_code": 1100, "phase": "LOADING", "since": AT, "job_order_id": "JO-1042"}
    return StationState(
        schema="station/1.0",
        node_id="st01",
        heads=heads() if states is None else states,
        **ENVELOPE,
        **{**told, **more},
    )


JOB = Job(
    job_order_id="JO-1042", version=1, product=Product(part_number="TRACKER-EU"), region="EU",
    recipe=Recipe(name="load"), quantity=5000,
)  # fmt: skip
OTHER = msgspec.structs.replace(JOB, job_order_id="JO-1043", dispatch_status="READY")
JOBS = JobState(schema="job/1.0", node_id="_line", epoch=1, jobs=[JOB, OTHER], **ENVELOPE)
ORDERS = JobOrders(
    schema="job_orders/1.0", node_id="_line", epoch=1, **ENVELOPE,
    orders={
        "JO-1042": JobOrderState(
            version=1, dispatch_status="RUNNING", quantity=5000, started=1301, good=1290, failed=4, since=AT,
            due_at="2026-11-22T20:15:30.250Z",
        )
    },
)  # fmt: skip
STOCK = Stock(
    schema="stock/1.0", node_id="_line", epoch=1, **ENVELOPE,
    jobs={
        "JO-1042": JobStock(
            expected_units=5000, eids_known=5000, covered=3710, uncovered=0, spare=10, spoiled=1, coverage_ratio=1.0,
            hours_left=11.9,
        )
    },
)  # fmt: skip
FIGURES = Figures(
    units_in=600, first_pass=590, first_error=3, units_out=600, final_pass=598, attempts=610, unidentified=0,
    units_retested=8, recovered=8, reseats=5, good=598, heads=8, failures=1, down_ms=0, repair_ms=0,
    fpy=0.9833, uph=312.0,
)  # fmt: skip
SHIFT = Kpi(
    schema="kpi/1.0", node_id="_line", epoch=1, revision=0, complete=True, stations={"st01": FIGURES},
    **msgspec.structs.asdict(FIGURES),
    window=KpiWindow(kind="shift", start="2026-11-22T05:00:00.000Z", end="2026-11-22T13:00:00.000Z"), **ENVELOPE,
)  # fmt: skip


def alarms() -> ActiveAlarms:
    def one(code: str, source: str, priority: int, state: str, said: str, action: str) -> ActiveAlarm:
        return ActiveAlarm(
            code=code, source=source, priority=priority, state=state, text=said, action=action, first_at=AT
        )

    return ActiveAlarms(
        schema="alarms/1.0", node_id="st01", horn=True, shelved=1, **ENVELOPE,
        alarms={
            "a1": one("A-140", "st01/h03", 1, "UNACK_ALARM", "the same EID or ICCID in two units", "hold both units"),
            "a2": one("A-110", "st01/h02", 2, "UNACK_ALARM", "contact errors in a row", "clean or replace the socket"),
            "a3": one("A-113", "st01/h05", 3, "ACK_ALARM", "socket at the end of its life", "change the socket"),
            "a4": msgspec.structs.replace(
                one("A-151", "st01", 3, "SHELVED", "clock wrong", "call IT"),
                reason="IT is on it",
                shelved_until="2026-11-22T09:15:30.250Z",
            ),
        },
    )  # fmt: skip


def troubled() -> StationState:
    """A bad day: a lost reader, a quarantine, a unit on hold, one to be seated again, a state nobody knows."""
    states = heads(12) | {
        "h02": head(
            "QUARANTINED", "ERROR", lamp="RESEAT", reason="A-110: 3 different units in a row lost contact", blocked=True
        ),
        "h03": head("VERDICT", "ERROR", lamp="HOLD", fault="TRIANGLE.MISMATCH", eid=eid(3)),
        "h05": head("VERDICT", "ERROR", lamp="RESEAT", fault="CONTACT.LOST", eid=eid(5)),
        "h06": head("VERDICT", "FAIL", fault="EUICC.NO_MEMORY", eid=eid(6)),
        "h07": head("RETIRED", "PASS"),
        "h08": head("POLISHING", "PASS"),
    }
    held = {eid(3): "CONTACT.LOST: seat the same unit again"}
    last = HandOver(at=AT, by="carol", to="anna", comment="h07 waits for a socket")
    return station(states, held=held, held_units=1, outbox_depth=31, hand_over=last)


def told(**documents: msgspec.Struct) -> dict[str, bytes]:
    """Documents by place, as the window says them."""
    places = {
        "station": "st01/state/station", "jobs": "_line/state/job", "orders": "_line/state/job_orders",
        "stock": "_line/state/stock", "shift": "_line/kpi/shift", "alarms": "st01/state/alarms",
    }  # fmt: skip
    return {places[name]: msgspec.json.encode(document) for name, document in documents.items()}


def normal() -> dict[str, bytes]:
    return told(station=station(), jobs=JOBS, orders=ORDERS, stock=STOCK, shift=SHIFT)


def alarmed() -> dict[str, bytes]:
    return told(station=troubled(), jobs=JOBS, orders=ORDERS, stock=STOCK, shift=SHIFT, alarms=alarms())


def crowded() -> dict[str, bytes]:
    return told(station=station(heads(64)), jobs=JOBS, orders=ORDERS, stock=STOCK, shift=SHIFT)
