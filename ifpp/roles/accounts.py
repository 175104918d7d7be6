"""The account of a demo: chips, robot, ledger, journals and reports compared unit by unit.

A unit is accounted for when (1) the robot binned it and a result of it is in the factory's books, (2) the books say
INSTALLED of exactly the profiles its chip holds, (3) a green lamp and a PASS in the books go together, (4) the books
say clean to ship exactly when the chip is locked and has no one-time key, and (5) none of its packages is left open.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifpp.model.states import PackageState
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.world import UnitPlan, WorldSummary
from ifpp.store.factory import Factory
from ifpp.store.records import AttemptRow, BalanceRow, UnitRecord
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

    @property
    def sound(self) -> bool:
        """True when every unit is accounted for, the mass balance holds and the SM-DPf accepted every report item."""
        return not self.unaccounted and all(row.holds for row in self.balance) and not self.report_refused

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
            "apdu_floor_per_unit": round(self.apdu_floor_per_unit, 3),
            "units_per_hour": round(self.units_per_hour, 1),
            "cpu_ms_per_unit": round(self.cpu_ms_per_unit, 2),
            "elapsed_s": round(self.elapsed_s, 3),
            "attempts": self.attempts,
            "mass_balance": [_balance_document(row) for row in self.balance],
            "report_items_verified": self.reported,
            "report_items_refused": self.report_refused,
        }

    def text(self) -> str:
        """The figures for people."""
        failed = ", ".join(f"{count} {name}" for name, count in sorted(self.failed.items())) or "none"
        lines = [
            "",
            f"units          {self.units} in {self.elapsed_s:.1f} s, {self.units_per_hour:,.0f} an hour",
            f"passed         {self.passed}, clean to ship {self.clean_to_ship}",
            f"failed         {failed}",
            f"attempts       {self.attempts}, results acknowledged by the supervisor {self.acked}",
            f"commands       {self.apdus_per_unit:.1f} a load, the protocol's minimum is {self.apdu_floor_per_unit:.1f}",
            f"station CPU    {self.cpu_ms_per_unit:.1f} ms a unit",
            f"reported       {self.reported} results verified by the SM-DPf, {len(self.report_refused)} refused",
            "packages       sku         region imported = available claimed sent installed failed unknown destroyed",
        ]
        for row in self.balance:
            numbers = f"{row.available:9} {row.claimed:7} {row.sent:4} {row.installed:9} {row.failed:6} {row.unknown:7}"
            verdict = "" if row.holds else "  DOES NOT ADD UP"
            lines.append(f"{'':15}{row.sku:11} {row.region:6} {row.imported:8} = {numbers} {row.destroyed:9}{verdict}")
        if self.unaccounted:
            lines += [f"UNACCOUNTED    {reason}" for reason in self.unaccounted]
        else:
            lines.append("every unit is accounted for: chip, robot, journal, ledger and report agree")
        return "\n".join(lines)


def take_account(
    folder: Path, world: WorldSummary, stations: list[str], *, elapsed_s: float, station_cpu_s: float, block_size: int
) -> Figures:
    """Compare what the chips hold with what the factory says, after everything has stopped."""
    truth = {unit["eid"]: unit for station in stations for unit in _fleet_units(folder / f"fleet-{station}.json")}
    figures = Figures(units=len(world.units), elapsed_s=elapsed_s)
    factory = Factory.open(f"sqlite:///{folder / 'factory.db'}")
    try:
        for plan in world.units:
            _account_unit(figures, plan, truth.get(plan.eid), factory.unit(plan.eid))
        _account_unreadable(figures, world.units, truth, factory)
        figures.balance = factory.balance()
    finally:
        factory.close()
    figures.acked = sum(_acknowledged(folder / "stations" / f"{station}.journal.db") for station in stations)
    figures.units_per_hour = 3600 * figures.units / elapsed_s if elapsed_s else 0.0
    figures.cpu_ms_per_unit = 1000 * station_cpu_s / figures.units
    _count_apdus(figures, world, truth.values(), block_size)
    _verify_reports(figures, folder, world)
    return figures
