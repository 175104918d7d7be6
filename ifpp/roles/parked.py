"""`ifpp supervisor parked`: what was said on the bus and not taken, for people to look at."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from ifpp.errors import SupplyError
from ifpp.roles.factory_access import open_factory
from ifpp.settings import load_site
from ifpp.store.records import ParkedRow

_MOST = 100_000


def show_parked(site_file: Path, *, number: int, limit: int, as_json: bool) -> None:
    """List the latest refused documents, newest first, or show one; raises SupplyError PARKED.UNKNOWN."""
    site = load_site(site_file)
    with closing(open_factory(site, site_file, writer="desk")) as factory:
        rows = factory.parked(_MOST if number else limit)
    if number:
        rows = [row for row in rows if row.number == number]
        if not rows:
            raise SupplyError("PARKED.UNKNOWN", f"nothing is parked under number {number}", where="number")
    if as_json:
        text = "".join(json.dumps(_facts(row) | {"body": _body(row)}) + "\n" for row in rows)
    elif number:
        text = _line(rows[0]) + "\n" + _body(rows[0]) + "\n"
    else:
        text = "".join(_line(row) + "\n" for row in rows) or "nothing is parked\n"
    sys.stdout.write(text)


def _facts(row: ParkedRow) -> dict[str, object]:
    facts = {name: getattr(row, name) for name in ("number", "at", "node_id", "seq", "id", "code", "text")}
    return facts | {"bytes": len(row.body)}


def _line(row: ParkedRow) -> str:
    seq = f"seq {row.seq}" if row.seq else "no seq"
    return _plain(f"{row.number:6}  {row.at}  {row.node_id}  {seq}  {row.code}  {len(row.body)} bytes  {row.text}")


def _body(row: ParkedRow) -> str:
    return _plain(row.body.decode("utf-8", "backslashreplace"))


def _plain(text: str) -> str:
    """What strangers wrote does nothing to a terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
