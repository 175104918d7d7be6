"""Bytes on a modem's line for one load against what 3GPP TS 27.007 needs for the same APDUs, over +CGLA and +CSIM."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ifpp.fpa.chip import Chip
from ifpp.fpa.load import load, prepare
from ifpp.hw.port import make_port
from ifpp.model.states import PackageState
from ifpp.sim.euicc import Euicc
from ifpp.sim.modem import ModemServer
from ifpp.sim.slots import Slot
from ifpp.sim.world import JobPlan, build_world
from tests.bench.table import goal, row
from tests.fpa.conftest import Case, cases
from tests.hw.ports import Bench

_GOAL = 1.0
_FINAL = "\r\n\r\nOK\r\n"


class _Recorder(Slot):
    """A slot that keeps the sizes of every command and answer the card saw."""

    def __init__(self) -> None:
        super().__init__("h01")
        self.sizes: list[tuple[int, int]] = []

    def transmit(self, apdu: bytes) -> bytes:
        answer = super().transmit(apdu)
        self.sizes.append((len(apdu), len(answer)))
        return answer


def run() -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]
        (case,) = cases(build_world(folder / "world", units=1, seed=7, jobs=plan, profile_kb=(30, 30)))
        ratios = [_measure(case, folder, personality, opening) for personality, opening in _WAYS.items()]
    return all(ratios)


_WAYS = {"plain": 'AT+CGLA=1,{},"', "csim-only": 'AT+CSIM={},"'}


def _measure(case: Case, folder: Path, personality: str, opening: str) -> bool:
    slot, bench = _Recorder(), Bench()
    server = ModemServer({"h01": slot}, folder / personality, personality)
    bench.run(server.start())
    port = make_port(server.urls["h01"])
    modem = server.modems["h01"]
    try:
        bench.do(slot.seat, Euicc.load(case.card))
        port.open()
        chip = Chip(port)
        chip.open()
        chip.eid()
        before, apdus, start_s = modem.heard + modem.said, len(slot.sizes), time.monotonic()
        prepare(chip, case.order)
        assert load(chip, case.order, case.key).state is PackageState.INSTALLED
        load_s = time.monotonic() - start_s
        sizes = slot.sizes[apdus:]
        line = modem.heard + modem.said - before
    finally:
        port.close()
        bench.do(server.stop)
        bench.close()
    name = opening[2:7]
    minimum = sum(_minimum(opening, *size) for size in sizes)
    row(f"{name}: bytes of {len(sizes)} APDUs", [sum(map(sum, sizes))], "B")
    row(f"{name}: minimum on the line", [minimum], "B")
    row(f"{name}: bytes on the line", [line], "B")
    row(f"{name}: time on a line without a speed", [1000 * load_s], "ms")
    return goal(f"{name}: bytes / minimum", line / minimum, _GOAL, at_least=False)


def _minimum(opening: str, command_bytes: int, answer_bytes: int) -> int:
    """Bytes of one command line, its answer line and OK in verbose result codes (V.250 5.7.1)."""
    command, answer = 2 * command_bytes, 2 * answer_bytes
    name = opening[2:7]
    out = len(opening.format(command)) + command + len('"\r')
    back = len(f'\r\n{name}: {answer},"') + answer + len('"' + _FINAL)
    return out + back
