"""Activation codes: taken in, tied to a chip by its claim, settled and given back; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ifpp.errors import CustodyError, IfppError, IntakeError, SupplyError
from ifpp.model.messages import CACHE_HEAD, Claim, ExpectedQuestion, ProfileResult
from ifpp.model.rsp import ActivationCode
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from ifpp.store.records import CodeItem
from tests.clock import START
from tests.store.raw import REFUSALS, raw
from tests.store.world import (
    REGION,
    SKU,
    Node,
    eid,
    iccid,
    later,
    refusal,
    request,
    results,
    states,
    stock,
    take_one,
    way,
)

HOST = "smdp.example.com"


def code_item(number: int, **changes: Any) -> CodeItem:
    return replace(CodeItem(HOST, f"MATCH-{number}", "operational-0", SKU, REGION), **changes)


def import_codes(factory: Factory, *items: CodeItem, name: str = "codes.jsonl", **options: Any) -> None:
    with factory.intake("codes", name, uuid4().hex, START, **options) as intake:
        for place, item in enumerate(items, 1):
            intake.add_code(item, f"line {place}")


def codes(factory: Factory, number: int) -> None:
    import_codes(factory, *map(code_item, range(1, number + 1)))


def matching_ids(claim: Claim) -> list[str]:
    return [ActivationCode.parse(package.activation_code).matching_id for package in claim.packages]


def word(claim: Claim, state: str, number: int = 0, **changes: Any) -> ProfileResult:
    """What a station says of the one code of a claim; `number` makes the ICCID of an installed one."""
    result = ProfileResult(
        package_id=(*claim.packages, *claim.unresolved)[0].package_id,
        iccid=str(iccid(number)) if number else "",
        profile_type="operational-0",
        bpp_sha256="",
        bytes=0,
        apdus=12,
        retries=0,
        load_ms=3000,
        result="PASS" if state == "INSTALLED" else "FAIL",
        package_state=state,
        key_consumed=state == "INSTALLED",
    )
    return msgspec.structs.replace(result, **changes)


def tell(factory: Factory, node: Node, chip: int, claim: Claim, result: ProfileResult) -> tuple[str, ...]:
    """Take a station's word; return the codes of what was refused."""
    answer = take_one(factory, node.result(chip, claim.attempt_id, [result]), later(node.seq + 10))
    return tuple(one.code for one in answer.rejected)


def send(factory: Factory, claim: Claim) -> None:
    factory.mark_sent(claim.packages[0].package_id, claim.attempt_id, "st01", later(1))


def balanced(factory: Factory) -> Counter[str]:
    """Where the codes are; the books hold whatever happened."""
    assert factory.audit() == []
    (row,) = factory.balance()
    assert (row.sku, row.region, row.smdp_oid, row.holds) == (SKU, REGION, HOST, True)
    names = ("available", "claimed", "sent", "installed", "failed", "unknown", "destroyed")
    return Counter({name: getattr(row, name) for name in names if getattr(row, name)})


def test_a_code_goes_its_way_to_a_chip_nobody_knew(factory: Factory) -> None:
    codes(factory, 2)
    assert balanced(factory) == {"available": 2}
    claim = factory.claim(request(1, "a1"), START)
    (package,) = claim.packages
    assert (package.kind, package.activation_code) == ("code", f"1${HOST}$MATCH-1")
    assert (package.iccid, package.bpp_sha256, package.bytes, package.smdp_oid) == ("", "", 0, HOST)
    assert (claim.euicc_certificate_b64, claim.eum_chain_b64) == ("", [])
    assert factory.claim(request(1, "a1"), later(1)) == claim
    assert balanced(factory) == {"available": 1, "claimed": 1}
    send(factory, claim)
    assert balanced(factory) == {"available": 1, "sent": 1}
    assert tell(factory, Node(), 1, claim, word(claim, "INSTALLED", 77)) == ()
    assert balanced(factory) == {"available": 1, "installed": 1}
    unit = factory.unit(str(iccid(77)))
    assert unit is not None
    assert (unit.eid, unit.clean_to_ship_at is not None) == (str(eid(1)), True)
    assert [one.iccid for one in unit.packages] == [str(iccid(77))]
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT", "INSTALLED"]
    assert refusal(factory, request(1)).code == "UNIT.ALREADY_LOADED"
    assert results(factory, HOST, START, later(1000)) == []  # the SM-DP+ has it from the chip
    assert factory.keys_of(str(eid(1))) == {}
    assert [(one.free_keys, one.spoiled) for one in factory.lot_chips(None, START)] == []  # it has left


def test_secrets_of_a_code_reach_the_head_and_nothing_else(factory: Factory) -> None:
    import_codes(factory, code_item(1, oid="2.999.5", confirmation_code="4711"))
    (package,) = factory.claim(request(1), START).packages
    assert (package.activation_code, package.confirmation_code) == (f"1${HOST}$MATCH-1$2.999.5$1", "4711")
    with factory.audit_log() as log:
        told = b"".join(entry.facts for head in log.heads() for entry in log.entries(head.chain_id, 0, 100))
    assert b"MATCH" not in told
    assert b"4711" not in told
    assert "MATCH" not in repr(code_item(1))


def test_a_delivery_is_taken_whole_or_not_at_all(factory: Factory) -> None:
    codes(factory, 2)
    with pytest.raises(IntakeError) as caught:
        import_codes(factory, code_item(3), code_item(2), code_item(4), code_item(4))
    assert [(one.code, one.where) for one in caught.value.items] == [
        ("INTAKE.DUPLICATE", "line 4"),
        ("INTAKE.DUPLICATE", "line 2"),
    ]
    with pytest.raises(IntakeError, match=r"INTAKE\.DUPLICATE"):
        import_codes(factory, code_item(1), dry_run=True)
    import_codes(factory, code_item(9), dry_run=True)
    assert balanced(factory) == {"available": 2}
    import_codes(factory, code_item(2, address="other.example.com", sku="OTHER"))  # a matching id is of its SM-DP+
    assert [(row.kind, row.packages) for row in factory.batches()] == [("codes", 2), ("codes", 1)]


def test_no_code_for_what_has_none(factory: Factory) -> None:
    assert refusal(factory, request(1)).code == "EID.UNKNOWN"
    codes(factory, 1)
    assert refusal(factory, request(1, sku="OTHER")).code == "EID.UNKNOWN"
    factory.claim(request(1), START)
    assert refusal(factory, request(2)).code == "BPP.EXHAUSTED"
    assert refusal(factory, request(2, region="US")).code == "EID.UNKNOWN"
    assert factory.chip(str(eid(2))) is None  # a refused claim writes nothing


def test_a_released_code_is_first_its_chips_and_then_anybodys(factory: Factory) -> None:
    codes(factory, 1)
    claim = factory.claim(request(1), START)
    assert factory.release(claim.attempt_id, "st01", START) == 1
    again = factory.claim(request(1), START)
    assert again.packages == claim.packages
    factory.release(again.attempt_id, "st01", START)
    other = factory.claim(request(2), START)
    assert matching_ids(other) == ["MATCH-1"]
    assert other.packages[0].package_id != claim.packages[0].package_id
    assert states(factory, 1) == ["DESTROYED"]
    assert balanced(factory) == {"claimed": 1}
    with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
        send(factory, again)
    assert refusal(factory, request(1)).code == "BPP.EXHAUSTED"
    assert tell(factory, Node(), 1, claim, word(claim, "INSTALLED", 5)) == ("CUSTODY.EVENT_REFUSED",)
    assert balanced(factory) == {"claimed": 1}


def test_a_code_that_failed_and_may_be_tied_stays_with_its_chip(factory: Factory) -> None:
    codes(factory, 1)
    claim, node = factory.claim(request(1), START), Node()
    send(factory, claim)
    assert tell(factory, node, 1, claim, word(claim, "FAILED")) == ()
    assert refusal(factory, request(2)).code == "BPP.EXHAUSTED"
    again = factory.claim(request(1), START)
    assert again.packages == claim.packages
    factory.release(again.attempt_id, "st01", START)  # on the shelf, and for nobody else
    assert refusal(factory, request(2)).code == "BPP.EXHAUSTED"
    third = factory.claim(request(1), START)
    send(factory, third)
    assert tell(factory, node, 1, third, word(third, "FAILED", tied=False)) == ()  # it was tied the first time
    assert balanced(factory) == {"failed": 1}
    assert refusal(factory, request(2)).code == "BPP.EXHAUSTED"


def test_a_code_that_failed_and_is_not_tied_is_free_again(factory: Factory) -> None:
    codes(factory, 1)
    claim, node = factory.claim(request(1), START), Node()
    send(factory, claim)
    assert tell(factory, node, 1, claim, word(claim, "FAILED", tied=False, error="RSP.UNREACHABLE")) == ()
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT", "FAILED", "DESTROYED"]
    assert balanced(factory) == {"available": 1}
    other = factory.claim(request(2), START)
    assert matching_ids(other) == matching_ids(claim)
    send(factory, other)
    assert tell(factory, node, 2, other, word(other, "INSTALLED", 8)) == ()
    assert balanced(factory) == {"installed": 1}
    assert tell(factory, node, 1, claim, word(claim, "INSTALLED", 9)) == ("CUSTODY.EVENT_REFUSED",)


def test_an_open_code_is_read_from_its_chip_and_never_given_away(factory: Factory) -> None:
    codes(factory, 1)
    claim, node = factory.claim(request(1), START), Node()
    send(factory, claim)
    assert refusal(factory, request(2), 9999).code == "BPP.EXHAUSTED"
    assert tell(factory, node, 1, claim, word(claim, "UNKNOWN")) == ()
    reader = factory.claim(request(1), later(100))
    assert (reader.packages, [one.kind for one in reader.unresolved]) == ([], ["code"])
    assert reader.unresolved[0].activation_code == claim.packages[0].activation_code
    assert tell(factory, node, 1, reader, word(reader, "FAILED", tied=False)) == ()  # it was not always known
    assert balanced(factory) == {"failed": 1}
    assert refusal(factory, request(2)).code == "BPP.EXHAUSTED"
    assert factory.claim(request(1), later(200)).packages[0].package_id == claim.packages[0].package_id


@pytest.mark.parametrize("number", [0, -1])
def test_an_installed_code_needs_an_iccid_of_its_own(factory: Factory, number: int) -> None:
    codes(factory, 2)
    node = Node()
    first, second = (factory.claim(request(chip), START) for chip in (1, 2))
    send(factory, first)
    assert tell(factory, node, 1, first, word(first, "INSTALLED", 4)) == ()
    send(factory, second)
    said = str(iccid(4)) if number else ""
    refused = tell(factory, node, 2, second, word(second, "INSTALLED", iccid=said))
    assert refused == ("CUSTODY.EVENT_REFUSED",)
    assert balanced(factory) == {"installed": 1, "sent": 1}


def test_a_spent_code_is_not_followed_by_another(factory: Factory) -> None:
    codes(factory, 2)
    claim = factory.claim(request(1), START)
    send(factory, claim)
    assert tell(factory, Node(), 1, claim, word(claim, "FAILED", key_consumed=True, tied=False)) == ()
    assert refusal(factory, request(1)).code == "BPP.EXHAUSTED"
    assert balanced(factory) == {"available": 1, "failed": 1}


def test_a_plan_takes_a_code_for_each_profile_that_lacks(factory: Factory) -> None:
    stock(factory, 1)
    import_codes(factory, code_item(1, profile_type="extra"), code_item(2), code_item(3, profile_type="extra"))
    plan = [Planned("operational-0", ""), Planned("extra", HOST)]
    factory.change_plan((SKU, REGION, ""), plan, (START, None), "Ann", "why", START)
    claim = factory.claim(request(1), later(1))
    assert [(one.kind, one.profile_type) for one in claim.packages] == [
        ("package", "operational-0"),
        ("code", "extra"),
    ]
    assert matching_ids(factory.claim(request(2), later(1))) == ["MATCH-2", "MATCH-3"]
    import_codes(factory, code_item(4))
    assert refusal(factory, request(3), 1).code == "BPP.INCOMPLETE"
    assert [(one.codes) for one in factory.stock_levels(later(1))] == [1]  # what was found for it is the others' again
    assert factory.audit() == []


def test_codes_that_expired_or_were_withdrawn_are_not_given_out(factory: Factory) -> None:
    import_codes(factory, code_item(1, expires_at=later(50)), name="old.jsonl")
    import_codes(factory, code_item(2), name="back.jsonl")
    import_codes(factory, code_item(3), name="good.jsonl")
    claim = factory.claim(request(1), START)
    assert matching_ids(claim) == ["MATCH-1"]
    factory.release(claim.attempt_id, "st01", START)
    told = factory.withdraw("back.jsonl", "Ann", "why", START)
    assert (told.stopped, told.going_on) == (1, 0)
    assert matching_ids(factory.claim(request(1), later(60))) == ["MATCH-3"]  # its own one is of no use any more
    assert refusal(factory, request(2), 60).code == "BPP.EXHAUSTED"
    assert [(one.chips, one.codes) for one in factory.stock_levels(later(60))] == [(0, 0)]


def test_no_code_is_claimed_ahead(factory: Factory) -> None:
    codes(factory, 1)
    claim = factory.claim(request(1), START)
    factory.release(claim.attempt_id, "st01", START)
    assert refusal(factory, request(1, head_id=CACHE_HEAD)).code == "BPP.NOT_FOUND"
    assert refusal(factory, request(2, head_id=CACHE_HEAD)).code == "BPP.NOT_FOUND"
    question = ExpectedQuestion(station_id="st01", sku=SKU, region=REGION)
    assert factory.expected(question, START).eids == []
    assert [(one.chips, one.codes) for one in factory.stock_levels(START)] == [(1, 0)]


def test_many_heads_get_a_code_each(factory: Factory, url: str) -> None:
    codes(factory, 30)
    other = Factory.open(url)

    def ask(number: int) -> list[str] | IfppError:
        try:
            return matching_ids((factory, other)[number % 2].claim(request(number, head_id=f"h{number}"), START))
        except SupplyError as error:
            return error

    with ThreadPoolExecutor(16) as heads:
        answers = list(heads.map(ask, range(40)))
    other.close()
    given = [answer[0] for answer in answers if isinstance(answer, list)]
    assert len(given) == len(set(given)) == 30
    assert {answer.code for answer in answers if isinstance(answer, IfppError)} == {"BPP.EXHAUSTED"}
    assert balanced(factory) == {"claimed": 30}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE code SET matching_id = 'x'",
        "UPDATE code SET ties = ties + 1, package_id = NULL",
        "UPDATE code SET ties = ties + 1",
        "UPDATE code SET package_id = NULL",
        "DELETE FROM code",
        "UPDATE package SET iccid = 'x', revision = revision + 1",
    ],
)
def test_the_database_keeps_a_code_with_its_chip(factory: Factory, url: str, statement: str) -> None:
    codes(factory, 1)
    claim = factory.claim(request(1), START)
    send(factory, claim)
    with raw(url) as connection, pytest.raises(REFUSALS, match=r"is for one chip|never changes|nor deleted|take this"):
        connection.execute(statement)
    assert balanced(factory) == {"sent": 1}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_no_code_serves_two_chips(factory: Factory, seed: int) -> None:
    """Any order of claims, sendings, words and releases; a code that may be tied is never with another chip."""
    chance, node, number = Random(seed), Node(), 0
    codes(factory, 4)
    held: dict[int, Claim] = {}
    tied: dict[str, int] = {}
    for turn in range(120):
        chip, at = chance.randint(1, 6), later(turn * 100)
        claim = held.pop(chip, None)
        if claim is None:
            try:
                claim = factory.claim(request(chip, lease_s=chance.choice((50, 5000))), at)
            except SupplyError:
                continue
            for code in (*claim.packages, *claim.unresolved):
                assert tied.get(code.activation_code, chip) == chip
            if claim.packages or claim.unresolved:
                held[chip] = claim
        elif claim.packages and chance.random() < 0.3:
            factory.release(claim.attempt_id, "st01", at)
        else:
            number += 1
            code, free = (*claim.packages, *claim.unresolved)[0], chance.random() < 0.5
            state = chance.choice(("INSTALLED", "FAILED", "FAILED", "UNKNOWN"))
            with suppress(CustodyError):  # its lease ran out: nothing was sent, nothing is said
                if claim.packages:
                    factory.mark_sent(code.package_id, claim.attempt_id, "st01", at)
                if not (state == "FAILED" and free and code.activation_code not in tied and claim.packages):
                    tied[code.activation_code] = chip
                tell(factory, node, chip, claim, word(claim, state, number * (state == "INSTALLED"), tied=not free))
        factory.expire_leases(at)
    assert balanced(factory).total() == 4
