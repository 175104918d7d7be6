"""The topic scheme, both ways."""

from __future__ import annotations

import pytest

from ifpp.bus.topics import LINE_NODE, Place, Topics, check_id, check_station
from ifpp.errors import SettingsError, WireError

TOPICS = Topics("acme", "graz", "hall-2", "L1")
BASE = "ifpp1/acme/graz/hall-2/L1"


def test_topics_are_those_of_the_contract() -> None:
    assert TOPICS.birth("st01") == f"{BASE}/st01/meta/birth"
    assert TOPICS.online("st01") == f"{BASE}/st01/state/online"
    assert TOPICS.online(LINE_NODE) == f"{BASE}/_line/state/online"
    assert TOPICS.station_state("st01") == f"{BASE}/st01/state/station"
    assert TOPICS.event("st01", "unit_result") == f"{BASE}/st01/evt/unit_result"
    assert TOPICS.ack("st01") == f"{BASE}/st01/ack/evt"
    assert TOPICS.job == f"{BASE}/_line/state/job"
    assert TOPICS.line_state == f"{BASE}/_line/state/line"
    assert TOPICS.every_event == f"{BASE}/+/evt/#"
    assert TOPICS.every_online == f"{BASE}/+/state/online"
    assert TOPICS.every_birth == f"{BASE}/+/meta/birth"
    assert TOPICS.client_id("st01") == "ifpp-L1-st01"
    assert Topics("a", "b", "c", "d", prefix="trial").job == "trial/a/b/c/d/_line/state/job"


def test_parse_is_the_inverse() -> None:
    assert TOPICS.parse(TOPICS.event("st01", "unit_result")) == Place("st01", "evt", "unit_result")
    assert TOPICS.parse(TOPICS.job) == Place("_line", "state", "job")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        BASE,
        f"{BASE}/st01/evt",
        f"{BASE}/st01/evt/unit_result/more",
        f"{BASE}/st 01/evt/unit_result",
        f"{BASE}/st01//unit_result",
        f"{BASE}/{'s' * 33}/evt/unit_result",
        f"{BASE}/st01/evt/unit_result\n",
        "ifpp1/acme/graz/hall-2/L10/st01/evt/unit_result",
        "ifpp2/acme/graz/hall-2/L1/st01/evt/unit_result",
        "/" * 100_000,
    ],
)
def test_foreign_topics_are_refused(topic: str) -> None:
    with pytest.raises(WireError):
        TOPICS.parse(topic)


@pytest.mark.parametrize("text", ["", "a/b", "a+", "#", "ä", "x" * 33, "a\n"])
def test_bad_identifiers_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="line"):
        check_id(text, "line")
    with pytest.raises(SettingsError):
        Topics("acme", "graz", "hall-2", text)


def test_station_ids_leave_the_underscore_to_the_line() -> None:
    assert check_station("st_01") == "st_01"
    with pytest.raises(SettingsError, match="underscore"):
        check_station("_line")
