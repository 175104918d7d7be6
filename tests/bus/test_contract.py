"""The contract as it is shipped, its examples, and that a newer one only adds."""

from __future__ import annotations

import copy
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from ifpp import __version__
from ifpp.bus import contract
from ifpp.bus.additions import losses
from ifpp.bus.contract import ASYNCAPI, CHANNELS, asyncapi, channel, published_sha256, render, schemas
from scripts.contract import freeze
from tests.contract import check

PUBLISHED = Path(contract.__file__).parent / contract.PUBLISHED
EXAMPLES = sorted((PUBLISHED / "examples").glob("*.json"))
SUMS = Path(__file__).parent / "released" / "SHA256SUMS"
RELEASED = sorted(SUMS.parent.glob("*.json"))


def test_what_is_shipped_is_what_the_table_says() -> None:
    found = {path.name: path.read_bytes() for path in PUBLISHED.glob("*.json")}
    wanted = {ASYNCAPI: render(asyncapi())} | {f"{name}.schema.json": render(one) for name, one in schemas().items()}
    assert found.keys() == wanted.keys(), "write it again: make contract"
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_the_document_points_at_nothing_that_is_missing() -> None:
    document = asyncapi()
    for text in _references(document):
        place: Any = document
        for level in text.removeprefix("#/").split("/"):
            place = place[level]


def test_no_topic_is_said_twice_and_every_one_is_found() -> None:
    assert len({one.address for one in CHANNELS}) == len(CHANNELS)
    for one in CHANNELS:
        node = "st01" if one.node == "{station}" else str(one.node)
        assert channel(node, one.kind, one.name) is one
    assert channel("st01", "evt", "gossip") is None


def test_the_hash_is_that_of_the_shipped_document() -> None:
    assert len(published_sha256()) == 64
    assert contract.told()["asyncapi_sha256"] == published_sha256()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_holds_and_is_read_as_it_was_written(path: Path) -> None:
    document = json.loads(path.read_bytes())
    address = path.stem.replace(".", "/")
    node, kind, name = address.split("/")
    one = channel(node, kind, name)
    assert one is not None
    check(f"a/b/c/d/e/{address}", path.read_bytes())
    assert json.loads(msgspec.json.encode(msgspec.convert(document, one.document))) == document


def test_every_document_has_an_example() -> None:
    shown = {channel(*path.stem.split(".")) for path in EXAMPLES}
    assert {one.document for one in CHANNELS} - {one.document for one in shown if one} == set()


def test_a_document_that_breaks_the_contract_is_found() -> None:
    good = json.loads((PUBLISHED / "examples" / "_line.req.route_check.json").read_bytes())
    with pytest.raises(jsonschema.ValidationError):
        check("a/b/c/d/e/_line/req/route_check", json.dumps(good | {"deadline_ms": "soon"}).encode())
    with pytest.raises(AssertionError):
        check("a/b/c/d/e/st01/evt/gossip", b"{}")


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_nothing_is_taken_away_from_a_release(path: Path) -> None:
    assert losses(json.loads(path.read_bytes()), asyncapi()) == []


def test_a_released_contract_stays_what_was_released() -> None:
    rows = [line.split("  ") for line in SUMS.read_text().splitlines()]
    assert {name: digest for digest, name in rows} == {
        path.name: sha256(path.read_bytes()).hexdigest() for path in RELEASED
    }


def test_the_present_version_is_frozen_as_it_is_shipped() -> None:
    """A change after a release needs a new version; before it, the file and its digest are written anew."""
    frozen = SUMS.parent / f"asyncapi-{__version__}.json"
    assert frozen.read_bytes() == (PUBLISHED / ASYNCAPI).read_bytes(), "write it again: make contract"


def test_a_released_version_is_not_frozen_a_second_time(tmp_path: Path) -> None:
    open_, closed = "## 9.9.9 (unreleased)", "## 9.9.9 - 2027-01-01"
    frozen = tmp_path / "asyncapi-9.9.9.json"
    freeze("9.9.9", open_, tmp_path)
    freeze("9.9.9", closed, tmp_path)  # it is what was released: nothing to say
    assert (tmp_path / SUMS.name).read_text() == f"{sha256(render(asyncapi())).hexdigest()}  {frozen.name}\n"
    frozen.write_text("{}")
    with pytest.raises(SystemExit):
        freeze("9.9.9", closed, tmp_path)
    assert frozen.read_text() == "{}"
    freeze("9.9.9", open_, tmp_path)
    assert frozen.read_bytes() == render(asyncapi())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["channels"].pop("line_state_job"), "is gone"),
        (lambda d: _unit(d)["properties"].pop("attempt"), "UnitResultEvent.attempt: is gone"),
        (lambda d: _unit(d)["properties"]["attempt"].update(type="string"), "was integer, is string"),
        (lambda d: _unit(d)["required"].append("lot_id"), "may not be absent any more"),
        (lambda d: _unit(d)["required"].remove("attempt"), "may be absent now"),
        (lambda d: _unit(d)["properties"]["region"].update(maxLength=3), "maxLength was None, is 3"),
        (lambda d: d["operations"]["send_line_state_job"]["bindings"]["mqtt"].update(retain=False), "retain"),
        (lambda d: d["components"]["schemas"].pop("Ack"), "Ack: is gone"),
    ],
)
def test_what_is_taken_away_is_named(change: Any, told: str) -> None:
    newer = copy.deepcopy(asyncapi())
    change(newer)
    assert any(told in loss for loss in losses(asyncapi(), newer))


def test_an_addition_is_no_loss() -> None:
    newer = copy.deepcopy(asyncapi())
    _unit(newer)["properties"]["colour"] = {"type": "string"}
    newer["channels"]["new"] = {"address": "x", "messages": {}}
    assert losses(asyncapi(), newer) == []


def _unit(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]["UnitResultEvent"]
    return found


def _references(part: object) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [text for below in part.values() for text in _references(below)]
    if isinstance(part, list):
        return [text for below in part for text in _references(below)]
    return []
