"""`ifpp unit` and `ifpp balance`: where a unit stands, whether it may leave, and what became of every package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ifpp.errors import CustodyError, SupplyError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.messages import UnitGate
from ifpp.model.states import OPEN_STATES, PackageState
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.roles.rework import rework_state
from ifpp.settings import Deadlines, load_site
from ifpp.store.factory import Factory
from ifpp.store.gate import gate_document
from ifpp.store.records import AttemptRow, BalanceRow, LedgerRow, OpenRow, PackageRow, UnitRecord

_USUAL_LEASE_S = Deadlines().lease_s
_MES = "told over MQTT where [mes] is enabled; it may ask the store, too: GET /v1/units/{eid}/gate"
_UNSEEN = "the store does not see a station's journal; what it did and has not sent yet stands there"


def show_unit(site_file: Path, name: str, *, as_json: bool) -> None:
    """Print everything the books know of a unit; raises CustodyError UNIT.UNKNOWN."""
    factory = _open(site_file)
    try:
        record = factory.unit(name)
        if record is None:
            raise CustodyError("UNIT.UNKNOWN", "no unit with this EID, ICCID or serial number", where=name[:64])
        gate = _gate(factory, record)
    finally:
        factory.close()
    if as_json:
        _print_json(_unit_document(record, gate))
    else:
        _print("\n".join(_unit_text(record, gate)))


def unit_lines(factory: Factory, name: str) -> list[str] | None:
    """Return everything the books know of a unit as lines; None when they know none."""
    record = factory.unit(name)
    return None if record is None else list(_unit_text(record, _gate(factory, record)))


def show_gate(site_file: Path, name: str, *, as_json: bool) -> int:
    """Print whether a unit may leave; returns 0 when it may, else 1. Raises SupplyError EID.UNKNOWN."""
    factory = _open(site_file)
    try:
        gate = factory.unit_gate(name)
    finally:
        factory.close()
    if as_json:
        _print_json(gate_document(gate))
    else:
        _print(f"EID {gate.eid}: {_gate_text(gate)}")
    return 0 if gate.clean_to_ship else 1


def ask_again(site_file: Path, eid: str, *, by: str, reason: str) -> None:
    """Have the MES asked again about a unit it refused afterwards; raises CustodyError UNIT.UNKNOWN, SettingsError."""
    check_person(by, reason)
    factory = _open(site_file)
    try:
        number = factory.unasked.ask_again(eid, by.strip(), reason.strip(), datetime.now(UTC))
    finally:
        factory.close()
    _print(f"EID {eid}: the supervisor asks the MES again ({number} work cycles); `ifpp unit genealogy` has the answer")


def show_balance(site_file: Path, *, as_json: bool) -> int:
    """Print the mass balance and every package that is neither on the shelf nor settled; 0 when the books hold."""
    factory = _open(site_file)
    try:
        rows, faults, residues = factory.balance(), factory.audit(), factory.open_packages()
    finally:
        factory.close()
    now = datetime.now(UTC)
    if as_json:
        _print_json(_balance_document(rows, faults, residues, now))
    else:
        _print("\n".join(_balance_text(rows, faults, residues, now)))
    return 1 if faults else 0


def _open(site_file: Path) -> Factory:
    return open_factory(load_site(site_file), site_file, writer="desk")


# ---- one unit -----------------------------------------------------------------------------------------


def _gate(factory: Factory, record: UnitRecord) -> UnitGate | None:
    """Return the gate's answer; None for a unit whose chip is not in the books."""
    try:
        return factory.unit_gate(record.eid) if record.eid else None
    except SupplyError:
        return None


def _gate_text(gate: UnitGate) -> str:
    if not gate.clean_to_ship:
        return f"NOT CLEAN TO SHIP. {gate.code}: {gate.reason}. {gate.advice}"
    if not gate.signed or gate.proof is None or gate.proof.checkpoint is None:
        return f"CLEAN TO SHIP since {gate.since}; not signed: this factory has no signing key"
    entry, signed = gate.proof.entry, gate.proof.checkpoint
    return (
        f"CLEAN TO SHIP since {gate.since}; audit entry {entry['number']} of chain {entry['chain']}, "
        f"signed at {signed['at']} by key {signed['key_id'][:16]}, the signature holds"
    )


def _unit_text(record: UnitRecord, gate: UnitGate | None) -> Iterator[str]:
    serial = f"  serial {', '.join(record.sns)}" if record.sns else ""
    yield f"unit      EID {record.eid or '(never read)'}{serial}"
    yield f"gate      {_gate_text(gate) if gate else 'NOT CLEAN TO SHIP. Its chip is not in the books'}"
    for order in record.reworks:
        target = f"for {order.sku} {order.region}" if order.sku else "into stock"
        yield f"rework    {order.at}  {target}, {rework_state(order)}  ordered by {order.told_by}: {order.reason}"
    for row in record.asked_later:
        yield f"route     {row.ended_at}  {row.node_id}/{row.head_id} nobody had allowed {row.operation}; {row.words}"
    for package in record.packages:
        yield ""
        yield from _package_text(package)
    yield ""
    yield f"attempts  {len(record.attempts) or 'none'}"
    for attempt in record.attempts:
        yield from _attempt_text(attempt)
    yield ""
    yield f"station   {_UNSEEN}"
    yield f"MES       {_MES}"


def _package_text(package: PackageRow) -> Iterator[str]:
    yield from _code_head(package) if package.is_code else _package_head(package)
    yield f"  stands  {_stands(package)}"
    if package.removed is not None:
        gone = package.removed
        proof = "its signed notification is kept" if gone.notification_b64 else "the chip kept no notification"
        yield f"  REMOVED {gone.at}  {gone.node_id} event {gone.seq}: read back that it is gone; {proof}"
    yield "  steps"
    for step in package.history:
        yield f"    {step.at}  {step.to_state:10} {_who(step)}"
    for word in package.words:
        proof = f"chip's result of {word.pir_bytes} bytes" if word.pir_bytes else "no result of the chip"
        late = "" if word.moved else " (late: it moved nothing)"
        yield f"  result  {word.taken_at}  {word.node_id} event {word.seq}: {word.state}, {proof}{late}"
        if word.reason:
            yield f"          {word.reason}"
    for report in package.reports:
        heard = (
            f"acknowledged {report.acknowledged_at} (said {report.told_by})"
            if report.acknowledged_at
            else "not acknowledged by the SM-DPf"
        )
        yield f"  report  {report.created_at}  {report.report_id} as {report.state}; {heard}"
        yield f"          {report.file}"
        if report.verdict:
            yield f"          the SM-DPf says: {report.verdict}{f', {report.reason}' if report.reason else ''}"
    if not package.reports and not package.is_code:
        yield "  report  in no Profile Loading Report yet"


def _package_head(package: PackageRow) -> Iterator[str]:
    key = "its one-time key is spent" if package.spent else "its one-time key was not spent"
    yield f"package   ICCID {package.iccid}  {package.state}, {key}"
    yield f"          {package.profile_type} for {package.sku} {package.region}, package {package.package_id}"
    yield f"          SM-DPf {package.smdp_oid}, transaction {package.transaction_id}, one-time key {package.otk_id}"


def _code_head(package: PackageRow) -> Iterator[str]:
    iccid = "not known" if package.iccid == package.package_id else package.iccid
    yield f"code      ICCID {iccid}  {package.state}, {'used up' if package.spent else 'not used up'}"
    yield f"          {package.profile_type} for {package.sku} {package.region}, activation code {package.package_id}"
    yield f"          SM-DP+ {package.smdp_oid}, which hears from the chip itself"


def _stands(package: PackageRow) -> str:
    """Say in one line who has the package now."""
    last = package.history[-1]
    where = f"{last.node_id}/{last.head_id}" if last.head_id else last.node_id
    if package.state == PackageState.CLAIMED:
        return f"in the hands of {where} since {last.at}, lease until {package.lease_until}; nothing was sent yet"
    if package.state == PackageState.SENT:
        return f"sent by {where} at {last.at}; its result is not here yet: still on the station, or on its way"
    if package.state == PackageState.UNKNOWN:
        return f"nobody knows since {last.at}: only reading the chip settles it"
    if package.state == PackageState.AVAILABLE:
        return f"on the shelf since {last.at}"
    return f"settled at the supervisor since {last.at}, by the word of {where}"


def _who(step: LedgerRow) -> str:
    parts = [f"{step.node_id}/{step.head_id}" if step.head_id else step.node_id]
    parts += [f"attempt {step.attempt_id}"] if step.attempt_id else []
    parts += [f"event {step.event_id}"] if step.event_id else []
    parts += [step.detail] if step.detail else []
    return "  ".join(parts)


def _attempt_text(attempt: AttemptRow) -> Iterator[str]:
    where = f"{attempt.node_id}/{attempt.head_id}"
    verdict = f"{attempt.result} ({attempt.outcome_class}, {attempt.disposition})"
    fault = f"  {attempt.defect}" if attempt.defect else ""
    seconds = f"cycle {attempt.cycle_ms / 1000:.1f} s, load {attempt.load_ms / 1000:.1f} s"
    yield f"  {attempt.started_at}  {where}  {verdict}{fault}  {seconds}  job order {attempt.job_order_id}"
    yield f"    attempt {attempt.transaction_id}"
    if attempt.block_size:
        rate = f"{attempt.bit_rate} bit/s" if attempt.bit_rate else "bit rate not known"
        path = ", ".join(filter(None, (attempt.protocol, rate, f"blocks of {attempt.block_size} bytes")))
        yield f"    link {path}, ATR {attempt.atr.upper() or 'not told'}; firmware {attempt.firmware or 'not told'}"
    yield f"    at the supervisor since {attempt.taken_at}: {attempt.node_id} event {attempt.seq}, {attempt.event_id}"


def _unit_document(record: UnitRecord, gate: UnitGate | None) -> dict[str, Any]:
    document = asdict(record)
    document["gate"] = None if gate is None else gate_document(gate)
    document["station"] = {"known": False, "note": _UNSEEN}
    document["mes"] = {"note": _MES}
    for package, row in zip(document["packages"], record.packages, strict=True):
        package["stands"] = _stands(row)
    return document


# ---- the balance --------------------------------------------------------------------------------------

_NUMBERS = ("imported", *(state.lower() for state in PackageState))


def _balance_text(rows: list[BalanceRow], faults: list[str], residues: list[OpenRow], now: datetime) -> Iterator[str]:
    widths = [max(9, len(name)) for name in _NUMBERS]
    heads = "  ".join(f"{name:>{width}}" for name, width in zip(_NUMBERS, widths, strict=True))
    yield f"{'SKU':16} {'region':8} {'SM-DPf':14} {heads}"
    for row in rows:
        numbers = (getattr(row, name) for name in _NUMBERS)
        cells = "  ".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
        yield f"{row.sku:16} {row.region:8} {row.smdp_oid:14} {cells}{'' if row.holds else '  DOES NOT ADD UP'}"
    yield ""
    for residue in residues:
        yield from _residue_text(residue, now)
    if not residues:
        yield "no residue: every package is on the shelf or settled"
    for fault in faults:
        yield f"FAULT     {fault}"
    verdict = f"DO NOT HOLD: {len(faults)} faults" if faults else "hold: files, states, ledger and audit log agree"
    yield f"the books {verdict}"


def _residue_text(residue: OpenRow, now: datetime) -> Iterator[str]:
    where = f"{residue.node_id}/{residue.head_id}" if residue.head_id else residue.node_id
    age = timedelta(seconds=max(0, int((now - parse_utc(residue.since)).total_seconds())))
    mark = "STRANDED" if residue.stranded else residue.state + (" OVERDUE" if _overdue(residue, now) else "")
    yield f"{mark:16} ICCID {residue.iccid}  EID {residue.eid}  {residue.sku} {residue.region} {residue.smdp_oid}"
    yield f"{'':16} since {residue.since} ({age}), {where}, package {residue.package_id}"
    yield f"{'':16} next: {_next(residue, now)}"


def _overdue(residue: OpenRow, now: datetime) -> bool:
    """Whether it is older than its lease; a sent package has none any more, the usual one is taken."""
    if residue.lease_until is not None:
        return residue.lease_until < utc_ms_text(now)
    return (now - parse_utc(residue.since)).total_seconds() > _USUAL_LEASE_S


def _next(residue: OpenRow, now: datetime) -> str:
    overdue, state = _overdue(residue, now), residue.state
    if residue.stranded:
        return "none: its chip is sealed without it; tell the SM-DPf that it was not used"
    if state == PackageState.UNKNOWN:
        return "hold the unit and seat it again: its chip is read; if it stays unknown, call quality"
    if state == PackageState.CLAIMED:
        return "start the store: it frees what outlived its lease" if overdue else "wait: a head works on it"
    if overdue:
        return f"is {residue.node_id} online, its outbox empty? Then find the unit and seat it again: its chip is read"
    return "wait: a head loads it, or its result is on the way"


def _balance_document(
    rows: list[BalanceRow], faults: list[str], residues: list[OpenRow], now: datetime
) -> dict[str, Any]:
    return {
        "at": utc_ms_text(now),
        "holds": not faults,
        "faults": faults,
        "balance": [asdict(row) | {"holds": row.holds} for row in rows],
        "open": {state: sum(row.state == state and not row.stranded for row in residues) for state in OPEN_STATES},
        "residues": [
            asdict(row) | {"overdue": not row.stranded and _overdue(row, now), "next": _next(row, now)}
            for row in residues
        ],
    }


def _print_json(document: dict[str, Any]) -> None:
    _print(json.dumps(document, indent=2))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
