"""deploy/THREATS.md: every row names a test that exists, open risks the one that shows what limits them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "deploy" / "THREATS.md").read_text().splitlines()
    if re.match(r"\| T\d+ ", line)
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_its_counter_and_a_test(row: list[str]) -> None:
    _, threat, counter, shown = row
    assert threat
    assert counter
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", shown)
    assert named, shown
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        tests = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        }
        assert name in tests if name else tests, f"{file} has no {name}"


def test_rows_are_numbered_without_a_gap() -> None:
    assert [row[0] for row in ROWS] == [f"T{number:02}" for number in range(1, len(ROWS) + 1)]
