"""A factory that was restored from a backup catches up by what stations still know."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, SettingsError
from ifpp.model.messages import Rejected
from ifpp.roles.station import resend
from ifpp.station.journal import Journal
from ifpp.store.backup import backup, restore
from ifpp.store.factory import Factory
from tests.clock import START, FakeClock
from tests.station.records import store
from tests.store.world import Node, later, outcome, request, states, stock, take_one


def test_events_that_are_sent_again_close_the_gap(tmp_path: Path) -> None:
    """Two results before the backup, two after it; a fifth after the restore is acknowledged once all are there."""
    url, again = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    node, events = Node(), []
    with closing(Factory.open(url)) as factory:
        stock(factory, 5)
        for number in range(1, 5):
            if number == 3:
                backup(url, tmp_path / "backup", later(10))
            package = factory.claim(request(number, f"a{number}"), START).packages[0]
            factory.mark_sent(package.package_id, f"a{number}", "st01", START)
            word = outcome(number, 0, "INSTALLED", package_id=package.package_id)
            events.append(node.result(number, f"a{number}", [word]))
            assert take_one(factory, events[-1], later(number)).through == number
    restore(tmp_path / "backup", again, later(20))
    with closing(Factory.open(again)) as factory:
        assert [states(factory, number)[0] for number in (2, 3, 4)] == ["INSTALLED", "AVAILABLE", "AVAILABLE"]
        word = outcome(5, 0, "INSTALLED", package_id="000002-0000005")
        fifth = take_one(factory, node.result(5, "a5", [word]), later(21))
        assert fifth.through == 2
        for event in events:
            last = take_one(factory, event, later(22))
        assert last.through == 5
        assert {states(factory, number)[0] for number in range(1, 6)} == {"INSTALLED"}
        assert factory.audit() == []


def test_a_stopped_station_takes_its_acknowledgements_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "st01.toml"
    file.write_text('id = "st01"\njournal = "st01.db"\n[heads.h01]\nport = "tcp://127.0.0.1:1"\n')
    with pytest.raises(SettingsError, match="no such journal"):
        resend(file)
    with closing(Journal.open(tmp_path / "st01.db", "st01", FakeClock())) as journal:
        store(journal, 1, 2, 3)
        journal.acknowledge(3, [Rejected(seq=2, id="event-2", code="X", text="")]).result()
        with pytest.raises(CustodyError, match=r"CUSTODY\.JOURNAL_IN_USE"):
            resend(file)
    resend(file)
    assert capsys.readouterr().out.startswith("3 events")
    with closing(Journal.open(tmp_path / "st01.db", "st01", FakeClock())) as journal:
        assert [row.seq for row in journal.unacked(0, 10).result()] == [1, 2, 3]
        assert journal.depth().result().rejected == 0
        assert journal.acknowledge(3, []).result() == 3
