"""Recipe files: `*.toml` of one folder become recipes that can work, or a refusal that names file, line and advice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec

from ifpp.errors import SettingsError, SupplyError
from ifpp.model.recipe import IFPP_LOAD, IFPP_STOCK, STEPS, AnyStep, Eim, Recipe, flaws
from ifpp.settings import load_toml

_PEM = "-----BEGIN CERTIFICATE-----"
_MAX_PEM_BYTES = 16_384


class RecipeBook:
    """The recipes of a line by name and version. Without any, every unit is taken through the one way there is."""

    def __init__(self, recipes: Iterable[Recipe] = ()) -> None:
        self._recipes: Mapping[tuple[str, str], Recipe] = {(each.name, each.version): each for each in recipes}

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self._recipes.values())

    def of(self, name: str, version: str, *, finish: str = "seal") -> Recipe:
        """Return what a job order wants; raises SupplyError RECIPE.UNKNOWN.

        `finish`: where there are no recipe files, "seal" or "stock" (see `ifpp.settings.Recipe`).
        """
        if not self._recipes:
            return IFPP_STOCK if finish == "stock" else IFPP_LOAD
        found = self._recipes.get((name, version))
        if found is None:
            known = ", ".join(f"{each.name} {each.version}" for each in self._recipes.values())
            raise SupplyError("RECIPE.UNKNOWN", f"the job wants {name} {version}, there are {known}", where="recipe")
        return found


def load_recipes(folder: Path) -> RecipeBook:
    """Read every recipe of a folder; raises SettingsError RECIPE.INVALID, SETTINGS.MISSING where there is none."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise SettingsError("SETTINGS.MISSING", "there is no recipe (*.toml) in it", where=str(folder))
    found: dict[tuple[str, str], Path] = {}
    recipes = []
    for path in files:
        recipe = load_recipe(path)
        if (other := found.setdefault((recipe.name, recipe.version), path)) != path:
            raise _invalid(f"{other.name} has the same name and version", "change one of them", path, 0)
        recipes.append(recipe)
    return RecipeBook(recipes)


def load_recipe(path: Path) -> Recipe:
    """Read one recipe with its certificates; raises SettingsError RECIPE.INVALID naming file, line and advice."""
    try:
        recipe = load_toml(path, Recipe)
    except SettingsError as error:
        if error.code == "SETTINGS.MISSING":
            raise
        number = re.search(r"\$\.step\[(\d+)\]", error.detail)
        where = f"{path}:{_line(path, int(number.group(1)))}" if number else error.where
        raise SettingsError("RECIPE.INVALID", error.detail + _hint(error.detail), where=where) from error
    for flaw in flaws(recipe):
        raise _invalid(flaw.what, flaw.advice, path, 1 if flaw.step is None else _line(path, flaw.step))
    steps = [
        _with_certificates(step, path, _line(path, number)) if isinstance(step, Eim) else step
        for number, step in enumerate(recipe.steps)
    ]
    return msgspec.structs.replace(recipe, steps=tuple(steps))


def _hint(detail: str) -> str:
    """The known word nearest to one that is not."""
    word = re.search(r"unknown field `([^`]+)`(?!.*did you mean)|Invalid value '([^']+)'", detail)
    if word is None:
        return ""
    kinds = get_args(AnyStep)
    known = [*STEPS, *(field.name for kind in kinds for field in msgspec.structs.fields(kind))]
    near = difflib.get_close_matches(word.group(1) or word.group(2), sorted(set(known)), n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; steps are {', '.join(STEPS)}"


def _with_certificates(step: Eim, path: Path, line: int) -> Eim:
    """Put the PEM in the place of the names of its files."""
    named = {name: getattr(step, name) for name in ("certificate", "issuer")}
    texts = {name: _pem(value, path, line) if value else "" for name, value in named.items()}
    return msgspec.structs.replace(step, **texts)


def _pem(value: str, path: Path, line: int) -> str:
    if value.lstrip().startswith(_PEM):
        return value.strip()
    file = path.parent / value
    try:
        text = file.read_text(encoding="ascii")[:_MAX_PEM_BYTES]
    except (OSError, ValueError) as error:
        raise _invalid(f"{value} cannot be read ({error})", "put the PEM file beside the recipe", path, line) from error
    if _PEM not in text:
        raise _invalid(f"{value} has no certificate in it", "name a PEM file with BEGIN CERTIFICATE", path, line)
    return text.strip()


def _line(path: Path, step: int) -> int:
    """The line a step begins in: its [[step]], counted from 1; 1 where the steps are written otherwise."""
    rows = path.read_text(encoding="utf-8").splitlines()
    begins = [number for number, row in enumerate(rows, 1) if re.match(r"\s*\[\[\s*step\s*\]\]", row)]
    return begins[step] if step < len(begins) else 1


def _invalid(what: str, advice: str, path: Path, line: int) -> SettingsError:
    return SettingsError("RECIPE.INVALID", f"{what}: {advice}", where=f"{path}:{line}" if line else str(path))
