"""`ifpp alarm`: Alarms of the line: what stands, acting on it, how many there are."""

from __future__ import annotations

from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, Wait, group

alarm_app = group("Alarms of the line: what stands, acting on it, how many there are.")
AlarmId = Annotated[str, typer.Argument(help="The alarm's id, as `ifpp alarm list` shows it.")]


@alarm_app.command("list")
def alarm_list(
    config: Config = SITE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document as the supervisor says it.")] = False,
) -> None:
    """List the alarms of the line, the most urgent first; exit code 1 while one rings."""
    from ifpp.roles.alarms import show

    raise typer.Exit(show(config, as_json=as_json))


@alarm_app.command("ack")
def alarm_ack(alarm: AlarmId, by: By, reason: Reason = "", config: Config = SITE, wait: Wait = 10.0) -> None:
    """Acknowledge an alarm: it stands until its cause is gone, and rings no more."""
    from ifpp.roles.alarms import Act, act

    raise typer.Exit(act(config, Act("ACK", alarm, by, reason, wait_s=wait)))


@alarm_app.command("shelve")
def alarm_shelve(
    alarm: AlarmId,
    by: By,
    reason: Reason,
    minutes: Annotated[int, typer.Option(min=1, max=480, help="For how long.")] = 60,
    config: Config = SITE,
    wait: Wait = 10.0,
) -> None:
    """Set an alarm aside for a while, for a reason; one of priority 1 cannot be."""
    from ifpp.roles.alarms import Act, act

    raise typer.Exit(act(config, Act("SHELVE", alarm, by, reason, minutes, wait)))


@alarm_app.command("unshelve")
def alarm_unshelve(alarm: AlarmId, by: By, reason: Reason = "", config: Config = SITE, wait: Wait = 10.0) -> None:
    """Take an alarm from the shelf before its time."""
    from ifpp.roles.alarms import Act, act

    raise typer.Exit(act(config, Act("UNSHELVE", alarm, by, reason, wait_s=wait)))


@alarm_app.command("figures")
def alarm_figures(
    days: Annotated[float, typer.Option(min=0.01, help="Of how many days until now.")] = 1.0, config: Config = SITE
) -> None:
    """Count alarms as ISA-18.2 does: a day, an hour, floods, the top ten, stale and chattering ones."""
    from ifpp.roles.alarms import count

    raise typer.Exit(count(config, days))
