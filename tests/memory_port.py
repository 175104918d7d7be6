"""A card port over a virtual eUICC in the same process, with a switch to pull it at a chosen APDU."""

from __future__ import annotations

from ifpp.errors import TransportError
from ifpp.model.states import Lamp
from ifpp.sim.euicc.card import Euicc


class MemoryPort:
    """Implements ifpp.hw.port.CardPort. `pull_at` counts APDUs from 1; the pulled one is not answered.

    `executed`: whether the chip still executed the command it was pulled on (power went after, not before).
    """

    url = "memory://chip"
    max_block = 255
    deadline_s: float | None = None

    def __init__(self, chip: Euicc) -> None:
        self.chip = chip
        self.sent: list[bytes] = []
        self.sn = ""
        self.pull_at = 0
        self.executed = False
        self.lamps: list[Lamp] = []

    def open(self) -> None:
        pass

    def wait_seated(self, timeout_s: float) -> bool:
        return True

    def wait_removed(self, timeout_s: float) -> bool:
        return True

    def label(self) -> str:
        return self.sn

    def power_up(self) -> bytes:
        self.sent.clear()
        self.chip.power_off()
        self.chip.reset()
        return self.chip.atr

    def power_down(self) -> None:
        self.chip.power_off()

    def open_channel(self, aid: bytes, timeout_s: float) -> int | None:
        return None

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        self.sent.append(apdu)
        if self.pull_at and len(self.sent) >= self.pull_at:
            if self.executed and len(self.sent) == self.pull_at:
                self.chip.process(apdu)
            self.chip.power_off()
            raise TransportError("CONTACT.LOST", "pulled by the test", where=self.url)
        answer = self.chip.process(apdu)
        if self.chip.silent:
            raise TransportError("APDU.TIMEOUT", "no answer", where=self.url)
        return answer

    def lamp(self, lamp: Lamp) -> None:
        self.lamps.append(lamp)

    def close(self) -> None:
        pass
