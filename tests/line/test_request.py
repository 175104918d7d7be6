"""Requests: what is missing, no more, each on a key of its own; the simulated SM-DPf serves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ifpp.errors import SupplyError
from ifpp.line.intake import import_file
from ifpp.line.request import RequestReport, Wish, still_needed, write_requests
from ifpp.sim import documents
from ifpp.sim.documents import BoundPackage
from ifpp.sim.profiles import ProfileStock
from ifpp.sim.template import build_template
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from ifpp.trust.chain import TrustStore
from tests.line.supply import now, write_chips, write_delivery
from tests.sim.parties import TYPE, Parties, stock
from tests.store.world import Node, job, load
from tests.store.world import stock as fill

WISH = Wish("S", "R", (Planned(TYPE),))


def bootstraps() -> ProfileStock:
    """Profiles of a second type."""
    templates = [build_template(4_000, seed=2)]
    names = {"provider": "P", "iccid_prefix": "8988247", "imsi_prefix": "00101"}
    return ProfileStock("bootstrap", templates, **names, first_serial=500)


def wish(*profile_types: str, sku: str = "S") -> Wish:
    return Wish(sku, "R", tuple(Planned(kind) for kind in profile_types))


class Plant:
    """A factory that asks, a supplier that answers."""

    def __init__(self, folder: Path, url: str, chips: int = 4, keys: int = 2) -> None:
        self.folder = folder
        self.parties = Parties()
        self.factory = Factory.open(url)
        self.profiles = {TYPE: stock(), "bootstrap": bootstraps()}
        self.trust_store = TrustStore([self.parties.tree.ci.der])
        self.chips = [self.parties.eum.issue(keys=keys) for _ in range(chips)]
        self.take(write_chips(folder / "lot-1.esed.jsonl", self.parties, self.chips))

    def take(self, path: Path) -> None:
        import_file(path, self.factory, self.trust_store, now=now(), line="L1")

    def ask(self, wanted: Wish = WISH, **options: object) -> RequestReport:
        given: dict[str, object] = {"order_ref": "order-1", "now": now()} | options
        return write_requests(self.factory, self.folder / "out", wanted, **given)  # type: ignore[arg-type]

    def serve(self, report: RequestReport, expires_at: str = "") -> list[BoundPackage]:
        """Have the SM-DPf fulfil every request, and take the deliveries in."""
        made: list[BoundPackage] = []
        for path in report.files:
            request = documents.read_request(path)
            packages = list(self.parties.smdpf.fulfil(request, self.profiles))
            good = [package for package in packages if isinstance(package, BoundPackage)]
            assert good == packages
            good = [replace(package, expires_at=expires_at) for package in good]
            delivery = self.folder / f"{request.request_id}.esbpp.jsonl"
            write_delivery(delivery, good, self.parties.smdpf)
            self.take(delivery)
            made += good
        return made


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path, f"sqlite:///{tmp_path / 'factory.db'}")
    yield made
    made.factory.close()


def test_what_is_missing_is_asked_for_and_then_nothing_is(plant: Plant) -> None:
    report = plant.ask()
    assert (report.packages, report.chips, report.covered, report.short) == (4, 4, 0, 0)
    assert {package.eid for package in plant.serve(report)} == {chip.record.eid for chip in plant.chips}
    again = plant.ask()
    assert (again.files, again.packages, again.covered) == ([], 0, 4)


def test_a_request_that_is_repeated_asks_for_the_same_keys(plant: Plant) -> None:
    first, second = (documents.read_request(plant.ask().files[0]) for _ in range(2))
    assert first.request_id != second.request_id
    assert first.items == second.items


def test_several_profiles_take_a_key_each(plant: Plant) -> None:
    report = plant.ask(wish(TYPE, "bootstrap"))
    assert (report.packages, report.chips) == (8, 4)
    items = documents.read_request(report.files[0]).items
    assert len({(item.eid, item.otk_id) for item in items}) == 8
    plant.serve(report)
    assert plant.ask(wish("bootstrap", TYPE)).covered == 4
    lacking = plant.ask(wish("bootstrap", TYPE, "third"))
    assert (lacking.packages, lacking.short, lacking.files) == (0, 4, [])


def test_only_what_lacks_is_asked_for(plant: Plant) -> None:
    plant.serve(plant.ask())
    report = plant.ask(wish(TYPE, "bootstrap"))
    assert {item.profile_type for item in documents.read_request(report.files[0]).items} == {"bootstrap"}
    assert report.packages == 4


def test_a_quantity_counts_what_is_covered(plant: Plant) -> None:
    plant.serve(plant.ask(quantity=1))
    report = plant.ask(quantity=3)
    assert (report.packages, report.covered, report.missing) == (2, 1, 0)
    plant.serve(report)
    short = plant.ask(quantity=9)
    assert (short.packages, short.covered, short.missing) == (1, 3, 5)
    plant.serve(short)
    assert plant.ask(quantity=2).packages == 0


def test_chips_for_something_else_are_left_alone(plant: Plant) -> None:
    plant.serve(plant.ask(quantity=3))
    report = plant.ask(wish(TYPE, sku="OTHER"))
    assert (report.packages, report.elsewhere) == (1, 3)


def test_a_lot_is_named_by_its_file_or_number(plant: Plant) -> None:
    more = [plant.parties.eum.issue(keys=1) for _ in range(2)]
    plant.take(write_chips(plant.folder / "lot-2.esed.jsonl", plant.parties, more))
    assert plant.ask(lot="lot-2.esed.jsonl").chips == 2
    assert plant.ask(lot="1").chips == 4
    assert plant.ask().chips == 6
    for lot in ("3", "lot", "'; DROP TABLE chip; --", "../lot-1.esed.jsonl"):
        with pytest.raises(SupplyError, match=r"LOT\.UNKNOWN"):
            plant.ask(lot=lot)


def test_an_expired_package_is_asked_for_again(plant: Plant) -> None:
    plant.serve(plant.ask(quantity=3), expires_at="2098-01-01T00:00:00Z")
    plant.serve(plant.ask())
    assert plant.ask().covered == 4
    late = plant.ask(now=datetime(2099, 1, 1, tzinfo=UTC))
    assert (late.covered, late.packages) == (1, 3)


def test_each_eum_gets_a_file_of_its_own(plant: Plant) -> None:
    other = Parties()
    trust = TrustStore([plant.parties.tree.ci.der, other.tree.ci.der])
    path = write_chips(plant.folder / "other.esed.jsonl", other, [other.eum.issue(keys=1) for _ in range(5)][4:])
    import_file(path, plant.factory, trust, now=now(), line="L1")
    report = plant.ask()
    assert sorted(len(documents.read_request(path).items) for path in report.files) == [1, 4]
    chains = {documents.read_request(path).eum_chain for path in report.files}
    assert chains == {plant.parties.eum.chain, other.eum.chain}


def test_each_smdp_that_a_plan_names_gets_a_file_of_its_own(plant: Plant) -> None:
    named = Wish("S", "R", (Planned(TYPE, plant.parties.smdpf.oid), Planned("bootstrap", "2.999.77")))
    report = plant.ask(named)
    kinds = {path.name.partition("-")[0]: documents.read_request(path).items for path in report.files}
    assert {oid: {item.profile_type for item in items} for oid, items in kinds.items()} == {
        plant.parties.smdpf.oid: {TYPE},
        "2.999.77": {"bootstrap"},
    }
    report.files = [path for path in report.files if plant.parties.smdpf.oid in path.name]
    plant.serve(report)
    assert plant.ask(Wish("S", "R", named.profiles[:1])).covered == 4
    assert plant.ask(Wish("S", "R", (Planned(TYPE, "2.999.77"),))).packages == 4


def test_a_withdrawn_delivery_is_asked_for_again(plant: Plant) -> None:
    plant.serve(plant.ask())
    plant.factory.withdraw("2", "planner", "wrong tariff", now())
    assert (plant.ask().packages, plant.ask().covered) == (4, 0)


def test_units_that_passed_are_not_asked_for_again(tmp_path: Path) -> None:
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as factory:
        fill(factory, 3)
        order = job(quantity=3)
        assert still_needed(factory, order) == 3
        node = Node()
        load(factory, 1, node=node)
        load(factory, 2, "SPENT", node=node)
        assert still_needed(factory, order) == 2
        assert still_needed(factory, job(quantity=1)) == 0
        assert still_needed(factory, job(job_order_id="JO-2", quantity=3)) == 3
        assert still_needed(factory, job(operation="REWORK", quantity=3)) == 3
        for ended in ("COMPLETED", "ABORTED", "CANCELLED", "CLOSED"):
            assert still_needed(factory, job(quantity=9, dispatch_status=ended)) == 0
