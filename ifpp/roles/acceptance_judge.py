"""The judgement of an accepted line: evidence of every chip, event and book, put against criteria with limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import ServiceError
from ifpp.line.audit_check import check_audit
from ifpp.line.audit_export import export_audit
from ifpp.log import Secret
from ifpp.model.clock import utc_ms_text
from ifpp.model.recipe import Recipe
from ifpp.roles.acceptance_line import AcceptanceLine, Act, Done, Journey
from ifpp.roles.demo_recipe import untrue
from ifpp.sim.judge import HOPELESS, judge
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.witness import Attempt, Event, Evidence, Package, Sending, Unit, units_of
from ifpp.sim.world import WorldSummary
from ifpp.station.look import read_journal
from ifpp.store.factory import Factory
from ifpp.store.records import BalanceRow
from ifpp.store.witness import read_books
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import read_public_key

BACK_S = 60.0  # a process serves again within this time; the supervisor once its lease has run out besides
_REASONS = 20


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing the line is judged by: what it must show (`limit`), what it showed, and what speaks against it."""

    name: str
    title: str
    limit: str
    measured: str
    passed: bool
    reasons: Sequence[str] = ()


@dataclass(slots=True)
class Gathered:
    """The evidence and what does not go into the judge's: the books' balance, whether each report was
    acknowledged without a refusal (`answered`), the defect of each EID's last attempt, where
    chips are not what their recipe promised (`untrue`).
    """

    evidence: Evidence
    balance: list[BalanceRow] = field(default_factory=list)
    audit_entries: int = 0
    audit_findings: list[str] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)
    defects: dict[str, str] = field(default_factory=dict)
    untrue: list[str] = field(default_factory=list)


def gather(line: AcceptanceLine, world: WorldSummary, recipe: Recipe) -> Gathered:
    """Collect the evidence of a line whose processes have ended. Blocking; raises IfppError when a witness is gone."""
    factory = Factory.open(line.database)
    try:
        counts = factory.unit_counts()
        entries, findings = _audit_log(factory, line.folder)
        proven, refused = _proven(line.folder / "reports", world)
        books = read_books(line.database)
        journals = {station: read_journal(line.journal(station)) for station in line.stations}
        evidence = Evidence(
            units=_units(line, world),
            packages=[
                Package(*row[:6], steps=books.steps.get(row[0], []), lease_until=row[6]) for row in books.packages
            ],
            attempts=[Attempt(*row) for row in books.attempts],
            cleared=books.cleared,
            taken=[Event(*row) for row in books.taken if row[0] in journals],
            parked={Event(*row[:3]): f"{row[3]}: {row[4]}" for row in books.parked},
            stored=[Event(node, *row) for node, rows in journals.items() for row in rows.stored],
            sendings=[Sending(node, *row) for node, rows in journals.items() for row in rows.sendings],
            held={eid: why for rows in journals.values() for eid, why in rows.held},
            counted=(sum(row.units for row in counts), sum(row.final_pass for row in counts)),
            proven=proven,
            refused=refused,
            gates={unit.eid: _gate(factory, unit.eid) for unit in world.units},
            broken=factory.audit() + findings,
            at=utc_ms_text(datetime.now(UTC)),
        )
        answered = [bool(row.acknowledged_at) and not row.refused for row in factory.written_reports()]
        return Gathered(
            evidence, factory.balance(), entries, findings, answered, books.defects, _untrue(line, factory, recipe)
        )
    finally:
        factory.close()


def _untrue(line: AcceptanceLine, factory: Factory, recipe: Recipe) -> list[str]:
    """What stations said of the recipe's end, held against the chips."""
    runs = factory.runs.all()
    units = {row.eid: unit for row in runs if row.clean_to_ship and (unit := factory.unit(row.eid)) is not None}
    fleets = (json.loads(line.fleet_file(station).read_bytes()) for station in line.stations)
    chips = {unit["eid"]: unit["card"] for fleet in fleets for unit in fleet["units"]}
    return list(untrue(recipe, runs, units, chips))


def _units(line: AcceptanceLine, world: WorldSummary) -> list[Unit]:
    try:
        return list(units_of(map(line.fleet_file, line.stations), world))
    except (OSError, ValueError, KeyError) as error:
        detail = f"the simulated chips did not say what became of them ({error})"
        raise ServiceError("PROCESS.DIED", detail, where=str(line.folder / "logs")) from error


def _audit_log(factory: Factory, folder: Path) -> tuple[int, list[str]]:
    """Export the audit log, and check the export as an auditor would: with the line's public key alone."""
    out, pin = folder / "audit.jsonl", Secret((folder / "credentials" / "ifpp-pin").read_bytes())
    keys = SoftwareKeys.open(folder / "keys.ifpp", pin)
    try:
        done = export_audit(factory, out, keys.signer(Purpose.AUDIT), datetime.now(UTC))
    finally:
        keys.close()
    with out.open("rb") as stream:
        report = check_audit(stream, out.name, [read_public_key(folder / "config" / "audit.pub")])
    return done.entries, [f"audit log: {finding}" for finding in report.findings]


def _proven(folder: Path, world: WorldSummary) -> tuple[list[str], list[str]]:
    """Let the simulated SM-DPf judge the Profile Loading Reports: ICCIDs proven installed, lines refused."""
    smdpf = SmDpf.load(world.directory / "smdpf")
    proven, refused = [], []
    for path in sorted(folder.glob("*.plr.jsonl")):
        verdict = smdpf.verify_report(path)
        proven += [entry.item.iccid for entry in verdict.verified if entry.installation.installed]
        refused += [f"ICCID {item.iccid}: {why}" for item, why in verdict.refused]
    return proven, refused


def _gate(factory: Factory, eid: str) -> str:
    gate = factory.unit_gate(eid)
    if not gate.clean_to_ship:
        return f"{gate.code}: {gate.reason}"
    return "" if gate.signed else "its clean-to-ship entry is not signed"


# ---- criteria ---------------------------------------------------------------------------------------------


def criteria(
    testimony: Gathered, world: WorldSummary, journey: Journey, *, lease_s: float, untouched: bool
) -> list[Criterion]:
    """Judge: every criterion with its limit and what was measured."""
    return [
        *_of_units(testimony, world),
        *_of_custody(testimony),
        *_of_acts(journey, lease_s),
        _none("end", "The line came to its end", "faults", journey.faults),
        Criterion("apart", "The plant's files are as they were", "unchanged", _words(ok=untouched), untouched),
    ]


def _of_units(testimony: Gathered, world: WorldSummary) -> Iterator[Criterion]:
    evidence = testimony.evidence
    units, faults = evidence.units, {plan.eid: plan.fault for plan in world.units}
    tried = {attempt.eid for attempt in evidence.attempts}
    undecided = [unit.eid for unit in units if not unit.bin or unit.eid not in tried]
    yield _share("units.decided", "Every unit has a result in the books and a bin", len(units), undecided)
    sound = [unit for unit in units if unit.fault not in HOPELESS]
    yield _share("units.passed", "Sound units passed", len(sound), _failed(testimony, sound))
    pulled = [unit for unit in units if faults[unit.eid] == "contact"]
    yield _share(
        "units.pulled", "Units pulled in the middle passed", len(pulled), [u.eid for u in pulled if u.lamp != "pass"]
    )
    bad = [unit for unit in units if unit.fault in HOPELESS]
    yield _share("units.refused", "Bad chips did not pass", len(bad), [u.eid for u in bad if u.lamp == "pass"])
    green = [unit for unit in units if unit.lamp == "pass"]
    shut = [f"EID {u.eid}: {evidence.gates[u.eid] or 'not in the books'}" for u in green if _not_clear(evidence, u.eid)]
    yield _share("units.clear", "Green units are clean to ship, by a signed entry", len(green), shut)


def _failed(testimony: Gathered, units: Sequence[Unit]) -> list[str]:
    """Name what should have passed and did not, with the defect of its last attempt."""
    return [f"EID {u.eid}: {testimony.defects.get(u.eid, '')}".rstrip(": ") for u in units if u.lamp != "pass"]


def _not_clear(evidence: Evidence, eid: str) -> bool:
    return bool(evidence.gates[eid]) or eid not in evidence.cleared


def _of_custody(testimony: Gathered) -> Iterator[Criterion]:
    evidence, verdict = testimony.evidence, judge(testimony.evidence)
    yield _none("custody.lost", "No key, profile, package or event was lost", "lost", verdict.lost)
    yield _none("custody.doubled", "Nothing counts twice", "doubled", verdict.doubled)
    yield _none(
        "custody.wrong", "Nothing is left open, or booked as what it is not", "wrong", verdict.unresolved_wrongly
    )
    bad = [f"{row.sku} {row.region} {row.smdp_oid}" for row in testimony.balance if not row.holds]
    open_ones = sum(row.claimed + row.sent + row.unknown for row in testimony.balance)
    bad += [f"{open_ones} packages are claimed, sent or unknown"] if open_ones else []
    yield _none("custody.balance", "The mass balance holds and no package is open", "faults", bad)
    yield _none(
        "audit", f"The audit log of {testimony.audit_entries} entries verifies", "findings", testimony.audit_findings
    )
    yield _none("recipe", "Chips of green units are what the recipe promised", "differences", testimony.untrue)
    refused = [*evidence.refused, *(["a report is not acknowledged"] if not all(testimony.answered) else [])]
    refused += [] if testimony.answered else ["there is no report"]
    yield _none("reports", f"The SM-DPf verified {len(evidence.proven)} reported installations", "refused", refused)


def _of_acts(journey: Journey, lease_s: float) -> Iterator[Criterion]:
    done = {one.act: one for one in journey.done}
    for act in Act:
        limit_s = BACK_S + (lease_s if act in (Act.SUPERVISOR_KILLED, Act.POWER_CUT) else 0.0)
        limit = f"units in hand, serves again within {limit_s:.0f} s"
        yield _of_act(act, limit, limit_s, done.get(act))


def _of_act(act: Act, limit: str, limit_s: float, done: Done | None) -> Criterion:
    name = f"act.{act.name.lower()}"
    if done is None:
        return Criterion(name, str(act), limit, "did not come to pass", passed=False)
    measured = f"{done.target}, {done.in_hand} units in hand, served again after {done.back_s:.1f} s"
    passed = not done.fault and done.in_hand > 0 and done.back_s <= limit_s
    return Criterion(name, str(act), limit, measured, passed, [done.fault] if done.fault else [])


def _share(name: str, title: str, of: int, against: Sequence[str]) -> Criterion:
    reasons = list(against[:_REASONS])
    return Criterion(name, title, f"{of} of {of}", f"{of - len(against)} of {of}", not against and of > 0, reasons)


def _none(name: str, title: str, what: str, against: Sequence[str]) -> Criterion:
    return Criterion(name, title, f"0 {what}", f"{len(against)} {what}", not against, list(against[:_REASONS]))


def _words(*, ok: bool) -> str:
    return "unchanged" if ok else "changed meanwhile"
