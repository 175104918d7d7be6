"""Holds every document that a test sees on the bus to the published contract."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jsonschema

from ifpp.bus import contract
from tests import sparkplug_host

_PUBLISHED = Path(contract.__file__).parent / contract.PUBLISHED


def check(topic: str, payload: bytes) -> None:
    """Raise AssertionError for a topic the contract has not, ValidationError for a document that breaks it.

    An empty retained document takes one back (line contract 4.1).
    """
    if topic.startswith("spBv1.0/"):
        sparkplug_host.check(topic, payload)
        return
    node, kind, name = topic.split("/")[-3:]
    one = contract.channel(node, kind, name)
    assert one is not None, f"no such topic in the contract: {topic}"
    if payload or not one.retained:
        _validator(one.document.__name__).validate(json.loads(payload))


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((_PUBLISHED / f"{name}.schema.json").read_bytes())
    return jsonschema.Draft202012Validator(schema)
