"""`ifpp unit genealogy`: device - module - eUICC - profile - package, for the import of an MES."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ifpp.errors import CustodyError
from ifpp.model.states import PackageState
from ifpp.roles.factory_access import open_factory
from ifpp.settings import load_site
from ifpp.store.records import UnitRecord
from ifpp.store.runs import RunRow


def show_genealogy(site_file: Path, name: str) -> None:
    """Print the tree of one unit as JSON; raises CustodyError UNIT.UNKNOWN."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        unit = factory.unit(name)
        runs = [] if unit is None else factory.runs.of_unit(unit.eid)
    finally:
        factory.close()
    if unit is None:
        raise CustodyError("UNIT.UNKNOWN", "no unit with this EID, ICCID or serial number", where=name[:64])
    document = {**tree(unit), "recipe": last_run(runs)}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def last_run(runs: Sequence[RunRow]) -> dict[str, Any] | None:
    """Return the recipe a unit went through last, step by step; None where no station said."""
    run = next((row.run for row in reversed(runs) if row.run is not None), None)
    if run is None:
        return None
    return {
        "name": run.name,
        "version": run.version,
        "digest": run.digest,
        "differences": run.differences,
        "steps": [
            {"step": note.step, "result": note.result, "code": note.code, "evidence": note.evidence}
            for note in run.steps
        ],
    }


def tree(unit: UnitRecord) -> dict[str, Any]:
    """Return device, its module with the eUICC in it, and the profiles that are on the chip now.

    `asked_later`: work cycles nobody had allowed, and what the MES said when it was asked afterwards ("": not yet).
    """
    last = max(unit.attempts, key=lambda row: (row.started_at, row.seq), default=None)
    return {
        "schema": "genealogy/1.0",
        "device": {"sn": unit.sns[-1] if unit.sns else ""},
        "module": {"firmware": "" if last is None else last.firmware},
        "euicc": {"eid": unit.eid},
        "clean_to_ship_at": unit.clean_to_ship_at,
        "asked_later": [
            {
                "station": row.node_id,
                "head": row.head_id,
                "operation": row.operation,
                "job_order_id": row.job_order_id,
                "ended_at": row.ended_at,
                "result": row.result,
                "code": row.code,
                "text": row.text,
                "answered_at": row.answered_at,
            }
            for row in unit.asked_later
        ],
        "profiles": [
            {
                "iccid": package.iccid,
                "profile_type": package.profile_type,
                "smdp_oid": package.smdp_oid,
                "bpp_sha256": package.bpp_sha256,
                "transaction_id": package.transaction_id,
            }
            for package in unit.packages
            if package.state == PackageState.INSTALLED and package.removed is None
        ],
    }
