"""The account of a demo: chips, robot, ledger, journals and reports compared unit by unit.

A unit is accounted for when (1) the robot binned it and a result of it is in the factory's books, (2) the books say
INSTALLED, and not removed, of exactly the profiles its chip holds, (3) a green lamp and a PASS in the books go
together, (4) the books say clean to ship exactly when the chip is locked and has no one-time key, (5) none of its
packages is left open, (6) each package a station spoke of is in a Profile Loading Report, and (7) where the books say
clean to ship, the chip is what the recipe promised. Chips without factory services have nothing of (4), and
`accounts_online` in place of (6).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifpp.model.recipe import IFPP_LOAD, Recipe
from ifpp.model.states import PackageState
from ifpp.roles import accounts_online
from ifpp.roles.demo_recipe import told, untrue
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.world import UnitPlan, WorldSummary
from ifpp.station.journal import count_acknowledged
from ifpp.store.factory import Factory
from ifpp.store.records import AttemptRow, BalanceRow, ReportRow, UnitRecord
from ifpp.wire.bpp import apdu_floor, parse_bpp
from ifpp.wire.documents import read_delivery

_OPEN = {PackageState.CLAIMED, PackageState.SENT, PackageState.UNKNOWN}


@dataclass(slots=True)
class Figures:
    """What a run came to; `document` is what `--json` writes."""

    units: int
    passed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unaccounted: list[str] = field(default_factory=list)
    acked: int = 0
    clean_to_ship: int = 0
    apdus_per_unit: float = 0.0
    apdu_floor_per_unit: float = 0.0
    units_per_hour: float = 0.0
    cpu_ms_per_unit: float = 0.0
    elapsed_s: float = 0.0
    attempts: int = 0
    balance: list[BalanceRow] = field(default_factory=list)
    reported: int = 0
    report_refused: list[str] = field(default_factory=list)
    reports: list[ReportRow] = field(default_factory=list)
    mes: dict[str, Any] | None = None
    mes_differs: list[str] = field(default_factory=list)
    recipes: dict[str, Any] = field(default_factory=dict)
    rsp: dict[str, Any] | None = None

    @property
    def sound(self) -> bool:
        """True when every unit is accounted for, the mass balance holds, SM-DPf, SM-DP+ and MES say the same."""
        answered = not any(row.key_id and (row.verified is None or row.refused) for row in self.reports)
        if self.mes_differs or (self.rsp and self.rsp["owed"]):
            return False
        return not self.unaccounted and all(row.holds for row in self.balance) and not self.report_refused and answered

    def document(self) -> dict[str, Any]:
        """The figures as a JSON value."""
        return {
            "units": self.units,
            "passed": self.passed,
            "failed": dict(sorted(self.failed.items())),
            "unaccounted": len(self.unaccounted),
            "unaccounted_reasons": self.unaccounted,
            "acked": self.acked,
            "clean_to_ship": self.clean_to_ship,
            "apdus_per_unit": round(self.apdus_per_unit, 3),
            **({} if self.rsp else {"apdu_floor_per_unit": round(self.apdu_floor_per_unit, 3)}),
            "units_per_hour": round(self.units_per_hour, 1),
            "cpu_ms_per_unit": round(self.cpu_ms_per_unit, 2),
            "elapsed_s": round(self.elapsed_s, 3),
            "attempts": self.attempts,
            "mass_balance": [_balance_document(row) for row in self.balance],
            "report_items_verified": self.reported,
            "report_items_refused": self.report_refused,
            "reports": [_report_document(row) for row in self.reports],
            **self.recipes,
            **({} if self.rsp is None else {"rsp": self.rsp}),
            **({} if self.mes is None else {"mes": {**self.mes, "differs": self.mes_differs}}),
        }

    def _commands(self) -> str:
        return (
            f"commands       {self.apdus_per_unit:.1f} a load, at least {self.apdu_floor_per_unit:.1f} by the protocol"
        )

    def _reported(self) -> str:
        return f"reported       {self.reported} results verified by the SM-DPf, {len(self.report_refused)} refused"

    def _recipe_lines(self) -> Iterable[str]:
        """The recipes for people."""
        for recipe in self.recipes.get("recipes", ()):
            looks = self.recipes["read_back"]
            yield (
                f"recipe         {recipe['name']} {recipe['version']} ({recipe['digest'][:12]}), read back "
                f"{looks['units']}, as promised {looks['as_promised']}"
            )

    def text(self) -> str:
        """The figures for people."""
        failed = ", ".join(f"{count} {name}" for name, count in sorted(self.failed.items())) or "none"
        lines = [
            "",
            f"units          {self.units} in {self.elapsed_s:.1f} s, {self.units_per_hour:,.0f} an hour",
            f"passed         {self.passed}, clean to ship {self.clean_to_ship}",
            f"failed         {failed}",
            f"attempts       {self.attempts}, results acknowledged by the supervisor {self.acked}",
            *([] if self.rsp else [self._commands()]),
            f"station CPU    {self.cpu_ms_per_unit:.1f} ms a unit",
            *self._recipe_lines(),
            *(accounts_online.text(self.rsp) if self.rsp else [self._reported()]),
            *map(_report_text, self.reports),
            "packages       sku         region imported = available claimed sent installed failed unknown destroyed",
        ]
        for row in self.balance:
            numbers = f"{row.available:9} {row.claimed:7} {row.sent:4} {row.installed:9} {row.failed:6} {row.unknown:7}"
            verdict = "" if row.holds else "  DOES NOT ADD UP"
            lines.append(f"{'':15}{row.sku:11} {row.region:6} {row.imported:8} = {numbers} {row.destroyed:9}{verdict}")
        if self.mes is not None:
            told = f"{self.mes['results']} results, {len(self.mes['responses'])} job responses"
            checks = f"{self.mes['route_checks'].get('asked', 0)} route checks"
            lines.append(
                f"MES            {told}, {checks}, {self.mes['doubles']} told twice, {self.mes['gaps']} missing"
            )
            lines += [f"MES DIFFERS    {what}" for what in self.mes_differs]
        if self.unaccounted:
            lines += [f"UNACCOUNTED    {reason}" for reason in self.unaccounted]
        else:
            other = "SM-DP+" if self.rsp else "report"
            lines.append(f"every unit is accounted for: chip, robot, journal, ledger and {other} agree")
        return "\n".join(lines)


def take_account(
    folder: Path,
    world: WorldSummary,
    stations: list[str],
    *,
    station_cpu_s: float,
    block_size: int,
    recipe: Recipe = IFPP_LOAD,
    evidence: Path | None = None,
) -> Figures:
    """Compare what the chips hold with what the factory says, after everything has stopped.

    `evidence`: what the SM-DP+ says that chips downloaded from.
    """
    fleets = [json.loads((folder / f"fleet-{station}.json").read_bytes()) for station in stations]
    truth = {unit["eid"]: unit for fleet in fleets for unit in fleet["units"]}
    figures = Figures(units=len(world.units), elapsed_s=max(fleet["work_s"] for fleet in fleets))
    journals = [folder / "stations" / f"{station}.journal.db" for station in stations]
    factory = Factory.open(f"sqlite:///{folder / 'factory.db'}")
    try:
        for plan in world.units:
            _account_unit(figures, plan, truth.get(plan.eid), factory.unit(plan.eid))
        _account_unreadable(figures, world.units, truth, factory)
        _account_recipe(figures, recipe, truth, factory)
        if evidence is not None:
            _account_downloads(figures, json.loads(evidence.read_bytes()), truth, factory, journals)
        figures.balance = factory.balance()
        figures.reports = factory.written_reports()
    finally:
        factory.close()
    figures.acked = sum(count_acknowledged(journal, "unit_result") for journal in journals)
    figures.units_per_hour = 3600 * figures.units / figures.elapsed_s
    figures.cpu_ms_per_unit = 1000 * station_cpu_s / figures.units
    _count_apdus(figures, world, truth.values(), block_size)
    if evidence is None:
        _verify_reports(figures, folder, world)
    return figures


def _account_unit(figures: Figures, plan: UnitPlan, truth: dict[str, Any] | None, record: UnitRecord | None) -> None:
    """Hold one unit's chip and robot against its books; the numbers are those of the module text."""
    if truth is None or not truth["bin"]:
        figures.unaccounted.append(f"{plan.sn}: the robot did not bin it")  # 1
        return
    last = _last(record.attempts) if record is not None else None
    if last is None:
        if plan.fault != "dead":  # a chip that never answers has no EID to be booked under
            figures.unaccounted.append(f"{plan.sn}: no result in the books")  # 1
        return
    figures.attempts += len(record.attempts) if record is not None else 0
    passed = last.result in ("PASS", "SKIPPED")
    if passed:
        figures.passed += 1
    else:
        figures.failed[last.outcome_class] += 1
    if record is not None:
        figures.clean_to_ship += record.clean_to_ship_at is not None
        figures.unaccounted += [f"{plan.sn} (EID {plan.eid}): {word}" for word in _differences(truth, record, passed)]


def _differences(truth: dict[str, Any], record: UnitRecord, passed: bool) -> Iterable[str]:
    card = truth["card"]
    on_chip = {profile["iccid"] for profile in card["profiles"]}
    installed = [package for package in record.packages if package.state == PackageState.INSTALLED]
    in_books = {package.iccid for package in installed if package.removed is None}
    if on_chip != in_books:  # 2
        yield f"the chip holds {sorted(on_chip)}, the books say {sorted(in_books)}"
    if passed != (truth["lamp"] == "pass"):  # 3
        yield f"the lamp showed {truth['lamp']}, the books say {'PASS' if passed else 'no pass'}"
    clean = card["fpa_locked"] and not card["keys_left"]
    if card["keys"] and clean != (record.clean_to_ship_at is not None):  # 4
        yield f"the chip is {'sealed' if clean else 'not sealed'}, the books say the opposite"
    left = sorted(package.iccid for package in record.packages if package.state in _OPEN)
    if left:  # 5
        yield f"packages left open: {', '.join(left)}"
    silent = sorted(package.iccid for package in record.packages if package.words and not package.reports)
    if silent and card["keys"]:  # 6
        yield f"packages in no Profile Loading Report: {', '.join(silent)}"


def _last(attempts: Iterable[AttemptRow]) -> AttemptRow | None:
    return max(attempts, key=lambda row: (row.started_at, row.seq), default=None)


def _account_unreadable(
    figures: Figures, plans: Iterable[UnitPlan], truth: dict[str, dict[str, Any]], factory: Factory
) -> None:
    """Units without a readable EID are counted: each seating of one must be in the books as an attempt without EID."""
    dead = [plan for plan in plans if plan.fault == "dead"]
    seatings = sum(truth[plan.eid]["seatings"] for plan in dead if plan.eid in truth)
    booked = factory.attempts_without_eid()
    figures.attempts += booked
    figures.failed["CONTACT"] += len(dead)
    if not dead:
        del figures.failed["CONTACT"]
    if booked != seatings:
        figures.unaccounted.append(f"{seatings} seatings of units that gave no EID, {booked} in the books")


def _account_recipe(figures: Figures, recipe: Recipe, truth: dict[str, dict[str, Any]], factory: Factory) -> None:
    """What stations said of the recipe, and whether the chips say the same."""
    runs = factory.runs.all()
    figures.recipes = told(runs)
    clean = {row.eid for row in runs if row.clean_to_ship}
    units = {eid: unit for eid in clean if (unit := factory.unit(eid)) is not None}
    figures.unaccounted += untrue(recipe, runs, units, {eid: truth[eid]["card"] for eid in truth})  # 7


def _account_downloads(
    figures: Figures,
    evidence: dict[str, Any],
    truth: dict[str, dict[str, Any]],
    factory: Factory,
    journals: list[Path],
) -> None:
    """Hold the SM-DP+'s word against books and chips."""
    units = {eid: unit for eid in truth if (unit := factory.unit(eid)) is not None}
    chips = {eid: unit["card"] for eid, unit in truth.items()}
    owed = accounts_online.owed_results(journals)
    figures.unaccounted += accounts_online.judge(evidence, units, chips, owed)
    clean = [unit for unit in truth.values() if _loaded_cleanly(unit)]
    figures.rsp = accounts_online.figures(evidence, clean, journals)


def _count_apdus(figures: Figures, world: WorldSummary, truth: Iterable[dict[str, Any]], block_size: int) -> None:
    """Mean commands of a load as the chips counted them, and the minimum for the same packages (both per load).

    What is downloaded was never delivered here: there is no minimum to name.
    """
    floor: dict[str, list[int]] = defaultdict(list)
    for path in () if world.smdp_plus else world.deliveries:
        with path.open("rb") as stream:
            _, items = read_delivery(stream)
            for item in items:
                segments = parse_bpp(item.bpp).segments
                floor[item.eid].append(apdu_floor(segments, len(item.prepare_download), block_size))
    clean = [unit for unit in truth if _loaded_cleanly(unit)]
    if loads := sum(len(unit["load_apdus"]) for unit in clean):
        least = sum(sum(floor[unit["eid"]][: len(unit["load_apdus"])]) for unit in clean)
        figures.apdus_per_unit = sum(sum(unit["load_apdus"]) for unit in clean) / loads
        figures.apdu_floor_per_unit = least / loads


def _loaded_cleanly(unit: dict[str, Any]) -> bool:
    """Loads that were neither cut off nor ended early by a refusal can be compared with the minimum."""
    return unit["seatings"] == 1 and bool(unit["load_apdus"]) and unit["lamp"] == "pass"


def _verify_reports(figures: Figures, folder: Path, world: WorldSummary) -> None:
    """Let the simulated SM-DPf judge the Profile Loading Reports."""
    smdpf = SmDpf.load(world.directory / "smdpf")
    for path in sorted((folder / "reports").glob("*.plr.jsonl")):
        verdict = smdpf.verify_report(path)
        figures.reported += len(verdict.verified)
        figures.report_refused += [f"ICCID {item.iccid}: {why}" for item, why in verdict.refused]


def _report_text(row: ReportRow) -> str:
    """One report for people: whether it came to its SM-DPf, and what that said."""
    if row.verified is None:
        return f"report         {row.items} items for {row.smdp_oid}, {'not answered' if row.key_id else 'not signed'}"
    said = f"{row.verified} verified, {row.noted} noted, {row.refused} refused"
    return f"report         {row.items} items for {row.smdp_oid}, delivered and answered: {said}"


def _report_document(row: ReportRow) -> dict[str, Any]:
    return {
        "report_id": row.report_id,
        "smdp_oid": row.smdp_oid,
        "items": row.items,
        "signed": bool(row.key_id),
        "delivered": bool(row.delivered_at),
        "acknowledged": bool(row.acknowledged_at),
        "verified": row.verified,
        "noted": row.noted,
        "refused": row.refused,
    }


def _balance_document(row: BalanceRow) -> dict[str, Any]:
    return {
        "sku": row.sku,
        "region": row.region,
        "smdp_oid": row.smdp_oid,
        "imported": row.imported,
        "available": row.available,
        "claimed": row.claimed,
        "sent": row.sent,
        "installed": row.installed,
        "failed": row.failed,
        "unknown": row.unknown,
        "destroyed": row.destroyed,
        "holds": row.holds,
    }
