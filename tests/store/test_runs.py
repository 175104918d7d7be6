"""How units went through their recipes, read back from the books; on both databases."""

from __future__ import annotations

from ifpp.model.recipe_run import RecipeRun, StepNote
from ifpp.roles.demo_recipe import told
from ifpp.roles.genealogy import last_run
from ifpp.store.factory import Factory
from tests.store.world import Node, eid, stock, take_one


def run(*results: tuple[str, str], differences: tuple[str, ...] = ()) -> RecipeRun:
    notes = [StepNote(step=step, result="FAIL" if code else "PASS", code=code) for step, code in results]
    return RecipeRun(name="r", version="2", digest="d", steps=notes, differences=list(differences))


def test_every_attempt_tells_how_far_it_came(factory: Factory) -> None:
    stock(factory, 2)
    node = Node("st01")
    first = run(("identify", ""), ("read-back", "READBACK.DIFFERS"), differences=("its eIM is none",))
    second = run(("identify", ""), ("read-back", ""))
    take_one(factory, node.result(1, "a1", run=first))
    take_one(factory, node.result(1, "a2", run=second))
    take_one(factory, node.result(2, "b1"))  # of a station that is older than recipes

    assert [row.run for row in factory.runs.all()] == [first, second, None]
    assert [row.run for row in factory.runs.of_unit(str(eid(1)))] == [first, second]
    newest = last_run(factory.runs.of_unit(str(eid(1))))
    assert newest is not None
    assert [step["result"] for step in newest["steps"]] == ["PASS", "PASS"]
    assert last_run(factory.runs.of_unit(str(eid(2)))) is None

    counted = told(factory.runs.all())
    assert counted["recipes"] == [{"name": "r", "version": "2", "digest": "d"}]
    assert counted["steps"] == {"identify": {"PASS": 2}, "read-back": {"PASS": 1, "READBACK.DIFFERS": 1}}
    assert counted["read_back"] == {"units": 2, "as_promised": 1, "differences": ["its eIM is none"]}
