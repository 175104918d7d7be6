"""`ifpp chip`: all a chip tells as a file, and what two chips, or a chip and a recipe's promise, differ in."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ifpp.errors import SettingsError
from ifpp.fpa.chip import Chip
from ifpp.fpa.dump import SCHEMA, Document, dump
from ifpp.fpa.final import ChipState, Expected, differences
from ifpp.fpa.seal import Seal
from ifpp.fpa.steps import eim_data
from ifpp.hw.port import CardPort
from ifpp.model.chip import EimData, FpaState, ProfileInfo, number_name
from ifpp.model.clock import SystemClock
from ifpp.model.ids import Iccid
from ifpp.model.recipe import Recipe, promise
from ifpp.recipes import load_recipe
from ifpp.roles.probe import find_place, owned
from ifpp.trust.eim import check_eim

_IDENTITIES = {"eid": "eid", "iccid": "iccid", "otk_id": "key"}
_OPERATIONAL = 2
_LOCKED = number_name(FpaState, FpaState.LOCKED)
_MISSING = object()


def write_dump(name: str, station_file: Path | None, out: Path | None, *, redact: bool, wait_s: float) -> None:
    """Read the chip in a head and write what it tells; raises IfppError."""
    place = find_place(name, station_file)

    def read(port: CardPort) -> Document:
        if not port.wait_seated(wait_s):
            raise SettingsError("COMMAND.INVALID", f"no chip was seated in {wait_s:g} s", where=place.name)
        chip = Chip(port, block_size=place.block_size)
        try:
            chip.open()
            return dump(chip)
        finally:
            chip.close()

    document = asyncio.run(owned(place, read))
    text = json.dumps(redacted(document) if redact else document, indent=1, ensure_ascii=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(out)) from error


def show_diff(one: Path, other: Path) -> int:
    """Print what two dumps, or a dump and a recipe (*.toml), differ in; 1 when they do. Raises SettingsError."""
    first = _read(one)
    if other.suffix == ".toml":
        found = list(broken(first, load_recipe(other)))
    else:
        found = [
            f"{path}: {_shown(mine)} / {_shown(theirs)}"
            for path, mine, theirs in compared(redacted(first), redacted(_read(other)))
        ]
    for line in found:
        sys.stdout.write(line + "\n")
    return 1 if found else 0


def redacted(document: Document) -> Document:
    """The same with each identity replaced by its number: two chips that were made alike then read alike."""
    numbers: dict[tuple[str, str], str] = {}

    def name(key: str, value: str) -> str:
        kind = _IDENTITIES[key]
        known = sum(each[0] == kind for each in numbers)
        return numbers.setdefault((kind, value), f"{kind}-{known + 1}")

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {each: walk(inner, each) for each, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        return name(key, value) if key in _IDENTITIES and isinstance(value, str) else value

    return cast(Document, walk(document))


def compared(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the path of every value that differs, with both; one that is missing is `_MISSING`."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from compared(one.get(key, _MISSING), other.get(key, _MISSING), f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list):
        for place in range(max(len(one), len(other))):
            mine, theirs = (each[place] if place < len(each) else _MISSING for each in (one, other))
            yield from compared(mine, theirs, f"{path}[{place}]")
    elif one != other:
        yield path, one, other


def broken(document: Document, recipe: Recipe) -> Iterator[str]:
    """Name what a dumped chip lacks of a recipe's promise.

    Its operational profiles are taken for the recipe's in the order of their AIDs, which is that of their loading.
    """
    profiles = [_profile(each) for each in document["profiles"] or ()]
    own = sorted((each for each in profiles if each.profile_class == _OPERATIONAL), key=lambda each: each.aid)
    types = recipe.profiles or ("",) * len(own)
    for profile_type in types[len(own) :]:
        yield f"profile {profile_type} is not there"
    named = {each.iccid: kind for each, kind in zip(own, types, strict=False) if each.iccid is not None}
    eim = next((eim_data(step, check_eim(step, SystemClock().now())) for step in [promise(recipe).eim] if step), None)
    yield from differences(Expected(promise(recipe), named, eim), _state(document, tuple(profiles)))


def _state(document: Document, profiles: tuple[ProfileInfo, ...]) -> ChipState:
    services: Mapping[str, Any] = document["factory_services"] or {}
    seal = Seal(
        keys_deleted=0,
        keys_remaining=services.get("keys_remaining", 0),
        locked=services.get("state") == _LOCKED,
        lpa_answers=bool(document["assistant_answers"]),
        absent=document["factory_services"] is None,
    )
    known = document["eims"]
    address = (document["addresses"] or {}).get("default_dp")
    return ChipState(profiles, seal, address, None if known is None else tuple(_eim(each) for each in known))


def _profile(row: Document) -> ProfileInfo:
    """One profile of a dump; its ICCID may be redacted."""
    iccid = None if row["iccid"] is None else cast(Iccid, row["iccid"])
    return ProfileInfo(
        iccid, bytes.fromhex(row["aid"]), row["state"], row["class"], row["name"], row["provider"], row["nickname"]
    )


def _eim(row: Document) -> EimData:
    certificate = base64.b64decode(row["certificate_b64"])
    protocols = frozenset(row["protocols"])
    return EimData(
        row["id"], row["fqdn"], row["id_type"], row["counter"], certificate, protocols, row["indirect_download"]
    )


def _read(path: Path) -> Document:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError("COMMAND.INVALID", f"it cannot be read ({error})", where=str(path)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise SettingsError("COMMAND.INVALID", "it is no file of `ifpp chip dump`", where=str(path))
    return document


def _shown(value: Any) -> str:
    return "-" if value is _MISSING else json.dumps(value, ensure_ascii=False)
