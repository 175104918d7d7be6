"""The account of a demo whose units download: what the SM-DP+ gave, and was told, against chips and books.

In place of the Profile Loading Report's rule (6 of `accounts`): (a) the profiles that the books say are installed on a
chip are those that the SM-DP+ gave to it and knows to be installed, (b) no activation code was used twice, (c) the
SM-DP+ has the chip's own result of every profile installed, or a station still owes it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifpp.model.states import PackageState
from ifpp.station.look import owed_notices
from ifpp.store.records import UnitRecord
from ifpp.wire.es10 import parse_pir

_RESULT = b"\xbf\x37"


def owed_results(journals: Iterable[Path]) -> set[str]:
    """ICCIDs of which stations still owe the chip's result to an SM-DP+; raises CustodyError JOURNAL.WRITE."""
    owed = (raw for journal in journals for raw in owed_notices(journal))
    return {str(parse_pir(raw).iccid) for raw in owed if raw.startswith(_RESULT)}


def judge(
    evidence: Mapping[str, Any],
    units: Mapping[str, UnitRecord],
    chips: Mapping[str, Mapping[str, Any]],
    owed: Collection[str] = (),
) -> Iterator[str]:
    """Name every contradiction, a sentence each; `units` and `chips` by EID, `chips` as fleets write them.

    `owed`: see `owed_results`.
    """
    booked = {
        (package.iccid, eid)
        for eid, record in units.items()
        for package in record.packages
        if package.state == PackageState.INSTALLED
    }
    yield from _given(evidence, booked)  # a
    yield from _used_twice(evidence, booked, chips)  # b
    told = {iccid for iccid, _, _ in _installations(evidence)}
    for iccid, eid in sorted(booked):
        if iccid not in told and iccid not in owed:  # c
            yield f"EID {eid}: the SM-DP+ has no result of ICCID {iccid}"


def _given(evidence: Mapping[str, Any], booked: Collection[tuple[str, str]]) -> Iterator[str]:
    given = {order["iccid"]: order["eid"] for order in evidence["orders"]}
    for iccid, eid in sorted(booked):
        if given.get(iccid) != eid:
            yield f"EID {eid}: the books say ICCID {iccid}, the SM-DP+ gave it to {given.get(iccid) or 'nobody'}"
    for iccid, eid, _ in sorted(_installations(evidence)):
        if (iccid, eid) not in booked:
            yield f"EID {eid}: it told the SM-DP+ that it has ICCID {iccid}, the books do not say so"


def _used_twice(
    evidence: Mapping[str, Any], booked: Iterable[tuple[str, str]], chips: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    codes = Counter(order["iccid"] for order in evidence["orders"])
    yield from (f"ICCID {iccid} was given for {number} codes" for iccid, number in codes.items() if number > 1)
    told = Counter(iccid for iccid, _, _ in _installations(evidence))
    yield from (f"ICCID {iccid} was installed {number} times" for iccid, number in told.items() if number > 1)
    held = Counter(profile["iccid"] for chip in chips.values() for profile in chip["profiles"])
    yield from (f"ICCID {iccid} is on {number} chips" for iccid, number in held.items() if number > 1)
    written = Counter(iccid for iccid, _ in booked)
    yield from (f"ICCID {iccid} is in the books of {number} chips" for iccid, number in written.items() if number > 1)


def _installations(evidence: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    """ICCID, EID and sequence number of every success that chips proved; one that was told twice is one."""
    return {
        (entry["iccid"], entry["eid"], entry["sequence"])
        for entry in evidence["notifications"]
        if entry.get("installed") and entry["verified"]
    }


def figures(
    evidence: Mapping[str, Any], clean: Sequence[Mapping[str, Any]], journals: Iterable[Path]
) -> dict[str, Any]:
    """What `--json` says as "rsp": how the activation codes stand at the SM-DP+, and what a download took.

    `clean`: the units of fleets that passed at their first seating. Commands as these chips counted them, from
    GetEUICCChallenge to the result; round trips as the SM-DP+ did, up to the package: what chips tell it afterwards is
    counted apart.
    """
    commands = [count for unit in clean for count in unit["download_apdus"]]
    trips: dict[str, list[int]] = defaultdict(list)
    for order in evidence["orders"]:
        trips[order["eid"]].append(order["round_trips"])
    codes = Counter(map(_standing, evidence["orders"]))
    return {
        "codes": {name: codes[name] for name in ("free", "used", "tied")},
        "downloads": codes["used"],
        "apdus_per_download": _mean(commands),
        "round_trips_per_download": _mean([count for unit in clean for count in trips[unit["eid"]]]),
        "notifications_delivered": len(evidence["notifications"]),
        "owed": sum(len(owed_notices(journal)) for journal in journals),
        "calls": dict(sorted(evidence["calls"].items())),
        "sessions_cancelled": len(evidence["cancelled"]),
        "sessions_open": evidence["open_sessions"],
    }


def _standing(order: Mapping[str, Any]) -> str:
    """Free, used, or tied to a chip that has no profile of it."""
    if order["state"] == "INSTALLED":
        return "used"
    return "tied" if order["eid"] else "free"


def _mean(counts: Sequence[int]) -> float:
    return round(sum(counts) / len(counts), 3) if counts else 0.0


def text(rsp: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    codes = ", ".join(f"{number} {name}" for name, number in rsp["codes"].items())
    counts = f"{rsp['apdus_per_download']:.1f} commands and {rsp['round_trips_per_download']:.2f} round trips each"
    yield f"downloads      {rsp['downloads']}, {counts}; activation codes: {codes}"
    yield f"SM-DP+         {rsp['notifications_delivered']} notifications taken, {rsp['owed']} still owed"
