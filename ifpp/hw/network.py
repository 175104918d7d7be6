"""Is the profile in the head registered in a network? Asked of heads that are modems (3GPP TS 27.007 7.2)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Protocol, runtime_checkable

_POLL_S = 0.5
_ANSWER = re.compile(r"\s*\d+\s*,\s*(\d+)\s*(?:,.*)?")  # an unsolicited line has its second field in quotes


class Registration(IntEnum):
    """<stat> of +CREG, +CGREG and +CEREG."""

    NONE = 0
    HOME = 1
    SEARCHING = 2
    DENIED = 3
    UNKNOWN = 4
    ROAMING = 5


@runtime_checkable
class NetworkPort(Protocol):
    """A card port whose device has a radio."""

    def registration(self) -> Registration:
        """How the SIM stands in the network now; raises TransportError."""


def wait_registered(
    port: NetworkPort,
    within_s: float,
    *,
    roaming: bool,
    now: Callable[[], float] = time.monotonic,
    rest: Callable[[float], None] = time.sleep,
) -> tuple[Registration, float]:
    """Ask until the SIM is registered as it shall be, or the deadline passes; returns how it stands, after seconds."""
    start = now()
    good = {Registration.HOME, Registration.ROAMING} if roaming else {Registration.HOME}
    while True:
        stands, passed = port.registration(), now() - start
        if stands in good or passed >= within_s:
            return stands, passed
        rest(min(_POLL_S, within_s - passed))


def read_registration(answers: Iterable[str]) -> Registration:
    """Return the best of what a modem says of its networks; lines as `+CEREG?` answers them, prefix removed."""
    found = [int(match.group(1)) for line in answers if (match := _ANSWER.fullmatch(line))]
    known = [Registration(number) for number in found if number in Registration.__members__.values()]
    order = (Registration.HOME, Registration.ROAMING, Registration.DENIED, Registration.SEARCHING, Registration.NONE)
    return next((each for each in order if each in known), Registration.UNKNOWN)
