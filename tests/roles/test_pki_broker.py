"""`ifpp pki broker` before a real Mosquitto: who may say and hear what. A refusal is silent: what arrives counts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ifpp.bus import rights
from ifpp.bus.broker import free_port, mosquitto_path
from ifpp.bus.client import BrokerAddress
from ifpp.bus.topics import Topics
from ifpp.bus.visit import Visit, visit
from ifpp.errors import ServiceError, SettingsError
from ifpp.roles import pki as command
from ifpp.trust.site_pki import SitePki
from ifpp.trust.tls import client_context

pytestmark = pytest.mark.breaks_the_contract  # topics and documents of no contract are said here
PATIENCE_S = 60.0
BASE = "ifpp1/acme/north/hall1/L1"
MARK = f"{BASE}/_line/state/job"
CLIENTS = ["station:st01", "station:st02", "supervisor:L1", "mes:plant", "auditor:anna"]
SITE = """enterprise = "acme"
site = "north"
area = "hall1"
line = "L1"
[broker]
host = "127.0.0.1"
port = {port}
tls = {{ ca = "pki/ca.pem", cert = "pki/supervisor-L1.pem", key = "pki/supervisor-L1.key" }}
"""


class Broker:
    """A Mosquitto with the files the command wrote, and the CA that issued everybody's certificate."""

    def __init__(self, folder: Path) -> None:
        self.pki, self.port, self.out = SitePki(folder / "pki"), free_port(), folder / "mosquitto"
        self.site = folder / "site.toml"
        self.site.write_text(SITE.format(port=self.port))
        command.issue(folder / "pki", ["broker:127.0.0.1", *CLIENTS], None)
        self.write(CLIENTS)
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, clients: list[str]) -> None:
        command.broker(self.pki.ca.parent, clients, self.site, self.out)
        if os.geteuid() == 0:  # it would become a user who may not read the key
            with (self.out / "mosquitto.conf").open("a") as conf:
                conf.write("user root\n")

    async def start(self) -> None:
        program, conf = mosquitto_path(), self.out / "mosquitto.conf"
        assert program is not None
        with (self.out / "log").open("ab") as log:
            self.process = subprocess.Popen([program, "-c", conf], stderr=log, stdout=log)  # noqa: ASYNC220 - at once
        while not await self.lets_in("supervisor", "L1"):
            assert self.process.poll() is None, (self.out / "log").read_text()
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)

    def read_again(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def address(self, role: str, name: str, pki: SitePki | None = None) -> BrokerAddress:
        own = (pki or self.pki).certificate(role, name)
        context = client_context(self.pki.ca, own, own.with_suffix(".key"))
        return BrokerAddress("127.0.0.1", self.port, timeout_s=20.0, tls=lambda: context)

    async def lets_in(self, role: str, name: str, pki: SitePki | None = None) -> bool:
        try:
            async with visit(self.address(role, name, pki), "L1", []):
                return True
        except ServiceError:
            return False


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    made = Broker(tmp_path)
    try:
        await made.start()
        yield made
    finally:
        made.stop()


@asynccontextmanager
async def everybody(broker: Broker, *filters: str) -> AsyncIterator[dict[str, Visit]]:
    """Every client, connected and subscribed to the same."""
    async with AsyncExitStack() as stack:
        yield {
            f"{role}:{name}": await stack.enter_async_context(visit(broker.address(role, name), "L1", filters))
            for role, _, name in (who.partition(":") for who in CLIENTS)
        }


async def heard(here: Visit, mark: bytes) -> set[str]:
    """What came until the marker, as topics below the line."""
    found: set[str] = set()
    while True:
        inbound = await here.hear(PATIENCE_S)
        assert inbound is not None, "the marker did not come"
        if inbound.payload == mark:
            return found
        found.add(inbound.topic.removeprefix(f"{BASE}/"))


TOLD = [
    *(f"{node}/{kind}/x" for node in ("st01", "st02", "_line", "_mes") for kind in ("meta", "state", "evt", "ack")),
    *(f"{node}/{kind}/x" for node in ("st01", "st02", "_line") for kind in ("cmd", "cmd_rsp", "req", "req_rsp", "kpi")),
    "_mes/state/online",
]
OTHER = "ifpp1/acme/north/hall1/L2/st01/evt/x"
OWN = ("meta", "state", "evt", "req", "cmd_rsp")
MAY_SAY = {
    "station:st01": {f"st01/{kind}/x" for kind in OWN},
    "station:st02": {f"st02/{kind}/x" for kind in OWN},
    "supervisor:L1": set(TOLD),
    "mes:plant": {"_line/cmd/x", "_line/req_rsp/x", "_line/ack/x", "_mes/state/online"},
    "auditor:anna": set(),
}
OF_LINE = {"_line/meta/x", "_line/state/x", "_line/kpi/x"}
MAY_HEAR = {
    "station:st01": {"st01/ack/x", "st01/cmd/x", "st01/req_rsp/x"} | OF_LINE,
    "station:st02": {"st02/ack/x", "st02/cmd/x", "st02/req_rsp/x"} | OF_LINE,
    "supervisor:L1": set(TOLD),
    "mes:plant": set(TOLD),
    "auditor:anna": set(TOLD),
}


@pytest.mark.needs("mosquitto")
async def test_each_may_say_what_the_contract_says_and_no_more(broker: Broker) -> None:
    watching = visit(broker.address("supervisor", "L1"), "L1", [f"{BASE}/#"])
    async with watching as watcher, everybody(broker) as clients:
        for who, here in clients.items():
            for topic in TOLD:
                await here.publish(f"{BASE}/{topic}", who.encode())
            await here.publish(OTHER, who.encode())
            await clients["supervisor:L1"].publish(MARK, b"mark")
            assert await heard(watcher, b"mark") == MAY_SAY[who], who


@pytest.mark.needs("mosquitto")
async def test_each_hears_what_the_contract_says_and_no_more(broker: Broker) -> None:
    async with everybody(broker, "#") as clients:
        for topic in TOLD:
            await clients["supervisor:L1"].publish(f"{BASE}/{topic}", b"x")
        await clients["supervisor:L1"].publish(MARK, b"mark")
        assert {who: await heard(here, b"mark") for who, here in clients.items()} == MAY_HEAR


EDGE = "spBv1.0/north-hall1"
OF_NODE = {f"{EDGE}/{kind}/L1" for kind in ("NBIRTH", "NDATA", "NDEATH", "NCMD")}
OF_DEVICE = {f"{EDGE}/{kind}/L1/st01" for kind in ("DBIRTH", "DDATA", "DDEATH", "DCMD")}
STATE = "spBv1.0/STATE/plant"
SHOWN = {*OF_NODE, *OF_DEVICE, STATE, "spBv1.0/STATE/other"}
MAY_SHOW: dict[str, set[str]] = {
    "supervisor:L1": OF_NODE | OF_DEVICE,
    "scada:plant": {f"{EDGE}/NCMD/L1", STATE},
    "station:st01": set(),
    "mes:plant": set(),
    "auditor:anna": set(),
}


@pytest.mark.needs("mosquitto")
async def test_only_the_supervisor_is_an_edge_node_and_scada_asks_for_a_rebirth_alone(broker: Broker) -> None:
    command.issue(broker.pki.ca.parent, ["scada:plant"], None)
    broker.write([*CLIENTS, "scada:plant"])
    broker.stop()
    await broker.start()
    async with AsyncExitStack() as stack:

        async def enter(who: str, *filters: str) -> Visit:
            role, _, name = who.partition(":")
            return await stack.enter_async_context(visit(broker.address(role, name), "L1", filters))

        watcher, scada = await enter("supervisor:L1", "spBv1.0/#"), await enter("scada:plant", "#")
        for who, allowed in MAY_SHOW.items():
            here = await enter(who)
            for topic in SHOWN:
                await here.publish(topic, who.encode())
            supervisor = await enter("supervisor:L1")
            await supervisor.publish(f"{BASE}/st01/evt/x", b"behind the view")
            await supervisor.publish(f"{EDGE}/NBIRTH/L1", b"mark")
            assert await heard(watcher, b"mark") == allowed, who
            assert await heard(scada, b"mark") == allowed, who


@pytest.mark.needs("mosquitto")
async def test_a_certificate_that_is_not_in_the_list_may_nothing(broker: Broker) -> None:
    command.issue(broker.pki.ca.parent, ["station:st03"], None)
    line = visit(broker.address("supervisor", "L1"), "L1", [f"{BASE}/#"])
    new = visit(broker.address("station", "st03"), "L1", ["#"])
    async with line as supervisor, new as stranger:
        await stranger.publish(f"{BASE}/st03/evt/x", b"x")
        await supervisor.publish(MARK, b"mark")
        assert await heard(supervisor, b"mark") == set()
        assert await stranger.hear(0.5) is None
        broker.write([*CLIENTS, "station:st03"])
        broker.read_again()
        while True:  # it reads the list when it comes to it
            await stranger.publish(f"{BASE}/st03/evt/x", b"x")
            await supervisor.publish(MARK, b"mark")
            if await heard(supervisor, b"mark") == {"st03/evt/x"}:
                break


@pytest.mark.needs("mosquitto")
async def test_a_revoked_certificate_is_out_and_a_restart_ends_its_connection(broker: Broker) -> None:
    async with visit(broker.address("station", "st02"), "L1", []) as stolen:
        command.revoke(broker.pki.ca.parent, ["station:st02"])
        broker.read_again()
        async with asyncio.timeout(PATIENCE_S):
            while await broker.lets_in("station", "st02"):
                continue
        assert await broker.lets_in("station", "st01")
        await stolen.publish(f"{BASE}/st02/evt/x", b"x")  # the open connection lives on: hence the restart
        broker.stop()
        with pytest.raises(ServiceError, match=r"BROKER\.UNREACHABLE"):
            await stolen.hear(PATIENCE_S)
    await broker.start()
    assert [await broker.lets_in("station", name) for name in ("st01", "st02")] == [True, False]


@pytest.mark.needs("mosquitto")
async def test_the_ca_before_is_refused_once_it_is_retired_and_the_broker_restarted(
    broker: Broker, tmp_path: Path
) -> None:
    folder = broker.pki.ca.parent
    before = SitePki(tmp_path / "kept")
    own = broker.pki.certificate("station", "st02")
    for path in (own, own.with_suffix(".key")):
        (tmp_path / "kept" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "kept" / path.name).chmod(0o600)
    command.rotate(folder)
    broker.pki = SitePki(folder)
    broker.stop()
    await broker.start()
    command.issue(folder, ["station:st01"], None)
    assert [await broker.lets_in("station", "st01"), await broker.lets_in("station", "st02", before)] == [True, True]
    command.issue(folder, ["broker:127.0.0.1", *CLIENTS], None)
    command.retire(folder)
    broker.stop()
    await broker.start()
    assert [await broker.lets_in("station", "st02"), await broker.lets_in("station", "st02", before)] == [True, False]


def test_lines_share_a_list_and_a_line_is_replaced() -> None:
    first, second = (Topics("acme", "north", "hall1", line) for line in ("L1", "L2"))
    both = rights.put(rights.rights(first, [("station", "st01")]), rights.rights(second, [("station", "st02")]))
    again = rights.put(both, rights.rights(first, [("station", "st03")]))
    users = [row for row in again.splitlines() if row.startswith("user ")]
    assert users == ["user station-st02", "user station-st03"]
    assert again.count("# begin") == again.count("# end") == 2
    with pytest.raises(SettingsError, match=r"SETTINGS\.INVALID"):
        rights.rights(first, [("station", "st01\nuser station-st02")])


def test_a_server_is_no_client(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
        command.broker(tmp_path, ["store:10.0.0.5"], tmp_path / "site.toml", tmp_path / "out")


def test_what_is_shipped_is_what_the_command_writes() -> None:
    shipped, here = Path(__file__).parents[2] / "deploy" / "mosquitto", Path("/etc/ifpp")
    pki, out = here / "pki", here / "mosquitto"
    files = rights.BrokerFiles(
        pki / "ca.pem",
        pki / "broker-10.0.0.6.pem",
        pki / "broker-10.0.0.6.key",
        pki / "crl.pem",
        out / "acl",
        out / "persistence",
    )
    assert (shipped / "mosquitto.conf").read_text() == rights.settings("10.0.0.6", 8883, files)
    clients = [("station", "st01"), ("supervisor", "line"), ("mes", "plant"), ("auditor", "anna"), ("scada", "plant")]
    assert (shipped / "acl").read_text() == rights.rights(Topics("acme", "north", "hall1", "L1"), clients)
