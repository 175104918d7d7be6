"""Threads that decode a type for the first time at the same moment."""

from __future__ import annotations

import subprocess
import sys

import msgspec

import ifpp.line.supervisor
import ifpp.station.agent
import ifpp.store.factory
from ifpp.model.structs import prepare_structs, structs

MODULES = (ifpp.station.agent, ifpp.line.supervisor, ifpp.store.factory)
# the types are new in each round, so that every round has a first time
ROUNDS = """
import sys, threading
import msgspec
from ifpp.model.structs import prepare_structs

sys.setswitchinterval(1e-6)
for number in range(300):
    inner = msgspec.defstruct(f"Inner{number}", [("a", str)])
    outer = msgspec.defstruct(f"Outer{number}", [("x", inner), ("z", dict[str, str], {}), ("w", list[inner], [])])
    prepare_structs()
    gate = threading.Barrier(6)

    def decode():
        gate.wait()
        msgspec.json.decode(b'{"x": {"a": "1"}, "w": [{"a": "2"}]}', type=outer)

    threads = [threading.Thread(target=decode) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_decode_a_prepared_type_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_type_of_the_processes_can_be_prepared() -> None:
    assert all(MODULES)
    prepare_structs()
    unknown = []
    for kind in structs():
        if kind.__module__.startswith("ifpp."):
            try:
                msgspec.json.Decoder(kind)
            except TypeError as error:
                unknown.append(f"{kind.__qualname__}: {error}")
    assert unknown == []
