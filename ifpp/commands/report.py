"""`ifpp report`: Reports to people and to the SM-DPf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, Config, group

report_app = group("Reports to people and to the SM-DPf.")
ReportOut = Annotated[Path | None, typer.Option(help="File to write, instead of the standard output.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="One row a figure.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
AsText = Annotated[bool, typer.Option("--text", help="The hand-over in words.")]


@report_app.command("shift")
def report_shift(
    shift: Annotated[str, typer.Argument(help="Name of a shift (its last one), DATE/SHIFT, or current.")] = "current",
    config: Config = SITE,
    out: ReportOut = None,
    csv: AsCsv = False,
    json: AsJson = False,
    text: AsText = False,
) -> None:
    """Write what a shift came to as a page to look at or print: yield over time, what costs most, load times, stock."""
    from ifpp.roles.line_report import form_of, report

    report(config, form=form_of(csv=csv, json=json, text=text), out=out, shift=shift)


@report_app.command("job")
def report_job(
    job: Annotated[str, typer.Argument(help="Number of the job order.")],
    config: Config = SITE,
    out: ReportOut = None,
    csv: AsCsv = False,
    json: AsJson = False,
    text: AsText = False,
) -> None:
    """Write what a job order came to so far, as `report shift` does."""
    from ifpp.roles.line_report import form_of, report

    report(config, form=form_of(csv=csv, json=json, text=text), out=out, job=job)


@report_app.command("plr")
def report_plr(
    out: Annotated[Path, typer.Argument(help="Folder for the reports.")],
    config: Config = SITE,
    since: Annotated[str, typer.Option(help="All results since this moment (UTC unless it says so).")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All results ever, also those already reported.")] = False,
) -> None:
    """Write the Profile Loading Report of each SM-DPf, of what no report has said yet."""
    from ifpp.roles.reports import write

    write(config, out, since=since, everything=everything)


@report_app.command("rework")
def report_rework(
    config: Config = SITE, json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
) -> None:
    """Count rework orders by what the units become: ordered, removed, re-provisioned, open, failed."""
    from ifpp.roles.rework import report

    report(config, as_json=json)


@report_app.command("deliver")
def report_deliver(
    folder: Annotated[Path, typer.Argument(help="Folder of the reports.")], config: Config = SITE
) -> None:
    """Send reports that are not answered yet to the SM-DPfs of [reports.smdp], and take their acknowledgements."""
    from ifpp.roles.reports import deliver

    raise typer.Exit(deliver(config, folder))


@report_app.command("status")
def report_status(
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show how far every report has come and what was refused; 1 when one is overdue or an item refused."""
    from ifpp.roles.reports import status

    raise typer.Exit(status(config, as_json=json))


@report_app.command("acknowledge")
def report_acknowledge(
    file: Annotated[Path, typer.Argument(help="What the SM-DPf sent, *.plr-ack.jsonl.")],
    signature: Annotated[Path | None, typer.Option(help="Its signature, base64.")] = None,
    config: Config = SITE,
) -> None:
    """Take an acknowledgement that came as a file; 1 when it refuses an item."""
    from ifpp.roles.reports import take

    raise typer.Exit(take(config, file, signature))


@report_app.command("acknowledged")
def report_acknowledged(
    report_id: Annotated[str, typer.Argument(help="Id of the report, as in its name and first line.")],
    by: Annotated[str, typer.Option(help="Who says that the SM-DPf has taken it.")],
    config: Config = SITE,
) -> None:
    """Note that an SM-DPf has taken a report; the first note counts."""
    from ifpp.roles.reports import acknowledge

    acknowledge(config, report_id, by)


@report_app.command("verify")
def report_verify(
    file: Annotated[Path, typer.Argument(help="The report; its signature lies beside it, FILE.sig.")],
    key: Annotated[list[Path] | None, typer.Option(help="Public key that is trusted. May be repeated.")] = None,
) -> None:
    """Say whether a Profile Loading Report or acceptance report is what a key signed; needs no factory."""
    from ifpp.roles.report_verify import verify

    raise typer.Exit(verify(file, key or []))
