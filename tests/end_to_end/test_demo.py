"""The whole line, every process real: generated and real profiles, faulty units, both brokers, Ctrl-C, wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.bus.broker import BrokerKind
from ifpp.sim import bsp
from ifpp.sim.card_file import CardFile
from ifpp.sim.card_file import load as load_card
from ifpp.sim.tlv import parse_one
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.documents import read_delivery
from tests.real.mosquitto import require

ROOT = Path(__file__).parent.parent.parent
TS48 = ROOT.parent / "shared" / "data" / "ts48"
pytestmark = pytest.mark.timeout(240)


def demo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ifpp", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=cwd, check=False)


def figures(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    run = demo("--json", "out.json", *arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    document: dict[str, Any] = json.loads((tmp_path / "out.json").read_bytes())
    assert document["unaccounted"] == 0
    # what is downloaded is bound on the line: nobody can say beforehand how few commands it takes
    assert document["apdus_per_unit"] == document.get("apdu_floor_per_unit", document["apdus_per_unit"]) > 0
    assert all(row["holds"] for row in document["mass_balance"])
    return document


def children_of_this_run(marker: str) -> list[str]:
    found = subprocess.run(["pgrep", "-fa", marker], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def test_a_line_of_two_stations_makes_every_unit(tmp_path: Path) -> None:
    require(BrokerKind.MOSQUITTO)
    out = figures(tmp_path, "--units", "12", "--heads", "3", "--apdu-ms", "1", "--broker", "mosquitto")
    assert (out["units"], out["passed"], out["failed"]) == (12, 12, {})
    assert (out["acked"], out["clean_to_ship"]) == (12, 12)
    assert {(row["sku"], row["region"], row["installed"]) for row in out["mass_balance"]} == {
        ("TRACKER-EU", "EU", 6),
        ("TRACKER-US", "US", 6),
    }
    assert out["report_items_verified"] == 12


def test_without_mosquitto_the_python_broker_does(tmp_path: Path) -> None:
    out = figures(tmp_path, "--units", "6", "--stations", "1", "--heads", "2", "--apdu-ms", "1", "--broker", "amqtt")
    assert out["passed"] == out["acked"] == 6


def test_real_test_profiles_go_the_whole_way(tmp_path: Path) -> None:
    if not TS48.is_dir():
        pytest.skip(f"the GSMA TS.48 test profiles are not at {TS48}")
    templates = sorted(map(str, TS48.glob("*.der")))
    options = [word for template in templates for word in ("--template", template)]
    number = 2 * len(templates)  # two jobs, and each deals them out anew
    out = figures(tmp_path, "--units", str(number), "--stations", "1", "--heads", "4", "--apdu-ms", "0", *options)
    assert out["passed"] == out["clean_to_ship"] == number > 0


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A kept run with two units of every fault class; `before` holds the chips as they were made."""
    folder = tmp_path_factory.mktemp("faulty")
    options = ["--units", "20", "--stations", "2", "--heads", "3", "--seed", "3", "--apdu-ms", "1"]
    made = folder / "kept" / "world" / "world.json"
    # A chip forgets a key it has used: look into the chips before they have.
    copying = threading.Thread(target=_copy_when, args=(made, made.parent / "cards", folder / "before"))
    copying.start()
    out = figures(folder, *options, "--faults", "10", "--keep", "kept")
    copying.join()
    return folder, out


def _copy_when(ready: Path, source: Path, target: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.copytree(source, target)


def test_faulty_units_are_told_apart_and_the_others_pass(faulty: tuple[Path, dict[str, Any]]) -> None:
    _, out = faulty
    # contact: passes at the second seating; no memory and tampered: the chip refuses; dead: no answer to reset
    assert out["failed"] == {"CONTACT": 2, "PRODUCT": 4, "SUPPLY": 2}
    assert out["passed"] == out["clean_to_ship"] == 12
    assert out["attempts"] > 20
    assert sum(row["failed"] for row in out["mass_balance"]) == 4


def test_every_sent_package_is_in_a_report_with_the_chips_own_result(faulty: tuple[Path, dict[str, Any]]) -> None:
    folder, out = faulty
    sent = sum(row["installed"] + row["failed"] + row["unknown"] for row in out["mass_balance"])
    lines = [
        json.loads(line) for path in (folder / "kept" / "reports").glob("*") for line in path.read_text().splitlines()
    ]
    items = [line for line in lines if "iccid" in line]
    assert len(items) == len({item["iccid"] for item in items}) == sent
    assert all("pir" in item or "fpa_error" in item for item in items)
    assert out["report_items_refused"] == []


def test_a_kept_line_is_a_sound_installation(faulty: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = faulty
    command = [sys.executable, "-m", "ifpp", "check", "--json", "kept"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, check=False)
    told = json.loads(run.stdout)
    assert (run.returncode, told["failure"], run.stderr) == (0, 0, "")
    seen = {one["probe"]: one for one in told["findings"]}
    assert seen["database"]["level"] == seen["journal"]["level"] == seen["trust"]["level"] == "ok"


def test_no_secret_and_no_profile_plaintext_is_left_anywhere(faulty: tuple[Path, dict[str, Any]]) -> None:
    """GENS09, GENS10: one-time, session and SM-DPf secrets and plaintext exist in the simulated world alone."""
    folder, _ = faulty
    secrets = list(_secrets(folder / "before", folder / "kept" / "world" / "delivery"))
    assert len(secrets) > 200
    kept = folder / "kept"
    places = [path for path in kept.rglob("*") if path.is_file() and "world" not in path.relative_to(kept).parts]
    names = {path.name for path in places}
    assert {"factory.db", "st01.journal.db", "st01.log", "st01.prom", "supervisor.log"} <= names
    for path in places:
        content = path.read_bytes()
        folded = content.lower()
        for name, secret in secrets:
            assert secret not in content, f"{name} in {path}"
            assert secret.hex().encode() not in folded, f"{name} in {path}"


def _secrets(cards_before: Path, deliveries: Path) -> Iterator[tuple[str, bytes]]:
    cards = {path.name.split(".")[0]: load_card(path) for path in cards_before.glob("*.card.json")}
    for card in cards.values():
        yield "SK.EUICC", card.euicc_private
        for key in card.one_time_keys:
            yield "one-time private key", key.private
    for path in deliveries.glob("*.jsonl"):
        with path.open("rb") as stream:
            for item in read_delivery(stream)[1]:
                yield from _of_package(cards[item.eid], bytes(item.otk_id), item.bpp)


def _of_package(card: CardFile, otk_id: bytes, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Session keys, random keys and pieces of the plaintext, as the chip itself would find them."""
    (key,) = [key for key in card.one_time_keys if key.otk_id == otk_id]
    channel = parse_bpp(raw).channel
    private = ec.derive_private_key(int.from_bytes(key.private, "big"), ec.SECP256R1())
    shared = bsp.shared_secret(private, channel.smdp_otpk)
    session = bsp.session_keys(shared, channel.host_id, bytes.fromhex(card.eid))
    yield "S-ENC", session.s_enc
    yield "S-MAC", session.s_mac
    unprotect = bsp.Bsp(session.s_enc, session.s_mac, session.mcv)
    members = {node.tag: node for node in parse_one(raw, 0xBF36).children()}
    for node in members[0xA0].children():
        unprotect.decrypt(node.raw)
    for node in members[0xA1].children():
        unprotect.verify(node.raw)
    if 0xA2 in members:
        replaced = b"".join(unprotect.decrypt(node.raw) for node in members[0xA2].children())
        fields = {node.tag: node.value for node in parse_one(replaced, 0xBF26).children()}
        yield "PPK-ENC", fields[0x81]
        yield "PPK-MAC", fields[0x82]
        unprotect = bsp.Bsp(fields[0x81], fields[0x82], fields[0x80])
    try:
        plain = b"".join(unprotect.decrypt(node.raw) for node in members[0xA3].children())
    except bsp.SecurityError:
        return  # one of the tampered ones
    for at in range(0, len(plain) - 24, len(plain) // 12):
        piece = plain[at : at + 24]
        if len(set(piece)) > 8:  # padding and empty files are no secret
            yield "profile plaintext", piece


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ifpp",
        "demo",
        "--units",
        "40",
        "--stations",
        "2",
        "--heads",
        "2",
        "--keep",
        "kept",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "passed," in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 130, rest
    assert "Traceback" not in rest
    assert children_of_this_run(str(tmp_path)) == []


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ifpp",
        "demo",
        "--units",
        "40",
        "--stations",
        "1",
        "--heads",
        "2",
        "--keep",
        "kept",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "passed," in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 40
    while (left := children_of_this_run(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--template", "absent.der"], ["SETTINGS.MISSING", "absent.der"]),
        (["--template", "junk.der"], ["COMMAND.INVALID", "template"]),
        (["--units", "2", "--stations", "3"], ["COMMAND.INVALID", "--units"]),
        (["--units", "2", "--faults", "3"], ["COMMAND.INVALID", "--faults"]),
        (["--keep", "."], ["COMMAND.INVALID", "--keep"]),
        (["--json", "nowhere/out.json"], ["COMMAND.INVALID", "--json"]),
        (["--units", "0"], ["--units"]),
        (["--apdu-ms", "minus"], ["--apdu-ms"]),
    ],
)
def test_wrong_input_is_refused_in_words_before_anything_starts(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "junk.der").write_bytes(b"\x30\x03abc")
    run = demo(*arguments, cwd=tmp_path)
    assert run.returncode != 0
    assert "Traceback" not in run.stderr
    assert all(word in run.stderr for word in words), run.stderr
