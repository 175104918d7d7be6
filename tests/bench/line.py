"""Run a real demo and return its figures."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ifpp.model.clock import parse_utc
from ifpp.sim.template import build_template
from ifpp.store.factory import Factory


def demo_figures(
    *, units: int, heads: int, apdu_ms: float, profile_bytes: int | None = None, place: Path | None = None
) -> dict[str, Any]:
    """One station with `heads`; `profile_bytes` gives every unit a profile of the same size, None the usual mix.

    `place` is where journal and database are kept, by default where temporary files are.
    """
    with tempfile.TemporaryDirectory(dir=place) as folder:
        out = Path(folder) / "out.json"
        options = ["--units", str(units), "--stations", "1", "--heads", str(heads), "--apdu-ms", str(apdu_ms)]
        if profile_bytes is not None:
            template = Path(folder) / "profile.der"
            template.write_bytes(build_template(profile_bytes, seed=1))
            options += ["--template", str(template)]
        command = [sys.executable, "-m", "ifpp", "demo", *options, "--json", str(out), "--keep", f"{folder}/run"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=600)
        document: dict[str, Any] = json.loads(out.read_bytes())
        return document | {"steady_units_per_hour": _steady(Path(folder) / "run" / "factory.db", heads)}


def _steady(database: Path, heads: int) -> float:
    """Units an hour between the first and the last finished unit of every head: without the line's start and end."""
    factory = Factory.open(f"sqlite:///{database}")
    try:
        ended = sorted(parse_utc(row.ended_at) for row in factory.units(limit=100_000))
    finally:
        factory.close()
    middle = ended[heads - 1 : len(ended) - heads + 1]
    return 3600 * (len(middle) - 1) / (middle[-1] - middle[0]).total_seconds()
