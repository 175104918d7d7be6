"""The catalogues of the screens: every language has every text, with the same places for values."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest
from rich.cells import cell_len

import ifpp
import ifpp.tui
from ifpp.errors import FAULTS
from ifpp.model.alarm_list import ALARM_KINDS
from ifpp.model.states import Phase, UnitResult
from ifpp.station.window import RIGHTS
from ifpp.tui.words import LANGUAGES, Words, catalogue

FREE = {"advice", "alarm", "action", "done"}
"""Tables that English has not: there the station's own words stand."""
OWN = [language for language in LANGUAGES if language != "en"]
NOT_ON_A_STATION = {"SETTINGS", "KEYS", "INTAKE", "BUNDLE", "QUOTA", "SIGNER", "ENVELOPE", "BACKUP", "WINDOW"}
"""Kinds of faults that are met on a command line only, or before there is a screen."""


def codes_of_a_station() -> set[str]:
    """Every code that is written where a unit, its chip, its package or a person at the station is judged."""
    root = Path(ifpp.__path__[0])
    files = [file for folder in ("station", "fpa", "hw", "wire") for file in (root / folder).glob("*.py")]
    files += [root / "trust" / f"{name}.py" for name in ("verify", "chain", "signatures", "people")]
    files += [root / "store" / f"{name}.py" for name in ("claims", "client", "travellers")]
    said = "".join(file.read_text() for file in files)
    return {code for code in FAULTS if f'"{code}"' in said and code.split(".")[0] not in NOT_ON_A_STATION}


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


def table(language: str, name: str) -> dict[str, str]:
    start = f"{name}."
    return {key.removeprefix(start): text for key, text in catalogue(language).items() if key.startswith(start)}


@pytest.mark.parametrize("language", OWN)
def test_every_alarm_has_its_words_and_what_to_do(language: str) -> None:
    for name, field in (("alarm", "text"), ("action", "action")):
        texts = table(language, name)
        assert texts.keys() == ALARM_KINDS.keys()
        assert len(set(texts.values())) == len({getattr(one, field) for one in ALARM_KINDS.values()})


@pytest.mark.parametrize("language", OWN)
def test_every_error_a_station_shows_has_its_advice(language: str) -> None:
    texts = table(language, "advice")
    assert codes_of_a_station() - texts.keys() == set()
    assert texts.keys() - FAULTS.keys() == set()
    for code, text in texts.items():
        assert text.strip()
        assert text != FAULTS[code].advice
        assert not places(text)


@pytest.mark.parametrize("language", OWN)
def test_every_wish_is_answered_in_the_screens_language(language: str) -> None:
    texts = table(language, "done")
    assert texts.keys() == {wish for wish, _ in RIGHTS}
    assert {key: places(text) for key, text in texts.items() if places(text)} == {"scan_unit": {"unit", "head"}}


@pytest.mark.parametrize("language", OWN)
def test_advice_and_actions_fit_a_row_of_the_smallest_usual_terminal(language: str) -> None:
    for name in ("action", "advice"):
        for code, text in table(language, name).items():
            assert cell_len(text) <= 76, (code, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_reasons_and_keys_fit_the_smallest_usual_terminal(language: str) -> None:
    words = Words(language)
    assert cell_len("  ".join(f"{number} {one}" for number, one in enumerate(words.reasons(), 1))) <= 77
    names = ("help", "socket", "retry", "ack", "shelve", "alarms", "leave")
    widest = [max(("start", "stop"), key=lambda one: cell_len(words(f"key.{one}")))]
    widest += [max(("block", "release"), key=lambda one: cell_len(words(f"key.{one}")))]
    assert sum(cell_len(f"F1 {words(f'key.{name}')} ") for name in (*names, *widest)) <= 80
