"""A hand-over is in the books, and known after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from ifpp.errors import SettingsError
from ifpp.model.clock import SystemClock
from ifpp.model.messages import HandOver, OperatorAction
from ifpp.station.hand_over import HandOvers
from ifpp.station.journal import Journal
from ifpp.trust.people import Somebody

ANNA, BOB = Somebody("anna", "operator"), Somebody("bob", "technician")


async def actions(journal: Journal) -> list[OperatorAction]:
    rows = await asyncio.wrap_future(journal.unacked(0, 100))
    return [msgspec.json.decode(row.body, type=OperatorAction) for row in rows]


async def test_it_is_recorded_and_remembered_by_the_next_process(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "station.db", "st01", SystemClock())
    hands = HandOvers("st01", journal, SystemClock())
    assert await hands.record(ANNA, BOB, " h07 waits for a socket ") == "handed over"
    (done,) = await actions(journal)
    assert (done.action, done.operator_id, done.target) == ("HAND_OVER", "anna", "bob")
    assert (done.comment, done.seq) == ("h07 waits for a socket", 1)
    journal.close()

    journal = Journal.open(tmp_path / "station.db", "st01", SystemClock())
    again = HandOvers("st01", journal, SystemClock())
    again.restore(await asyncio.wrap_future(journal.lives()))
    assert again.last == HandOver(at=done.ts, by="anna", to="bob", comment="h07 waits for a socket")
    await again.record(BOB, None, "nothing special")
    assert (await actions(journal))[-1].target == "st01"
    assert again.last is not None
    assert again.last.to == ""
    journal.close()


@pytest.mark.parametrize("comment", ["", "  ", "a\nb", "x" * 201])
async def test_a_comment_that_says_nothing_is_refused(tmp_path: Path, comment: str) -> None:
    journal = Journal.open(tmp_path / "station.db", "st01", SystemClock())
    hands = HandOvers("st01", journal, SystemClock())
    with pytest.raises(SettingsError) as refused:
        await hands.record(ANNA, BOB, comment)
    assert refused.value.code == "OPERATOR.NO_REASON"
    assert hands.last is None
    assert not await actions(journal)
    journal.close()
