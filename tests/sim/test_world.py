"""Small worlds: everything fits together, the seed decides the plan, faults are where the plan says."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ifpp.sim import bsp, card_file, evidence, smdp_file
from ifpp.sim.documents import BoundPackage, read_lines
from ifpp.sim.eum import Chip, EuiccRecord
from ifpp.sim.profiles import personalise
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.template import build_template
from ifpp.sim.tlv import parse_one
from ifpp.sim.world import FAULT_CLASSES, FAULT_CLASSES_ONLINE, JobPlan, WorldSummary, build_world
from tests.sim.parties import opened

JOBS = [JobPlan("JO-1", "TRACKER-EU", "EU", ["st1", "st2"]), JobPlan("JO-2", "TRACKER-US", "US")]


def small(directory: Path, **options: Any) -> WorldSummary:
    chosen: dict[str, Any] = {"units": 6, "seed": 7, "jobs": JOBS, "profile_kb": (4, 7)}
    return build_world(directory, **(chosen | options))


def packages(world: WorldSummary) -> dict[str, list[BoundPackage]]:
    """Return the delivered packages by EID, after checking their digests."""
    found: dict[str, list[BoundPackage]] = {}
    for path in world.deliveries:
        for item in read_lines(path, "ifpp.esbpp-delivery")[1]:
            bpp = base64.b64decode(item["bpp"])
            assert hashlib.sha256(bpp).hexdigest() == item["bpp_sha256"]
            package = BoundPackage(
                eid=item["eid"],
                otk_id=bytes.fromhex(item["otk_id"]),
                transaction_id=bytes.fromhex(item["transaction_id"]),
                iccid=item["iccid"],
                profile_type=item["profile_type"],
                sku=item["sku"],
                region=item["region"],
                prepare_download=base64.b64decode(item["prepare_download"]),
                bpp=bpp,
            )
            found.setdefault(package.eid, []).append(package)
    return found


def chip_of(world: WorldSummary, eid: str) -> Chip:
    card = card_file.load(world.directory / "cards" / f"{eid}.card.json")
    return Chip(card, EuiccRecord(eid, card.euicc_certificate, b"", "", ()))


def test_every_delivered_profile_opens_in_its_chip_and_in_no_other(tmp_path: Path) -> None:
    world = small(tmp_path / "w")
    delivered = packages(world)
    assert len(delivered) == world.packages == 6
    for unit in world.units:
        (package,) = delivered[unit.eid]
        _, upp = opened(chip_of(world, unit.eid), 0, package)
        assert personalise(upp, package.iccid) == upp
        assert (package.iccid,) == unit.iccids
    first, second = (unit.eid for unit in world.units[:2])
    with pytest.raises(bsp.SecurityError):
        opened(chip_of(world, second), 0, delivered[first][0])


def test_job_orders_and_plan_agree(tmp_path: Path) -> None:
    world = small(tmp_path / "w")
    jobs = [json.loads(path.read_bytes())["job"] for path in world.job_orders]
    assert [(job["product"]["part_number"], job["region"], job["quantity"]) for job in jobs] == [
        ("TRACKER-EU", "EU", 3),
        ("TRACKER-US", "US", 3),
    ]
    assert [(unit.job, unit.station) for unit in world.units] == [
        ("JO-1", "st1"),
        ("JO-2", ""),
        ("JO-1", "st2"),
        ("JO-2", ""),
        ("JO-1", "st1"),
        ("JO-2", ""),
    ]
    written = json.loads((tmp_path / "w" / "world.json").read_bytes())
    assert written["seed"] == 7
    assert [unit["eid"] for unit in written["units"]] == [unit.eid for unit in world.units]
    skus = {package.eid: package.sku for group in packages(world).values() for package in group}
    assert {skus[unit.eid] for unit in world.units if unit.job == "JO-1"} == {"TRACKER-EU"}


def test_euicc_data_prove_themselves_against_the_published_root(tmp_path: Path) -> None:
    world = small(tmp_path / "w")
    assert world.esed is not None
    header, items = read_lines(world.esed, "ifpp.esed")
    chain = [base64.b64decode(text) for text in header["eum_chain"]]
    assert [item["eid"] for item in items] == [unit.eid for unit in world.units]
    for item in items:
        certificate = base64.b64decode(item["euicc_certificate"])
        key = evidence.euicc_key(certificate, chain, world.ci.read_bytes(), item["eid"])
        assert len(evidence.one_time_keys(base64.b64decode(item["otk_list"]), key, item["eid"])) == 3
        assert parse_one(base64.b64decode(header["euicc_info2"][item["info2"]])).tag == 0xBF22


def test_the_seed_decides_everything_but_the_keys(tmp_path: Path) -> None:
    one, same, other = (small(tmp_path / name, seed=seed, faults=2) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one.units == same.units
    assert one.units != other.units
    eid = next(unit.eid for unit in one.units if unit.iccids)
    assert packages(one)[eid][0].bpp != packages(same)[eid][0].bpp
    cards = [chip_of(world, eid).card for world in (one, same)]
    assert {key.public for key in cards[0].one_time_keys}.isdisjoint(key.public for key in cards[1].one_time_keys)


def test_both_key_modes_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    def modes(name: str, *, ppk: bool | None) -> list[bool]:
        made = packages(small(tmp_path / name, ppk=ppk))
        return [parse_one(package.bpp).first(0xA2) is not None for group in made.values() for package in group]

    assert sorted(modes("mixed", ppk=None)) == [False] * 4 + [True] * 2
    assert set(modes("session", ppk=False)) == {False}
    assert set(modes("random", ppk=True)) == {True}


def test_sizes_spread_over_the_range(tmp_path: Path) -> None:
    made = packages(small(tmp_path / "w", units=8, profile_kb=(4, 10)))
    sizes = sorted({len(package.bpp) // 1000 for group in made.values() for package in group})
    assert (sizes[0], len(sizes), sizes[-1]) == (4, 4, 10)


def test_given_templates_in_turn_and_two_profiles_a_unit(tmp_path: Path) -> None:
    templates = [build_template(5_000, seed=99, name=name) for name in ("given1", "given2")]
    world = small(tmp_path / "w", templates=templates, profiles_per_unit=2)
    made = packages(world)
    assert all(len(unit.iccids) == 2 for unit in world.units)
    assert len({iccid for unit in world.units for iccid in unit.iccids}) == 12
    for unit in world.units:
        for slot, package in enumerate(made[unit.eid]):
            assert b"given%d" % (slot + 1) in opened(chip_of(world, unit.eid), slot, package)[1]


def test_faults_are_planned_in_turn_and_built_in(tmp_path: Path) -> None:
    world = small(tmp_path / "w", units=10, faults=5)
    planned = {unit.fault: unit for unit in world.units if unit.fault}
    assert tuple(unit.fault for unit in world.units if unit.fault) == FAULT_CLASSES
    cards = {name: chip_of(world, unit.eid).card for name, unit in planned.items()}
    assert {name: card.faults["class"] for name, card in cards.items()} == {name: name for name in FAULT_CLASSES}
    assert cards["small_memory"].free_nvm < 4_000 < cards["small_memory"].reported_nvm
    assert 30 <= cards["contact"].faults["pull_at_apdu"] <= 38
    assert all(chip_of(world, unit.eid).card.faults == {} for unit in world.units if not unit.fault)
    made = packages(world)
    assert planned["no_package"].eid not in made
    assert planned["no_package"].iccids == ()
    with pytest.raises(bsp.SecurityError):
        opened(chip_of(world, planned["tampered"].eid), 0, made[planned["tampered"].eid][0])
    sound = [unit for unit in world.units if unit.fault not in {"no_package", "tampered"}]
    assert all(opened(chip_of(world, unit.eid), 0, made[unit.eid][0]) for unit in sound)


def test_private_things_are_private(tmp_path: Path) -> None:
    world = small(tmp_path / "w")
    directories = [world.directory, *(entry for entry in world.directory.iterdir() if entry.is_dir())]
    assert {entry.stat().st_mode & 0o777 for entry in directories} == {0o700}
    secret = [*(world.directory / "cards").iterdir(), *(world.directory / "smdpf").iterdir()]
    assert {entry.stat().st_mode & 0o777 for entry in secret} == {0o600}
    keys = [key for unit in world.units for key in chip_of(world, unit.eid).card.one_time_keys]
    assert world.esed is not None
    public = [world.esed, *world.deliveries, *world.job_orders, world.directory / "world.json"]
    text = b"".join(path.read_bytes() for path in public)
    assert not any(key.private.hex().encode() in text or base64.b64encode(key.private) in text for key in keys)


def test_the_smdpf_of_a_world_can_be_taken_up_again(tmp_path: Path) -> None:
    world = small(tmp_path / "w")
    orders = SmDpf.load(world.directory / "smdpf").orders
    assert {order.iccid for order in orders.values()} == {iccid for unit in world.units for iccid in unit.iccids}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"units": 1}, "do not suffice"),
        ({"faults": 7}, "do not suffice"),
        ({"jobs": []}, "do not suffice"),
        ({"profiles_per_unit": 4}, "one-time keys"),
        ({"faults": 1, "fault_classes": ["gremlins"]}, "gremlins"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        small(tmp_path / "w", **options)
    assert not (tmp_path / "w").exists()


def test_a_world_is_not_built_over_another(tmp_path: Path) -> None:
    small(tmp_path / "w")
    with pytest.raises(FileExistsError):
        small(tmp_path / "w")


def test_chips_that_download_have_an_smdp_and_codes_instead_of_data(tmp_path: Path) -> None:
    world = small(tmp_path / "w", smdp_plus="localhost:4711", faults=3)
    assert (world.esed, world.packages, world.smdp_plus) == (None, 0, "localhost:4711")
    assert {unit.fault for unit in world.units} == {"", *FAULT_CLASSES_ONLINE}
    smdp, tls = smdp_file.load(world.directory / "smdp-plus")
    assert (smdp.address, smdp.ci) == ("localhost:4711", world.ci.read_bytes())
    for holder in (smdp.dpauth, smdp.dppb, tls):
        assert holder.certificate.public_key() == holder.key.public_key()
    codes = [item for path in world.deliveries for item in read_lines(path, "ifpp.activation-codes")[1]]
    assert len(codes) == len(smdp.orders) == len(world.units) + 2 * len(JOBS)
    for item in codes:
        _, address, matching_id, *flag = item["activation_code"].split("$")
        assert address == smdp.address
        assert smdp.orders[matching_id].code == item.get("confirmation_code", "")
        assert bool(flag) is bool(smdp.orders[matching_id].code)
    assert len({order.profile.iccid for order in smdp.orders.values()}) == len(codes)
    text = b"".join(
        path.read_bytes() for path in (*world.deliveries, *world.job_orders, world.directory / "world.json")
    )
    assert b"PRIVATE KEY" not in text
    assert (world.directory / "smdp-plus" / "keys.pem").stat().st_mode & 0o077 == 0
