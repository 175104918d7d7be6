"""An online download end to end: virtual chip, station, SM-DP+ over HTTPS, journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.fpa.rsp import deliver
from ifpp.model.states import PackageState
from ifpp.sim.smdp_plus import State
from tests.fpa.online import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_a_profile_is_fetched_loaded_and_told(site: Site) -> None:
    order, seat = site.release(), site.seat()
    got = site.download(seat)
    assert got.verdict.fault is None
    assert (got.verdict.state, got.verdict.spent, got.tied) == (PackageState.INSTALLED, True, True)
    assert got.iccid == order.profile.iccid
    assert seat.iccids == {got.iccid}
    assert site.book.left_open(seat.eid) is None
    assert [notice.raw for notice in site.book.owed_of(seat.eid)] == [got.verdict.pir.raw]
    assert order.state is State.DOWNLOADED
    deliver(seat.chip, seat.eid, site.es9(), site.book)
    assert order.state is State.INSTALLED
    assert site.book.owed_of(seat.eid) == ()
    assert seat.chip.notifications() == ()
