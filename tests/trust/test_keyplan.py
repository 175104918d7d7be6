"""The plan of keys: one source for the document and the audit; each way to differ is found by its kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ifpp.model.clock import utc_ms_text
from ifpp.trust.keyplan import OVERLAP_DAYS, PLAN, compare, table
from ifpp.trust.keyring import KeyInfo, Purpose

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
DEPLOY = Path(__file__).parents[2] / "deploy"


def info(purpose: Purpose, version: int = 1, age_days: float = 1) -> KeyInfo:
    rule = PLAN[purpose]
    name = f"{purpose}.{version}"
    made = utc_ms_text(NOW - timedelta(days=age_days))
    return KeyInfo(name, purpose, version, rule.algorithm, f"id of {name}", None, rule.uses | {"sensitive"}, made)


def kinds(found: list[KeyInfo], known: list[KeyInfo] | None = None, *, token: bool = True) -> set[tuple[str, str]]:
    records = {one.name: one.key_id for one in (found if known is None else known)}
    return {(one.kind, one.key) for one in compare(found, list(Purpose), records, NOW, token=token)}


ALL = [info(purpose) for purpose in Purpose]


def test_the_document_has_the_plan() -> None:
    assert table() in (DEPLOY / "KEYS.md").read_text(encoding="utf-8")
    assert set(PLAN) == set(Purpose)


def test_a_token_as_planned_has_no_difference() -> None:
    assert kinds(ALL) == set()
    assert kinds([*ALL, info(Purpose.AUDIT, 2)]) == set()


def test_a_missing_key_is_found_by_the_plan_and_by_the_records() -> None:
    assert kinds(ALL[1:], ALL) == {("MISSING", "audit"), ("MISSING", "audit.1")}
    assert kinds(ALL, [*ALL, info(Purpose.CHIP, 2)]) == {("MISSING", "chip.2")}


def test_an_extra_key_is_found() -> None:
    assert kinds([*ALL, info(Purpose.AUDIT, 2)], ALL) == {("EXTRA", "audit.2")}
    found = compare(ALL, [Purpose.AUDIT], {one.name: one.key_id for one in ALL}, NOW, token=True)
    assert {one.key for one in found if one.kind == "EXTRA"} == {one.name for one in ALL[1:]}


def test_another_key_under_the_same_name_is_found() -> None:
    assert kinds([replace(ALL[0], key_id="other"), *ALL[1:]], ALL) == {("CHANGED", "audit.1")}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"algorithm": "EC P-384"}, "ALGORITHM"),
        ({"attributes": frozenset({"sign", "sensitive", "extractable"})}, "ATTRIBUTES"),
        ({"attributes": frozenset({"sign"})}, "ATTRIBUTES"),
        ({"attributes": frozenset({"sensitive"})}, "ATTRIBUTES"),
        ({"attributes": frozenset({"sign", "sensitive", "unwrap"})}, "ATTRIBUTES"),
        ({"created_at": None}, "AGE"),
        ({"created_at": utc_ms_text(NOW - timedelta(days=PLAN[Purpose.AUDIT].life_days))}, "AGE"),
    ],
)
def test_a_key_that_is_not_as_planned_is_found(change: dict[str, object], kind: str) -> None:
    assert kinds([replace(ALL[0], **change), *ALL[1:]]) == {(kind, "audit.1")}  # type: ignore[arg-type]


def test_custody_in_a_file_is_not_judged_like_a_tokens() -> None:
    extractable = [replace(one, attributes=PLAN[one.purpose].uses | {"extractable"}) for one in ALL]
    assert kinds(extractable, token=False) == set()
    assert {kind for kind, _ in kinds(extractable)} == {"ATTRIBUTES"}


def test_an_old_version_may_stay_for_the_overlap_only() -> None:
    old = info(Purpose.AUDIT, 1, age_days=PLAN[Purpose.AUDIT].life_days + 10)
    within = [old, info(Purpose.AUDIT, 2, age_days=OVERLAP_DAYS - 1), *ALL[1:]]
    assert kinds(within) == set()
    after = [old, info(Purpose.AUDIT, 2, age_days=OVERLAP_DAYS), *ALL[1:]]
    assert kinds(after) == {("AGE", "audit.1")}
