"""Listening only: a screen hears what the broker keeps and what comes, and leaves no trace on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ifpp.bus.client import BrokerAddress
from ifpp.bus.topics import Topics
from ifpp.bus.visit import visit
from ifpp.errors import ServiceError
from ifpp.model.clock import Clock, pause

_AGAIN_S = (0.2, 5.0)
_LONGEST_S = 3600.0


async def follow(
    address: BrokerAddress,
    topics: Topics,
    places: Sequence[str],
    heard: Callable[[str, bytes], None],
    link: Callable[[bool], None],
    clock: Clock,
) -> None:
    """Tell `heard` every document under `places` (filters below the line's topic) by its place, until cancelled.

    It connects again by itself; `link` is told whether there is a connection. Never raises for the broker.
    """
    filters, never, wait_s = [f"{topics.base}/{place}" for place in places], asyncio.Event(), _AGAIN_S[0]
    while True:
        try:
            async with visit(address, topics.line, filters) as here:
                link(True)
                wait_s = _AGAIN_S[0]
                while True:
                    if (inbound := await here.hear(_LONGEST_S)) is not None:
                        heard(inbound.topic.removeprefix(f"{topics.base}/"), inbound.payload)
        except ServiceError:
            link(False)
        await pause(clock, wait_s, never)
        wait_s = min(2 * wait_s, _AGAIN_S[1])
