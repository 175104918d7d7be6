"""`ifpp heads quarantine|release|socket` as a person types them, against a running station and without one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from ifpp.bus.broker import free_port
from ifpp.model.messages import Birth, HeadBirth, Online
from ifpp.sim.slots import Lamp
from ifpp.sim.world import WorldSummary
from tests.bus.node import TOPICS, until
from tests.station.shop import world
from tests.station.test_agent import Line, line

__all__ = ["line", "world"]

BY = ("--by", "Anna Huber")
WHY = ("--reason", "bent pin")


async def ifpp(folder: Path, port: int, *arguments: str) -> tuple[int, str]:
    """Run one command; returns its exit code and all it said."""
    site = folder / "site.toml"
    site.write_text(f'enterprise = "acme"\nsite = "graz"\narea = "hall-2"\nline = "L1"\n[broker]\nport = {port}\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ifpp", "heads", *arguments, "--config", str(site)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert b"Traceback" not in said, said.decode()
    return process.returncode or 0, said.decode()


async def test_a_head_is_blocked_released_and_gets_a_new_socket(line: Line, world: WorldSummary) -> None:
    async with line.station(world, line.journal()):
        await until(lambda: line.states()[-1].heads["h01"].phase == "EMPTY")
        code, said = await ifpp(line.path.parent, line.port, "quarantine", "st01", "h01", *BY, *WHY)
        assert (code, said.splitlines()[0]) == (0, "st01 h01: in quarantine; a seated unit is finished")
        await until(lambda: line.slot.lamp is Lamp.HOLD)
        await until(lambda: line.states()[-1].heads["h01"].reason == "BY_HAND: bent pin")
        code, said = await ifpp(line.path.parent, line.port, "socket", "st01", "h01", *BY)
        assert code == 0
        assert "still in quarantine (BY_HAND: bent pin)" in said
        code, said = await ifpp(line.path.parent, line.port, "release", "st01", "h01", *BY, "--reason", "straightened")
        assert (code, said.splitlines()[0]) == (0, "st01 h01: released (BY_HAND: bent pin)")
        await until(lambda: line.slot.lamp is Lamp.OFF)
        await until(lambda: line.events("operator_action")[-1]["action"] == "UNBLOCK_HEAD")
        done = [(one["action"], one["operator_id"], one["target"]) for one in line.events("operator_action")]
        assert list(dict.fromkeys(done)) == [
            ("BLOCK_HEAD", "Anna Huber", "h01"),
            ("CHANGE_SOCKET", "Anna Huber", "h01"),
            ("UNBLOCK_HEAD", "Anna Huber", "h01"),
        ]
        code, said = await ifpp(line.path.parent, line.port, "release", "st01", "h99", *BY, *WHY)
        assert code == 1
        assert "HEAD.UNKNOWN: h99: st01 has h01" in said
    code, said = await ifpp(line.path.parent, line.port, "release", "st01", "h01", *BY, *WHY)
    assert code == 1
    assert "STATION.SILENT: st01: it is offline" in said


async def test_a_station_nobody_knows_and_one_that_does_not_answer(line: Line) -> None:
    code, said = await ifpp(line.path.parent, line.port, "release", "st77", "h01", *BY, *WHY)
    assert code == 1
    assert "STATION.UNKNOWN: st77" in said
    online = Online(schema="online/1.0", node_id="st08", online=True, session=1, boot_id="b", ts="")
    birth = Birth(
        schema="birth/1.0",
        id="1",
        ts="",
        node_id="st08",
        boot_id="b",
        session=1,
        sw_version="0",
        heads={"h01": HeadBirth(reader="")},
    )
    await line.retain(TOPICS.birth("st08"), birth)
    await line.retain(TOPICS.online("st08"), online)
    code, said = await ifpp(line.path.parent, line.port, "release", "st08", "h01", *BY, *WHY, "--wait", "0.3")
    assert code == 1
    assert "STATION.SILENT: st08: no answer in 0.3 s" in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("release", "st01", "h01", "--by", "  ", *WHY), "OPERATOR.UNNAMED"),
        (("socket", "st01", "h01", "--by", ""), "OPERATOR.UNNAMED"),
        (("quarantine", "st01", "h01", *BY, "--reason", " "), "OPERATOR.NO_REASON"),
        (("quarantine", "st/01", "h01", *BY, *WHY), "SETTINGS.INVALID"),
        (("quarantine", "st01", "h01", *BY, *WHY), "BROKER.UNREACHABLE"),
    ],
)
async def test_what_cannot_be_asked_is_said_at_once(tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    returned, said = await ifpp(tmp_path, free_port(), *arguments)
    assert returned == 1
    assert f"error: {code}" in said
