"""A station makes first articles of a job order, and nothing more of it before a person has released it."""

from __future__ import annotations

import asyncio

from ifpp.model.messages import FirstArticles, JobState
from ifpp.model.states import E10, Lamp
from ifpp.station.jobs import Jobs
from tests.station.shop import JOB, PATIENCE_S, Run, Shop, shop, world

__all__ = ["shop", "world"]


def said(first: FirstArticles | None = None) -> JobState:
    names = {} if first is None else {JOB.job_order_id: first}
    return JobState(
        schema="job/1.0", id="", ts="", node_id="_line", boot_id="", epoch=1, jobs=[JOB], first_articles=names
    )


def test_units_under_way_count_until_the_line_knows_them() -> None:
    jobs = Jobs("st01")
    jobs.update(said(FirstArticles(wanted=2)))
    assert [jobs.begin(JOB) for _ in range(3)] == [True, True, False]
    jobs.update(said(FirstArticles(wanted=2, left={"st01": 1}, made={"st01": 1})))
    assert jobs.waits(JOB)  # one passed, the other is under way
    jobs.update(said(FirstArticles(wanted=2, left={"st01": 2}, made={"st01": 2})))
    assert [jobs.begin(JOB) for _ in range(3)] == [True, True, False]  # it failed: two in a row again
    jobs.update(said())
    assert [jobs.begin(JOB) for _ in range(3)] == [True] * 3
    other = Jobs("st02")
    other.update(said(FirstArticles(wanted=2, left={"st01": 0}, made={"st01": 2})))
    assert other.begin(JOB)


def shown(run: Run) -> tuple[E10, str]:
    head = run.board.head("h01")
    return E10(head.e10), head.reason


async def test_after_its_first_article_a_head_waits_for_the_release(shop: Shop) -> None:
    async with shop.start() as run:
        run.jobs.update(said(FirstArticles(wanted=1)))
        run.socket.seat(shop.chip(0))
        await run.socket.shows(Lamp.PASS)
        run.socket.take()
        await run.socket.shows(Lamp.HOLD)
        assert shown(run) == (E10.SBY, "GATE.NOT_RELEASED")
        run.jobs.update(said(FirstArticles(wanted=1, left={"st01": 0}, made={"st01": 1})))
        assert run.jobs.waits(JOB)
        run.jobs.update(said())
        await run.socket.shows(Lamp.OFF)
        assert await run.load(shop.chip(1)) is Lamp.PASS


async def test_no_word_of_the_line_is_missed() -> None:
    jobs = Jobs("st01")
    changed = jobs.changed()
    jobs.update(said())  # before anybody has begun to wait
    async with asyncio.timeout(PATIENCE_S):
        await changed
    waiting = asyncio.create_task(asyncio.wait_for(jobs.changed(), PATIENCE_S), name="waiting")
    await asyncio.sleep(0)
    assert not waiting.done()
    jobs.update(said())
    await waiting
