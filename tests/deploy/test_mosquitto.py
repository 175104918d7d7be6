"""deploy/mosquitto: what Mosquitto does by default and must not; rights are in tests/roles/test_pki_broker.py."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from aiomqtt import Client

from ifpp.bus.broker import BrokerKind, free_port, mosquitto_path, wait_until_open
from ifpp.model.clock import SystemClock
from tests.real.mosquitto import require

ROOT = Path(__file__).parents[2]
CONF = ROOT / "deploy" / "mosquitto" / "mosquitto.conf"
_RIGHTS = "tests/roles/test_pki_broker.py::test_each_may_say_what_the_contract_says_and_no_more"
TRAPS = {
    "set_tcp_nodelay true": "else answers take 88 ms instead of 0.4: a time, so no test",
    "max_inflight_messages 1000": "tests/deploy/test_mosquitto.py::test_what_waits_is_not_dropped",
    "max_queued_messages 100000": "tests/deploy/test_mosquitto.py::test_what_waits_is_not_dropped",
    "persistence true": "tests/bus/test_broker.py::test_mosquitto_with_persistence_keeps_what_is_retained",
    "autosave_interval 30": "else every 30 minutes: a time, so no test",
    "allow_anonymous false": _RIGHTS,
    "require_certificate true": _RIGHTS,
    "use_identity_as_username true": _RIGHTS,
}
"""Each setting that is against a default, and the test that shows why."""
RETAINED = 1500
PATIENCE_S = 60.0


@pytest.mark.parametrize("setting", TRAPS)
def test_a_trap_is_set_and_has_its_test(setting: str) -> None:
    assert setting in CONF.read_text().splitlines()
    file, _, test = TRAPS[setting].rpartition("::")
    assert "no test" in test or f"def {test}(" in (ROOT / file).read_text()


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("shipped", [True, False], ids=["as shipped", "by default"])
async def test_what_waits_is_not_dropped(tmp_path: Path, shipped: bool) -> None:
    """So many retained documents reach who subscribes late; with Mosquitto's defaults some never do."""
    require(BrokerKind.MOSQUITTO)
    port, conf, program = free_port(), tmp_path / "mosquitto.conf", mosquitto_path()
    assert program is not None
    limits = [line for line in CONF.read_text().splitlines() if line.startswith("max_")]
    assert len(limits) == 2
    user = ["user root"] if os.geteuid() == 0 else []  # it would become one who may not read our folders
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true", *user]
    conf.write_text("\n".join([*lines, *(limits if shipped else [])]) + "\n")
    with (tmp_path / "log").open("wb") as log:
        broker = await asyncio.create_subprocess_exec(program, "-c", str(conf), stderr=log)
    try:
        await wait_until_open(port, SystemClock(), process=broker)
        heard = await heard_late(port)
    finally:
        broker.terminate()
        await broker.wait()
    assert heard == RETAINED if shipped else heard < RETAINED


async def heard_late(port: int) -> int:
    """Retain documents, then subscribe; return how many came before one that was told after all of them."""
    async with Client("127.0.0.1", port) as here, Client("127.0.0.1", port) as late, asyncio.timeout(PATIENCE_S):
        for number in range(RETAINED):
            await here.publish(f"t/{number}", b"x", qos=1, retain=True)
        await late.subscribe([("t/#", 1), ("end", 1)])
        telling = asyncio.create_task(_tell(here))
        count = 0
        async for message in late.messages:
            if message.topic.value == "end":
                break
            count += 1
        telling.cancel()
    return count


async def _tell(here: Client) -> None:
    """Say the end again and again: where the queue is full, it is dropped like the others."""
    while True:
        await here.publish("end", b"x", qos=1)
        await asyncio.sleep(0.02)
