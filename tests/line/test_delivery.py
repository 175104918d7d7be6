"""A report on its way to a simulated SM-DPf and its answer on the way back, and all that can be wrong with either."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from ifpp.errors import CustodyError, IfppError, IntakeError, ServiceError, VerificationError
from ifpp.line.acknowledgement import take_answer
from ifpp.line.delivery import Addressee, Answer, send
from ifpp.line.intake import import_file
from ifpp.line.report import Report, signature_file, write_reports
from ifpp.model.messages import UnitRef
from ifpp.sim.esbpp import PUBLIC_FILE, Mood, ReportDoor
from ifpp.store import books
from ifpp.store.factory import Factory
from ifpp.store.records import AuditEntry, ReportRow
from ifpp.trust.chain import TrustStore
from ifpp.trust.signer import SoftwareSigner, create_key, read_public_key
from tests.line.supply import now, write_chips, write_delivery
from tests.sim.parties import Parties, result
from tests.store.world import Node, outcome, request, stock, take_one

EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Trade:
    """A factory that loaded two chips, one without a result, and the SM-DPf that bound their profiles."""

    def __init__(self, folder: Path, *, false_result: bool = False) -> None:
        parties = Parties()
        chips = [parties.eum.issue(keys=2) for _ in range(2)]
        self.folder = folder
        self.factory = Factory.open(f"sqlite:///{folder / 'factory.db'}", writer="report")
        self.loaded = [(chip, parties.bind(chip, slot)) for slot, chip in enumerate(chips)]
        trust = TrustStore([parties.tree.ci.der])
        write_delivery(folder / "d.esbpp.jsonl", [package for _, package in self.loaded], parties.smdpf)
        for path in (write_chips(folder / "c.esed.jsonl", parties, chips), folder / "d.esbpp.jsonl"):
            import_file(path, self.factory, trust, now=now(), line="L1")
        self._load(false_result=false_result)
        parties.smdpf.save(folder / "smdpf")
        create_key(folder / "report.key")
        self.signer = SoftwareSigner.load(folder / "report.key")
        self.door = ReportDoor(folder / "smdpf", [(folder / "report.key.pub").read_bytes()])
        self.keys = {"2.999.10": read_public_key(folder / "smdpf" / PUBLIC_FILE)}
        self.door.start()

    def _load(self, *, false_result: bool) -> None:
        """The first chip says that it took its package; of the second nothing was heard."""
        node = Node("st01")
        for number, (chip, package) in enumerate(self.loaded, 1):
            ask = replace(request(1, f"a{number}"), eid=package.eid, sku=package.sku, region=package.region)
            (claimed,) = self.factory.claim(ask, now()).packages
            self.factory.mark_sent(claimed.package_id, f"a{number}", "st01", now())
            pir = result(chip, package, transaction_id=bytes(16) if false_result else b"")
            said = replace(
                outcome(1, 0, "INSTALLED" if number == 1 else "UNKNOWN", spent=number == 1),
                package_id=claimed.package_id,
                iccid=package.iccid,
                bpp_sha256=claimed.bpp_sha256,
                pir_b64=base64.b64encode(pir).decode() if number == 1 else "",
            )
            event = node.result(number, f"a{number}", [said], unit=UnitRef(eid=package.eid))
            taken = take_one(self.factory, event, now())
            assert taken.rejected == ()

    def close(self) -> None:
        self.door.stop()
        self.factory.close()

    def write(self, signer: SoftwareSigner | None = None) -> Report:
        at = now()
        (report,) = write_reports(
            self.factory, self.folder / "reports", start=EVER, end=at.replace(year=at.year + 1), now=at, signer=signer
        )
        return report

    def written(self) -> ReportRow:
        self.write(self.signer)
        return self.factory.written_reports()[-1]

    async def send(self, row: ReportRow, timeout_s: float = 30.0) -> Answer | None:
        path = self.folder / "reports" / row.file
        return await send(row, path, Addressee(self.door.url, timeout_s), self.folder / f"{row.report_id}.ack")

    async def exchange(self, row: ReportRow) -> ReportRow:
        answer = await self.send(row)
        assert answer is not None
        return self.take(answer, row.report_id)

    def take(self, answer: Answer, report_id: str = "") -> ReportRow:
        return take_answer(self.factory, answer.path, answer.signature, self.keys, now=now(), report_id=report_id)

    def log(self) -> list[AuditEntry]:
        with self.factory.audit_log() as log:
            return list(log.entries("report", 0, 10_000))


@pytest.fixture
def trade(tmp_path: Path) -> Iterator[Trade]:
    with closing(Trade(tmp_path)) as made:
        yield made


async def test_a_report_is_delivered_judged_and_answered(trade: Trade) -> None:
    row = await trade.exchange(trade.written())
    assert (row.items, row.verified, row.noted, row.refused) == (2, 1, 1, 0)
    assert row.told_by == "SM-DPf 2.999.10"


async def test_a_result_the_smdpf_cannot_verify_is_refused_and_shown(tmp_path: Path) -> None:
    with closing(Trade(tmp_path, false_result=True)) as trade:
        row = await trade.exchange(trade.written())
        assert (row.verified, row.noted, row.refused) == (0, 1, 1)
        (item,) = trade.factory.refused_items(row.report_id)
        assert item.iccid == trade.loaded[0][1].iccid
        assert item.reason == "the result is of another transaction"


async def test_the_same_report_twice_is_one_report(trade: Trade) -> None:
    row = trade.written()
    first = await trade.exchange(row)
    assert await trade.exchange(row) == first
    assert trade.door.requests == 2
    assert [entry.kind for entry in trade.log()].count("answered") == 1


def test_the_signature_lies_beside_the_report_and_covers_its_bytes(trade: Trade) -> None:
    report = trade.write(trade.signer)
    beside = json.loads(signature_file(report.path).read_bytes())
    statement = f"ifpp.plr\n{beside['report_id']}\n{beside['sha256']}\n".encode()
    key = read_public_key(trade.folder / "report.key.pub")
    assert (beside["key_id"], beside["of"]) == (key.key_id, "ifpp.plr")
    key.verify(base64.b64decode(beside["signature"]), statement, what="report")


async def test_what_is_not_signed_or_not_as_written_does_not_leave(trade: Trade) -> None:
    trade.write()
    with pytest.raises(CustodyError, match=r"REPORT\.UNSIGNED"):
        await trade.send(trade.factory.written_reports()[-1])
    row = trade.written()
    path = trade.folder / "reports" / row.file
    path.write_bytes(path.read_bytes().replace(b"INSTALLED", b"DESTROYED"))
    with pytest.raises(CustodyError, match=r"REPORT\.CHANGED"):
        await trade.send(row)
    path.unlink()
    with pytest.raises(CustodyError, match=r"REPORT\.CHANGED"):
        await trade.send(row)
    assert trade.door.requests == 0


async def test_a_key_that_is_not_the_factorys_is_not_taken(trade: Trade) -> None:
    create_key(trade.folder / "other.key")
    trade.write(SoftwareSigner.load(trade.folder / "other.key"))
    with pytest.raises(ServiceError, match=r"REPORT\.NOT_TAKEN.*422"):
        await trade.send(trade.factory.written_reports()[-1])


async def test_an_smdpf_that_is_away_is_tried_again_later(trade: Trade) -> None:
    row = trade.written()
    trade.door.mood = Mood.BROKEN
    with pytest.raises(ServiceError, match=r"REPORT\.UNREACHABLE.*503"):
        await trade.send(row)
    trade.door.mood = Mood.SILENT
    with pytest.raises(ServiceError, match=r"REPORT\.UNREACHABLE"):
        await trade.send(row, timeout_s=0.2)
    trade.door.mood = Mood.SOUND
    assert (await trade.exchange(row)).verified == 1


async def test_a_promised_answer_may_come_as_a_file(trade: Trade) -> None:
    row = trade.written()
    trade.door.mood = Mood.PROMISING
    assert await trade.send(row) is None
    trade.door.mood = Mood.SOUND
    answer = await trade.send(row)
    assert answer is not None
    assert trade.take(answer).verified == 1


@pytest.mark.parametrize(
    ("mood", "kind", "words"),
    [
        (Mood.CUT, IntakeError, "INTAKE"),
        (Mood.FORGED, VerificationError, r"AUDIT\.SIGNATURE"),
        (Mood.UNSIGNED, CustodyError, r"REPORT\.UNSIGNED"),
        (Mood.PARTIAL, CustodyError, r"REPORT\.FOREIGN.*1 of 2 items"),
    ],
)
async def test_a_bad_answer_changes_nothing_but_the_audit_log(
    trade: Trade, mood: Mood, kind: type[IfppError], words: str
) -> None:
    row = trade.written()
    trade.door.mood = mood
    with pytest.raises(kind, match=words):
        await trade.exchange(row)
    assert trade.factory.report(row.report_id) == row
    last = trade.log()[-1]
    facts = json.loads(last.facts)
    assert (last.kind, facts["operation"]) == ("refused", "acknowledge report")


async def test_an_answer_to_another_report_is_refused(trade: Trade) -> None:
    first, second = trade.written(), trade.written()
    await trade.exchange(first)
    trade.door.mood = Mood.STALE
    answer = await trade.send(second)
    assert answer is not None
    with pytest.raises(CustodyError, match=r"REPORT\.FOREIGN"):
        trade.take(answer, second.report_id)
    assert trade.factory.report(second.report_id) == second


async def test_an_answer_of_another_party_or_of_another_file_is_refused(trade: Trade) -> None:
    row = trade.written()
    answer = await trade.send(row)
    assert answer is not None
    lines = answer.path.read_bytes().splitlines(keepends=True)
    for change in ({"smdp_oid": "2.999.11"}, {"report_sha256": "0" * 64}):
        header = json.loads(lines[0]) | change
        answer.path.write_bytes(b"".join([json.dumps(header).encode() + b"\n", *lines[1:]]))
        with pytest.raises(CustodyError, match=r"REPORT\.FOREIGN"):
            trade.take(answer)
    header = json.loads(lines[0]) | {"report_id": "nobody's"}
    answer.path.write_bytes(b"".join([json.dumps(header).encode() + b"\n", *lines[1:]]))
    with pytest.raises(CustodyError, match=r"REPORT\.UNKNOWN"):
        trade.take(answer)
    assert trade.factory.report(row.report_id) == row


def test_a_report_does_not_sit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the items, the same memory: rows go from the database to the file a page at a time."""
    monkeypatch.setattr(books, "_RESULTS_PAGE", 8)
    peaks = []
    for units in (40, 160):
        folder = tmp_path / str(units)
        folder.mkdir()
        with closing(Factory.open(f"sqlite:///{folder / 'factory.db'}")) as factory:
            stock(factory, units)
            node, pir = Node("st01"), base64.b64encode(bytes(20_000)).decode()
            for number in range(1, units + 1):
                (package,) = factory.claim(request(number, f"a{number}"), now()).packages
                factory.mark_sent(package.package_id, f"a{number}", "st01", now())
                said = outcome(number, 0, "INSTALLED", spent=True, package_id=package.package_id, pir_b64=pir)
                assert take_one(factory, node.result(number, f"a{number}", [said]), now()).rejected == ()
            at = now()
            tracemalloc.start()
            (report,) = write_reports(factory, folder, start=EVER, end=at.replace(year=at.year + 1), now=at)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert report.items == units
    assert peaks[1] <= 1.2 * peaks[0]
