"""Which keys the factory has, what each may do, and how a provider is compared with that.

PLAN is the one source: the table of `deploy/KEYS.md` is `table()`, and `compare` is what `ifpp keys audit` finds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ifpp.model.clock import parse_utc
from ifpp.trust.keyring import KeyInfo, Purpose

EC, AES = "EC P-256", "AES-256"
OVERLAP_DAYS = 90
_CUSTODY = frozenset({"sensitive", "extractable"})
_TOLERATED = frozenset({"verify", "token", "private", "local", "never_extractable", "always_sensitive"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the plan. `uses`: what the private or secret key may do; `life_days`: then a new version is due."""

    purpose: Purpose
    algorithm: str
    uses: frozenset[str]
    made_by: str
    lives: str
    used_by: str
    life_days: int
    backup: str


_SITE = "`ifpp keys init`, in the token"
PLAN = {
    rule.purpose: rule
    for rule in (
        Rule(
            Purpose.AUDIT,
            EC,
            frozenset({"sign"}),
            _SITE,
            "site token",
            "supervisor: audit chain and clean-to-ship entries; ceremony records",
            730,
            "none: a new version; the public key stays in the factory database",
        ),
        Rule(
            Purpose.REPORT,
            EC,
            frozenset({"sign"}),
            _SITE,
            "site token",
            "whoever writes Profile Loading Reports",
            730,
            "none: a new version; the SM-DPf gets its public key",
        ),
        Rule(
            Purpose.STATION,
            EC,
            frozenset({"sign"}),
            _SITE,
            "station or site token",
            "station: what it says of itself (`ifpp station prove`)",
            730,
            "none: a new version",
        ),
        Rule(
            Purpose.CHIP,
            AES,
            frozenset({"derive"}),
            _SITE,
            "station or site token",
            "station: dmAuth of key deletion and lock, one key for each EID",
            1825,
            "the token's own backup, or the chip maker's copy: chips out there know no other",
        ),
        Rule(
            Purpose.TRANSPORT,
            EC,
            frozenset({"derive"}),
            _SITE,
            "site token",
            "intake: content keys of encrypted deliveries",
            365,
            "none: the SM-DPf encrypts again for a new version",
        ),
        Rule(
            Purpose.BACKUP,
            AES,
            frozenset({"wrap", "unwrap"}),
            _SITE,
            "site token",
            "`ifpp store backup` and `restore`",
            365,
            "the token's own backup: without it sealed backups are lost",
        ),
    )
}


def table() -> str:
    """Return the plan as the Markdown table of deploy/KEYS.md."""
    head = ("key", "kind", "who makes it", "where it lives", "extractable", "may", "who uses it", "life", "backup")
    rows = [head, ("---",) * len(head)]
    for rule in PLAN.values():
        may, life = ", ".join(sorted(rule.uses)), f"{rule.life_days} days"
        rows.append(
            (rule.purpose, rule.algorithm, rule.made_by, rule.lives, "no", may, rule.used_by, life, rule.backup)
        )
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a provider has otherwise than it should; `kind`: MISSING, EXTRA, CHANGED, ALGORITHM, ATTRIBUTES, AGE."""

    kind: str
    key: str
    detail: str


def compare(
    found: Sequence[KeyInfo], wanted: Collection[Purpose], known: dict[str, str], now: datetime, *, token: bool
) -> list[Difference]:
    """Compare a provider's keys with the plan.

    `wanted`: the purposes that live there. `known`: key id by name, as the ceremony records have it. `token`: the keys
    are in hardware, so that sensitive and not extractable mean something; a file's keys are as secret as its PIN.
    """
    differences = list(_presence(found, wanted, known))
    newest: dict[Purpose, KeyInfo] = {}
    for info in sorted(found, key=lambda one: one.version):
        newest[info.purpose] = info
    for info in found:
        differences += _attributes(info, token=token)
        differences += _age(info, newest[info.purpose], now)
    return differences


def _presence(found: Sequence[KeyInfo], wanted: Collection[Purpose], known: dict[str, str]) -> Iterator[Difference]:
    names = {info.name for info in found}
    for purpose in wanted:
        if not any(info.purpose == purpose for info in found):
            yield Difference("MISSING", purpose, "there is none")
    for name in known:
        if name not in names and Purpose(name.split(".")[0]) in wanted:
            yield Difference("MISSING", name, "the ceremony records have it, it is not there")
    for info in found:
        if info.purpose not in wanted:
            yield Difference("EXTRA", info.name, "no such key lives here")
        elif info.name not in known:
            yield Difference("EXTRA", info.name, "no ceremony record made it")
        elif info.key_id != known[info.name]:
            yield Difference("CHANGED", info.name, "is not the key the ceremony record made")


def _attributes(info: KeyInfo, *, token: bool) -> Iterator[Difference]:
    rule = PLAN[info.purpose]
    if info.algorithm != rule.algorithm:
        yield Difference("ALGORITHM", info.name, f"is {info.algorithm}, not {rule.algorithm}")
    if token and "extractable" in info.attributes:
        yield Difference("ATTRIBUTES", info.name, "can be taken out of the token")
    if token and "sensitive" not in info.attributes:
        yield Difference("ATTRIBUTES", info.name, "is not sensitive: its value can be read")
    uses = info.attributes - _CUSTODY - _TOLERATED
    if more := sorted(uses - rule.uses):
        yield Difference("ATTRIBUTES", info.name, f"may {', '.join(more)}, too")
    if less := sorted(rule.uses - uses):
        yield Difference("ATTRIBUTES", info.name, f"may not {', '.join(less)}")


def _age(info: KeyInfo, newest: KeyInfo, now: datetime) -> Iterator[Difference]:
    if info.created_at is None:
        yield Difference("AGE", info.name, "nobody knows when it was made")
    elif info is newest:
        due = parse_utc(info.created_at) + timedelta(days=PLAN[info.purpose].life_days)
        if now >= due:
            yield Difference("AGE", info.name, f"a new version is due since {due:%Y-%m-%d}: `ifpp keys rotate`")
    elif newest.created_at is not None:
        end = parse_utc(newest.created_at) + timedelta(days=OVERLAP_DAYS)
        if now >= end:
            yield Difference("AGE", info.name, f"its successor works since {OVERLAP_DAYS} days: `ifpp keys destroy`")
