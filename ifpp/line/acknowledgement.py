"""What an SM-DPf says of a Profile Loading Report: checked as a whole, then kept item by item, or refused as a whole.

1. it parses, is whole (count and digest), and is about a report that was written here
2. it comes from the SM-DPf the report is for, and speaks of the very bytes that were written
3. its signature holds, where a key of that SM-DPf is known
4. it has a word on every item of the report, and on none else; it is the first answer, or the same once more
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ifpp.errors import CustodyError, IfppError, IntakeError, VerificationError
from ifpp.line.report import ACKNOWLEDGEMENT, statement
from ifpp.log import get_logger
from ifpp.store.factory import Factory
from ifpp.store.records import Refusal, ReportRow
from ifpp.store.reports import ItemVerdict, Verdict
from ifpp.trust.signer import VerificationKey
from ifpp.wire.documents import AcknowledgementHeader, AcknowledgementItem, read_acknowledgement
from ifpp.wire.jsonlines import Items

log = get_logger("line.acknowledgement")


def take_answer(
    factory: Factory,
    path: Path,
    signature: str,
    keys: dict[str, VerificationKey],
    *,
    now: datetime,
    report_id: str = "",
) -> ReportRow:
    """Take an acknowledgement; return the report as it stands then. `report_id`: what it must be about.

    `signature` is base64, "" when there is none; `keys`: of the SM-DPfs that sign, by OID. Raises IntakeError,
    CustodyError REPORT.UNKNOWN, REPORT.FOREIGN, REPORT.UNSIGNED, REPORT.ANSWERED, VerificationError AUDIT.SIGNATURE:
    then nothing has changed but the audit log, which has the refusal.
    """
    try:
        return _take(factory, path, signature, keys, now, report_id)
    except (IntakeError, CustodyError, VerificationError) as error:
        _note(factory, path, error, now)
        raise


def _take(
    factory: Factory,
    path: Path,
    signature: str,
    keys: dict[str, VerificationKey],
    now: datetime,
    expected: str,
) -> ReportRow:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise IntakeError("INTAKE.TRUNCATED", f"cannot be read ({error.strerror})", where=str(path)) from error
    with stream:
        header, items = read_acknowledgement(stream, path.name)  # 1
        report = factory.report(header.report_id)
        _belongs(header, report, expected)  # 2
        key = keys.get(report.smdp_oid)

        def digest() -> str:
            sha256 = items.digest.hex()
            if key is not None:  # 3
                _verify(key, signature, statement(ACKNOWLEDGEMENT, report.report_id, sha256), path.name)
            return sha256

        key_id = "" if key is None else key.key_id
        factory.answer_report(report.report_id, digest, key_id, _verdicts(items), now)  # 1, 4
    answered = factory.report(report.report_id)
    numbers = {"verified": answered.verified, "noted": answered.noted, "refused": answered.refused}
    log.info("report.answered", report=report.report_id, smdp=report.smdp_oid, **numbers)
    return answered


def _belongs(header: AcknowledgementHeader, report: ReportRow, expected: str) -> None:
    where = f"acknowledgement of {header.report_id}"
    if expected and header.report_id != expected:
        raise CustodyError("REPORT.FOREIGN", f"report {expected} was sent", where=where)
    if header.smdp_oid != report.smdp_oid:
        detail = f"it comes from {header.smdp_oid}, the report is for {report.smdp_oid}"
        raise CustodyError("REPORT.FOREIGN", detail, where=where)
    if header.report_sha256.hex() != report.sha256:
        raise CustodyError("REPORT.FOREIGN", "it speaks of another file", where=where)


def _verify(key: VerificationKey, signature: str, message: bytes, what: str) -> None:
    if not signature:
        raise CustodyError("REPORT.UNSIGNED", "the acknowledgement is not signed", where=what)
    try:
        raw = b64decode(signature, validate=True)
    except ValueError:
        raise VerificationError("AUDIT.SIGNATURE", "its signature is not base64", where=what) from None
    key.verify(raw, message, what=what)


def _verdicts(items: Items[AcknowledgementItem]) -> Iterator[ItemVerdict]:
    for item in items:
        yield ItemVerdict(item.transaction_id.hex(), Verdict(item.verdict), item.reason)


def _note(factory: Factory, path: Path, error: IfppError, now: datetime) -> None:
    refusal = Refusal(path.name[:128], "acknowledge report", error.code, error.detail[:500])
    factory.note_refusals([refusal], now)
    log.warning("acknowledgement.refused", file=path.name, error=error)
