"""How one unit went through its recipe: what stands in `S/evt/unit_result` as `run`."""

from __future__ import annotations

import msgspec


class StepNote(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One step: `result` PASS, FAIL or OPEN (it had begun when this was written), `code` of the fault that ended it.

    `evidence`: what the step leaves in the record, in words (see `ifpp.model.recipe.STEPS`).
    """

    step: str
    result: str
    ms: int = 0
    code: str = ""
    evidence: dict[str, str] = {}


class RecipeRun(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The recipe a unit was taken through, by name, version and SHA-256 of what it says; its steps in order.

    `differences`: what the final read-back found other than promised, a sentence each.
    """

    name: str
    version: str
    digest: str
    steps: list[StepNote] = []
    differences: list[str] = []
