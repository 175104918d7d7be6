"""How units went through their recipes, as their stations told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, select

from ifpp.model.recipe_run import RecipeRun
from ifpp.store.database import Database
from ifpp.store.schema import event_log, unit_attempt

_a = unit_attempt.c
_all = (
    select(_a.eid, _a.result, _a.clean_to_ship, event_log.c.body)
    .join(event_log, (event_log.c.node_id == _a.node_id) & (event_log.c.seq == _a.seq))
    .order_by(_a.started_at, _a.node_id, _a.seq)
)
_of_unit = _all.where(_a.eid == bindparam("eid"))


class _Told(msgspec.Struct):
    """What is read of a `unit_result` here."""

    run: RecipeRun | None = None


_told = msgspec.json.Decoder(_Told)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One attempt of a unit; `run` is None where its station did not say."""

    eid: str
    result: str
    clean_to_ship: bool
    run: RecipeRun | None


class RunStore:
    """Part of a `Factory`: methods block for one short transaction and may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[RunRow]:
        """Every attempt there is, oldest first."""
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(_all)]

    def of_unit(self, eid: str) -> list[RunRow]:
        """Every attempt of one chip, oldest first."""
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(_of_unit, {"eid": eid})]


def _row(row: Row[Any]) -> RunRow:
    return RunRow(row.eid, row.result, row.clean_to_ship, _told.decode(row.body).run)
