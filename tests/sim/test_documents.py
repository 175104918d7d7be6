"""The simulated parties' files: framing, trailer, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ifpp.sim.documents import JsonLinesWriter, read_lines, write_job_order

HEADER = {"format": "ifpp.test", "version": "1.0"}


def written(path: Path, items: int = 2) -> Path:
    with JsonLinesWriter(path, HEADER) as out:
        for number in range(items):
            out.add({"number": number})
    return path


def test_header_items_and_trailer(tmp_path: Path) -> None:
    lines = written(tmp_path / "f").read_bytes().splitlines(keepends=True)
    assert [json.loads(line) for line in lines[:-1]] == [HEADER, {"number": 0}, {"number": 1}]
    digest = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
    assert json.loads(lines[-1]) == {"end": True, "items": 2, "sha256": digest}
    assert all(line.endswith(b"\n") for line in lines)
    assert read_lines(tmp_path / "f", "ifpp.test") == (HEADER, [{"number": 0}, {"number": 1}])


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with JsonLinesWriter(tmp_path / "whole", HEADER) as out:
        out.add({"number": 1})
        assert not (tmp_path / "whole").exists()
    with pytest.raises(TypeError), JsonLinesWriter(tmp_path / "broken", HEADER) as out:
        out.add({"number": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"number":1', b'"number":7', "digest"),
        (b'"items":2', b'"items":3', "not complete"),
        (b'"end":true', b'"end":null', "not complete"),
        (b"ifpp.test", b"ifpp.best", "not an"),
        (b'"version":"1.0"', b'"version":"2.0"', "not an"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    path = written(tmp_path / "f")
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=reason):
        read_lines(path, "ifpp.test")


@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_a_cut_off_file_is_refused(tmp_path: Path, lines: int) -> None:
    path = written(tmp_path / "f")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    with pytest.raises(ValueError, match=r"no trailer|not complete"):
        read_lines(path, "ifpp.test")


def test_job_order(tmp_path: Path) -> None:
    write_job_order(tmp_path / "j", {"job_order_id": "JO-1"})
    assert json.loads((tmp_path / "j").read_bytes()) == {
        "format": "ifpp.job-order",
        "version": "1.0",
        "job": {"job_order_id": "JO-1"},
    }
