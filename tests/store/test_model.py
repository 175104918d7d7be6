"""The ledger against a plain model of it, driven by hypothesis; on SQLite and on PostgreSQL.

Heads claim, send, release and report; reports arrive late, twice and out of order; leases run out. After every step
each package stands where the model says, the ledger joins up, and the mass balance holds.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ifpp.errors import IfppError
from ifpp.model.messages import Claim
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from tests.real.postgres import Postgres
from tests.store.world import Node, eid, later, outcome, request, stock

CHIPS, SLOTS, LEASE_S = 2, 2, 60
WORDS = ("INSTALLED", "SPENT", "USABLE", "UNKNOWN", "UNTOUCHED")
STATE_OF_WORD = {"SPENT": "FAILED", "USABLE": "FAILED", "UNTOUCHED": "CLAIMED"}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """The model's refusal; its argument is the code."""


def outcome_of(call: Callable[[], object]) -> object:
    """What a call came to: its answer, or the code of its refusal."""
    try:
        return call()
    except IfppError as error:
        return error.code
    except Refusal as refusal:
        return refusal.args[0]


@dataclass(eq=False)
class Package:
    state: str = "AVAILABLE"
    spent: bool = False
    attempt: str | None = None
    head: str = ""
    lease_s: int = 0
    reader: str | None = None
    readers: set[str] = field(default_factory=set)

    def step(self, state: str, attempt: str | None = None) -> None:
        self.state, self.attempt = state, attempt
        if state == "CLAIMED":
            self.reader = None

    def hear(self, word: str, attempt: str) -> None:
        """What one word of a station does."""
        holder = attempt == (self.reader or self.attempt)
        if self.spent:
            if (word, self.state) in (("INSTALLED", "FAILED"), ("SPENT", "INSTALLED")):
                raise Refusal("CUSTODY.EVENT_REFUSED")
        elif word in ("INSTALLED", "SPENT"):
            self.spent = True
            self.step("INSTALLED" if word == "INSTALLED" else "FAILED", attempt)
        elif word == "UNKNOWN" and (self.state in ("AVAILABLE", "CLAIMED") or (holder and self.state == "SENT")):
            self.reader = self.reader if self.state == "SENT" else None
            self.step("UNKNOWN", attempt)
        elif word == "USABLE" and holder and self.state in ("CLAIMED", "SENT", "UNKNOWN"):
            self.step("FAILED", attempt)
        elif word == "UNTOUCHED" and holder and self.state == "CLAIMED":
            self.step("AVAILABLE")


@dataclass(eq=False)
class Attempt:
    name: str
    chip: int
    head: str
    claimed: bool = False
    ended: bool = False


@dataclass
class Report:
    event: ReceivedEvent
    attempt: Attempt
    words: list[str]
    outcome: str = ""  # "" not delivered yet, "taken" or "rejected"


class LedgerMachine(RuleBasedStateMachine):
    """Random shop-floor life on a few chips."""

    def __init__(self, make_url: Callable[[], str]) -> None:
        super().__init__()
        self.factory = Factory.open(make_url())
        stock(self.factory, CHIPS, SLOTS)
        self.packages = {(chip, slot): Package() for chip in range(1, CHIPS + 1) for slot in range(SLOTS)}
        self.clean: set[int] = set()
        self.attempts: list[Attempt] = []
        self.reports: list[Report] = []
        self.nodes = {head: Node(f"st-{head}") for head in ("h1", "h2", "h3")}
        self.now_s = 0

    def teardown(self) -> None:
        self.factory.close()

    def of_chip(self, chip: int) -> list[Package]:
        return [self.packages[chip, slot] for slot in range(SLOTS)]

    def ids(self, chip: int) -> list[str]:
        return [f"000002-{(chip - 1) * SLOTS + slot + 1:07d}" for slot in range(SLOTS)]

    # ---- what may happen ----

    @rule(chip=st.integers(1, CHIPS), head=st.sampled_from(["h1", "h2", "h3"]))
    def a_new_attempt_claims(self, chip: int, head: str) -> None:
        attempt = Attempt(f"attempt-{len(self.attempts)}", chip, head)
        self.attempts.append(attempt)
        self.claim(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def an_attempt_claims_again(self, data: st.DataObject) -> None:
        self.claim(data.draw(st.sampled_from(self.attempts)))

    def claim(self, attempt: Attempt) -> None:
        wanted = request(
            attempt.chip, attempt.name, station_id=f"st-{attempt.head}", head_id=attempt.head, lease_s=LEASE_S
        )
        expected = outcome_of(lambda: self.model_claim(attempt))
        answer = outcome_of(lambda: self.factory.claim(wanted, later(self.now_s)))
        if isinstance(answer, Claim):
            ids = self.ids(attempt.chip)
            groups = (answer.packages, answer.unresolved, answer.installed)
            answer = tuple([ids.index(package.package_id) for package in packages] for packages in groups)
        assert answer == expected

    def model_claim(self, attempt: Attempt) -> tuple[list[int], ...]:
        if attempt.ended:
            raise Refusal("STORE.REFUSED")
        packages = self.of_chip(attempt.chip)
        unresolved = [package for package in packages if package.state in ("SENT", "UNKNOWN")]
        held = [package for package in packages if (package.state, package.attempt) == ("CLAIMED", attempt.name)]
        taken = [
            package
            for package in packages
            if package.state == "CLAIMED" and package.lease_s > self.now_s and package.head != attempt.head
        ]
        free = [
            package
            for package in packages
            if package not in taken and not package.spent and package.state in ("AVAILABLE", "FAILED", "CLAIMED")
        ]
        if not held and not unresolved:
            self.model_supply(attempt.chip, packages, taken, free)
        for package in [] if held else free:
            package.step("CLAIMED", attempt.name)
            package.head, package.lease_s = attempt.head, self.now_s + LEASE_S
        for package in unresolved:
            if attempt.name not in package.readers:
                package.readers.add(attempt.name)
                package.reader = attempt.name
        attempt.claimed = True
        installed = [package for package in packages if package.state == "INSTALLED"]
        return tuple([packages.index(one) for one in group] for group in (held or free, unresolved, installed))

    def model_supply(self, chip: int, packages: list[Package], taken: list[Package], free: list[Package]) -> None:
        if chip in self.clean:
            raise Refusal("UNIT.ALREADY_LOADED")
        if taken:
            raise Refusal("BPP.TAKEN")
        if not free and any(package.state == "FAILED" for package in packages):
            raise Refusal("BPP.EXHAUSTED")

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), slot=st.integers(0, SLOTS - 1))
    def an_attempt_sends(self, data: st.DataObject, slot: int) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        package = self.packages[attempt.chip, slot]
        allowed = package.attempt == attempt.name and package.state in ("CLAIMED", "SENT") and attempt.claimed
        package_id = self.ids(attempt.chip)[slot]
        station_id = f"st-{attempt.head}"
        said = outcome_of(lambda: self.factory.mark_sent(package_id, attempt.name, station_id, later(self.now_s)))
        assert said == (None if allowed else "CUSTODY.TRANSITION")
        if allowed:
            package.state = "SENT"

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def an_attempt_is_released(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self.factory.release(attempt.name, f"st-{attempt.head}", later(self.now_s))
        attempt.ended = True
        for package in self.of_chip(attempt.chip):
            if (package.state, package.attempt) == ("CLAIMED", attempt.name):
                package.step("AVAILABLE")

    @rule(seconds=st.sampled_from([1, LEASE_S // 2, LEASE_S]), sweep=st.booleans())
    def time_passes(self, seconds: int, sweep: bool) -> None:
        self.now_s += seconds
        if sweep:
            self.factory.expire_leases(later(self.now_s))
            for package in self.packages.values():
                if package.state == "CLAIMED" and package.lease_s <= self.now_s:
                    package.step("AVAILABLE")

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), words=st.lists(st.sampled_from(WORDS), min_size=SLOTS, max_size=SLOTS))
    def a_station_writes_a_report(self, data: st.DataObject, words: list[str]) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        profiles = [
            outcome(attempt.chip, slot, STATE_OF_WORD.get(word, word), spent=word == "SPENT", package_id=package_id)
            for slot, (word, package_id) in enumerate(zip(words, self.ids(attempt.chip), strict=True))
        ]
        event = self.nodes[attempt.head].result(attempt.chip, attempt.name, profiles)
        self.reports.append(Report(event, attempt, words))

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def reports_arrive(self, data: st.DataObject) -> None:
        """A few reports, new and old ones, in one batch; the store takes them by node and number."""
        batch = data.draw(st.lists(st.sampled_from(self.reports), min_size=1, max_size=4))
        answers = self.factory.take_events([report.event for report in batch], later(self.now_s))
        rejected = {(answer.node_id, row.seq) for answer in answers for row in answer.rejected}
        fresh = {(answer.node_id, seq) for answer in answers for seq in answer.fresh}
        for report in sorted(batch, key=lambda one: (one.event.node_id, one.event.seq)):
            key = (report.event.node_id, report.event.seq)
            if not report.outcome:
                report.outcome = self.model_take(report)
                assert (key in fresh) == (report.outcome == "taken")
            assert (key in rejected) == (report.outcome == "rejected")
        for answer in answers:
            delivered = {one.event.seq for one in self.reports if one.outcome and one.event.node_id == answer.node_id}
            gap = next(seq for seq in range(1, len(self.reports) + 2) if seq not in delivered)
            assert answer.through == gap - 1

    def model_take(self, report: Report) -> str:
        packages = self.of_chip(report.attempt.chip)
        trial = [Package(package.state, package.spent) for package in packages]
        try:
            for package, word in zip(trial, report.words, strict=True):
                package.hear(word, report.attempt.name)
        except Refusal:
            return "rejected"
        for package, word in zip(packages, report.words, strict=True):
            package.hear(word, report.attempt.name)
        report.attempt.ended = True
        if set(report.words) == {"INSTALLED"}:
            self.clean.add(report.attempt.chip)
        return "taken"

    # ---- what must always hold ----

    @invariant()
    def every_package_stands_where_the_model_says(self) -> None:
        for chip in range(1, CHIPS + 1):
            unit = self.factory.unit(eid(chip))
            assert unit is not None
            found = [(package.state, package.spent) for package in unit.packages]
            assert found == [(package.state, package.spent) for package in self.of_chip(chip)]
            assert (unit.clean_to_ship_at is not None) == (chip in self.clean)

    @invariant()
    def the_books_hold(self) -> None:
        assert self.factory.audit() == []
        (balance,) = self.factory.balance()
        assert balance.imported == CHIPS * SLOTS


def drive(make_url: Callable[[], str], examples: int) -> None:
    class OnThisDatabase(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(make_url)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        ),
    )


def test_the_ledger_follows_the_model_on_sqlite() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ifpp-model-"))
    names = iter(range(10**6))
    try:
        drive(lambda: f"sqlite:///{folder}/{next(names)}.db", examples=12)
    finally:
        shutil.rmtree(folder)


@pytest.mark.needs("postgresql")
def test_the_ledger_follows_the_model_on_postgresql(postgres_server: Postgres) -> None:
    drive(postgres_server.new_database, examples=5)
