"""Small deliveries and station reports for tests of the store: shapes are right, certificates are placeholders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ifpp.errors import IfppError, ServiceError, SupplyError
from ifpp.model.chip import OneTimeKey
from ifpp.model.clock import utc_ms_text
from ifpp.model.ids import Eid, Iccid, eid_check_digits, luhn_digit
from ifpp.model.messages import (
    Claim,
    ClaimRequest,
    Job,
    Product,
    ProfileResult,
    Recipe,
    SealProof,
    UnitRef,
    UnitResultEvent,
)
from ifpp.store.factory import Factory
from ifpp.store.records import ChipItem, PackageItem, ReceivedEvent, ResultRow, TakeResult
from ifpp.store.reports import WrittenReport
from tests.clock import START

SKU, REGION, SMDP = "TRACKER-2", "EU", "2.999.10"
SEALED = SealProof(keys_deleted=1, keys_remaining=0, fpa_locked=True, lpa_answers=True)
_serial = count(1)


def eid(number: int) -> Eid:
    first30 = f"8904999900000000{number:014d}"
    return Eid(first30 + eid_check_digits(first30))


def iccid(number: int) -> Iccid:
    payload = f"894999{number:012d}"
    return Iccid(payload + luhn_digit(payload))


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def chip_item(number: int, keys: int = 2) -> ChipItem:
    return ChipItem(
        eid=eid(number),
        certificate=b"certificate of %d" % number,
        eum_chain=(b"eum certificate",),
        info2=b"info2",
        otk_list=b"signed list of %d" % number,
        keys=tuple(
            OneTimeKey(slot, bytes([slot]) * 4, 0, 0, b"\x04" + sha256(b"%d-%d" % (number, slot)).digest() * 2)
            for slot in range(keys)
        ),
    )


def package_item(number: int, slot: int = 0, **changes: Any) -> PackageItem:
    """Package for the one-time key `slot` of chip `number`."""
    bpp = b"package %d %d " % (number, slot) * 20
    item = PackageItem(
        eid=eid(number),
        otk_id=bytes([slot]) * 4,
        transaction_id=sha256(bpp).digest()[:16],
        iccid=iccid(number * 10 + slot),
        profile_type=f"operational-{slot}",
        sku=SKU,
        region=REGION,
        smdp_oid=SMDP,
        smdp_chain=(b"smdp certificate",),
        order_ref="order-1",
        prepare_download=b"prepare %d %d" % (number, slot),
        bpp=bpp,
        bpp_sha256=sha256(bpp).hexdigest(),
    )
    return replace(item, **changes)


def import_chips(factory: Factory, items: Iterable[ChipItem], now: datetime = START) -> None:
    with factory.intake("esed", "chips.esed.jsonl", uuid4().hex, now) as intake:
        for item in items:
            intake.add_chip(item)


def import_packages(factory: Factory, items: Iterable[PackageItem], now: datetime = START) -> None:
    with factory.intake("esbpp", "order.esbpp.jsonl", uuid4().hex, now) as intake:
        for item in items:
            intake.add_package(item)


def stock(factory: Factory, chips: int, packages_each: int = 1) -> None:
    """Fill a factory with chips 1..n, each with so many packages."""
    import_chips(factory, (chip_item(number) for number in range(1, chips + 1)))
    import_packages(
        factory, (package_item(number, slot) for number in range(1, chips + 1) for slot in range(packages_each))
    )


def request(number: int, attempt_id: str = "", **changes: Any) -> ClaimRequest:
    wanted = ClaimRequest(
        attempt_id=attempt_id or f"attempt-{next(_serial)}",
        eid=str(eid(number)),
        sku=SKU,
        region=REGION,
        station_id="st01",
        head_id="h01",
        lease_s=900,
    )
    return msgspec.structs.replace(wanted, **changes)


def job(version: int = 1, **changes: Any) -> Job:
    order = Job(
        job_order_id="JO-1",
        version=version,
        product=Product(part_number=SKU),
        region=REGION,
        recipe=Recipe(name="standard"),
        quantity=100,
    )
    return msgspec.structs.replace(order, **changes)


def outcome(number: int, slot: int, state: str, *, spent: bool = False, **changes: Any) -> ProfileResult:
    """What a station says of package `slot` of chip `number`, the `slot`-th of batch 2 in a `stock` of one each."""
    item = package_item(number, slot)
    result = ProfileResult(
        package_id="",
        iccid=str(item.iccid),
        profile_type=item.profile_type,
        bpp_sha256=item.bpp_sha256,
        bytes=len(item.bpp),
        apdus=12,
        retries=0,
        load_ms=3000,
        result="PASS" if state == "INSTALLED" else "FAIL",
        package_state=state,
        key_consumed=spent,
    )
    return msgspec.structs.replace(result, **changes)


@dataclass
class Node:
    """A station that numbers its events and keeps them, to send them again."""

    node_id: str = "st01"
    seq: int = 0

    def result(
        self, number: int, attempt_id: str, profiles: Iterable[ProfileResult] = (), **changes: Any
    ) -> ReceivedEvent:
        self.seq += 1
        profiles = list(profiles)
        passed = bool(profiles) and all(profile.package_state == "INSTALLED" for profile in profiles)
        document = UnitResultEvent(
            schema="unit_result/1.0",
            id=str(uuid4()),
            ts=utc_ms_text(START),
            node_id=self.node_id,
            seq=self.seq,
            boot_id="boot",
            transaction_id=attempt_id,
            operation="PROFILE_LOAD",
            unit=UnitRef(eid=str(eid(number)), sn=f"SN{number}"),
            job_order_id="JO-1",
            product=Product(part_number=SKU),
            region=REGION,
            recipe=Recipe(name="standard"),
            head_id="h01",
            attempt=1,
            result="PASS" if passed else "FAIL",
            outcome_class="PASS" if passed else "PRODUCT",
            disposition="CONTINUE",
            clean_to_ship=passed,
            seal=SEALED if passed else None,
            started_at=utc_ms_text(later(self.seq)),
            ended_at=utc_ms_text(later(self.seq + 5)),
            cycle_ms=5000,
            load_ms=3000,
            handling_ms=2000,
            profiles=profiles,
        )
        return received(msgspec.structs.replace(document, **changes))


def received(document: UnitResultEvent) -> ReceivedEvent:
    return ReceivedEvent.parse(document.node_id, msgspec.json.encode(document))


def take_one(factory: Factory, event: ReceivedEvent, now: datetime = START) -> TakeResult:
    (answer,) = factory.take_events([event], now)
    return answer


def refusal(factory: Factory, wanted: ClaimRequest, at_s: float = 0) -> IfppError:
    """What a claim is refused with."""
    with pytest.raises((SupplyError, ServiceError)) as caught:
        factory.claim(wanted, later(at_s))
    return caught.value


def send_all(factory: Factory, claim: Claim, station_id: str = "st01") -> None:
    for package in claim.packages:
        factory.mark_sent(package.package_id, claim.attempt_id, station_id, START)


def settle(
    factory: Factory,
    claim: Claim,
    number: int,
    *words: str,
    node: Node | None = None,
    at_s: float = 0,
    **changes: Any,
) -> None:
    """Send a result with one word for each claimed package: INSTALLED, SPENT, FAILED, UNKNOWN."""
    profiles = [
        outcome(
            number,
            int(package.otk_id[:2], 16),
            "FAILED" if word == "SPENT" else word,
            spent=word == "SPENT",
            package_id=package.package_id,
        )
        for package, word in zip(claim.packages, words, strict=True)
    ]
    answer = take_one(factory, (node or Node()).result(number, claim.attempt_id, profiles, **changes), later(at_s))
    assert answer.rejected == ()


def load(
    factory: Factory, number: int, word: str = "INSTALLED", *, node: Node | None = None, at_s: float = 0, **changes: Any
) -> Claim:
    """Take a chip through its claim, its sending and its result; every package gets the same word."""
    claim = factory.claim(request(number), START)
    send_all(factory, claim)
    settle(factory, claim, number, *[word] * len(claim.packages), node=node, at_s=at_s, **changes)
    return claim


def add_job(factory: Factory, version: int = 1, **changes: Any) -> None:
    """Import a version of job order JO-1 of line L1, or of another one."""
    order = job(version, **changes)
    with factory.intake("job", "one.job.json", uuid4().hex, START) as intake:
        intake.add_job("L1", order)


def states(factory: Factory, number: int) -> list[str]:
    """Where the packages of a chip stand."""
    unit = factory.unit(eid(number))
    assert unit is not None
    return [package.state for package in unit.packages]


def way(factory: Factory, number: int, place: int = 0) -> list[str]:
    """All states one package of a chip went through."""
    unit = factory.unit(eid(number))
    assert unit is not None
    return [step.to_state for step in unit.packages[place].history]


def results(factory: Factory, smdp_oid: str, start: datetime, end: datetime) -> list[ResultRow]:
    with factory.results(smdp_oid, start, end) as rows:
        return list(rows)


def report_states(
    factory: Factory, report_id: str, states: list[tuple[str, str]], now: datetime, smdp_oid: str = SMDP
) -> None:
    """Book a report of these packages."""
    file, digest = f"{report_id}.plr.jsonl", sha256(report_id.encode()).hexdigest()
    factory.add_report(WrittenReport(report_id, smdp_oid, file, digest, len(states)), states, now)
