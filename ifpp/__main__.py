"""The command line: every group of commands, and how an error is told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ifpp import __version__
from ifpp.commands.alarm import alarm_app
from ifpp.commands.audit import audit_app
from ifpp.commands.bundle import bundle_app
from ifpp.commands.check import check_app
from ifpp.commands.chip import chip_app
from ifpp.commands.contract import contract_app
from ifpp.commands.denylist import denylist_app
from ifpp.commands.gate import gate_app
from ifpp.commands.heads import heads_app
from ifpp.commands.keys import keys_app
from ifpp.commands.line import line_app
from ifpp.commands.options import group
from ifpp.commands.people import people_app
from ifpp.commands.pki import pki_app
from ifpp.commands.plan import plan_app
from ifpp.commands.quota import quota_app
from ifpp.commands.recipe import recipe_app
from ifpp.commands.report import report_app
from ifpp.commands.sim import sim_app
from ifpp.commands.station import station_app
from ifpp.commands.store import store_app
from ifpp.commands.supervisor import supervisor_app
from ifpp.commands.unit import unit_app
from ifpp.errors import IfppError, IntakeError

_PIN_REFUSED = 78
"""Exit status with a PIN that a token refused: systemd must not try it again, which would lock the token."""

app = group("Line controller for In-Factory Profile Provisioning of eSIMs (GSMA SGP.41).")
app.add_typer(line_app)
app.add_typer(check_app)
app.add_typer(store_app, name="store")
app.add_typer(station_app, name="station")
app.add_typer(heads_app, name="heads")
app.add_typer(chip_app, name="chip")
app.add_typer(recipe_app, name="recipe")
app.add_typer(supervisor_app, name="supervisor")
app.add_typer(report_app, name="report")
app.add_typer(bundle_app, name="bundle")
app.add_typer(unit_app, name="unit")
app.add_typer(plan_app, name="plan")
app.add_typer(denylist_app, name="denylist")
app.add_typer(people_app, name="people")
app.add_typer(audit_app, name="audit")
app.add_typer(keys_app, name="keys")
app.add_typer(quota_app, name="quota")
app.add_typer(pki_app, name="pki")
app.add_typer(gate_app, name="gate")
app.add_typer(alarm_app, name="alarm")
app.add_typer(contract_app, name="contract")
app.add_typer(sim_app, name="sim")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ifpp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001 - its callback has seen it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    pin_fd: Annotated[int | None, typer.Option(min=0, help="Read the keys' PIN from this open descriptor.")] = None,
) -> None:
    """Load operator profiles into eUICCs on the production line."""
    if pin_fd is not None:
        from ifpp.roles.pin import take_pin

        take_pin(pin_fd)


def main() -> None:
    """Run the command line; an error speaks in one line (several for a refused batch) and exits with 1.

    What ends otherwise: 2 for a wrong command line, 78 for a wrong PIN, 130 when it was told twice to stop.
    """
    try:
        app()
    except IfppError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for people
        if isinstance(error, IntakeError):
            for item in error.items:
                print(f"  {item}", file=sys.stderr)  # noqa: T201 - for people
        sys.exit(_PIN_REFUSED if error.code in ("KEYS.PIN", "KEYS.PIN_LOCKED") else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
