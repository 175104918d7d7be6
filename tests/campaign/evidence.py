"""Gathers what everybody says after a campaign (see `ifpp.sim.witness`).

Databases and journals are read with plain SQL, not with the code that wrote them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ifpp.errors import SupplyError
from ifpp.line.audit_check import check_audit
from ifpp.line.audit_export import export_audit
from ifpp.line.report import write_reports
from ifpp.log import Secret
from ifpp.roles import accounts_online
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.witness import Attempt, Event, Evidence, Package, Sending, units_of
from ifpp.sim.world import WorldSummary
from ifpp.store.factory import Factory
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import read_public_key
from tests.campaign.line import Line

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def gather(line: Line, world: WorldSummary) -> Evidence:
    """Collect the evidence of a campaign whose processes have ended."""
    factory = Factory.open(line.database)
    try:
        counts = factory.unit_counts()
        counted = sum(row.units for row in counts), sum(row.final_pass for row in counts)
        broken = factory.audit() + _audit_log(factory, line.folder)
        gates = {unit.eid: _gate(factory, unit.eid) for unit in world.units}
        if world.smdp_plus:
            proven, refused = _downloads(line)
            broken += _smdp_differs(factory, line, world)
        else:
            proven, refused = _reports(factory, line.folder / "reports", world)
    finally:
        factory.close()
    journals = {station: line.journal(station) for station in line.stations}
    with _reading(line.database_file) as books:
        iccids = dict(books.execute("SELECT package_id, iccid FROM package").fetchall())
        return Evidence(
            units=list(units_of(map(line.fleet_file, line.stations), world)),
            packages=list(_packages(books)),
            attempts=[Attempt(*row) for row in books.execute("SELECT eid, transaction_id, result FROM unit_attempt")],
            cleared={eid for (eid,) in books.execute("SELECT eid FROM chip WHERE clean_to_ship_at IS NOT NULL")},
            taken=[Event(*row) for row in books.execute("SELECT node_id, seq, id FROM event")],
            parked={
                Event(node, seq, event_id): f"{code}: {text}"
                for node, seq, event_id, code, text in books.execute("SELECT node_id, seq, id, code, text FROM parked")
            },
            stored=[event for item in journals.items() for event in _stored(*item)],
            sendings=[sending for item in journals.items() for sending in _sendings(*item, iccids)],
            held={eid: why for path in journals.values() for eid, why in _held(path)},
            counted=counted,
            proven=proven,
            refused=refused,
            gates=gates,
            broken=broken,
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )


def _packages(books: sqlite3.Connection) -> Iterator[Package]:
    query = "SELECT package_id, eid, otk_id, iccid, state, spent, coalesce(lease_until, '') FROM package"
    for package_id, eid, otk_id, iccid, state, spent, lease_until in books.execute(query):
        steps = books.execute("SELECT to_state FROM ledger WHERE package_id = ? ORDER BY entry", (package_id,))
        history = [step for (step,) in steps]
        yield Package(package_id, eid, otk_id, iccid, state, bool(spent), history, lease_until)


def _stored(station: str, journal: Path) -> list[Event]:
    with _reading(journal) as own:
        return [Event(station, *row) for row in own.execute("SELECT seq, id FROM outbox")]


def _sendings(station: str, journal: Path, iccids: dict[str, str]) -> list[Sending]:
    """The journal's own word; it does not know what an activation code would bring, `iccids` does, by package id."""
    query = (
        "SELECT eid, iccid, state, spent, pir IS NOT NULL, resolved_by <> '', package_id FROM package ORDER BY rowid"
    )
    with _reading(journal) as own:
        return [
            Sending(station, eid, iccid or iccids[package_id], state, bool(spent), bool(has_result), bool(resolved))
            for eid, iccid, state, spent, has_result, resolved, package_id in own.execute(query)
        ]


def _held(journal: Path) -> list[tuple[str, str]]:
    with _reading(journal) as own:
        return [(eid, f"{code}: {action}") for eid, code, action in own.execute("SELECT eid, code, action FROM hold")]


def _audit_log(factory: Factory, folder: Path) -> list[str]:
    """Export the audit log, and check the export as an auditor would: with the factory's public key alone."""
    out, pin = folder / "audit.jsonl", Secret((folder / "credentials" / "ifpp-pin").read_bytes())
    keys = SoftwareKeys.open(folder / "keys.ifpp", pin)
    export_audit(factory, out, keys.signer(Purpose.AUDIT), datetime.now(UTC))
    keys.close()
    with out.open("rb") as stream:
        report = check_audit(stream, out.name, [read_public_key(folder / "config" / "audit.pub")])
    return [f"audit log: {finding}" for finding in report.findings]


def _gate(factory: Factory, eid: str) -> str:
    try:
        gate = factory.unit_gate(eid)
    except SupplyError as error:  # a chip without eUICC data comes into the books with its first code
        return f"{error.code}: {error.detail}"
    if not gate.clean_to_ship:
        return f"{gate.code}: {gate.reason}"
    return "" if gate.signed else "its clean-to-ship entry is not signed"


def _downloads(line: Line) -> tuple[list[str], list[str]]:
    """What chips proved to the SM-DP+ themselves. It may have heard of one twice: a station died between its taking a
    notification and the note of that.
    """
    told = json.loads(line.evidence_file.read_bytes())["notifications"]
    proven = {entry["iccid"] for entry in told if entry.get("installed") and entry["verified"]}
    return sorted(proven), [f"notification {entry['sequence']}" for entry in told if not entry["verified"]]


def _smdp_differs(factory: Factory, line: Line, world: WorldSummary) -> list[str]:
    truth = [unit for station in line.stations for unit in json.loads(line.fleet_file(station).read_bytes())["units"]]
    units = {plan.eid: unit for plan in world.units if (unit := factory.unit(plan.eid)) is not None}
    evidence = json.loads(line.evidence_file.read_bytes())
    return list(accounts_online.judge(evidence, units, {unit["eid"]: unit["card"] for unit in truth}))


def _reports(factory: Factory, folder: Path, world: WorldSummary) -> tuple[list[str], list[str]]:
    """Let the simulated SM-DPf judge the Profile Loading Reports: (ICCIDs proven installed, lines refused).

    A clock was wrong for a while: what was taken in the future belongs into the report, too.
    """
    now = datetime.now(UTC)
    smdpf = SmDpf.load(world.directory / "smdpf")
    proven, refused = [], []
    for report in write_reports(factory, folder, start=_EVER, end=now + timedelta(days=3), now=now):
        verdict = smdpf.verify_report(report.path)
        proven += [entry.item.iccid for entry in verdict.verified if entry.installation.installed]
        refused += [f"ICCID {item.iccid}: {why}" for item, why in verdict.refused]
    return proven, refused


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        yield connection
