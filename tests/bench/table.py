"""How a benchmark shows its figures."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence


def row(name: str, values: Sequence[float], unit: str) -> float:
    """Print minimum, median and maximum of one figure; returns the median."""
    median = statistics.median(values)
    sys.stdout.write(f"{name:44} min {min(values):10.3f}  median {median:10.3f}  max {max(values):10.3f} {unit}\n")
    sys.stdout.flush()
    return median


def goal(name: str, value: float, limit: float, *, at_least: bool) -> bool:
    """Print one figure against its goal; returns whether it is met."""
    met = value >= limit if at_least else value <= limit
    sign = ">=" if at_least else "<="
    sys.stdout.write(f"{name:44} {value:.3f} (goal {sign} {limit:g}) {'met' if met else 'MISSED'}\n")
    sys.stdout.flush()
    return met
