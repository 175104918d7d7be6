"""`ifpp unit`, `ifpp balance`, `ifpp audit`, `ifpp report acknowledged`: what a person reads and a machine gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import CustodyError, SettingsError, SupplyError
from ifpp.model.messages import Link, RouteNote
from ifpp.roles import audit, custody, keys
from ifpp.roles.genealogy import show_genealogy
from ifpp.roles.reports import acknowledge
from ifpp.roles.reports import write as write_reports
from ifpp.store.factory import Factory
from ifpp.store.unasked import LateAnswer
from tests.store.raw import raw
from tests.store.test_audit import switch_rules_off
from tests.store.test_events import word
from tests.store.world import SEALED, Node, eid, iccid, outcome, request, stock, take_one


class Desk:
    """A site with a factory database, and what its commands print."""

    def __init__(self, folder: Path, factory: Factory, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.site = folder / "site.toml"
        self.factory = factory
        self._capsys = capsys

    def said(self) -> str:
        return self._capsys.readouterr().out

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.said())
        return document

    def finish(self, number: int, attempt: str, *, at: datetime | None = None) -> None:
        """Chip `number` gets its package and is sealed."""
        package_id = self.send(number, attempt, at=at)
        take_one(
            self.factory,
            Node(f"st{number:02d}").result(
                number, attempt, [word(package_id, "INSTALLED", number=number, pir_b64="QUJD")]
            ),
            at or NOW,
        )

    def send(self, number: int, attempt: str, *, at: datetime | None = None) -> str:
        claim = self.factory.claim(request(number, attempt, station_id=f"st{number:02d}"), at or NOW)
        package_id = claim.packages[0].package_id
        self.factory.mark_sent(package_id, attempt, f"st{number:02d}", at or NOW)
        return package_id


NOW = datetime.now(UTC)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], pin_credential: None) -> Iterator[Desk]:
    (tmp_path / "site.toml").write_text('enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n')
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}", writer="line-L1")) as factory:
        stock(factory, 4)
        yield Desk(tmp_path, factory, capsys)


# ---- one unit -----------------------------------------------------------------------------------------


def test_what_the_mes_said_afterwards_is_shown_and_asked_again(desk: Desk) -> None:
    unallowed = RouteNote(request_id="r", result="SKIPPED", source="OFF")
    take_one(desk.factory, Node("st01").result(1, "a", [], route_check=unallowed), NOW)
    custody.show_unit(desk.site, "SN1", as_json=False)
    assert "nobody had allowed PROFILE_LOAD; the MES has not been asked yet" in desk.said()
    desk.factory.unasked.answer([LateAnswer("st01", 1, "FAIL", "ROUTE", "bin 7")], NOW)
    custody.show_unit(desk.site, "SN1", as_json=False)
    assert "nobody had allowed PROFILE_LOAD; FAIL: ROUTE: bin 7" in desk.said()
    assert custody.show_gate(desk.site, "SN1", as_json=False) == 1
    assert "GATE.ROUTE" in desk.said()
    with pytest.raises(SettingsError):
        custody.ask_again(desk.site, eid(1), by="", reason="booked late")
    custody.ask_again(desk.site, eid(1), by="anna", reason="booked late")
    assert "(1 work cycles)" in desk.said()
    show_genealogy(desk.site, "SN1")
    assert [row["result"] for row in desk.document()["asked_later"]] == [""]


def test_reports_go_on_where_the_last_one_ended(desk: Desk) -> None:
    desk.finish(1, "attempt-a")
    for everything, said in ((False, "1 items"), (False, "--all repeats it"), (True, "1 items")):
        write_reports(desk.site, desk.folder / "reports", everything=everything)
        assert said in desk.said()
    write_reports(desk.site, desk.folder / "reports", since="2100-01-01")
    assert desk.said() == "nothing to report\n"
    with pytest.raises(SettingsError, match="--since"):
        write_reports(desk.site, desk.folder / "reports", since="yesterday")


def test_a_unit_shows_every_step_in_words(desk: Desk) -> None:
    desk.finish(1, "attempt-a")
    write_reports(desk.site, desk.folder / "reports")
    desk.said()
    custody.show_unit(desk.site, "SN1", as_json=False)
    text = desk.said()
    for words in (
        f"EID {eid(1)}  serial SN1",
        "CLEAN TO SHIP since",
        "not signed: this factory has no signing key",
        f"ICCID {iccid(10)}  INSTALLED, its one-time key is spent",
        "settled at the supervisor since",
        "AVAILABLE  intake  order.esbpp.jsonl",
        "CLAIMED    st01/h01  attempt attempt-a",
        "SENT       st01/h01",
        "INSTALLED  st01/h01",
        "chip's result of 3 bytes",
        "as INSTALLED; not acknowledged by the SM-DPf",
        "PASS (PASS, CONTINUE)",
        "st01 event 1",
        "MES       told over MQTT",
    ):
        assert words in text, text


def test_a_unit_shows_the_link_of_every_attempt(desk: Desk) -> None:
    for number, link in (
        (1, Link(atr="3b9f", protocol="T=0", bit_rate=250_000, block_size=120)),
        (2, Link(block_size=64)),
    ):
        package_id = desk.send(number, f"attempt-{number}")
        result = word(package_id, "INSTALLED", number=number)
        node = Node(f"st{number:02d}")
        take_one(desk.factory, node.result(number, f"attempt-{number}", [result], link=link, firmware="89049999/1.4.2"))
    custody.show_unit(desk.site, eid(1), as_json=False)
    assert "link T=0, 250000 bit/s, blocks of 120 bytes, ATR 3B9F; firmware 89049999/1.4.2" in desk.said()
    custody.show_unit(desk.site, eid(2), as_json=False)
    assert "link bit rate not known, blocks of 64 bytes, ATR not told" in desk.said()
    custody.show_unit(desk.site, eid(2), as_json=True)
    (attempt,) = desk.document()["attempts"]
    assert (attempt["block_size"], attempt["bit_rate"], attempt["firmware"]) == (64, None, "89049999/1.4.2")


def test_an_acknowledged_report_says_who_said_so(desk: Desk) -> None:
    desk.finish(1, "a")
    write_reports(desk.site, desk.folder / "reports")
    (path,) = (desk.folder / "reports").iterdir()
    report_id = json.loads(path.read_text().splitlines()[0])["report_id"]
    acknowledge(desk.site, report_id, "Anna")
    acknowledge(desk.site, report_id, "Ben")
    assert desk.said().count("as Anna said at") == 2
    custody.show_unit(desk.site, eid(1), as_json=False)
    assert "(said Anna)" in desk.said()
    with pytest.raises(CustodyError, match=r"REPORT\.UNKNOWN.*first line"):
        acknowledge(desk.site, "r9", "Anna")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("AVAILABLE", "on the shelf since"),
        ("CLAIMED", "in the hands of st01/h01 since"),
        ("SENT", "its result is not here yet"),
        ("UNKNOWN", "only reading the chip settles it"),
        ("FAILED", "by the word of st01/h01"),
    ],
)
def test_where_a_package_stands_is_one_sentence(desk: Desk, state: str, words: str) -> None:
    if state == "CLAIMED":
        desk.factory.claim(request(1, "a"), NOW)
    elif state != "AVAILABLE":
        package_id = desk.send(1, "a")
        if state != "SENT":
            take_one(desk.factory, Node().result(1, "a", [word(package_id, state, spent=state == "FAILED")]))
    custody.show_unit(desk.site, eid(1), as_json=False)
    text = desk.said()
    assert words in text
    assert "NOT CLEAN TO SHIP. GATE." in text
    assert "in no Profile Loading Report yet" in text


def test_a_unit_for_machines(desk: Desk) -> None:
    desk.finish(1, "a")
    custody.show_unit(desk.site, iccid(10), as_json=True)
    document = desk.document()
    assert (document["eid"], document["gate"]["clean_to_ship"]) == (eid(1), True)
    (package,) = document["packages"]
    assert [step["to_state"] for step in package["history"]] == ["AVAILABLE", "CLAIMED", "SENT", "INSTALLED"]
    assert package["words"][0]["taken_at"] == document["attempts"][0]["taken_at"]
    assert package["reports"] == []


def test_a_unit_whose_chip_never_spoke(desk: Desk) -> None:
    from ifpp.model.messages import UnitRef

    take_one(desk.factory, Node().result(1, "a", unit=UnitRef(sn="DEAD"), clean_to_ship=False))
    custody.show_unit(desk.site, "DEAD", as_json=False)
    assert "(never read)  serial DEAD" in desk.said()
    with pytest.raises(CustodyError, match=r"UNIT\.UNKNOWN"):
        custody.show_unit(desk.site, "nobody", as_json=False)


def test_the_gate_answers_by_its_exit_status(desk: Desk) -> None:
    assert custody.show_gate(desk.site, eid(1), as_json=False) == 1
    assert "NOT CLEAN TO SHIP. GATE.NOT_SEALED: no station has sealed it. Do not ship" in desk.said()
    desk.finish(1, "a")
    assert custody.show_gate(desk.site, "SN1", as_json=True) == 0
    assert desk.document()["proof"]["entry"]["kind"] == "clean_to_ship"
    with pytest.raises(SupplyError, match=r"EID\.UNKNOWN"):
        custody.show_gate(desk.site, "nobody", as_json=False)


# ---- the balance --------------------------------------------------------------------------------------


def test_the_balance_names_every_residue_and_what_to_do(desk: Desk) -> None:
    old = NOW - timedelta(hours=2)
    desk.finish(1, "a1")
    desk.send(2, "a2", at=old)
    desk.send(3, "a3")
    desk.factory.claim(request(4, "a4", station_id="st04"), old)
    assert custody.show_balance(desk.site, as_json=False) == 0
    text = desk.said()
    assert "the books hold" in text
    residues = [line.split()[:4] for line in text.splitlines() if "ICCID" in line]
    assert residues == [
        ["SENT", "OVERDUE", "ICCID", iccid(20)],
        ["CLAIMED", "OVERDUE", "ICCID", iccid(40)],
        ["SENT", "ICCID", iccid(30), "EID"],
    ]
    for words in ("(2:0", "st02/h01", "is st02 online", "start the store", "wait: a head loads it"):
        assert words in text, text
    custody.show_balance(desk.site, as_json=True)
    document = desk.document()
    assert (document["holds"], document["open"]) == (True, {"CLAIMED": 1, "SENT": 2, "UNKNOWN": 0})
    assert [row["overdue"] for row in document["residues"]] == [True, True, False]
    assert document["balance"][0]["installed"] == 1


def test_unknown_and_stranded_packages_are_residues_too(desk: Desk) -> None:
    take_one(desk.factory, Node("st01").result(1, "a", [word(desk.send(1, "a"), "UNKNOWN")]), NOW)
    free = outcome(2, 0, "CLAIMED", package_id="000002-0000002")
    desk.factory.claim(request(2, "b", station_id="st02"), NOW)
    take_one(desk.factory, Node("st02").result(2, "b", [free], clean_to_ship=True, seal=SEALED), NOW)
    assert custody.show_balance(desk.site, as_json=False) == 0
    text = desk.said()
    assert "hold the unit and seat it again" in text
    assert "STRANDED" in text
    assert "tell the SM-DPf that it was not used" in text


def test_books_that_do_not_hold_are_told_and_exit_with_1(desk: Desk) -> None:
    assert custody.show_balance(desk.site, as_json=False) == 0
    assert "no residue" in desk.said()
    url = f"sqlite:///{desk.folder / 'factory.db'}"
    with raw(url) as connection:
        switch_rules_off(connection, url)
        connection.execute("UPDATE batch_count SET packages = 5")
        connection.execute("DELETE FROM audit_entry WHERE number = 3")
    assert custody.show_balance(desk.site, as_json=False) == 1
    text = desk.said()
    assert "DOES NOT ADD UP" in text
    assert "FAULT     audit chain line-L1: entry 4 does not follow entry 2" in text
    assert custody.show_balance(desk.site, as_json=True) == 1
    assert len(desk.document()["faults"]) >= 2


# ---- the audit log ------------------------------------------------------------------------------------


def signed_site(desk: Desk) -> Path:
    """Give the site keys, export its log and return the file."""
    desk.site.write_text(desk.site.read_text() + '[keys]\nprovider = "software"\n')
    place = keys.Place.load(desk.site, None)
    keys.init(place, "anna", "first keys")
    keys.export_public(place, "audit.1", desk.folder / "audit.pub")
    audit.export(desk.site, desk.folder / "audit.jsonl")
    return desk.folder / "audit.jsonl"


def test_a_log_is_exported_signed_and_found_sound(desk: Desk) -> None:
    out = signed_site(desk)
    text = desk.said()
    assert "signed by key" in text
    assert audit.verify(out, [], None) == 0
    assert "compare it with the factory's own" in desk.said()
    assert audit.verify(out, [desk.folder / "audit.pub"], None) == 0
    text = desk.said()
    assert "the key you named" in text
    assert "SOUND" in text


def test_one_flipped_byte_is_found_and_named(desk: Desk) -> None:
    out = signed_site(desk)
    content = bytearray(out.read_bytes())
    content[len(content) // 2] ^= 1
    out.write_bytes(content)
    desk.said()
    assert audit.verify(out, [], None) == 1
    text = desk.said()
    line = content[: len(content) // 2].count(b"\n") + 1
    assert f"{out}:{line}: " in text
    assert "AUDIT.CHANGED" in text
    assert "NOT SOUND" in text


def test_a_later_export_must_continue_the_earlier_one(desk: Desk) -> None:
    first = signed_site(desk)
    desk.finish(1, "a")
    audit.export(desk.site, desk.folder / "second.jsonl")
    assert audit.verify(desk.folder / "second.jsonl", [], first) == 0
    desk.said()
    assert audit.verify(first, [], desk.folder / "second.jsonl") == 1
    assert "the earlier export has" in desk.said()
    first.write_bytes(first.read_bytes()[:-20])
    assert audit.verify(desk.folder / "second.jsonl", [], first) == 1


def test_an_unsigned_log_says_so(desk: Desk) -> None:
    audit.export(desk.site, desk.folder / "audit.jsonl")
    assert "NOT SIGNED" in desk.said()
    assert audit.verify(desk.folder / "audit.jsonl", [], None) == 1
    assert "AUDIT.UNSIGNED" in desk.said()


def test_many_faults_are_counted(desk: Desk) -> None:
    out = signed_site(desk)
    out.write_bytes(b"x\n" * 80)
    assert audit.verify(out, [], None) == 1
    assert "more" in desk.said()


@pytest.mark.parametrize("missing", ["file", "key", "since"])
def test_what_is_not_there_is_named(desk: Desk, missing: str) -> None:
    out, absent = signed_site(desk), desk.folder / "absent"
    with pytest.raises(SettingsError, match="absent"):
        audit.verify(
            absent if missing == "file" else out,
            [absent] if missing == "key" else [],
            absent if missing == "since" else None,
        )


def test_keys_that_others_may_read_stop_the_export(desk: Desk) -> None:
    signed_site(desk)
    (desk.folder / "keys.ifpp").chmod(0o644)
    with pytest.raises(SettingsError, match=r"SIGNER\.EXPOSED"):
        audit.export(desk.site, desk.folder / "other.jsonl")
