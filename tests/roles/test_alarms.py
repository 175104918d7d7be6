"""`ifpp alarm list|ack|shelve|figures` as a person types them, against a running supervisor and without one."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from ifpp.bus.broker import BrokerKind, free_port
from ifpp.line import alarm_watch as module
from ifpp.line.alarm_watch import AlarmWatch
from tests.line.world import GatedFactory, site_at, supervised
from tests.real.mosquitto import running


async def ifpp(folder: Path, port: int, *arguments: str) -> tuple[int, str]:
    """Run one command; returns its exit code and all it said."""
    site = folder / "site.toml"
    site.write_text(
        'enterprise = "acme"\nsite = "graz"\narea = "hall-2"\nline = "L1"\n'
        f'[broker]\nport = {port}\n[store]\ndatabase = "sqlite:///{folder / "factory.db"}"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ifpp", "alarm", *arguments, "--config", str(site)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in said, said.decode()
    return process.returncode or 0, said.decode()


async def test_an_alarm_is_listed_shelved_acknowledged_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = GatedFactory.at(tmp_path)
    monkeypatch.setattr(module, "_ROUND_S", 0.05)
    monkeypatch.setattr(AlarmWatch, "_judge", lambda watch: watch._stand("A-160", {"_line": "report r1 is late"}))
    async with running(tmp_path, BrokerKind.MOSQUITTO) as broker, supervised(site_at(broker.port), factory):
        async with asyncio.timeout(60):
            said = 0, ""
            while not said[1].startswith("▲2"):
                said = await ifpp(tmp_path, broker.port, "list")
        assert said[0] == 1, "it rings"
        assert "A-160 UNACK_ALARM    report r1 is late - _line - call the planner" in said[1]
        code, document = await ifpp(tmp_path, broker.port, "list", "--json")
        assert code == 1
        (alarm_id,) = json.loads(document)["alarms"]
        by = ("--by", "Anna Huber")
        code, text = await ifpp(tmp_path, broker.port, "ack", alarm_id, *by)
        assert (code, text) == (0, f"ACK {alarm_id}: acknowledged; it stands until its cause is gone\n")
        code, text = await ifpp(tmp_path, broker.port, "shelve", alarm_id, *by, "--reason", "known", "--minutes", "5")
        assert code == 0
        assert "shelved until" in text
        assert (await ifpp(tmp_path, broker.port, "unshelve", alarm_id, *by))[0] == 0
        code, text = await ifpp(tmp_path, broker.port, "ack", "no-such", *by)
        assert (code, "no such alarm stands" in text) == (1, True)
        code, text = await ifpp(tmp_path, broker.port, "figures")
        assert code == 0
        assert "rings          1 (1.0 a day" in text
    factory.close()


async def test_without_a_broker_a_person_learns_why(tmp_path: Path) -> None:
    code, said = await ifpp(tmp_path, free_port(), "list")
    assert code != 0
    assert "BROKER.UNREACHABLE" in said
