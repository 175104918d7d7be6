"""Any row of accidents, then a quiet attempt: one profile, one binding, and everybody says the same of it."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifpp.errors import ServiceError
from ifpp.fpa.rsp import deliver
from ifpp.model.states import PackageState
from ifpp.sim.smdp_plus import State
from tests.fpa.online import Site
from tests.fpa.test_rsp import STEPS, fault

_FUNCTIONS = [*STEPS, "cancelSession", "handleNotification"]
_TROUBLES = st.dictionaries(
    st.sampled_from(_FUNCTIONS),
    st.lists(st.sampled_from(["cut", "cut_after", "503", "garbage"]), max_size=4),
    max_size=3,
)
_ACCIDENTS = st.lists(
    st.fixed_dictionaries(
        {"troubles": _TROUBLES, "pull_at": st.integers(0, 90), "executed": st.booleans(), "seat_again": st.booleans()}
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(accidents=_ACCIDENTS, keeps_session=st.booleans(), code=st.sampled_from(["", "1357"]))
def test_any_row_of_accidents(site: Site, accidents: list[dict[str, Any]], keeps_session: bool, code: str) -> None:
    matching_id = f"C-{len(site.smdp.orders)}"
    order, seat = site.release(matching_id, code=code, attempts_left=100), site.seat(keeps_session=keeps_session)
    for accident in accidents:
        site.server.troubles.update(accident["troubles"])
        at = accident["pull_at"]
        seat.port.pull_at = len(seat.port.sent) + at if at else 0
        seat.port.executed = bool(accident["executed"])
        got = site.download(seat, matching_id, confirmation_code=code)
        assert got.verdict.spent == (got.verdict.state is PackageState.INSTALLED)
        if got.notice is not None and not seat.port.pull_at:
            try:
                deliver(seat.chip, seat.eid, site.es9(), site.book)
            except ServiceError:
                assert site.book.owed_of(seat.eid)
        if seat.port.pull_at or accident["seat_again"]:
            seat.seat_again()
        site.server.troubles.clear()
    last = site.download(seat, matching_id, confirmation_code=code)
    assert (fault(last), last.verdict.state) == ("", PackageState.INSTALLED)
    assert seat.iccids == {last.iccid}
    deliver(seat.chip, seat.eid, site.es9(), site.book)
    assert (order.state, order.bindings) == (State.INSTALLED, 1)
    installs = {
        entry["raw"] for entry in site.smdp.notifications if entry.get("installed") and entry["eid"] == seat.eid
    }
    assert len(installs) == 1, "one result says installed, however often it was brought"
