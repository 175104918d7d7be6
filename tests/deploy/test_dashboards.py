"""Dashboards are what make.py writes, and Prometheus understands them. Their data: end_to_end/test_prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ifpp.metrics import SERIES
from tests.deploy.dashboards import FOLDER, expressions, maker, shipped
from tests.real.prometheus import promtool

OWN = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def test_the_files_are_what_is_generated(tmp_path: Path) -> None:
    maker().main(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert set(made) == {"operator.json", "quality.json", "custody.json", "capacity.json"}


def test_promtool_understands_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions().values())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", file)
    assert len(rules) > 30


def test_panels_speak_of_series_there_are() -> None:
    known = {row.name for row in SERIES} | {f"{row.name}{end}" for row in SERIES for end in ("_bucket", "_count")} | OWN
    for place, expr in expressions().items():
        used = set(re.findall(r"\b(?:ifpp|process)_[a-z0-9_]+", re.sub(r"\{[^}]*\}", "", expr)))
        assert used, place
        assert used <= known, place


def test_panels_do_not_overlap_and_have_a_name_of_their_own() -> None:
    for name, board in shipped().items():
        seen: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & seen, (name, panel["title"])
            assert max(x for x, _ in cells) < 24
            seen |= cells
        titles = [panel["title"] for panel in board["panels"]]
        assert len(set(titles)) == len(titles)
