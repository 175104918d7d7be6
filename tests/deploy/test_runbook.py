"""The runbook has an entry for every alert, alarm and error code, and none that is stale; commands it names exist."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ifpp.__main__ import app
from ifpp.errors import FAULTS
from ifpp.model.alarm_list import ALARM_KINDS
from tests.real.prometheus import ROOT, RULES

TEXT = (ROOT / "RUNBOOK.md").read_text()
ENTRIES = {part.split("\n", 1)[0]: part for part in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]}
COMMANDS = typer.main.get_command(app)
PARTS = ("Symptom", "Cause", "Operator", "Technician")
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "RUNBOOK", "SEQUENCE", "systemd/README"))]
PAGES += sorted((ROOT / "deploy").glob("*.md"))


def test_every_code_alarm_and_alert_has_its_entry_and_no_entry_is_stale() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert set(ENTRIES) == alerts | set(ALARM_KINDS) | set(FAULTS)
    assert [
        name for name, times in Counter(re.findall(r"^### (.+)$", TEXT, flags=re.MULTILINE)).items() if times > 1
    ] == []


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_whole(name: str) -> None:
    lines = ENTRIES[name].split("\n## ")[0].strip().split("\n")[1:]
    assert [line.split(":**")[0] for line in lines] == [f"- **{part}" for part in PARTS]
    assert all(len(line.split(":** ", 1)[1]) > 3 for line in lines)


@pytest.mark.parametrize("code", FAULTS)
def test_the_operator_reads_what_the_screen_says(code: str) -> None:
    assert f"- **Operator:** {FAULTS[code].advice}\n" in ENTRIES[code] + "\n"


@pytest.mark.parametrize("code", ALARM_KINDS)
def test_an_alarm_says_what_the_screen_says(code: str) -> None:
    kind = ALARM_KINDS[code]
    assert f"- **Operator:** {kind.action[0].upper()}{kind.action[1:]}.\n" in ENTRIES[code]
    assert f"On screens: {kind.text}. Priority {kind.priority}." in ENTRIES[code]


# ---- commands and links ----------------------------------------------------------------------------------


def commands(page: Path) -> set[str]:
    """Every command line of ifpp that a page shows."""
    text = page.read_text()
    spans = re.findall(r"`(ifpp [^`\n]+)`", text)
    lines = re.findall(r"^(?:\$ )?(?:\.venv/bin/)?(ifpp [^\n]+)$", text, flags=re.MULTILINE)
    return {re.split(r"\s#|\s\||\s>|;", one)[0].strip() for one in (*spans, *lines)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist(page: Path) -> None:
    wrong = [line for line in sorted(commands(page)) if _fault(line)]
    assert wrong == []


def test_a_command_that_is_not_there_is_found() -> None:
    assert _fault("ifpp unit shwo EID")
    assert _fault("ifpp unit show EID --colour")
    assert not _fault("ifpp unit show EID --config FILE")


def _fault(line: str) -> str | None:
    here: Any = COMMANDS
    words = shlex.split(line.replace("'", ""))[1:]
    options: set[str] = set()
    while True:
        options |= {name for one in here.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        if not (hasattr(here, "commands") and words and not words[0].startswith("-")):
            break
        word = words.pop(0)
        if word == "..." or word not in here.commands:
            return None if word == "..." else f"no command {word}"
        here = here.commands[word]
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in options]
    return f"no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_points_at_what_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
