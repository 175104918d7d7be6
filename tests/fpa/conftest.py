"""One order and fresh chips for it, from the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip
from ifpp.fpa.final import seal_differences
from ifpp.fpa.load import Order
from ifpp.fpa.seal import Seal, lock, prove
from ifpp.model.chip import Permit
from ifpp.model.ids import Eid, Iccid
from ifpp.model.recipe import IFPP_LOAD, promise
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.smdp_plus import SmdpPlus
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.trust.chain import EuiccKey, TrustStore
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.documents import read_delivery, read_esed
from ifpp.wire.fpx import parse_prepare_download
from tests.fpa.online import Site
from tests.memory_port import MemoryPort


@dataclass(frozen=True)
class Case:
    """An order, the key its chip signs with, and a way to get that chip as it was personalised."""

    order: Order
    otk_id: bytes
    key: EuiccKey
    card: Path

    def port(self) -> MemoryPort:
        return MemoryPort(Euicc.load(self.card))


def seal(chip: Chip, eid: Eid, permit: Permit | None = None) -> Seal:
    """What the recipe `ifpp-load` ends with: delete, lock, look."""
    proof = prove(chip, lock(chip, eid, permit))
    if missing := seal_differences(promise(IFPP_LOAD), proof):
        raise CardError("EUICC.NOT_SEALED", "; ".join(missing), where=f"EID {eid}")
    return proof


def cases(world: WorldSummary) -> list[Case]:
    trust = TrustStore([world.ci.read_bytes()])
    assert world.esed is not None
    with world.esed.open("rb") as stream:
        header, records = read_esed(stream)
        certificates = {record.eid: record.euicc_certificate for record in records}
    made = []
    for path in world.deliveries:
        with path.open("rb") as stream:
            delivery, items = read_delivery(stream)
            for item in items:
                eid = Eid(item.eid)
                order = Order(
                    package_id=item.bpp_sha256.hex(),
                    eid=eid,
                    iccid=Iccid(item.iccid),
                    transaction_id=bytes(item.transaction_id),
                    smdp_oid=delivery.smdp_oid,
                    prepare=parse_prepare_download(item.prepare_download),
                    bpp=parse_bpp(item.bpp),
                )
                key = trust.euicc(certificates[item.eid], header.eum_chain, eid, datetime.now(UTC))
                made.append(Case(order, bytes(item.otk_id), key, world.directory / "cards" / f"{eid}.card.json"))
    return made


@pytest.fixture
def make_cases(tmp_path: Path) -> Callable[..., list[Case]]:
    """Build a world of `units` and return its cases; keywords as of `build_world`."""

    def make(units: int = 1, **options: object) -> list[Case]:
        folder = tmp_path / f"world-{len(list(tmp_path.iterdir()))}"
        plan = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]
        return cases(build_world(folder, units=units, seed=7, jobs=plan, **options))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """What an online download needs, with an SM-DP+ behind HTTPS; started once a module."""
    made = Site(tmp_path_factory.mktemp("rsp"))
    yield made
    made.close()


@pytest.fixture
def site(whole_site: Site) -> Site:
    """The site with an SM-DP+ as new and an empty book."""
    smdp = SmdpPlus.create(whole_site.tree)
    smdp.address = whole_site.smdp.address
    whole_site.smdp = whole_site.server.smdp = smdp
    whole_site.server.troubles.clear()
    for sql in ("DELETE FROM rsp_session", "DELETE FROM rsp_notice"):
        whole_site.empty(sql)
    return whole_site
