"""`ifpp recipe`: is a recipe one that can work, what does it do step by step, and what does it promise?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ifpp.errors import FAULTS
from ifpp.model.clock import SystemClock
from ifpp.model.recipe import STEPS, Eim, Promise, Recipe, digest, promise
from ifpp.recipes import load_recipe, load_recipes
from ifpp.trust.eim import check_eim


def show(paths: list[Path]) -> None:
    """Print recipes; a folder stands for those in it. Raises SettingsError, VerificationError EIM.CERTIFICATE."""
    for path in paths:
        for recipe in check_recipes(path) if path.is_dir() else [_checked(load_recipe(path))]:
            sys.stdout.write("\n".join(_text(recipe)) + "\n\n")


def check_recipes(folder: Path) -> list[Recipe]:
    """Return the recipes of a folder when each of them can work today; raises as `show`."""
    return [_checked(recipe) for recipe in load_recipes(folder)]


def _checked(recipe: Recipe) -> Recipe:
    for step in recipe.all(Eim):
        check_eim(step, SystemClock().now())
    return recipe


def _text(recipe: Recipe) -> Iterator[str]:
    yield f"{recipe.name} {recipe.version}  {digest(recipe)}"
    if recipe.about:
        yield f"  {recipe.about}"
    for number, step in enumerate(recipe.steps, 1):
        row = STEPS[step.name]
        yield f"  {number:2} {step.name:16} tells: {row.evidence}; again: {row.again}"
        for code in row.faults:
            fault = FAULTS[code]
            yield f"     {'':16} {code} ({fault.blame}): {fault.advice}"
    yield f"  promises: {'; '.join(_promised(promise(recipe)))}"


def _promised(promised: Promise) -> Iterator[str]:
    for name, profile in promised.profiles.items():
        nickname = "" if profile.nickname is None else f", called {profile.nickname!r}"
        yield f"{name or 'each profile'} {'enabled' if profile.enabled else 'disabled'}{nickname}"
    if promised.address is not None:
        yield f"default SM-DP+ {promised.address or 'none'}"
    if promised.eim is not None:
        yield f"eIM {promised.eim.id}"
    if promised.keys_gone:
        yield "no one-time key"
    if promised.locked:
        yield "factory services locked, or none, LPA or IPA answering"
