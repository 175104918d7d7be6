"""`ifpp report`: delivery over HTTPS with client certificates, what is tried again, what a person reads."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import CustodyError
from ifpp.roles import reports
from ifpp.sim.esbpp import Mood, ReportDoor
from ifpp.trust.callers import CallerRole
from ifpp.trust.site_pki import SitePki
from tests.line.test_delivery import Trade

SITE = """enterprise = "e"
site = "s"
area = "a"
line = "L1"

[reports]
tries = 3
back_off_s = 0.01
due_h = 24.0

[reports.smdp."2.999.10"]
url = "{url}"
key = "smdpf/acknowledge.pub"
timeout_s = 30
{more}
"""


class Office:
    """A trade with a site file, and what its commands print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.trade = Trade(folder)
        self.folder = folder
        self.site = folder / "site.toml"
        self._capsys = capsys
        self.direct(self.trade.door.url)
        self.trade.written()

    def direct(self, url: str, more: str = "") -> None:
        self.site.write_text(SITE.format(url=url, more=more))

    def deliver(self) -> int:
        return reports.deliver(self.site, self.folder / "reports")

    def said(self) -> str:
        return self._capsys.readouterr().out

    def status(self) -> tuple[int, dict[str, Any]]:
        self.said()
        code = reports.status(self.site, as_json=True)
        (document,) = json.loads(self.said())
        return code, document

    def close(self) -> None:
        self.trade.close()


@pytest.fixture
def office(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Office]:
    with closing(Office(tmp_path, capsys)) as made:
        yield made


def test_a_report_is_delivered_once(office: Office) -> None:
    assert office.deliver() == 0
    assert "1 verified, 1 noted, 0 refused" in office.said()
    assert office.deliver() == 0
    assert office.trade.door.requests == 1
    code, document = office.status()
    assert code == 0
    assert (document["verified"], document["noted"], document["refused"], document["overdue"]) == (1, 1, 0, False)


def test_what_fails_is_tried_again_and_left_for_the_next_call(office: Office) -> None:
    office.trade.door.mood = Mood.BROKEN
    assert office.deliver() == 1
    assert office.trade.door.requests == 3
    code, document = office.status()
    assert (code, document["delivered_at"], document["verified"]) == (0, "", None)
    office.trade.door.mood = Mood.SOUND
    assert office.deliver() == 0


def test_a_bad_answer_is_an_error_and_the_report_counts_as_delivered(office: Office) -> None:
    office.trade.door.mood = Mood.FORGED
    assert office.deliver() == 1
    assert "AUDIT.SIGNATURE" in office.said()
    code, document = office.status()
    assert (code, document["acknowledged_at"], document["verified"]) == (0, "", None)
    assert document["delivered_at"]


def test_a_report_nobody_answers_in_time_is_overdue(office: Office) -> None:
    office.direct("http://127.0.0.1:9/reports")
    office.site.write_text(office.site.read_text().replace("24.0", "0.0000001"))
    code, document = office.status()
    assert (code, document["overdue"]) == (1, True)
    reports.status(office.site, as_json=False)
    assert "OVERDUE (A-160)" in office.said()


def test_refused_items_are_shown_with_their_reason(office: Office) -> None:
    office.trade.door.mood = Mood.REFUSING
    assert office.deliver() == 0
    assert "REFUSED     ICCID" in office.said()
    code, document = office.status()
    assert (code, [item["reason"] for item in document["refused_items"]]) == (1, ["told to refuse"] * 2)


def test_an_answer_that_came_as_a_file_is_taken_with_its_signature(office: Office) -> None:
    row = office.trade.factory.written_reports()[0]
    body = office.folder / "reports" / row.file
    signature = base64.b64encode(row.signature).decode()
    status, document, signed = office.trade.door.take(row.report_id, body, row.key_id, signature)
    assert status == 200
    file, beside = office.folder / "r.plr-ack.jsonl", office.folder / "r.sig"
    file.write_bytes(document)
    with pytest.raises(CustodyError, match=r"REPORT\.UNSIGNED"):
        reports.take(office.site, file, None)
    with pytest.raises(CustodyError, match=r"REPORT\.UNSIGNED"):
        reports.take(office.site, file, beside)
    beside.write_text(base64.b64encode(signed).decode() + "\n")
    assert reports.take(office.site, file, beside) == 0


def test_over_https_both_sides_show_certificates(office: Office) -> None:
    pki = SitePki(office.folder / "pki")
    own, key = pki.issue_store("127.0.0.1")
    mine, my_key = pki.issue_caller(CallerRole.SUPERVISOR, "us")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    context.load_verify_locations(pki.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    keys = [(office.folder / "report.key.pub").read_bytes()]
    with closing(_Served(ReportDoor(office.folder / "smdpf", keys, tls=context))) as served:
        office.direct(served.door.url)
        assert office.deliver() == 1  # its CA is not one of this machine's
        assert served.door.requests == 0
        office.direct(served.door.url, f'tls = {{ ca = "{pki.ca}", cert = "{mine}", key = "{my_key}" }}')
        assert office.deliver() == 0


class _Served:
    def __init__(self, door: ReportDoor) -> None:
        self.door = door
        door.start()

    def close(self) -> None:
        self.door.stop()
