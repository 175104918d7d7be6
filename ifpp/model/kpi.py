"""The line's figures as a document (line contract 5.6). Counts and `_ms` are integers, ratios stand beside what they
are made of and are left out where there is nothing to divide by.
"""

from __future__ import annotations

import msgspec

from ifpp.model.messages import Message


class KpiWindow(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a document is about: [from, to), UTC. `kind` is hour, shift or job; `shift_id` names its shift or hour."""

    kind: str
    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    shift_id: str = ""
    job_order_id: str = ""


class Oee(msgspec.Struct, omit_defaults=True, kw_only=True):
    """OEE = availability x effectiveness x quality = planned time of the good ÷ planned busy time, summed over heads.

    `pq` cycles were worked and `gq` units became good; `planned_ms` and `good_planned_ms` are their planned times,
    `pru_ms` that of one unit where all have the same. Without a planned time there is availability alone.
    """

    pbt_ms: int
    apt_ms: int
    pq: int
    gq: int
    planned_ms: int = 0
    good_planned_ms: int = 0
    pru_ms: int = 0
    oee: float | None = None
    availability: float | None = None
    effectiveness: float | None = None
    quality: float | None = None


class Figures(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Figures of a line, or of one station, head, SKU, job order or operation of it (line contract 5.1).

    `units_in`: units whose first attempt ended in the window; `units_out`: whose last one did; a unit that never said
    who it is counts as an `unidentified` attempt only. `fpy` = first_pass ÷ units_in; `fpy_product` leaves first
    attempts out that ended as ERROR (`first_error`); `final_yield` = final_pass ÷ units_out; `retest_rate` =
    units_retested ÷ units_in; `recovered`: passed at last, not at first; `reseats`: attempts after one that lost
    contact, `reseat_rate` ÷ attempts. `uph`: good units an hour of the clock, `uph_run`: an hour in which its `heads`
    are productive. `failures`: entries into unscheduled down; `mtbf_s`: productive time ÷ failures, `mdt_s`: time down
    ÷ failures, `mttr_s`: that without waiting for people or parts. `state_ms`: time by E10 state.
    """

    units_in: int
    first_pass: int
    first_error: int
    units_out: int
    final_pass: int
    attempts: int
    unidentified: int
    units_retested: int
    recovered: int
    reseats: int
    good: int
    heads: int
    failures: int
    down_ms: int
    repair_ms: int
    fpy: float | None = None
    fpy_product: float | None = None
    final_yield: float | None = None
    retest_rate: float | None = None
    reseat_rate: float | None = None
    uph: float | None = None
    uph_run: float | None = None
    mtbf_s: float | None = None
    mttr_s: float | None = None
    mdt_s: float | None = None
    oee: Oee | None = None
    state_ms: dict[str, int] = {}


class Loss(msgspec.Struct, kw_only=True):
    """How often something cost time, and how much: `ms` of heads that made nothing good."""

    count: int
    ms: int


class Kpi(Message, kw_only=True):
    """`L/kpi/{hour,shift,job}`, retained: figures of one window, from the event log alone.

    `revision` 0: the window has not ended; 1: the first document after its end, and one more for each that differs, as
    when late events came. `complete`: no event of any station is missing. `rty`: product of the first pass yields of
    the operations. Those of `Figures` stand beside these for the whole (line contract 5.6). `takt_s`: planned time ÷
    units wanted, of a job order that is due the time left ÷ units left. `top_defects`: attempts by the code of their
    defect; `losses`: defects and E10 codes by time lost, the worst first.
    """

    epoch: int
    window: KpiWindow
    revision: int
    complete: bool
    units_in: int
    first_pass: int
    first_error: int
    units_out: int
    final_pass: int
    attempts: int
    unidentified: int
    units_retested: int
    recovered: int
    reseats: int
    good: int
    heads: int
    failures: int
    down_ms: int
    repair_ms: int
    fpy: float | None = None
    fpy_product: float | None = None
    final_yield: float | None = None
    retest_rate: float | None = None
    reseat_rate: float | None = None
    uph: float | None = None
    uph_run: float | None = None
    mtbf_s: float | None = None
    mttr_s: float | None = None
    mdt_s: float | None = None
    oee: Oee | None = None
    state_ms: dict[str, int] = msgspec.field(default_factory=dict)
    takt_s: float | None = None
    rty: float | None = None
    cycle_ms_p50: int | None = None
    load_ms_p50: int | None = None
    load_ms_p95: int | None = None
    top_defects: dict[str, int] = msgspec.field(default_factory=dict)
    losses: dict[str, Loss] = msgspec.field(default_factory=dict)
    stations: dict[str, Figures] = msgspec.field(default_factory=dict)
    skus: dict[str, Figures] = msgspec.field(default_factory=dict)
    jobs: dict[str, Figures] = msgspec.field(default_factory=dict)
    operations: dict[str, Figures] = msgspec.field(default_factory=dict)
