"""`python -m tests.campaign --kills N --seed S [--json FILE]`: disturb a line, then ask every chip what it holds."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.campaign.campaign import Options, run

_UNITS_A_KILL = 4


def main() -> int:
    """Run one campaign; 0 when nothing is lost, doubled, wrongly resolved or stuck."""
    parser = argparse.ArgumentParser(prog="tests.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="faults in all (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the faults, the units and their profiles")
    parser.add_argument("--units", type=int, help=f"units to make (default {_UNITS_A_KILL} for each fault)")
    parser.add_argument("--stations", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4, help="heads of each station")
    parser.add_argument("--apdu-ms", type=float, default=10.0, help="time a chip takes for one command")
    parser.add_argument("--faults", type=int, help="units made faulty (default one in ten)")
    parser.add_argument("--recipe", default="", help="a recipe of config/recipes (default: load, verify, seal)")
    parser.add_argument("--minutes", type=float, default=15.0, help="at most so long")
    parser.add_argument("--json", type=Path, help="write the outcome here")
    parser.add_argument("--keep", type=Path, help="keep all files of the run in this new folder")
    chosen = parser.parse_args()
    units = chosen.units or max(8 * chosen.stations, _UNITS_A_KILL * chosen.kills)
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="ifpp-campaign-"))
    options = Options(
        folder=folder,
        kills=chosen.kills,
        seed=chosen.seed,
        units=units,
        stations=chosen.stations,
        heads=chosen.heads,
        apdu_ms=chosen.apdu_ms,
        faulty=units // 10 if chosen.faults is None else chosen.faults,
        minutes=chosen.minutes,
        recipe=chosen.recipe,
    )
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    try:
        outcome = asyncio.run(run(options, say))
    except KeyboardInterrupt:
        say("stopped; every process has ended")
        return 130
    finally:
        if chosen.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    document = asdict(outcome)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(text_of(document))
    return 0 if outcome.clean else 1


def text_of(document: dict[str, Any]) -> str:
    """The outcome for people."""
    kills = ", ".join(f"{number} {kind}" for kind, number in sorted(document["kills"].items()))
    lines = [
        "",
        f"faults    {document['faults']} in {document['elapsed_s']:.0f} s: {kills}",
        f"edges     {len(document['edges'])} of {document['edges_known']} hit, {sum(document['edges'].values())} times",
        f"units     {document['units']}, {document['passed']} passed, {document['made_faulty']} made faulty",
    ]
    for name in ("lost", "doubled", "unresolved_wrongly", "stuck"):
        lines.append(f"{name:18} {document[name]}")
        lines += [f"    {reason}" for reason in document["reasons"][name]]
    lines += [f"note      {note}" for note in document["notes"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
