"""An exported audit log, checked without the factory: whatever is done to the file is found, and said where."""

from __future__ import annotations

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifpp.errors import CustodyError, SettingsError
from ifpp.line import audit_check
from ifpp.line.audit_check import AuditReport, check_audit, check_continuation
from ifpp.line.audit_export import export_audit
from ifpp.line.notary import Notary
from ifpp.metrics import Metrics, Role
from ifpp.store.factory import Factory
from ifpp.trust.signer import SoftwareSigner, VerificationKey, create_key, read_public_key
from ifpp.wire.audit import canonical, link
from tests.clock import START, FakeClock
from tests.store.test_events import started, word
from tests.store.world import Node, later, request, stock, take_one


def make_signer(folder: Path) -> SoftwareSigner:
    create_key(folder / "audit.key")
    return SoftwareSigner.load(folder / "audit.key")


def work(folder: Path, signer: SoftwareSigner | None) -> None:
    """A little life of a factory of three writers: two units made, one of them twice claimed."""
    url = f"sqlite:///{folder / 'factory.db'}"
    with (
        closing(Factory.open(url, writer="intake")) as intake,
        closing(Factory.open(url, writer="store")) as store,
        closing(Factory.open(url, writer="line-L1")) as line,
    ):
        stock(intake, 2)
        line.acquire_line("L1", "me", 10, START)
        node = Node()
        for number in (1, 2):
            package_id = started(store, number, f"a{number}")
            take_one(line, node.result(number, f"a{number}", [word(package_id, "INSTALLED", number=number)]), later(5))
        store.release("never", "st01", START)
        if signer is not None:
            metrics = Metrics(Role.SUPERVISOR, line="L1")
            Notary(line, signer, clock=FakeClock(), metrics=metrics, entries=4, seconds=60).sign(final=True)
        line.release_line("L1", "me", later(6))


def exported(folder: Path, signer: SoftwareSigner | None, name: str = "audit.jsonl") -> bytes:
    with closing(Factory.open(f"sqlite:///{folder / 'factory.db'}", writer="report")) as factory:
        export_audit(factory, folder / name, signer, later(9))
    return (folder / name).read_bytes()


class Sample:
    """One exported log and its key."""

    def __init__(self, folder: Path) -> None:
        self.signer = make_signer(folder)
        work(folder, self.signer)
        self.content = exported(folder, self.signer)
        self.lines = self.content.splitlines(keepends=True)
        self.key = read_public_key(folder / "audit.key.pub")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


def check(content: bytes, *keys: VerificationKey) -> AuditReport:
    return check_audit(io.BytesIO(content), "log", keys)


def codes(report: AuditReport) -> set[str]:
    return {finding.code for finding in report.findings}


def place(sample: Sample, kind: str) -> int:
    """Index of the first entry of a kind."""
    return next(at for at, line in enumerate(sample.lines) if b'"kind":"%b"' % kind.encode() in line)


def test_what_was_exported_is_sound(sample: Sample) -> None:
    for keys in ((), (sample.key,)):
        report = check(sample.content, *keys)
        assert (report.findings, report.sound, report.pinned) == ([], True, bool(keys))
        assert report.key_ids == {sample.key.key_id}
        assert set(report.chains) == {"intake", "line-L1", "store"}
        line = report.chains["line-L1"]
        assert (line.last, line.signed) == (10, 9), "leaving the line came after the last checkpoint"
        assert report.entries == sum(chain.entries for chain in report.chains.values())
        assert report.checkpoints == sum(b'"checkpoint":{' in one for one in sample.lines) == 5


# ---- every single change is found -------------------------------------------------------------------

anything = settings(max_examples=400, deadline=None)


@given(st.data())
@anything
def test_a_changed_byte_is_found(sample: Sample, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sample.content) - 1))
    flipped = sample.content[at] ^ data.draw(st.integers(1, 255))
    report = check(sample.content[:at] + bytes([flipped]) + sample.content[at + 1 :])
    line = sample.content[:at].count(b"\n") + 1
    assert not report.sound
    assert any(finding.where.endswith(f":{line}") for finding in report.findings) or line == 1


@given(st.data())
@anything
def test_a_byte_taken_out_or_put_in_is_found(sample: Sample, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sample.content) - 1))
    put_in = data.draw(st.binary(max_size=3))
    taken_out = data.draw(st.integers(0 if put_in else 1, 3))
    changed = sample.content[:at] + put_in + sample.content[at + taken_out :]
    assert changed == sample.content or not check(changed).sound


@given(st.data())
@anything
def test_a_cut_file_is_found(sample: Sample, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sample.content) - 1))
    end = data.draw(st.integers(start, len(sample.content)))
    part = sample.content[start:end]
    assert part == sample.content or not check(part).sound


@given(st.data())
@anything
def test_lines_left_out_repeated_or_moved_are_found(sample: Sample, data: st.DataObject) -> None:
    lines = list(sample.lines)
    how = data.draw(st.sampled_from(["leave out", "repeat", "move", "swap"]))
    one, other = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    if how == "leave out":
        del lines[min(one, other) : max(one, other) + 1]
    elif how == "repeat":
        lines.insert(other, lines[one])
    elif how == "move":
        lines.insert(other, lines.pop(one))
    else:
        lines[one], lines[other] = lines[other], lines[one]
    assert lines == sample.lines or not check(b"".join(lines)).sound


# ---- and is called by its name ------------------------------------------------------------------------


def rewritten(sample: Sample, at: int, change: Callable[[Any], None]) -> bytes:
    document = json.loads(sample.lines[at])
    change(document)
    return b"".join([*sample.lines[:at], canonical(document) + b"\n", *sample.lines[at + 1 :]])


def first(report: AuditReport) -> tuple[str, str, str]:
    return report.findings[0].code, report.findings[0].where, report.findings[0].detail


def test_a_changed_fact_names_line_chain_and_number(sample: Sample) -> None:
    at = place(sample, "installed")

    def change(document: Any) -> None:
        document["entry"]["facts"]["attempt"] = "another"

    code, where, detail = first(check(rewritten(sample, at, change)))
    assert (code, where) == ("AUDIT.CHANGED", f"log:{at + 1}")
    number = json.loads(sample.lines[at])["entry"]["number"]
    assert f"entry {number} of chain line-L1" in detail


def test_a_renumbered_entry_is_told_from_a_missing_one(sample: Sample) -> None:
    at = place(sample, "sent")

    def change(document: Any) -> None:
        document["entry"]["number"] += 40

    report = check(rewritten(sample, at, change))
    assert "was renumbered to" in report.findings[0].detail
    assert len(report.findings) == 2, "the entry, and the trailer's digest"


def test_cuts_say_what_is_missing(sample: Sample) -> None:
    middle = place(sample, "claimed")
    report = check(b"".join([*sample.lines[:middle], *sample.lines[middle + 1 :]]))
    assert first(report)[0] == "AUDIT.CUT"
    assert "entry 2 is missing" in first(report)[2]
    report = check(b"".join(sample.lines[3:]))
    assert first(report) == ("AUDIT.CUT", "log:1", "the file does not begin with its header")
    report = check(b"".join(sample.lines[:-1]))
    assert first(report)[0] == "AUDIT.CUT"
    assert "without its trailer; signatures cover intake up to entry 5, line-L1 up to entry 9" in first(report)[2]
    report = check(b"".join([*sample.lines[:-4], sample.lines[-1]]))
    assert "AUDIT.CUT" in codes(report)
    assert any("it had" in finding.detail for finding in report.findings)
    report = check(sample.content[:-30])
    assert "in the middle of it" in first(report)[2]
    assert codes(check(b"")) == {"AUDIT.FORMAT"}


def test_a_repeated_a_moved_and_a_second_entry_have_different_names(sample: Sample) -> None:
    at = place(sample, "result")
    repeated = [*sample.lines[: at + 1], sample.lines[at], *sample.lines[at + 1 :]]
    assert first(check(b"".join(repeated)))[0] == "AUDIT.REPLAYED"
    moved = [*sample.lines[:at], *sample.lines[at + 1 : at + 3], sample.lines[at], *sample.lines[at + 3 :]]
    assert "AUDIT.REORDERED" in codes(check(b"".join(moved)))
    document = json.loads(sample.lines[at])
    document["entry"]["facts"]["result"] = "FAIL"
    second = [*sample.lines[: at + 1], canonical(document) + b"\n", *sample.lines[at + 1 :]]
    report = check(b"".join(second))
    assert first(report)[:2] == ("AUDIT.REPLAYED", f"log:{at + 2}"), "the same hash: a copy with other words"
    document["hash"] = "0" * 64
    second[at + 1] = canonical(document) + b"\n"
    assert first(check(b"".join(second)))[:2] == ("AUDIT.FORKED", f"log:{at + 2}")


def test_checkpoints_out_of_place_are_found(sample: Sample) -> None:
    ats = [at for at, line in enumerate(sample.lines) if line.startswith(b'{"checkpoint"')]
    at = ats[0]
    later_on = [*sample.lines[:at], *sample.lines[at + 1 : at + 3], sample.lines[at], *sample.lines[at + 3 :]]
    assert not check(b"".join(later_on)).sound
    early = [*sample.lines[: at - 1], sample.lines[at], sample.lines[at - 1], *sample.lines[at + 1 :]]
    assert "what is between is missing" in first(check(b"".join(early)))[2]
    twice = [*sample.lines[: at + 1], sample.lines[at], *sample.lines[at + 1 :]]
    assert first(check(b"".join(twice)))[0] == "AUDIT.REPLAYED"


@pytest.mark.parametrize("line", [b"{}\n", b"\n", b"no json\n", b'{"entry":{}}\n', b"x" * 2_000_000 + b"\n"])
def test_a_foreign_line_is_found(sample: Sample, line: bytes) -> None:
    report = check(b"".join([*sample.lines[:3], line, *sample.lines[3:]]))
    assert report.findings[0].where == "log:4"
    assert check(b"".join([*sample.lines, line])).findings[0].detail == "something follows the trailer"


def test_another_file_altogether_is_no_audit_log() -> None:
    report = check(b'{"format":"ifpp.plr","version":"1.0"}\n{"end":true}\n' * 200)
    assert first(report)[0] == "AUDIT.FORMAT"
    assert len(report.findings) == audit_check.MAX_FINDINGS < report.found


def test_a_newer_version_is_named(sample: Sample) -> None:
    def change(document: Any) -> None:
        document["version"] = "2.0"

    assert "version '2.0'" in first(check(rewritten(sample, 0, change)))[2]


# ---- people who know the format -----------------------------------------------------------------------


def relinked(lines: list[bytes]) -> list[bytes]:
    """Compute every hash of every chain anew, and the trailer's counts, ends and digest; signatures stay."""
    ends: dict[str, tuple[int, bytes]] = {}
    done: list[bytes] = []
    counts = {"entry": 0, "checkpoint": 0}
    for line in lines:
        document = json.loads(line)
        if "entry" in document:
            entry = document["entry"]
            number, previous = ends.get(entry["chain"], (0, bytes(32)))
            entry["number"] = number + 1
            digest = link(previous, canonical(entry))
            ends[entry["chain"]] = (number + 1, digest)
            document["hash"] = digest.hex()
            counts["entry"] += 1
        elif "checkpoint" in document:
            number, digest = ends[document["checkpoint"]["chain"]]
            document["checkpoint"] |= {"number": number, "hash": digest.hex()}
            counts["checkpoint"] += 1
        elif "trailer" in document:
            heads = {chain: {"number": number, "hash": digest.hex()} for chain, (number, digest) in ends.items()}
            document["trailer"] |= {"heads": heads, "sha256": sha256(b"".join(done)).hexdigest()}
            document["trailer"] |= {"entries": counts["entry"], "checkpoints": counts["checkpoint"]}
        done.append(canonical(document) + b"\n")
    return done


def test_rewriting_is_idempotent(sample: Sample) -> None:
    assert relinked(sample.lines) == sample.lines


def test_who_rewrites_every_hash_fails_at_the_signatures(sample: Sample) -> None:
    at = place(sample, "clean_to_ship")
    lines = [line.replace(b'"a1"', b'"a9"') for line in sample.lines]
    assert lines[at] != sample.lines[at]
    assert codes(check(b"".join(relinked(lines)))) == {"AUDIT.SIGNATURE"}


def test_who_also_drops_every_checkpoint_fails_at_the_trailer(sample: Sample) -> None:
    lines = [line for line in sample.lines if not line.startswith(b'{"checkpoint"')]
    del lines[place(sample, "claimed")]
    report = check(b"".join(relinked(lines)))
    assert [finding.detail for finding in report.findings] == [
        "the trailer: the signature does not hold over these bytes"
    ]


def test_who_takes_the_signature_away_leaves_it_unsigned(sample: Sample) -> None:
    document = json.loads(sample.lines[-1])
    document["signature"], document["trailer"]["key_id"] = "", ""
    content = b"".join([*sample.lines[:-1], canonical(document) + b"\n"])
    assert codes(check(content)) == {"AUDIT.UNSIGNED"}


def test_who_signs_with_a_key_of_his_own_fails_where_the_key_is_named(sample: Sample, tmp_path: Path) -> None:
    """Without --key such a file is sound in itself: that is why its key has to be compared."""
    work(tmp_path, forger := make_signer(tmp_path))
    forged = exported(tmp_path, forger)
    assert check(forged).sound
    report = check(forged, sample.key)
    assert codes(report) == {"AUDIT.UNKNOWN_KEY"}
    assert "not by the named key" in first(report)[2]


def test_a_key_that_is_not_the_one_it_is_named(sample: Sample, tmp_path: Path) -> None:
    other = make_signer(tmp_path)

    def swap(document: Any) -> None:
        document["keys"][0]["public"] = b64encode(other.public).decode()

    def name(document: Any) -> None:
        document["keys"][0] |= {"public": b64encode(other.public).decode(), "key_id": other.key_id}

    def spoil(document: Any) -> None:
        public = b64decode(document["keys"][0]["public"])
        document["keys"][0]["public"] = b64encode(public[:-1]).decode()

    for change in (swap, name, spoil):
        assert "AUDIT.UNKNOWN_KEY" in codes(check(rewritten(sample, 0, change)))


def test_a_foreign_checkpoint_does_not_fit(sample: Sample, tmp_path: Path) -> None:
    """Signed by the same key for another factory."""
    work(tmp_path, sample.signer)
    foreign = exported(tmp_path, sample.signer).splitlines(keepends=True)
    ats = [at for at, line in enumerate(sample.lines) if line.startswith(b'{"checkpoint"')]
    lines = list(sample.lines)
    lines[ats[0]] = next(line for line in foreign if line.startswith(b'{"checkpoint"'))
    assert "signed for another content" in first(check(b"".join(lines)))[2]


def test_without_a_signing_key_the_file_says_that_nobody_vouches_for_it(tmp_path: Path) -> None:
    work(tmp_path, None)
    report = check(exported(tmp_path, None))
    assert [finding.code for finding in report.findings] == ["AUDIT.UNSIGNED"]
    assert "[keys]" in report.findings[0].advice


# ---- two exports of one factory -----------------------------------------------------------------------


def test_a_later_export_continues_an_earlier_one(tmp_path: Path) -> None:
    signer = make_signer(tmp_path)
    work(tmp_path, signer)
    earlier = exported(tmp_path, signer)
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}", writer="store")) as store:
        store.release("one more", "st01", START)
    report = check(exported(tmp_path, signer, "second.jsonl"))
    check_continuation(report, "log", check(earlier))
    assert report.sound
    older = check(earlier)
    check_continuation(older, "log", report)
    assert codes(older) == {"AUDIT.CUT"}


def test_another_history_of_the_same_factory_is_a_fork(tmp_path: Path) -> None:
    """The database was replaced by an older copy, and the line went on."""
    signer, histories = make_signer(tmp_path), []
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}", writer="store")) as store:
        stock(store, 2)
    before = (tmp_path / "factory.db").read_bytes()
    for number in (1, 2):
        for old in tmp_path.glob("factory.db*"):
            old.unlink()
        (tmp_path / "factory.db").write_bytes(before)
        with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}", writer="store")) as store:
            store.claim(request(number), START)
        histories.append(check(exported(tmp_path, signer, f"{number}.jsonl")))
    one, other = histories
    assert one.sound
    assert other.sound
    check_continuation(other, "log", one)
    assert codes(other) == {"AUDIT.FORKED"}


def test_exports_of_two_factories_are_not_one_history(sample: Sample, tmp_path: Path) -> None:
    work(tmp_path, sample.signer)
    report = check(exported(tmp_path, sample.signer))
    check_continuation(report, "log", check(sample.content))
    assert "the earlier export is of factory" in first(report)[2]


# ---- the file itself ----------------------------------------------------------------------------------


def test_evidence_is_not_overwritten_and_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = make_signer(tmp_path)
    work(tmp_path, signer)
    before = exported(tmp_path, signer)
    with pytest.raises(CustodyError, match=r"FILE\.WRITE.*exists"):
        exported(tmp_path, signer)
    assert (tmp_path / "audit.jsonl").read_bytes() == before

    def broken(_message: bytes) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signer, "sign", broken)
    with pytest.raises(CustodyError, match=r"FILE\.WRITE.*No space left"):
        exported(tmp_path, signer, "full.jsonl")
    assert not list(tmp_path.glob("*full*"))


def test_a_file_that_cannot_be_read_is_named() -> None:
    class Broken(io.BytesIO):
        def readline(self, _limit: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(SettingsError, match=r"log: cannot be read \(Input/output error\)"):
        check_audit(Broken(), "log")
