"""The catalogues of the screens: every language has every text, with the same places for values."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest
from rich.cells import cell_len

import ifpp.tui
from ifpp.model.states import Phase, UnitResult
from ifpp.tui.words import LANGUAGES, Words, catalogue

FREE = {"advice", "alarm", "action"}
"""Tables that may be empty in English: there the station's own words stand."""


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def needed(language: str) -> dict[str, str]:
    return {key: text for key, text in catalogue(language).items() if key.split(".")[0] not in FREE}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_language_misses_a_text_or_a_value(language: str) -> None:
    english, other = needed("en"), needed(language)
    assert other.keys() == english.keys()
    assert {key: places(text) for key, text in other.items()} == {key: places(text) for key, text in english.items()}
    assert all(text.strip() for text in other.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_has_a_word(language: str) -> None:
    words = Words(language)
    for state in (*Phase, *UnitResult):
        if state is not Phase.VERDICT:
            assert words(f"state.{state}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_fits_the_smallest_usual_terminal(language: str) -> None:
    lines = Words(language)("help.text").strip().splitlines()
    assert len(lines) <= 16
    assert max(map(cell_len, lines)) <= 79


def test_every_text_the_screens_ask_for_is_there_and_none_is_left_over() -> None:
    asked: set[str] = set()
    for file in Path(ifpp.tui.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                asked.add(node.value)
    tables = {"state", "reason", "key", "alarmstate", *FREE}  # asked for by a name that is made up
    left = {key for key in catalogue("en") if key not in asked and key.split(".")[0] not in tables}
    assert left == set()


def test_an_unknown_code_keeps_the_words_of_the_station() -> None:
    assert Words("de").of("alarm", "A-999", "new kind of alarm") == "new kind of alarm"
