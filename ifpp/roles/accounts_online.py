"""The account of a demo whose units download: what the SM-DP+ gave, and was told, against chips and books.

In place of the Profile Loading Report's rule (6 of `accounts`): (a) what the SM-DP+ gave to a chip is what the books
say of that chip, (b) no profile is on two chips, (c) the SM-DP+ has the chip's own result of every profile installed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ifpp.model.states import PackageState
from ifpp.station.rsp_book import count_owed
from ifpp.store.records import UnitRecord
from ifpp.store.runs import RunRow

_SESSION = ("initiateAuthentication", "authenticateClient", "getBoundProfilePackage")


def judge(
    evidence: Mapping[str, Any], units: Mapping[str, UnitRecord], chips: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Name every contradiction, a sentence each; `units` and `chips` by EID, `chips` as fleets write them."""
    given = {order["iccid"]: order["eid"] for order in evidence["orders"] if order["eid"]}
    told = {entry["iccid"] for entry in evidence["notifications"] if entry.get("installed") and entry["verified"]}
    for eid, record in units.items():
        for package in record.packages:
            if package.state != PackageState.INSTALLED:
                continue
            if given.get(package.iccid) != eid:  # a
                owner = given.get(package.iccid, "nobody")
                yield f"EID {eid}: the books say ICCID {package.iccid}, the SM-DP+ gave it to {owner}"
            if package.iccid not in told:  # c
                yield f"EID {eid}: the SM-DP+ has no result of ICCID {package.iccid}"
    held = Counter(profile["iccid"] for chip in chips.values() for profile in chip["profiles"])
    yield from (f"ICCID {iccid} is on {number} chips" for iccid, number in held.items() if number > 1)  # b


def figures(evidence: Mapping[str, Any], runs: Iterable[RunRow], journals: Iterable[Path]) -> dict[str, Any]:
    """What `--json` says as "rsp": how the activation codes stand at the SM-DP+, and what a download took.

    Commands as stations counted them, round trips as the SM-DP+ did, both per download that passed.
    """
    notes = [note for row in runs if row.run is not None for note in row.run.steps if note.step == "download"]
    commands = [int(note.evidence["apdus"]) for note in notes if note.result == "PASS"]
    calls, number = evidence["calls"], len(commands)
    trips = sum(calls.get(name, 0) for name in _SESSION)
    return {
        "codes": dict(sorted(Counter(order["state"] for order in evidence["orders"]).items())),
        "downloads": number,
        "apdus_per_download": round(sum(commands) / number, 3) if number else 0.0,
        "round_trips_per_download": round(trips / number, 3) if number else 0.0,
        "notifications_delivered": len(evidence["notifications"]),
        "notifications_owed": sum(map(count_owed, journals)),
        "sessions_cancelled": len(evidence["cancelled"]),
        "sessions_open": evidence["open_sessions"],
    }


def text(rsp: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    codes = ", ".join(f"{number} {state}" for state, number in rsp["codes"].items())
    counts = f"{rsp['apdus_per_download']:.1f} commands and {rsp['round_trips_per_download']:.2f} round trips each"
    yield f"downloads      {rsp['downloads']}, {counts}; activation codes: {codes}"
    yield f"SM-DP+         {rsp['notifications_delivered']} notifications taken, {rsp['notifications_owed']} still owed"
