"""16 threads use one token for a minute; prints how often, and fails with the first error.

`python -m tests.study.key_soak [--seconds S] [--threads N] [--sessions N]`, or `make soak`.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ifpp.log import Secret
from ifpp.model.ids import Eid
from ifpp.trust.keyring import KeyProvider, Purpose
from ifpp.trust.signer import VerificationKey
from tests.real.softhsm import SoftToken

_EID = Eid("89049032123451234512345678901235")


def soak(keys: KeyProvider, *, threads: int, seconds: float) -> int:
    """Use every kind of key from all threads until the time is over; return how many operations were done."""
    for purpose in (Purpose.AUDIT, Purpose.CHIP, Purpose.BACKUP):
        keys.generate(purpose)
    signer, mac = keys.signer(Purpose.AUDIT), keys.authorise(_EID, b"m")
    check = VerificationKey.from_der(signer.public)
    until_s = time.monotonic() + seconds

    def work(number: int) -> int:
        done = 0
        while done == 0 or time.monotonic() < until_s:
            message, content = f"{number}/{done}".encode(), secrets.token_bytes(32)
            check.verify(signer.sign(message), message, what="the signature")
            if keys.authorise(_EID, b"m") != mac:
                raise SystemExit("another MAC for the same message")
            if keys.unwrap_backup(*keys.wrap(Secret(content))).reveal() != content:
                raise SystemExit("another key came back")
            done += 4
        return done

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def main() -> None:
    """Run it on a SoftHSM token of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--sessions", type=int, default=8)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        keys = SoftToken(Path(folder), patch).open(sessions=words.sessions)
        began_s = time.monotonic()
        done = soak(keys, threads=words.threads, seconds=words.seconds)
        keys.close()
    took_s = time.monotonic() - began_s
    print(f"{words.threads} threads, {took_s:.0f} s, {done} operations, {done / took_s:.0f} a second, no error")


if __name__ == "__main__":
    main()
