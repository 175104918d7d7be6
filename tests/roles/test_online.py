"""`ifpp chip download` in the world of `ifpp sim smdp-plus`: what is printed and kept, a process killed in a load."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import SettingsError
from ifpp.model.clock import SystemClock
from ifpp.model.ids import Eid, Iccid
from ifpp.model.rsp import OpenSession, SessionStep
from ifpp.roles.online import Wishes, download_profile
from ifpp.roles.simulation import smdp_plus_of
from ifpp.sim import pki
from ifpp.sim.smdp_plus import State
from ifpp.sim.smdp_world import OnlineWorld
from ifpp.sim.tlv import parse_one
from ifpp.station.journal import Journal
from ifpp.station.rsp_book import RspBook
from tests.fpa.online import Loop


class Running:
    """The world on a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = Loop()
        self.world = OnlineWorld(folder, chips=3, orders=4, profile_bytes=8_000, apdu_ms=1)
        self.loop.run(self.world.start())
        self.codes = (folder / "codes.txt").read_text().split()

    def wishes(self, head: str, number: int) -> Wishes:
        ca = self.folder / "ci.pem"
        journal = self.folder / f"{head}.db"
        return Wishes(self.world.urls[head], self.codes[number], [ca], journal, tls_ca=ca, timeout_s=30)

    def close(self) -> None:
        self.loop.run(self.world.stop())
        self.loop.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("online"))
    yield made
    made.close()


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_profile_and_then_a_used_code(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = running.wishes("h1", 0)
    assert download_profile(wishes) == 0
    first = printed(capsys)
    order = running.world.smdp.orders["SIM-0001"]
    assert (first["state"], first["told"], first["error"]) == ("INSTALLED", True, "")
    assert (first["iccid"], first["eid"]) == (order.profile.iccid, order.eid)
    assert order.state is State.INSTALLED
    assert download_profile(wishes) == 1
    assert printed(capsys)["error"].startswith("RSP.CODE_REFUSED")


def test_what_cannot_be_begun(running: Running, tmp_path: Path) -> None:
    wishes = running.wishes("h1", 1)
    with pytest.raises(SettingsError):
        download_profile(replace(wishes, code="nonsense"))
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(SettingsError):
        download_profile(replace(wishes, ci=[bad]))


def test_a_result_that_could_not_be_told_is_told_by_the_next(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    order = running.world.smdp.orders["SIM-0002"]
    running.world._server.troubles["handleNotification"] = ["503", "503"]
    assert download_profile(running.wishes("h2", 1)) == 0
    assert (printed(capsys)["told"], order.state) == (False, "DOWNLOADED")
    running.world._server.troubles.clear()
    assert download_profile(replace(running.wishes("h2", 1), code=running.codes[0])) == 1, "of another chip"
    assert order.state == "INSTALLED"


def test_a_process_that_is_killed_in_a_load(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """The next one finds the journal, asks the chip and ends with exactly one profile."""
    wishes = running.wishes("h3", 2)
    ca = str(running.folder / "ci.pem")
    command = [sys.executable, "-m", "ifpp", "chip", "download", wishes.head, wishes.code]
    options = ["--ci", ca, "--tls-ca", ca, "--journal", str(wishes.journal)]
    smdp = running.world.smdp
    before = smdp.calls["getBoundProfilePackage"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while smdp.calls["getBoundProfilePackage"] == before and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert download_profile(wishes) == 0
    said = printed(capsys)
    order = smdp.orders["SIM-0003"]
    assert (said["state"], said["iccid"]) == ("INSTALLED", order.profile.iccid)
    assert (order.state, order.bindings) == (State.INSTALLED, 1)


def test_a_world_whose_chips_are_loaded_has_no_smdp_plus(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no SM-DP"):
        smdp_plus_of(tmp_path, tmp_path / "out")


def test_the_evidence_of_the_server(running: Running) -> None:
    running.world.smdp.write_evidence(running.folder / "now.json")
    told = json.loads((running.folder / "now.json").read_text())
    states = [order["state"] for order in told["orders"]]
    assert states == ["INSTALLED", "INSTALLED", "INSTALLED", "RELEASED"]
    assert sum(entry["installed"] for entry in told["notifications"]) == 3


def test_an_interrupted_download_of_another_code_is_told(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed after its result was kept and before anybody was told: the next command says what became of it."""
    wishes = running.wishes("h1", 3)
    entry = running.world.smdp.notifications[0]
    raw = base64.b64decode(entry["raw"])
    card = running.world._chips["h1"]
    clock = SystemClock()
    journal = Journal.open(wishes.journal, "chip-download", clock)
    RspBook(journal, clock).keep(
        OpenSession(
            eid=Eid(card.eid),
            package_id="1$elsewhere$X",
            address=running.world.smdp.address,
            transaction_id=parse_one(raw).need(0xBF27).need(0x80).value,
            smdp_oid=pki.SMDP_OID,
            step=SessionStep.SETTLED,
            iccid=Iccid(entry["iccid"]),
            certificates=(card.euicc_certificate, card.eum_certificate),
            result=raw,
        )
    )
    journal.close()
    assert download_profile(wishes) == 0
    said = capsys.readouterr()
    assert said.err == "earlier, 1$elsewhere$X: INSTALLED\n"
    assert json.loads(said.out)["state"] == "INSTALLED"
