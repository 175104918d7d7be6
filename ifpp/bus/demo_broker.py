"""``python -m ifpp.bus.demo_broker --port N``: amqtt on the loopback, where no Mosquitto is installed.

Good enough for the demo and nothing else. What it does otherwise than Mosquitto, and what our side does about it:

- MQTT 3.1.1 only: so does the bus client.
- Whoever connects is sent the retained messages of everybody's subscriptions: the bus client drops what it did not
  subscribe to.
- It walks its table of subscriptions while other clients change it, and drops whoever connects in that moment: see
  `_Subscriptions`.
- Nothing survives its end, and anonymous sessions are forgotten: stations and supervisor publish what is retained
  again on every connection, and events are acknowledged above MQTT.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterator
from typing import Any

from amqtt.broker import Broker

from ifpp.log import configure


class _Subscriptions(dict[str, Any]):
    """Subscriptions by topic filter; may be changed by others during a walk."""

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.keys()))


async def serve(port: int) -> None:
    """Serve 127.0.0.1:`port` until SIGTERM or SIGINT."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            # Only this one: the default set logs every packet and publishes statistics.
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    broker._subscriptions = _Subscriptions()  # amqtt 0.12.1, broker.py line 601; the dependency is pinned
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(prog="ifpp.bus.demo_broker")
    parser.add_argument("--port", type=int, required=True)
    configure()
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
