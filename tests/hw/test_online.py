"""An online download through every kind of port: readers under pcscd, modems, slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ifpp.fpa.chip import Chip
from ifpp.fpa.rsp import deliver, download
from ifpp.model.ids import Eid
from ifpp.model.rsp import ActivationCode, DownloadOrder
from ifpp.model.states import PackageState
from ifpp.sim.euicc import Euicc
from ifpp.sim.smdp_plus import State
from tests.fpa.online import Site
from tests.hw.ports import Rig


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("rsp"))
    yield made
    made.close()


def test_a_profile_comes_over_the_network_through_it(rig: Rig, site: Site) -> None:
    matching_id = f"M-{len(site.smdp.orders)}"
    waiting = site.release(matching_id)
    card = site.eum.issue(keys=0).card
    port = rig.port()
    port.open()
    assert port.wait_removed(5.0)
    rig.seat(Euicc(card))
    assert port.wait_seated(5.0)
    chip = Chip(port)
    chip.open()
    order = DownloadOrder("P-1", Eid(card.eid), ActivationCode(site.smdp.address, matching_id))
    assert chip.eid() == order.eid
    got = download(chip, order, site.lpa())
    assert (got.verdict.fault, got.verdict.state) == (None, PackageState.INSTALLED)
    deliver(chip, order.eid, site.es9(), site.book)
    assert chip.notifications() == ()
    assert [profile.iccid for profile in chip.profiles()] == [waiting.profile.iccid]
    chip.close()
    port.close()
    assert waiting.state is State.INSTALLED
