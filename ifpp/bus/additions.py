"""Whether a newer contract only adds to an older one (line contract 4.5).

A minor version may add keys that may be absent, words, topics. It never takes away, renames, changes a type, tightens a
limit, or makes a key that readers could miss one they must have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LOWER_IS_TIGHTER = ("maximum", "maxLength", "maxItems", "exclusiveMaximum")
_HIGHER_IS_TIGHTER = ("minimum", "minLength", "minItems", "exclusiveMinimum")
_EXACT = ("pattern", "const", "format")
Schema = dict[str, Any]


def losses(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """Return what the newer AsyncAPI document takes away from the older, a sentence each; empty when it only adds."""
    return [*_channels(older, newer), *_schemas(older["components"]["schemas"], newer["components"]["schemas"])]


def _channels(older: dict[str, Any], newer: dict[str, Any]) -> Iterator[str]:
    for name, channel in older["channels"].items():
        after = newer["channels"].get(name)
        if after is None:
            yield f"topic {channel['address']}: is gone"
        elif (channel["address"], channel["messages"]) != (after["address"], after["messages"]):
            yield f"topic {channel['address']}: carries something else"
    for name, operation in older["operations"].items():
        after = newer["operations"].get(name)
        if after is not None and after["bindings"] != operation["bindings"]:
            yield f"operation {name}: QoS or retain has changed"


def _schemas(older: dict[str, Schema], newer: dict[str, Schema]) -> Iterator[str]:
    for name, schema in older.items():
        if name not in newer:
            yield f"{name}: is gone"
        else:
            yield from _schema(name, schema, newer[name])


def _schema(where: str, older: Schema, newer: Schema) -> Iterator[str]:
    """Compare one schema with its successor, and what lies below it."""
    if _kinds(older) - _kinds(newer):
        yield f"{where}: was {_text(older)}, is {_text(newer)}"
        return
    yield from _limits(where, older, newer)
    before, after = older.get("properties", {}), newer.get("properties", {})
    for key, schema in before.items():
        if key not in after:
            yield f"{where}.{key}: is gone"
        else:
            yield from _schema(f"{where}.{key}", schema, after[key])
    for key in sorted(set(newer.get("required", ())) - set(older.get("required", ()))):
        yield f"{where}.{key}: may not be absent any more"
    for key in sorted(set(older.get("required", ())) - set(newer.get("required", ()))):
        yield f"{where}.{key}: may be absent now"
    for below in ("items", "additionalProperties"):
        if isinstance(older.get(below), dict) and isinstance(newer.get(below), dict):
            yield from _schema(f"{where}[]", older[below], newer[below])


def _limits(where: str, older: Schema, newer: Schema) -> Iterator[str]:
    for key in (*_LOWER_IS_TIGHTER, *_HIGHER_IS_TIGHTER):
        was, now = older.get(key), newer.get(key)
        if now is None or now == was:
            continue
        if was is None or (now < was if key in _LOWER_IS_TIGHTER else now > was):
            yield f"{where}: {key} was {was}, is {now}"
    for key in _EXACT:
        if key in newer and newer[key] != older.get(key):
            yield f"{where}: {key} was {older.get(key)}, is {newer[key]}"
    if "enum" in newer and set(older.get("enum", ())) - set(newer["enum"]):
        yield f"{where}: words were taken away"


def _kinds(schema: Schema) -> set[str]:
    """Every type a value may have; a reference counts as a type of its own."""
    if "anyOf" in schema:
        return set().union(*(_kinds(part) for part in schema["anyOf"]))
    if "$ref" in schema:
        return {str(schema["$ref"]).rsplit("/", 1)[-1]}
    kind = schema.get("type")
    return {str(kind)} if kind is not None else set()


def _text(schema: Schema) -> str:
    return " or ".join(sorted(_kinds(schema))) or "anything"
