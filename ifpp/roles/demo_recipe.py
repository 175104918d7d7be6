"""The recipe of a demo: found by name, given to the line, and in the end held against what the chips really hold."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ifpp
from ifpp.errors import SettingsError
from ifpp.model.recipe import Connect, Eim, Fit, Promise, Recipe, digest, promise
from ifpp.sim.eum import Make
from ifpp.store.records import UnitRecord
from ifpp.store.runs import RunRow

_FOLDERS = (Path("config/recipes"), Path(ifpp.__file__).parent.parent / "config" / "recipes")
_PRODUCT = "IFPP-SIM-SOC-1"


def find_recipe(name: str) -> Path:
    """Return the file of a recipe: a path, or a name in `config/recipes`. Raises SettingsError."""
    for path in (Path(name), *(folder / f"{name}.toml" for folder in _FOLDERS)):
        if path.is_file():
            return path
    known = sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")})
    raise SettingsError("COMMAND.INVALID", f"no file and none of {', '.join(known)}", where=f"--recipe {name}")


def give(recipe_file: Path, folder: Path) -> None:
    """Copy a recipe and the certificates beside it to where the line's settings look."""
    folder.mkdir(parents=True)
    for path in (recipe_file, *recipe_file.parent.glob("*.pem")):
        shutil.copy(path, folder / path.name)


def make_of(recipe: Recipe) -> Make:
    """The chips a recipe is for."""
    fits = recipe.all(Fit)
    iot = bool(recipe.all(Eim)) or any(fit.chip == "iot" for fit in fits)
    tre = next((fit.tre for fit in fits if fit.tre != "any"), "")
    product = next((fit.tre_product for fit in fits if fit.tre_product), _PRODUCT if tre else "")
    return Make(iot=iot, tre=tre, tre_product=product)


def needs_modem(recipe: Recipe) -> bool:
    """Whether its heads have to be modems."""
    return bool(recipe.all(Connect))


def told(rows: Iterable[RunRow]) -> dict[str, Any]:
    """What `--json` says of recipes: which, how often each step passed or failed, what the read-backs found."""
    runs = [row.run for row in rows if row.run is not None]
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for note in run.steps:
            steps[note.step][note.code or note.result] += 1
    looks = [(run, note) for run in runs for note in run.steps if note.step == "read-back"]
    recipes = {(run.name, run.version, run.digest) for run in runs}
    return {
        "recipes": [{"name": name, "version": version, "digest": sha} for name, version, sha in sorted(recipes)],
        "steps": {name: dict(sorted(counts.items())) for name, counts in steps.items()},
        "read_back": {
            "units": len(looks),
            "as_promised": sum(note.result == "PASS" for _, note in looks),
            "differences": sorted({what for run, _ in looks for what in run.differences}),
        },
    }


def untrue(
    recipe: Recipe, rows: Iterable[RunRow], units: Mapping[str, UnitRecord], chips: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    """Hold what stations said of units that are clean to ship against the chips' own memory, a sentence each."""
    promised = promise(recipe)
    for row in rows:
        if not row.clean_to_ship or row.eid not in chips:
            continue
        if row.run is None or row.run.digest != digest(recipe):
            yield f"EID {row.eid}: went through another recipe"
            continue
        types = {package.iccid: package.profile_type for package in units[row.eid].packages}
        for what in _differences(promised, types, chips[row.eid]):
            yield f"EID {row.eid}: {what}, and the station said it was as promised"


def _differences(promised: Promise, types: Mapping[str, str], card: Mapping[str, Any]) -> Iterator[str]:
    for profile in card["profiles"]:
        wanted = promised.of(types.get(profile["iccid"], ""))
        if profile["enabled"] != wanted.enabled:
            yield f"ICCID {profile['iccid']} is {'enabled' if profile['enabled'] else 'disabled'}"
        if wanted.nickname is not None and profile["nickname"] != wanted.nickname:
            yield f"ICCID {profile['iccid']} is called {profile['nickname']!r}"
    if promised.address is not None and card["default_address"] != promised.address:
        yield f"its default SM-DP+ is {card['default_address']!r}"
    if card["eims"] != ([] if promised.eim is None else [promised.eim.id]):
        yield f"its eIMs are {card['eims']}"
