"""`ifpp audit`: export the audit log, check an export without the factory."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.line.audit_check import AuditReport, check_audit, check_continuation
from ifpp.trust.signer import VerificationKey, read_public_key


def export(site_file: Path, out: Path) -> None:
    """Write the audit log to a file; raises CustodyError FILE.WRITE, SettingsError."""
    from ifpp.line.audit_export import export_audit
    from ifpp.roles.factory_access import open_factory
    from ifpp.roles.key_access import signer_for, using_keys
    from ifpp.settings import load_site
    from ifpp.trust.keyring import Purpose

    site = load_site(site_file)
    with using_keys(site.keys, site_file) as keys:
        factory = open_factory(site, site_file, writer="report")
        try:
            done = export_audit(factory, out, signer_for(keys, site.keys, Purpose.AUDIT), datetime.now(UTC))
        finally:
            factory.close()
    signed = f"signed by key {done.key_id}" if done.key_id else "NOT SIGNED: set [keys]"
    _print(f"{done.entries} entries in {done.chains} chains, {done.checkpoints} checkpoints; {signed}")
    _print(f"written to {done.path}")


def verify(path: Path, keys: list[Path], since: Path | None) -> int:
    """Check an exported log and print every fault; returns 0 when it is sound, else 1."""
    trusted = [read_public_key(key) for key in keys]
    report = _check(path, trusted)
    if since is not None:
        earlier = _check(since, trusted)
        _show_findings(earlier)
        report.found += earlier.found
        check_continuation(report, str(path), earlier)
    _show(report)
    return 0 if report.sound else 1


def _check(path: Path, trusted: list[VerificationKey]) -> AuditReport:
    try:
        with path.open("rb") as stream:
            return check_audit(stream, str(path), trusted)
    except OSError as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be read ({error.strerror})", where=str(path)) from error


def _show(report: AuditReport) -> None:
    _print(f"factory {report.factory_id or '(unknown)'}")
    for chain_id, chain in report.chains.items():
        what = f"{chain.entries} entries, the last of {chain.last_at}, checkpoint at {chain.signed}"
        _print(f"chain   {chain_id:16} {what}")
    for key_id in sorted(report.key_ids):
        whose = "the key you named" if report.pinned else "named by the file itself: compare it with the factory's own"
        _print(f"key     {key_id} ({whose})")
    _show_findings(report)
    if report.sound:
        _print(f"SOUND: {report.entries} entries, {report.checkpoints} checkpoints; nothing was changed or is missing")
    else:
        _print(f"NOT SOUND: {report.found} faults")


def _show_findings(report: AuditReport) -> None:
    for finding in report.findings:
        _print(str(finding))
    if report.found > len(report.findings):
        _print(f"and {report.found - len(report.findings)} more")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
