"""The owner thread: one thread, in order, and a cancelled caller still waits for the side effect."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from ifpp.errors import Blame, TransportError
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


class Device:
    """A device whose call blocks until the test lets it go, and which says until when it may."""

    def __init__(self) -> None:
        self.deadline_s: float | None = None
        self.released = threading.Event()
        self.steps: list[str] = []

    def command(self) -> str:
        self.deadline_s = time.monotonic() + 0.05
        self.released.wait(10)
        self.deadline_s = None
        return "late"

    def step(self, name: str) -> str:
        self.steps.append(name)
        return name


async def test_a_hung_call_is_given_up_with_all_that_waits_behind_it_and_the_owner_works_again_when_it_ends() -> None:
    device = Device()
    owner = Owner("head-h01", lambda: device.deadline_s)
    calls = [asyncio.create_task(owner.call(device.command)), asyncio.create_task(owner.call(device.step, "behind"))]
    faults = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
    for fault in faults:
        assert isinstance(fault, TransportError)
        assert (fault.code, fault.fault.blame) == ("HEAD.HUNG", Blame.STATION)
    with pytest.raises(TransportError):
        await owner.call(device.step, "at once")
    device.released.set()
    while owner.hung:  # noqa: ASYNC110 - a thread ends it
        await asyncio.sleep(0.005)
    assert await owner.call(device.step, "afterwards") == "afterwards"
    assert device.steps == ["afterwards"]
    owner.close()


async def test_a_cancelled_caller_does_not_wait_for_a_hung_call() -> None:
    device = Device()
    owner = Owner("head-h01", lambda: device.deadline_s)
    call = asyncio.create_task(owner.call(device.command))
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(TransportError):
        await asyncio.wait_for(call, 60)
    device.released.set()
    owner.close()


async def test_a_slow_call_within_its_deadline_is_waited_for() -> None:
    owner = Owner("head-h01", lambda: time.monotonic() + 1)
    assert await owner.call(lambda: time.sleep(0.7) or "done") == "done"  # type: ignore[func-returns-value]
    owner.close()


def test_a_hung_call_keeps_no_process_alive() -> None:
    program = """
import asyncio, time
from ifpp.errors import TransportError
from ifpp.errors import Blame, TransportError
from ifpp.hw.owner import Owner

async def main():
    try:
        await Owner("head", lambda: 0.0).call(time.sleep, 60)
    except TransportError as error:
        print(error.code)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == ("HEAD.HUNG\n", "")
