"""Build a small world for a demo, a test or a benchmark: chips, eUICC data, deliveries and job orders, as files.

    <directory>/                          mode 0700
        pki/ci.der                        the CI root, public: the factory's trust root
        esed/batch-<seed>.esed.jsonl      eUICC data (EUM -> factory)
        delivery/<job>.esbpp.jsonl        one delivery for each job order (SM-DPf -> factory)
        jobs/<job>.job.json               job orders
        jobs/units.traveller.jsonl        what the MES says each unit is to become
        cards/<eid>.card.json             private: what is inside each chip (see card_file)
        smdpf/                            private: SM-DPf key and orders (see SmDpf.load)
        smdp-plus/                        private: of a world whose chips download, in place of esed and smdpf: keys
                                          and orders of its SM-DP+ (see smdp_file); pki/ci.pem vouches for its TLS,
                                          and delivery/<job>.codes.jsonl has the activation codes of each job order
        world.json                        {"seed", "units": [{"eid", "sn", "job", "station", "fault", "iccids"}, ...]}

Who exists, what is planned to fail and every size come from the seed; keys never do. CI and EUM keys are forgotten.

Planned faults (`fault` in world.json, `faults.class` in the card file):
    small_memory   the chip reports enough memory but has none: install error (5, 10)
    no_package     the SM-DPf delivers nothing for this chip
    dead           no ATR
    contact        the first seating loses contact in the middle of the load, the next one works
    tampered       one byte of a delivered 86 was altered after signing, its sha256 matches: install error (5, 8)
A world whose chips download leaves out the two that concern deliveries.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.sim import card_file, documents, pki, smdp_file
from ifpp.sim.documents import BoundPackage, Request, RequestItem
from ifpp.sim.eum import FREE_NVM, Chip, Eum, Make
from ifpp.sim.profiles import ProfileStock
from ifpp.sim.smdp_plus import SmdpPlus
from ifpp.sim.smdpf import Refusal, SmDpf
from ifpp.sim.template import build_template
from ifpp.sim.tlv import parse, parse_one

FAULT_CLASSES = ("small_memory", "no_package", "dead", "contact", "tampered")
FAULT_CLASSES_ONLINE = ("dead", "contact", "small_memory")  # the last keeps its SM-DP+ waiting for the bad news
_OF_DELIVERIES = ("no_package", "tampered")
_TEMPLATES_PER_TYPE = 4
_TOO_LITTLE_NVM = 2_048
# a load starts after about 20 APDUs (select, identity, status, PrepareDownload) and takes 4 for each 1007 bytes
_FIRST_LOAD_APDU = 30
_IMSI_PREFIX = "00101"
_ICCID_PREFIX = "8988247"
_SERIALS_PER_JOB = 1_000_000
_SPARE_CODES = 2
_EVERY_CONFIRMED = 4  # one activation code in so many asks for a confirmation code


class JobPlan(NamedTuple):
    """One job order to make; its units go to `stations` in turn (none named: every station of the line).

    `recipe`: name and version of the recipe it chooses, ("", "") = the name of its first profile type, version 1;
    `types`: the profile types each unit gets, in loading order; none named: one that is called like the product.
    """

    job_order_id: str
    sku: str
    region: str
    stations: Sequence[str] = ()
    recipe: tuple[str, str] = ("", "")
    types: Sequence[str] = ()

    @property
    def profile_types(self) -> tuple[str, ...]:
        """The profile types ordered for this product."""
        return tuple(self.types) or (f"{self.sku}-{self.region}".lower(),)


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """One unit: device serial number, chip, where it is to be made, the planned fault ("" or its class).

    `iccids` are the profiles the SM-DPf delivered for it, in loading order.
    """

    eid: str
    sn: str
    job: str
    station: str
    fault: str
    iccids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorldSummary:
    """What build_world made: paths below `directory`, units in feeding order.

    `esed` None: nobody delivers data of its chips. `smdp_plus`: the address they download from, "" = they do not.
    """

    directory: Path
    ci: Path
    esed: Path | None
    deliveries: tuple[Path, ...]
    job_orders: tuple[Path, ...]
    travellers: Path
    units: tuple[UnitPlan, ...]
    smdp_plus: str = ""

    @property
    def packages(self) -> int:
        """How many packages the deliveries hold."""
        return sum(len(unit.iccids) for unit in self.units)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit while the world is being built."""

    number: int
    chip: Chip
    fault: str


@dataclass(frozen=True, slots=True)
class _Operator:
    """Whose profiles they are: of each type in four sizes spread over `profile_kb`, or like `templates` in turn."""

    seed: int
    profile_kb: tuple[int, int]
    templates: Sequence[bytes]
    first_serial: int

    def stock(self, index: int, profile_type: str) -> ProfileStock:
        """Profiles of one type with numbers of their own."""
        low, high = self.profile_kb
        sizes = [1000 * low + 1000 * (high - low) * n // (_TEMPLATES_PER_TYPE - 1) for n in range(_TEMPLATES_PER_TYPE)]
        made = self.templates or [build_template(size, seed=self.seed) for size in sizes]
        return ProfileStock(
            profile_type,
            made,
            provider="IFPP Sim Mobile",
            iccid_prefix=_ICCID_PREFIX,
            imsi_prefix=_IMSI_PREFIX,
            first_serial=self.first_serial + index * _SERIALS_PER_JOB,
        )


@dataclass(frozen=True, slots=True)
class _Supplier:
    """Serves one job after another: EUM data and SM-DPf, and the options that are the same for all jobs."""

    directory: Path
    seed: int
    eum: Eum
    smdpf: SmDpf
    rng: random.Random
    operator: _Operator
    ppk: bool | None
    profiles_per_unit: int

    def serve(self, index: int, job: JobPlan, units: Sequence[_Unit]) -> tuple[Path, Path, list[UnitPlan]]:
        """Write delivery and job order of one job; return their paths and the plan of its units."""
        request = self._request(job, units)
        iccids: dict[str, list[str]] = {}
        delivery = self.directory / "delivery" / f"{job.job_order_id}.esbpp.jsonl"
        kinds = job.profile_types
        stocks = {name: self.operator.stock(index * len(kinds) + place, name) for place, name in enumerate(kinds)}
        documents.write_delivery(
            delivery,
            self._packages(request, stocks, units, iccids),
            delivery_id=f"delivery-{job.job_order_id}",
            request_id=request.request_id,
            order_ref=request.order_ref,
            smdp_oid=self.smdpf.oid,
            smdp_chain=self.smdpf.chain,
        )
        order = self.directory / "jobs" / f"{job.job_order_id}.job.json"
        documents.write_job_order(order, _job_document(job, len(units)))
        return delivery, order, _unit_plans(self.seed, job, units, iccids)

    def _packages(
        self,
        request: Request,
        stocks: Mapping[str, ProfileStock],
        units: Sequence[_Unit],
        iccids: dict[str, list[str]],
    ) -> Iterator[BoundPackage]:
        """Yield the delivery's packages, altered where planned, and note each one's ICCID under its EID."""
        altered = {unit.chip.record.eid for unit in units if unit.fault == "tampered"}
        for answer in self.smdpf.fulfil(request, stocks, ppk=self.ppk):
            match answer:
                case Refusal(reason=reason):
                    raise RuntimeError(f"the SM-DPf refuses its own world: {reason}")
                case package:
                    iccids.setdefault(package.eid, []).append(package.iccid)
                    yield self._tampered(package) if package.eid in altered else package

    def _request(self, job: JobPlan, units: Sequence[_Unit]) -> Request:
        """Ask for each unit's profiles, one one-time key each; units planned to have none are left out."""
        items = tuple(
            _request_item(unit.chip, slot, job)
            for unit in units
            if unit.fault != "no_package"
            for slot in range(max(self.profiles_per_unit, len(job.types)))
        )
        info2 = {unit.chip.record.info2_type: self.eum.info2(unit.chip) for unit in units[:1]}
        return Request(f"request-{job.job_order_id}", job.job_order_id, self.eum.chain, info2, items)

    def _tampered(self, package: BoundPackage) -> BoundPackage:
        return replace(package, bpp=tamper(package.bpp, self.rng.randrange))


@dataclass(frozen=True, slots=True)
class _Online:
    """As `_Supplier`, with activation codes of an SM-DP+; who gets which profile is known when it is downloaded."""

    directory: Path
    seed: int
    smdp: SmdpPlus
    operator: _Operator
    profiles_per_unit: int

    def serve(self, index: int, job: JobPlan, units: Sequence[_Unit]) -> tuple[Path, Path, list[UnitPlan]]:
        """Write activation codes and job order of one job; return their paths and the plan of its units."""
        kinds, codes = job.profile_types, []
        each = max(self.profiles_per_unit, len(job.types)) // len(kinds)
        for place, kind in enumerate(kinds):
            stock = self.operator.stock(index * len(kinds) + place, kind)
            for number in range(each * len(units) + _SPARE_CODES):
                name = f"{job.job_order_id}-{place}-{number:06d}"
                confirmation = f"{secrets.randbelow(10**8):08d}" if number % _EVERY_CONFIRMED == 0 else ""
                self.smdp.release(name, stock.take(), code=confirmation)
                codes.append(_code_item(self.smdp.address, name, confirmation, kind, job))
        delivery = self.directory / "delivery" / f"{job.job_order_id}.codes.jsonl"
        documents.write_codes(delivery, codes, delivery_id=f"codes-{job.job_order_id}")
        order = self.directory / "jobs" / f"{job.job_order_id}.job.json"
        documents.write_job_order(order, _job_document(job, len(units)))
        return delivery, order, _unit_plans(self.seed, job, units, {})


def build_world(
    directory: Path,
    *,
    units: int,
    seed: int,
    jobs: Sequence[JobPlan],
    profile_kb: tuple[int, int] = (12, 60),
    templates: Sequence[bytes] = (),
    ppk: bool | None = None,
    otks_per_chip: int = 3,
    profiles_per_unit: int = 1,
    faults: int = 0,
    fault_classes: Sequence[str] = FAULT_CLASSES,
    dm_master: bytes = b"",
    make: Make | None = None,
    smdp_plus: str = "",
) -> WorldSummary:
    """Make a fresh world in `directory` (created; FileExistsError when it holds one already).

    Units are dealt to the jobs in turn. `profile_kb` is the range of profile sizes in 1000 bytes, each type comes in
    four sizes spread over it; `templates` are SAIP packages to take in turn instead. `ppk` None takes
    session-key and random-key mode in turn. `dm_master`, `make`: see Eum. `faults` units, chosen by the seed, get
    the `fault_classes` in turn. `smdp_plus`: host:port that chips without one-time keys download from; then nobody
    delivers data of chips or packages.
    Raises ValueError for numbers that do not fit together.
    """
    if not 0 <= faults <= units or not len(jobs) <= units or not jobs:
        raise ValueError(f"{units} units do not suffice for {len(jobs)} jobs and {faults} faults")
    if smdp_plus:
        otks_per_chip, fault_classes = 0, [one for one in fault_classes if one not in _OF_DELIVERIES]
    elif not 1 <= profiles_per_unit <= otks_per_chip:
        raise ValueError(f"{profiles_per_unit} profiles a unit need as many one-time keys, not {otks_per_chip}")
    rng = random.Random(seed)  # noqa: S311 - plans, not secrets
    plan = _fault_plan(units, faults, fault_classes, rng)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    for name in ("pki", "delivery", "jobs", "cards", *(("smdp-plus",) if smdp_plus else ("esed", "smdpf"))):
        (directory / name).mkdir(mode=0o700)
    tree = pki.Pki.create()
    eum = Eum(tree, seed=seed, dm_master=dm_master, make=make)
    last_apdu = _FIRST_LOAD_APDU + 2 * (min(map(len, templates)) // 1000 if templates else profile_kb[0])
    made = [
        _Unit(number, _personalise(eum, fault, otks_per_chip, lambda: rng.randint(_FIRST_LOAD_APDU, last_apdu)), fault)
        for number, fault in enumerate(plan, start=1)
    ]
    ci = _write_chips(directory, tree, made)
    operator = _Operator(seed, profile_kb, templates, rng.randrange(90_000) * _SERIALS_PER_JOB)
    shares = [(n, JobPlan(*job), made[n :: len(jobs)]) for n, job in enumerate(jobs)]
    if smdp_plus:
        esed = None
        served = _serve_online(
            _Online(directory, seed, _new_smdp(tree, smdp_plus), operator, profiles_per_unit), shares, tree
        )
    else:
        esed = _write_esed(directory, seed, eum, made)
        smdpf = SmDpf(tree.dppb, tree.ci.der)
        supplier = _Supplier(directory, seed, eum, smdpf, rng, operator, ppk, profiles_per_unit)
        served = [supplier.serve(*share) for share in shares]
        smdpf.save(directory / "smdpf")
    plans = sorted((plan for _, _, part in served for plan in part), key=lambda plan: plan.sn)
    _write_plan(directory, seed, plans)
    travellers = _write_travellers(
        directory, plans, {job.job_order_id: job.sku for job in (JobPlan(*job) for job in jobs)}
    )
    deliveries = tuple(delivery for delivery, _, _ in served)
    orders = tuple(order for _, order, _ in served)
    return WorldSummary(directory, ci, esed, deliveries, orders, travellers, tuple(plans), smdp_plus)


def tamper(bpp: bytes, choose: Callable[[int], int]) -> bytes:
    """Flip one bit in the middle of one 86 of a BPP; `choose(n)` says which of the n."""
    blocks = parse(parse_one(bpp, 0xBF36).need(0xA3).value)
    chosen = choose(len(blocks))
    behind = sum(len(block.raw) for block in blocks[chosen + 1 :])
    at = len(bpp) - behind - len(blocks[chosen].value) // 2
    return bpp[:at] + bytes((bpp[at] ^ 0x01,)) + bpp[at + 1 :]


def _fault_plan(units: int, faults: int, classes: Sequence[str], rng: random.Random) -> list[str]:
    """Return the planned fault of each unit: "" or one of `classes`, these in turn."""
    unknown = set(classes) - set(FAULT_CLASSES)
    if unknown or (faults and not classes):
        raise ValueError(f"fault classes are {', '.join(FAULT_CLASSES)}; not {', '.join(sorted(unknown)) or 'none'}")
    plan = [""] * units
    for turn, unit in enumerate(sorted(rng.sample(range(units), faults))):
        plan[unit] = classes[turn % len(classes)]
    return plan


def _personalise(eum: Eum, fault: str, keys: int, pull_at: Callable[[], int]) -> Chip:
    """Issue one chip with its planned fault built in."""
    hints: dict[str, Any] = {"class": fault} if fault else {}
    if fault == "contact":
        hints["pull_at_apdu"] = pull_at()
    free_nvm = _TOO_LITTLE_NVM if fault == "small_memory" else FREE_NVM
    return eum.issue(keys=keys, free_nvm=free_nvm, reported_nvm=FREE_NVM, faults=hints)


def _write_chips(directory: Path, tree: pki.Pki, units: Sequence[_Unit]) -> Path:
    """Write root certificate and card files; return the path of the root."""
    ci = directory / "pki" / "ci.der"
    ci.write_bytes(tree.ci.der)
    for unit in units:
        card_file.save(unit.chip.card, directory / "cards")
    return ci


def _write_esed(directory: Path, seed: int, eum: Eum, units: Sequence[_Unit]) -> Path:
    esed = directory / "esed" / f"batch-{seed}.esed.jsonl"
    first = units[0].chip
    documents.write_esed(
        esed,
        (unit.chip.record for unit in units),
        batch_id=f"batch-{seed}",
        eum_chain=eum.chain,
        info2={first.record.info2_type: eum.info2(first)},
    )
    return esed


def _new_smdp(tree: pki.Pki, address: str) -> SmdpPlus:
    smdp = SmdpPlus.create(tree)
    smdp.address = address
    return smdp


def _serve_online(
    online: _Online, shares: Sequence[tuple[int, JobPlan, Sequence[_Unit]]], tree: pki.Pki
) -> list[tuple[Path, Path, list[UnitPlan]]]:
    """Serve every job, and keep the SM-DP+ with all its orders."""
    served = [online.serve(*share) for share in shares]
    host = online.smdp.address.partition(":")[0]
    tls = pki.below(tree.ci, replace(pki.DPTLS, hosts=(host,)), pki.name_of("IFPP Sim SM-DP+", host))
    (online.directory / "pki" / "ci.pem").write_bytes(tree.ci.certificate.public_bytes(Encoding.PEM))
    smdp_file.save(online.smdp, tls, online.directory / "smdp-plus")
    return served


def _code_item(address: str, matching_id: str, confirmation: str, profile_type: str, job: JobPlan) -> dict[str, str]:
    item = {
        "activation_code": f"1${address}${matching_id}{'$$1' if confirmation else ''}",
        "profile_type": profile_type,
        "sku": job.sku,
        "region": job.region,
    }
    return item | ({"confirmation_code": confirmation} if confirmation else {})


def _unit_plans(seed: int, job: JobPlan, units: Sequence[_Unit], iccids: Mapping[str, list[str]]) -> list[UnitPlan]:
    stations = tuple(job.stations) or ("",)
    return [
        UnitPlan(
            eid=unit.chip.record.eid,
            sn=f"SN{seed % 10_000:04d}{unit.number:06d}",
            job=job.job_order_id,
            station=stations[place % len(stations)],
            fault=unit.fault,
            iccids=tuple(iccids.get(unit.chip.record.eid, ())),
        )
        for place, unit in enumerate(units)
    ]


def _write_plan(directory: Path, seed: int, plans: Sequence[UnitPlan]) -> None:
    document = {"seed": seed, "units": [asdict(plan) for plan in plans]}
    (directory / "world.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _write_travellers(directory: Path, plans: Sequence[UnitPlan], skus: Mapping[str, str]) -> Path:
    """Write what the MES says each unit is to become."""
    path = directory / "jobs" / "units.traveller.jsonl"
    units = ({"sn": plan.sn, "sku": skus[plan.job], "eid": plan.eid, "job_order_id": plan.job} for plan in plans)
    documents.write_travellers(path, units)
    return path


def _request_item(chip: Chip, slot: int, job: JobPlan) -> RequestItem:
    record = chip.record
    otk_id, otk_public = record.one_time_keys[slot]
    return RequestItem(
        eid=record.eid,
        otk_id=otk_id,
        otk_public=otk_public,
        euicc_certificate=record.certificate,
        otk_list=record.otk_list,
        info2_type=record.info2_type,
        profile_type=job.profile_types[slot % len(job.profile_types)],
        sku=job.sku,
        region=job.region,
    )


def _job_document(job: JobPlan, quantity: int) -> dict[str, Any]:
    return {
        "job_order_id": job.job_order_id,
        "version": 1,
        "product": {"part_number": job.sku},
        "region": job.region,
        "recipe": {"name": job.recipe[0] or job.profile_types[0], "revision": job.recipe[1] or "1"},
        "quantity": quantity,
        "stations": list(job.stations),
        "dispatch_status": "READY",
    }
