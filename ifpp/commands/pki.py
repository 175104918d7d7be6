"""`ifpp pki`: Certificates of the site: issue, revoke, list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, Config, group

pki_app = group("Certificates of the site: issue, revoke, list.")


@pki_app.command("issue")
def pki_issue(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA; it is made when there is none.")],
    names: Annotated[list[str], typer.Argument(help="store:HOST, broker:HOST or ROLE:NAME.")],
    csr: Annotated[
        Path | None, typer.Option(help="For one name: sign this request; its key stays where it is.")
    ] = None,
) -> None:
    """Issue certificates for the line's TLS; one that is there is renewed, with a new key."""
    from ifpp.roles.pki import issue

    issue(folder, names, csr)


@pki_app.command("revoke")
def pki_revoke(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA.")],
    names: Annotated[list[str] | None, typer.Argument(help="store:HOST, broker:HOST or ROLE:NAME.")] = None,
) -> None:
    """Revoke certificates; without a name only renew the revocation list, as is due every 90 days."""
    from ifpp.roles.pki import revoke

    revoke(folder, names or [])


@pki_app.command("rotate")
def pki_rotate(folder: Annotated[Path, typer.Argument(help="Folder of the CA.")]) -> None:
    """Make the next CA; the old one stays trusted in ca.pem until `ifpp pki retire`."""
    from ifpp.roles.pki import rotate

    rotate(folder)


@pki_app.command("retire")
def pki_retire(folder: Annotated[Path, typer.Argument(help="Folder of the CA.")]) -> None:
    """Trust the newest CA only, once every certificate is from it."""
    from ifpp.roles.pki import retire

    retire(folder)


@pki_app.command("broker")
def pki_broker(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA, as on the broker's machine.")],
    names: Annotated[
        list[str], typer.Argument(help="Clients of this line: station:ST01, supervisor:NAME, mes:NAME, scada:NAME.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for mosquitto.conf and acl; other lines' rights in it stay.")],
    config: Config = SITE,
) -> None:
    """Write what Mosquitto needs: mutual TLS, and for each certificate what it may say and hear."""
    from ifpp.roles.pki import broker

    broker(folder, names, config, out)


@pki_app.command("list")
def pki_list(
    folder: Annotated[Path, typer.Argument(help="Any folder of certificates, *.pem.")],
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show certificates and when they end; 1 when one has less than 14 days."""
    from ifpp.roles.pki import show

    raise typer.Exit(show(folder, as_json=json))
