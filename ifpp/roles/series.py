"""`ifpp metrics`: the table of Prometheus series."""

from __future__ import annotations

import json
import sys
import textwrap

from ifpp.metrics import SERIES

_WIDTH = 118


def show(*, as_json: bool) -> None:
    """Print every series, by process, in the order of the table."""
    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "unit": row.unit,
            "labels": list(row.labels),
            "roles": sorted(row.roles),
            "meaning": row.meaning,
        }
        for row in SERIES
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for row in SERIES:
        labels = f"{{{','.join(row.labels)}}}" if row.labels else ""
        sys.stdout.write(f"{row.name}{labels}\n")
        about = (
            f"{row.kind}, of {' and '.join(sorted(row.roles))}{', in ' + row.unit if row.unit else ''}. {row.meaning}"
        )
        sys.stdout.write(textwrap.fill(about, _WIDTH, initial_indent="    ", subsequent_indent="    ") + "\n")
