"""`ifpp report`: what the SM-DPfs are told, whether they heard, and what they say of it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import CustodyError, IfppError, Retry, SettingsError
from ifpp.line.acknowledgement import take_answer
from ifpp.line.delivery import Addressee, send
from ifpp.line.report import write_reports
from ifpp.line.report_watch import due_before
from ifpp.model.clock import utc_ms_text
from ifpp.roles.factory_access import open_factory
from ifpp.roles.key_access import signer_for, using_keys
from ifpp.roles.runtime import beside
from ifpp.settings import Reports, Site, Smdp, load_site
from ifpp.store.factory import Factory
from ifpp.store.records import ReportRow
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import VerificationKey, read_public_key
from ifpp.trust.tls import client_context

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def write(site_file: Path, folder: Path, *, since: str = "", everything: bool = False) -> None:
    """Write a Profile Loading Report for each SM-DPf of what none has said yet; of all `since` a moment; or of all.

    Raises SettingsError COMMAND.INVALID for a `since` that is no moment.
    """
    start = _moment(since) if since else _EVER
    with _desk(site_file) as (site, factory):
        with using_keys(site.keys, site_file) as keys:
            signer, now = signer_for(keys, site.keys, Purpose.REPORT), datetime.now(UTC)
            line = site.line if site.mes.enabled else ""
            unsaid = not (since or everything)
            written = write_reports(
                factory, folder, start=start, end=now, now=now, signer=signer, line=line, unsaid=unsaid
            )
        if not written:
            _print("nothing to report" + (" that no report has said; --all repeats it" if unsaid else ""))
        for report in written:
            signed = "signed" if report.signed else "NOT SIGNED"
            _print(f"{report.items:7} items, {report.outstanding} outstanding, {signed}  {report.path}")


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        detail = f"{text!r} is no moment such as 2026-03-01 or 2026-03-01T06:00:00+01:00"
        raise SettingsError("COMMAND.INVALID", detail, where="--since") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def acknowledge(site_file: Path, report_id: str, told_by: str) -> None:
    """Keep that an SM-DPf has taken a report; raises CustodyError REPORT.UNKNOWN."""
    with _desk(site_file) as (_, factory):
        at, first = factory.acknowledge_report(report_id, told_by, datetime.now(UTC))
    _print(f"report {report_id}: taken by its SM-DPf, as {first} said at {at}")


def take(site_file: Path, file: Path, signature: Path | None) -> int:
    """Take an acknowledgement that came as a file, its signature (base64) in another; 0 when nothing is refused."""
    try:
        signed = "" if signature is None else signature.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CustodyError(
            "REPORT.UNSIGNED", f"the signature cannot be read ({error})", where=str(signature)
        ) from error
    with _desk(site_file) as (site, factory):
        report = take_answer(factory, file, signed, _keys(site, site_file), now=datetime.now(UTC))
        _show(factory, report, site.reports)
    return 1 if report.refused else 0


def deliver(site_file: Path, folder: Path) -> int:
    """Send every report in `folder` that its SM-DPf has not answered and that goes over HTTPS; 0 when all arrived.

    What fails for now is tried again with a growing pause, then left for the next call.
    """
    with _desk(site_file) as (site, factory):
        keys = _keys(site, site_file)
        failed = 0
        for report in factory.written_reports():
            smdp = site.reports.smdp.get(report.smdp_oid)
            path = folder / report.file
            if smdp is None or report.answered_at or not path.is_file():
                continue
            to = _addressee(smdp, site_file)
            try:
                asyncio.run(_deliver(factory, report, path, to, keys, site.reports))
            except IfppError as error:
                failed += 1
                _print(f"error: report {report.report_id}: {error}")
            _show(factory, factory.report(report.report_id), site.reports)
    return 1 if failed else 0


async def _deliver(
    factory: Factory,
    report: ReportRow,
    path: Path,
    to: Addressee,
    keys: dict[str, VerificationKey],
    settings: Reports,
) -> None:
    """Try to deliver one report; a wrong answer is no reason to send it again."""
    with tempfile.TemporaryDirectory(prefix="ifpp-report-") as folder:
        for attempt in range(settings.tries):
            try:
                answer = await send(report, path, to, Path(folder) / f"{report.report_id}.plr-ack.jsonl")
                break
            except IfppError as error:
                if error.fault.retry is not Retry.LATER or attempt + 1 == settings.tries:
                    raise
                pause_s = settings.back_off_s * 2**attempt
                _print(f"report {report.report_id}: {error}; again in {pause_s:.0f} s")
                await asyncio.sleep(pause_s)
        now = datetime.now(UTC)
        factory.deliver_report(report.report_id, to.url, now)
        if answer is not None:
            take_answer(factory, answer.path, answer.signature, keys, now=now, report_id=report.report_id)


def status(site_file: Path, *, as_json: bool) -> int:
    """Print how far every report has come and what was refused; 0 when none is overdue and nothing refused."""
    with _desk(site_file) as (site, factory):
        rows, now = factory.written_reports(), datetime.now(UTC)
        overdue = {row.report_id for row in rows if is_overdue(row, site.reports.due_h, now)}
        if as_json:
            documents = [_document(factory, row, row.report_id in overdue) for row in rows]
            _print(json.dumps(documents, indent=2))
        else:
            for row in rows:
                _show(factory, row, site.reports)
            if not rows:
                _print("no report was written yet")
    return 1 if overdue or any(row.refused for row in rows) else 0


def is_overdue(row: ReportRow, due_h: float, now: datetime) -> bool:
    """Whether an SM-DPf should have acknowledged a report by now (alarm A-160)."""
    return not row.acknowledged_at and row.created_at < utc_ms_text(due_before(now, due_h))


def _document(factory: Factory, row: ReportRow, overdue: bool) -> dict[str, object]:
    document = asdict(row)
    document["signature"] = row.signature.hex()
    refused = [asdict(item) for item in factory.refused_items(row.report_id)] if row.refused else []
    return document | {"overdue": overdue, "refused_items": refused}


def _show(factory: Factory, row: ReportRow, settings: Reports) -> None:
    late = "  OVERDUE (A-160)" if is_overdue(row, settings.due_h, datetime.now(UTC)) else ""
    _print(f"report {row.report_id}  SM-DPf {row.smdp_oid}  {row.items} items{late}")
    _print(
        f"  written       {row.created_at}  {row.file}  {f'signed by {row.key_id[:16]}' if row.key_id else 'UNSIGNED'}"
    )
    _print(f"  delivered     {f'{row.delivered_at}  to {row.delivered_to}' if row.delivered_at else 'not over HTTPS'}")
    _print(f"  acknowledged  {f'{row.acknowledged_at}  said {row.told_by}' if row.acknowledged_at else 'not yet'}")
    if row.answered_at:
        _print(f"  items         {row.verified} verified, {row.noted} noted, {row.refused} refused")
    for item in factory.refused_items(row.report_id) if row.refused else []:
        _print(f"    REFUSED     ICCID {item.iccid}  EID {item.eid}  {item.state}: {item.reason}")


def _addressee(smdp: Smdp, site_file: Path) -> Addressee:
    tls = None
    if smdp.tls is not None:
        tls = client_context(*(beside(site_file, name) for name in (smdp.tls.ca, smdp.tls.cert, smdp.tls.key)))
    return Addressee(smdp.url, smdp.timeout_s, tls)


def _keys(site: Site, site_file: Path) -> dict[str, VerificationKey]:
    """Read the keys of the SM-DPfs that sign; raises SettingsError SIGNER.KEY."""
    named = site.reports.smdp.items()
    return {oid: read_public_key(beside(site_file, smdp.key)) for oid, smdp in named if smdp.key}


@contextmanager
def _desk(site_file: Path) -> Iterator[tuple[Site, Factory]]:
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="report")
    try:
        yield site, factory
    finally:
        factory.close()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
