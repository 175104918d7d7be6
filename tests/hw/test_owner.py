"""The owner thread: one thread, in order, and a cancelled caller still waits for the side effect."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ifpp.hw.owner import Owner


async def test_all_calls_run_on_one_thread_in_order() -> None:
    owner = Owner("head-h01")
    threads: list[str] = []

    def note(number: int) -> int:
        threads.append(threading.current_thread().name)
        return number

    assert await asyncio.gather(*(owner.call(note, number) for number in range(5))) == [0, 1, 2, 3, 4]
    assert len(set(threads)) == 1
    assert threads[0].startswith("head-h01")
    owner.close()


async def test_cancel_means_after_this_step() -> None:
    owner, begun, gate, done = Owner("head"), threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        gate.wait(5)
        done.set()

    task = asyncio.create_task(owner.call(step))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
    owner.close()
