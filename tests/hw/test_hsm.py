"""Keys in a real SoftHSM token: what they compute, and what is said when the token is slow or gone."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ifpp.errors import ServiceError, SettingsError, VerificationError
from ifpp.hw.hsm import Pkcs11Keys
from ifpp.log import Secret
from ifpp.roles.demo_keys import DemoKeys, KeysKind, softhsm_module
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import KeyProvider, Purpose
from ifpp.trust.signer import VerificationKey
from tests.real import softhsm
from tests.store.world import eid


class Token:
    """A token in a folder of its own; `open` logs in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        softhsm.require()
        made = DemoKeys(folder, KeysKind.PKCS11)
        made.prepare()
        monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "token" / "softhsm2.conf"))
        self.objects = folder / "token" / "objects"
        self.pin = Secret((made.credentials / "ifpp-pin").read_bytes())

    def open(self, pin: Secret | None = None, *, label: str = "ifpp-demo", timeout_s: float = 60) -> Pkcs11Keys:
        return Pkcs11Keys.open(str(softhsm_module()), label, pin or self.pin, timeout_s=timeout_s, sessions=4)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    return Token(tmp_path, monkeypatch)


@pytest.fixture
def keys(token: Token) -> Iterator[Pkcs11Keys]:
    opened = token.open()
    yield opened
    opened.close()


def test_sixteen_threads_sign_together(keys: Pkcs11Keys) -> None:
    keys.generate(Purpose.AUDIT)
    signer = keys.signer(Purpose.AUDIT)
    key, failed = VerificationKey.from_der(signer.public), []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                message = f"{number} {turn}".encode()
                key.verify(signer.sign(message), message, what="it")
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_chips_word_is_eight_bytes_and_its_own(keys: Pkcs11Keys) -> None:
    keys.generate(Purpose.CHIP)
    word = keys.authorise(eid(1), b"lock")
    assert len(word) == 8
    assert keys.authorise(eid(1), b"lock") == word
    assert keys.authorise(eid(1), b"other") != word
    assert keys.authorise(eid(2), b"lock") != word


def test_a_wrapped_backup_key_comes_back_and_a_changed_one_does_not(keys: Pkcs11Keys) -> None:
    keys.generate(Purpose.BACKUP)
    name, wrapped = keys.wrap(Secret(bytes(range(32))))
    assert keys.unwrap_backup(name, wrapped).reveal() == bytes(range(32))
    with pytest.raises(VerificationError):
        keys.unwrap_backup(name, bytes([wrapped[0] ^ 1]) + wrapped[1:])


def test_a_token_that_is_gone_is_told_and_comes_back(token: Token, keys: Pkcs11Keys, tmp_path: Path) -> None:
    keys.generate(Purpose.AUDIT)
    signer = keys.signer(Purpose.AUDIT)
    shutil.move(token.objects, tmp_path / "pulled")
    with pytest.raises(ServiceError, match=r"KEYS\.UNREACHABLE"):
        signer.sign(b"while it is away")
    shutil.move(tmp_path / "pulled", token.objects)
    signature, end_s = b"", time.monotonic() + 60
    while not signature and time.monotonic() < end_s:
        with suppress(ServiceError):  # it is not asked again at once
            signature = signer.sign(b"back")
    VerificationKey.from_der(signer.public).verify(signature, b"back", what="it")


def test_a_slow_token_is_not_waited_for_without_end(token: Token) -> None:
    keys = token.open(timeout_s=0.05)
    gate = threading.Event()
    with pytest.raises(ServiceError, match=r"KEYS\.UNREACHABLE.*no answer in 0\.05 s"):
        keys._token.run("test", lambda _: gate.wait())
    gate.set()
    keys.close()


def test_wrong_pins_labels_and_libraries_are_refused_by_code(token: Token) -> None:
    with pytest.raises(SettingsError, match=r"KEYS\.PIN:") as refused:
        token.open(Secret(b"87654321"))
    assert "87654321" not in str(refused.value)
    with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN"):
        token.open(label="another")
    with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN"):
        Pkcs11Keys.open(os.devnull, "ifpp-demo", token.pin, timeout_s=60, sessions=1)


def test_file_and_token_speak_one_protocol(token: Token, keys: Pkcs11Keys, tmp_path: Path) -> None:
    both: list[KeyProvider] = [keys, SoftwareKeys.create(tmp_path / "keys.ifpp", token.pin)]
    for provider in both:
        for purpose in Purpose:
            info = provider.generate(purpose)
            assert (info.name, info.version, len(info.key_id)) == (f"{purpose}.1", 1, 64)
    ours, theirs = ({one.name: one for one in provider.keys()} for provider in both)  # noqa: SIM118 - no dict
    for name, one in ours.items():
        assert one.algorithm == theirs[name].algorithm
        assert one.attributes - {"sensitive"} == theirs[name].attributes - {"extractable"}
