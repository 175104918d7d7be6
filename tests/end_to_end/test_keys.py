"""The line on keys: who asks for them while units wait, and who does not start without a PIN."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.keys import measure
from tests.real import softhsm

SITE = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n[keys]\nprovider = "software"\n'


def test_units_wait_for_two_key_operations_at_most() -> None:
    run = measure(heads=2, units=4, hsm_ms=50)
    assert run.at_station <= 2
    assert run.beside >= 1, "nothing was signed"


def test_a_demo_runs_on_a_token_and_its_log_is_sound(tmp_path: Path) -> None:
    softhsm.require()
    kept = tmp_path / "kept"
    words = ["demo", "--keys", "pkcs11", "--units", "4", "--stations", "1", "--heads", "2", "--keep", str(kept)]
    assert ifpp(*words).returncode == 0
    config, secret = ["--config", str(kept / "config" / "site.toml")], str(kept / "credentials")
    audited = ifpp("keys", "audit", *config, credentials=secret)
    assert (audited.returncode, "provider  pkcs11" in audited.stdout) == (0, True), audited.stderr
    log = str(tmp_path / "log.jsonl")
    assert ifpp("audit", "export", log, *config, credentials=secret).returncode == 0
    assert ifpp("audit", "verify", log, "--key", str(kept / "config" / "audit.pub")).returncode == 0
    pin = (kept / "credentials" / "ifpp-pin").read_bytes()
    assert not [path for path in kept.rglob("*.log") if pin in path.read_bytes()]


def test_no_process_starts_without_its_pin_and_the_descriptor_hands_it_over(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    config = ["--config", str(tmp_path / "site.toml")]
    made = ifpp("keys", "init", "--by", "anna", "--reason", "first keys", *config, pin=b"8 digits")
    assert made.returncode == 0, made.stderr
    assert b"8 digits" not in made.stdout.encode() + made.stderr.encode()
    for words in (["supervisor", "run"], ["keys", "list"], ["audit", "export", str(tmp_path / "x")]):
        refused = ifpp(*words, *config)
        assert (refused.returncode, "KEYS.PIN" in refused.stderr) == (78, True), words
        assert "--pin-fd" in refused.stderr
    wrong = ifpp("supervisor", "run", *config, pin=b"other")
    assert (wrong.returncode, "KEYS.PIN" in wrong.stderr) == (78, True)
    assert ifpp("keys", "list", *config, pin=b"8 digits").returncode == 0


def ifpp(*words: str, pin: bytes = b"", credentials: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of ifpp with a PIN, as a pipe or as a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    environment |= {"CREDENTIALS_DIRECTORY": credentials} if credentials else {}
    command, reading = [sys.executable, "-m", "ifpp"], -1
    if pin:
        reading, writing = os.pipe()
        os.write(writing, pin)
        os.close(writing)
        command += ["--pin-fd", str(reading)]
    try:
        return subprocess.run(
            [*command, *words],
            env=environment,
            pass_fds=[reading] if pin else [],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    finally:
        if pin:
            os.close(reading)
