"""The acceptance report of a line: one JSON document, and the same for people as text and as a page that runs nothing.

{"format": "ifpp.acceptance/1.0", "report_id", "made_at", "verdict": "pass" | "fail",
 "line": {enterprise, site, area, line, stations: {id: heads}}, "plan": {units, seed, apdu_ms, bad chips, pulled},
 "criteria": [{name, title, limit, measured, passed, reasons}], "acts": [{act, target, in_hand, back_s, fault}],
 "figures": {...}, "versions": {...}, "machine": {...},
 "configuration": {"files": {path: SHA-256}, "replaced": [{file, key, plant, why}]}, "notes": [...]}
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ifpp.errors import CustodyError
from ifpp.line.report_html import HEAD, STYLE
from ifpp.line.signed_file import ACCEPTANCE, sign_file
from ifpp.trust.signer import Signer

FORMAT = "ifpp.acceptance/1.0"
_SHOWN = 3
JSON_NAME, HTML_NAME = "acceptance.json", "acceptance.html"
_OWN_STYLE = (
    "td,th{text-align:left;vertical-align:top}td.fail{color:var(--alarm);font-weight:700}td{overflow-wrap:anywhere}"
    "table.pairs td:first-child{width:34%}"
)

Document = Mapping[str, Any]


def write(document: Document, folder: Path, signer: Signer) -> None:
    """Write both forms and their signatures into a new folder, which appears complete or not at all.

    Raises CustodyError FILE.WRITE, also when it exists; ServiceError SIGNER.FAILED.
    """
    part: Path | None = None
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        for name, text in ((JSON_NAME, json.dumps(document, indent=1) + "\n"), (HTML_NAME, as_html(document))):
            _write(part / name, text)
            sign_file(part / name, ACCEPTANCE, document["report_id"], signer)
        if folder.exists():
            raise FileExistsError(errno.EEXIST, "it exists already")
        part.chmod(0o755)
        part.rename(folder)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(folder)) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def as_text(document: Document) -> str:
    """Return the report for a terminal."""
    return "\n".join(_text(document)) + "\n"


def _text(document: Document) -> Iterator[str]:
    passed = sum(one["passed"] for one in document["criteria"])
    yield f"{_title(document)}: {document['verdict'].upper()}, {passed} of {len(document['criteria'])} criteria"
    for one in document["criteria"]:
        yield f"  {'pass' if one['passed'] else 'FAIL'}  {one['name']:22} {one['title']}"
        yield f"        {'':22} limit {one['limit']}; measured {one['measured']}"
        yield from (f"        {'':22} {reason}" for reason in one["reasons"][:_SHOWN])
        if len(one["reasons"]) > _SHOWN:
            yield f"        {'':22} ... and more: see the report"
    yield from (f"  note  {note}" for note in document["notes"])
    yield f"  {len(document['configuration']['replaced'])} settings of the plant were replaced in the copy"


def as_html(document: Document) -> str:
    """Return the report as a page: nothing is loaded, nothing runs, every name is escaped."""
    title = escape(_title(document))
    return (
        f"{HEAD}<title>{title}</title><style>{STYLE}{_OWN_STYLE}</style></head><body>\n"
        + "\n".join(_page(document))
        + "\n</body></html>\n"
    )


def _page(document: Document) -> Iterator[str]:
    verdict = "Accepted" if document["verdict"] == "pass" else "NOT ACCEPTED"
    yield (
        f"<header><div><h1>{verdict}</h1><p>{escape(_title(document))}</p></div>"
        f'<div class="state"><b>{escape(document["made_at"])}</b><p>{escape(document["report_id"])}</p></div></header>'
    )
    rows = [
        (one["title"], one["limit"], "<br>".join(map(escape, [one["measured"], *one["reasons"]])), one["passed"])
        for one in document["criteria"]
    ]
    yield "<h2>Criteria</h2>" + _table(
        ("Criterion", "Limit", "Measured", "Verdict"),
        (
            f"<td>{escape(title)}</td><td>{escape(limit)}</td><td>{measured}</td>"
            f"<td{'' if passed else ' class=fail'}>{'pass' if passed else 'FAIL'}</td>"
            for title, limit, measured, passed in rows
        ),
    )
    if document["notes"]:
        listed = "".join(f"<li>{escape(note)}</li>" for note in document["notes"])
        yield f'<h2>Notes</h2><ul class="notes">{listed}</ul>'
    for heading, part in (("Line", "line"), ("Plan", "plan"), ("Figures", "figures")):
        yield f"<h2>{heading}</h2>" + _pairs(document[part])
    for heading, part in (("Versions", "versions"), ("Machine", "machine")):
        yield f"<h2>{heading}</h2>" + _pairs(document[part])
    yield "<h2>Settings files of the plant (SHA-256)</h2>" + _pairs(document["configuration"]["files"])
    yield "<h2>What the copy has instead of the plant's</h2>" + _table(
        ("File", "Key", "The plant has", "Why"),
        (
            "".join(f"<td>{escape(one[key])}</td>" for key in ("file", "key", "plant", "why"))
            for one in document["configuration"]["replaced"]
        ),
    )
    yield "<footer>Every other setting was used as it stands. The signature is in the file beside this one.</footer>"


def _title(document: Document) -> str:
    line = document["line"]
    place = "/".join(line[key] for key in ("enterprise", "site", "area", "line"))
    return f"Acceptance of line {place}"


def _pairs(values: Mapping[str, object]) -> str:
    shown = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items())
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in shown)
    return f"<table class=pairs><tbody>{rows}</tbody></table>"


def _table(heads: tuple[str, ...], rows: Iterator[str]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
