"""Fuzz everything that reads bytes from cards and files: only WireError and IntakeError may come out, and soon.

Run with atheris (extra `fuzz`):  python -m tests.fuzz.fuzz_wire -atheris_runs=100000 [folder that keeps what it finds]
Without atheris the same targets run on seeded mutations of valid inputs (`run_short`, tests/fuzz/test_fuzz_short.py).
The first byte of an input chooses the target.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ifpp.errors import CardError, IfppError, IntakeError, ServiceError, WireError
from ifpp.model.ids import Eid
from ifpp.wire import configuration, documents, es9, es10, rsp
from ifpp.wire.apdu import open_channel
from ifpp.wire.atr import parse_atr
from ifpp.wire.bpp import apdu_floor, parse_bpp
from ifpp.wire.fpx import FPX1, parse_otk_list, parse_prepare_download
from ifpp.wire.tlv import Tlv, read_many
from tests.wire import build
from tests.wire.files import ACKNOWLEDGEMENT, CHIP, DELIVERY, ESED, JOB, OUTCOME, PACKAGE, REPORT, WORD, lines, sealed
from tests.wire.vectors import kat

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One reader, what it may raise, and valid inputs to start from."""

    name: str
    read: Read
    allowed: tuple[type[IfppError], ...]
    seeds: tuple[bytes, ...]


def _walk(data: bytes) -> None:
    for tlv in read_many(data, what="fuzz"):
        _visit(tlv)


def _visit(tlv: Tlv) -> None:
    repr(tlv)
    for use in (tlv.integer, tlv.boolean, tlv.bits, tlv.oid, lambda: tlv.text(64), lambda: tlv.sized(1, 16)):
        with suppress(WireError):
            use()
    with suppress(WireError):
        members = tlv.children()
        if b"".join(member.raw for member in members) != tlv.value:
            raise AssertionError("members are not the value")
        for member in members:
            _visit(member)


def _bpp(data: bytes) -> None:
    package = parse_bpp(data)
    if b"".join(package.segments) != data:
        raise AssertionError("segments are not the package")
    apdu_floor(package.segments, 736)


def _pir(data: bytes) -> None:
    result = es10.parse_pir(data)
    if result.raw != data or result.signed_raw not in data:
        raise AssertionError("raw slices are not the input")


def _file(read: Callable[[io.BytesIO], tuple[object, Iterable[object]]]) -> Read:
    def whole(data: bytes) -> None:
        for _ in read(io.BytesIO(data))[1]:
            pass

    return whole


def _sealed(read: Callable[[io.BytesIO], tuple[object, Iterable[object]]]) -> Read:
    """Put the right trailer under whatever comes, so that the digest does not hide what the items hold."""

    def whole(data: bytes) -> None:
        _file(read)(sealed(*data.split(b"\n")))

    return whole


def _card(data: bytes) -> None:
    """The fuzzer plays the card: every answer is cut from the input, the first byte of each piece is its length."""
    source = io.BytesIO(data)

    def transmit(_apdu: bytes) -> bytes:
        size = source.read(1)
        return source.read(size[0]) if size else b""

    channel = open_channel(transmit)
    channel.command(es10.info2_request())


def _answer(*pieces: str) -> bytes:
    return b"".join(bytes([len(piece) // 2]) + bytes.fromhex(piece) for piece in pieces)


_WIRE = (WireError,)
_FILE = (IntakeError,)
TARGETS = (
    Target("tlv", _walk, _WIRE, (kat("pir_ok"), kat("ppk_mode", "bpp"), build.info2())),
    Target("bpp", _bpp, _WIRE, (kat("ppk_mode", "bpp"), kat("session_mode", "bpp"), build.bpp(2100))),
    Target("pir", _pir, _WIRE, (kat("pir_ok"), kat("pir_err"), build.pir())),
    Target("pe status", es10.parse_pe_status, _WIRE, (build.sima(0, 7), build.sima(0) * 2)),
    Target("eid", es10.parse_eid, _WIRE, (build.der(0xBF3E, build.der(0x5A, build.EID)),)),
    Target("info2", es10.parse_info2, _WIRE, (build.info2(),)),
    Target("atr", parse_atr, _WIRE, (bytes.fromhex("3B9F96801FC78031E073FE211B67494650502F3100C1"),)),
    Target(
        "profiles",
        es10.parse_profiles,
        _WIRE,
        (
            build.der(
                0xBF2D,
                build.der(
                    0xA0,
                    build.der(0xE3, build.der(0x5A, build.ICCID), build.der(0x9F70, b"\x00"), build.der(0x92, b"N")),
                ),
            ),
            bytes.fromhex("BF2D03810101"),
        ),
    ),
    Target(
        "notifications", es10.parse_notifications, _WIRE, (build.der(0xBF28, build.der(0xA0, build.notification())),)
    ),
    Target(
        "retrieved", es10.parse_retrieved, _WIRE, (build.der(0xBF2B, build.der(0xA0, kat("pir_ok"), kat("pir_err"))),)
    ),
    Target("cancel", es10.parse_cancel_session, _WIRE, (bytes.fromhex("BF4103810105"),)),
    Target("addresses", configuration.parse_addresses, _WIRE, (bytes.fromhex("BF3C0A8003612E628103632E64"),)),
    Target(
        "rules", configuration.parse_rat, _WIRE, (bytes.fromhex("BF4315A013301180020560A1073005800362F21082020780"),)
    ),
    Target(
        "eims",
        configuration.parse_eims,
        _WIRE,
        (bytes.fromhex("BF5518A0163014800165810166830101A505A10302010187020780"),),
    ),
    Target("sent", es10.parse_sent, _WIRE, (bytes.fromhex("BF3003800100"),)),
    Target("status", FPX1.parse_status, _WIRE, (kat("dialect", "status_resp"),)),
    Target("keys", FPX1.parse_otks, _WIRE, (kat("dialect", "list_resp"),)),
    Target("key file", parse_otk_list, _WIRE, (kat("dialect", "list_resp")[6:], build.otk_list(build.otk_entry()))),
    Target("prepare", parse_prepare_download, _WIRE, (build.prepare_download(certificate_bytes=64),)),
    Target(
        "prepared",
        FPX1.parse_prepared,
        _WIRE,
        (kat("dialect", "prepare_resp"), bytes.fromhex("BF2108A1068001AA020104")),
    ),
    Target("deleted", FPX1.parse_deleted, _WIRE, (kat("dialect", "delete_resp"),)),
    Target("locked", FPX1.parse_locked, _WIRE, (kat("dialect", "lock_resp"),)),
    Target("framing", _file(documents.read_esed), _FILE, (sealed(ESED, CHIP, CHIP), lines(ESED))),
    Target("esed", _sealed(documents.read_esed), _FILE, (lines(ESED, CHIP)[:-1],)),
    Target("delivery", _sealed(documents.read_delivery), _FILE, (lines(DELIVERY, PACKAGE)[:-1],)),
    Target("report", _sealed(documents.read_report), _FILE, (lines(REPORT, OUTCOME)[:-1],)),
    Target("acknowledgement", _sealed(documents.read_acknowledgement), _FILE, (lines(ACKNOWLEDGEMENT, WORD)[:-1],)),
    Target("job order", lambda data: documents.read_job_order(io.BytesIO(data)), _FILE, (lines(JOB),)),
    Target("info1", rsp.parse_info1, _WIRE, (build.info1(),)),
    Target(
        "chip's proof", rsp.parse_authenticated, _WIRE, (build.authenticated(), bytes.fromhex("BF3808A1068001AA020107"))
    ),
    Target("online key", rsp.parse_prepared, _WIRE, (kat("dialect", "prepare_resp"),)),
    Target("cancelled", rsp.parse_cancelled, _WIRE, (bytes.fromhex("BF4103810105"),)),
    Target(
        "notices",
        lambda data: rsp.parse_notices(data, Eid.from_bytes(build.EID)),
        _WIRE,
        (build.der(0xBF2B, build.der(0xA0, kat("pir_ok"), kat("pir_err"))), bytes.fromhex("BF2B03810101")),
    ),
    Target("server's word", es9.parse_initiated, (ServiceError,), (build.initiated(),)),
    Target("bound package", es9.parse_package, (ServiceError,), (build.packed(kat("session_mode", "bpp")),)),
    Target(
        "card",
        _card,
        (WireError, CardError),
        (_answer("6D00", "019000", "6103", "AABBCC9000", "6104", "6C02", "BF229000"), _answer("6E00", "6881", "9000")),
    ),
)


def one_input(data: bytes) -> None:
    """Give an input to the target its first byte names; anything but an allowed error is a finding."""
    if not data:
        return
    target = TARGETS[data[0] % len(TARGETS)]
    with suppress(*target.allowed):
        target.read(data[1:])


def mutate(seed: bytes, chance: random.Random) -> bytes:
    """Bend a valid input in one to four places: flip, set, cut, repeat, insert, or grow a length."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(data):
                data[at] = chance.choice((0x00, 0x1F, 0x30, 0x7F, 0x80, 0x81, 0x84, 0x85, 0xA0, 0xBF, 0xFF))
            case 2:
                del data[at : at + chance.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 40)]
            case 4:
                data[at:at] = chance.randbytes(chance.randint(1, 6))
            case _:
                del data[at:]
    return bytes(data)


def run_short(target: Target, runs: int, seed: int = 1) -> int:
    """Run mutations of a target's seeds; return how many were still accepted. A finding raises."""
    chance = random.Random(f"{target.name}/{seed}")
    accepted = 0
    for _ in range(runs):
        with suppress(*target.allowed):
            target.read(mutate(chance.choice(target.seeds), chance))
            accepted += 1
    return accepted


def corpus() -> str:
    """Write every seed into a new folder, as atheris wants them, and return its name."""
    folder = Path(tempfile.mkdtemp(prefix="ifpp-fuzz-"))
    for index, target in enumerate(TARGETS):
        for number, seed in enumerate(target.seeds):
            (folder / f"{index}-{number}").write_bytes(bytes([index]) + seed)
    return str(folder)


def main() -> None:
    """Run atheris from the seeds until it finds something or -atheris_runs are over."""
    import atheris

    atheris.instrument_all()
    atheris.Setup([*sys.argv, corpus()], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
