"""What a unit's recipe leaves in its record, written while it goes its way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ifpp.errors import IfppError
from ifpp.model.clock import Clock
from ifpp.model.recipe import Recipe, digest
from ifpp.model.recipe_run import RecipeRun, StepNote


class Notes:
    """The steps of one attempt so far, for its event and for its will."""

    def __init__(self, recipe: Recipe, clock: Clock) -> None:
        self.recipe = recipe
        self.run = RecipeRun(name=recipe.name, version=recipe.version, digest=digest(recipe))
        self._clock = clock

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, str]]:
        """Note a step; the block fills in its evidence. What ends the block ends the step."""
        note, start_s = StepNote(step=name, result="OPEN"), self._clock.monotonic()
        self.run.steps.append(note)
        try:
            yield note.evidence
            note.result = "PASS"
        except IfppError as error:
            note.result, note.code = "FAIL", error.code
            raise
        finally:
            note.ms = round((self._clock.monotonic() - start_s) * 1000)
