"""The SM-DPf's door for reports: what it takes, what it refuses, and that it says the same thing twice."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from ifpp.sim import pki
from ifpp.sim.esbpp import PUBLIC_FILE, ReportDoor
from ifpp.sim.evidence import EvidenceError, verify_raw
from tests.sim.parties import Parties, report_line, result, write_report

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
KEY_ID = hashlib.sha256(SPKI).hexdigest()


class Counter:
    """A door, and a report of two items, of which one has no result."""

    def __init__(self, folder: Path) -> None:
        parties = Parties()
        chips = [parties.eum.issue(keys=1), parties.eum.issue(keys=2)]
        packages = [parties.bind(chips[0]), parties.bind(chips[1], 1)]
        lines = [
            report_line(packages[0], result(chips[0], packages[0])),
            report_line(packages[1], None),
        ]
        self.report = write_report(folder / "r.plr.jsonl", *lines)
        parties.smdpf.save(folder / "smdpf")
        self.folder = folder / "smdpf"
        pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.door = ReportDoor(self.folder, [pem])

    def put(
        self, *, key: ec.EllipticCurvePrivateKey = KEY, key_id: str = KEY_ID, name: str = "r1"
    ) -> tuple[int, bytes, bytes]:
        digest = hashlib.sha256(self.report.read_bytes()).hexdigest()
        signed = base64.b64encode(pki.sign_raw(key, f"ifpp.plr\n{name}\n{digest}\n".encode())).decode()
        return self.door.take(name, self.report, key_id, signed)


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    made = Counter(tmp_path)
    made.door.start()
    yield made
    made.door.stop()


def test_every_item_is_answered_and_the_answer_is_signed(counter: Counter) -> None:
    status, document, signature = counter.put()
    assert status == 200
    header, *items, trailer = (json.loads(line) for line in document.splitlines())
    assert (header["report_id"], header["smdp_oid"], trailer["items"]) == ("r1", counter.door.smdpf.oid, 2)
    assert [item["verdict"] for item in items] == ["verified", "noted"]
    key = load_pem_public_key((counter.folder / PUBLIC_FILE).read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    digest = hashlib.sha256(document).hexdigest()
    verify_raw(key, f"ifpp.plr-ack\nr1\n{digest}\n".encode(), signature)
    with pytest.raises(EvidenceError):
        verify_raw(key, f"ifpp.plr-ack\nr2\n{digest}\n".encode(), signature)


def test_the_same_report_gets_the_same_answer_and_another_one_none(counter: Counter) -> None:
    first = counter.put()
    assert counter.put() == first
    counter.report.write_bytes(counter.report.read_bytes().replace(b"CONTACT", b"CONTEST"))
    assert counter.put()[0] == 409


def test_what_the_factory_did_not_sign_is_not_read(counter: Counter) -> None:
    assert counter.put(key=ec.generate_private_key(ec.SECP256R1()))[0] == 422
    assert counter.put(key_id="0" * 64)[0] == 422
    assert counter.put(name="r2")[0] == 422  # signed well, but the report says r1
    assert counter.put()[0] == 200


def test_a_cut_report_is_refused(counter: Counter) -> None:
    counter.report.write_bytes(counter.report.read_bytes()[:-20])
    assert counter.put()[0] == 422
