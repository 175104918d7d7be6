"""The benchmark of five lines in small: it goes its way and loses nothing; no figure is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.bus.broker import BrokerKind
from tests.bench import whole_line
from tests.real.mosquitto import require


async def test_two_lines_go_their_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require(BrokerKind.MOSQUITTO)
    monkeypatch.setattr(whole_line, "_KNEE_MS", 0.0)  # the first step is the last
    url = f"sqlite:///{tmp_path}/factory.db"
    await whole_line._run(tmp_path, url, seconds=6.0, step_s=3.0, lines=2, per=2)
    shown = capsys.readouterr().out
    assert "events lost or doubled                       0.000 (goal <= 0) met" in shown
    for figure in ("at the usual pace", "p99 publish, commit, ack (ms)", "the knee"):
        assert figure in shown
