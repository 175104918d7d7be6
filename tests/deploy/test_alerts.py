"""The alert rules that ifpp ships: promtool tests each one both ways, and each has its entry in the runbook."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ifpp.metrics import SERIES
from ifpp.model.alarm_list import ALARM_KINDS
from tests.real.prometheus import ROOT, ROUTES, RULES, amtool, promtool

TESTS = RULES.with_name("ifpp.tests.yml")
SHARED = {"up"}
SEVERITY = {"1": "critical", "2": "warning", "3": "info"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def of_runbook() -> dict[str, str]:
    """Anchor of each entry -> its text."""
    parts = re.split(r"^### ", (ROOT / "RUNBOOK.md").read_text(), flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0].lower(): part for part in parts}


def test_the_rules_hold_their_own_tests() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", TESTS)


def test_every_alert_is_tested_firing_and_quiet() -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) > 30
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(names)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(names)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_where_and_what_to_do(rule: dict[str, Any]) -> None:
    labels, notes = rule["labels"], rule["annotations"]
    assert labels["severity"] == SEVERITY[labels["priority"]]
    assert notes["description"].startswith(notes["summary"] + " - ")
    file, anchor = notes["runbook_url"].split("#")
    entry = of_runbook()[anchor]
    assert (ROOT / file).is_file()
    for part in ("Symptom", "Cause", "Operator", "Technician"):
        assert f"- **{part}:** " in entry
    action = notes["description"].removeprefix(notes["summary"] + " - ")
    assert f"- **Operator:** {action[0].upper()}{action[1:]}." in entry
    assert f"Priority {labels['priority']}" in entry
    if "alarm" in labels:
        assert labels["alarm"] in ALARM_KINDS
        assert f"alarm {labels['alarm']}" in entry


def test_alerts_speak_of_series_there_are() -> None:
    known = {row.name for row in SERIES} | {f"{row.name}_bucket" for row in SERIES if row.buckets} | SHARED
    for rule in alerts():
        expr = re.sub(r"\{[^}]*\}|\[[^]]*\]|\((?:line|le|sku|version|state)[a-z, ]*\)", "", rule["expr"])
        used = set(re.findall(r"\b(?:up|ifpp_[a-z0-9_]+)\b", expr))
        assert used, rule["alert"]
        assert used <= known, rule["alert"]


def test_alarms_that_a_series_shows_have_the_priority_of_the_list() -> None:
    shown = {rule["labels"]["alarm"]: rule["labels"]["priority"] for rule in alerts() if "alarm" in rule["labels"]}
    assert {"A-101", "A-104", "A-110", "A-111", "A-112", "A-113", "A-130", "A-131", "A-150", "A-160", "A-161"} <= set(
        shown
    )
    for code in ("A-101", "A-110", "A-111", "A-112", "A-113", "A-130", "A-131", "A-150", "A-160"):
        assert shown[code] == str(ALARM_KINDS[code].priority)


def test_the_examples_are_settings_that_prometheus_takes() -> None:
    promtool("check", "config", RULES.with_name("prometheus.yml"))
    assert "SUCCESS" in amtool("check-config", ROUTES)
    alertmanager = yaml.safe_load(ROUTES.read_text())
    named = {route["receiver"] for route in (alertmanager["route"], *alertmanager["route"]["routes"])}
    assert named == {one["name"] for one in alertmanager["receivers"]}
    names = {rule["alert"] for rule in alerts()}
    for rule in alertmanager["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert set(str(matcher).split('"')[1].split("|")) <= names
