"""What a token does when it is wrong, away, slow or gone: SoftHSM, alone or behind a `p11-kit server`."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11 import exceptions as faults

from ifpp.errors import CustodyError, IfppError, Retry, ServiceError, SettingsError
from ifpp.hw.hsm import Pkcs11Keys, token
from ifpp.hw.hsm.token import Token
from ifpp.log import Secret
from ifpp.metrics import Metrics, Role
from ifpp.model.ids import Eid
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import Signer, VerificationKey
from tests.real.softhsm import SoftToken, require

pytestmark = pytest.mark.needs("softhsm")
CLIENTS = ("/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so", "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so")
DEADLINE_S = 60.0
SHORT_S = 0.5
TOKEN = {"token": "ifpp-demo"}
EID = Eid("89049032123451234512345678901235")


@pytest.fixture
def soft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    return SoftToken(tmp_path, monkeypatch)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Role.SUPERVISOR)


@pytest.fixture
def keys(soft: SoftToken, metrics: Metrics) -> Iterator[Pkcs11Keys]:
    made = soft.open(metrics=metrics)
    yield made
    made.close()


def eventually(work: Callable[[], Any]) -> Any:
    """What the work returns when the device is back."""
    until_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            return work()
        except ServiceError as error:
            if error.code != "KEYS.UNREACHABLE" or time.monotonic() > until_s:
                raise
            time.sleep(0.05)


# ---- not let in ---------------------------------------------------------------------------------------


def test_a_wrong_pin_is_no_start_and_not_shown(soft: SoftToken) -> None:
    soft.pin = Secret(b"87654321")
    with pytest.raises(SettingsError, match=r"KEYS\.PIN: ") as caught:
        soft.open()
    assert "87654321" not in f"{caught.value!r}{caught.value}"


@pytest.mark.parametrize(("fault", "code"), [(faults.PinIncorrect, "KEYS.PIN"), (faults.PinLocked, "KEYS.PIN_LOCKED")])
def test_a_refused_pin_is_never_tried_again(
    soft: SoftToken, monkeypatch: pytest.MonkeyPatch, fault: type[Exception], code: str
) -> None:
    """SoftHSM never locks a PIN: the login is played."""
    tried = []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise fault

    monkeypatch.setattr(token, "_log_in", refuse)
    made = Token(soft.module, soft.label, soft.pin, timeout_s=DEADLINE_S, sessions=2, metrics=None)
    for _ in range(3):
        with pytest.raises(SettingsError) as caught:
            made.run("login", lambda _: None)
        assert caught.value.code == code
        assert caught.value.advice
    made.close()
    assert len(tried) == 1


def test_a_pin_that_is_no_text_is_a_wrong_pin(soft: SoftToken) -> None:
    soft.pin = Secret(b"\xff\xfe\xfd\xfc")
    with pytest.raises(SettingsError, match=r"KEYS\.PIN: "):
        soft.open()


def test_no_such_token_and_no_such_library(soft: SoftToken, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    for module, label in (
        (soft.module, "another"),
        (str(tmp_path / "none.so"), soft.label),
        (str(tmp_path / "text.so"), soft.label),
        ("/usr/lib/x86_64-linux-gnu/libm.so.6", soft.label),
    ):
        with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN"):
            Pkcs11Keys.open(module, label, soft.pin, timeout_s=DEADLINE_S, sessions=1)


# ---- away ---------------------------------------------------------------------------------------------


def test_a_token_pulled_in_the_middle_and_put_back(keys: Pkcs11Keys, soft: SoftToken, metrics: Metrics) -> None:
    keys.generate(Purpose.AUDIT)
    keys.generate(Purpose.CHIP)
    signer, mac = keys.signer(Purpose.AUDIT), keys.authorise(EID, b"m")
    assert metrics.value("ifpp_key_token_present", **TOKEN) == 1
    away = soft.objects.with_name("away")
    soft.objects.rename(away)
    for work in (lambda: signer.sign(b"x"), lambda: keys.authorise(EID, b"m"), keys.keys):
        with pytest.raises(ServiceError, match=r"KEYS\.UNREACHABLE.*the line goes on") as caught:
            work()
        assert caught.value.fault.retry is Retry.LATER
    assert metrics.value("ifpp_key_token_present", **TOKEN) == 0
    assert metrics.value("ifpp_key_operations_total", **TOKEN, operation="sign", result="KEYS.UNREACHABLE") == 1
    away.rename(soft.objects)
    signature = eventually(lambda: signer.sign(b"x"))
    VerificationKey.from_der(signer.public).verify(signature, b"x", what="it")
    assert keys.authorise(EID, b"m") == mac
    assert metrics.value("ifpp_key_token_present", **TOKEN) == 1
    assert metrics.value("ifpp_key_reconnects_total", **TOKEN) >= 1
    assert metrics.value("ifpp_key_operations_total", **TOKEN, operation="sign", result="ok") == 1
    assert metrics.value("ifpp_key_operation_seconds_count", **TOKEN, operation="sign") >= 2
    assert metrics.value("ifpp_key_wait_seconds_count", **TOKEN) >= 8


def test_a_token_that_is_away_at_the_start_is_there_later(soft: SoftToken) -> None:
    soft.open().close()
    away = soft.objects.with_name("away")
    soft.objects.rename(away)
    keys = soft.open()
    with pytest.raises(ServiceError, match=r"KEYS\.UNREACHABLE"):
        keys.keys()
    away.rename(soft.objects)
    assert eventually(keys.keys) == []
    keys.close()


def test_a_key_that_another_process_destroyed_is_named(keys: Pkcs11Keys, soft: SoftToken) -> None:
    keys.generate(Purpose.AUDIT)
    keys.generate(Purpose.CHIP)
    signer = keys.signer(Purpose.AUDIT)
    signer.sign(b"x")
    keys.authorise(EID, b"m")
    other = (
        "import sys; from ifpp.hw.hsm import Pkcs11Keys; from ifpp.log import Secret\n"
        "keys = Pkcs11Keys.open(*sys.argv[1:], Secret(sys.stdin.buffer.read()), timeout_s=60, sessions=1)\n"
        "keys.destroy('audit.1'); keys.destroy('chip.1'); keys.close()"
    )
    words = [str(Path(".venv/bin/python").absolute()), "-c", other, soft.module, soft.label]
    subprocess.run(words, input=soft.pin.reveal(), check=True, timeout=DEADLINE_S)
    with pytest.raises(ServiceError, match=r"SIGNER\.FAILED.*KEYS\.MISSING"):
        signer.sign(b"x")
    with pytest.raises(SettingsError, match=r"KEYS\.MISSING"):
        keys.authorise(EID, b"m")


def test_two_providers_of_one_library_do_not_end_each_other(keys: Pkcs11Keys, soft: SoftToken) -> None:
    keys.generate(Purpose.AUDIT)
    signer = keys.signer(Purpose.AUDIT)
    signer.sign(b"x")
    second = soft.open()
    second.signer(Purpose.AUDIT).sign(b"x")
    second.close()
    assert len(signer.sign(b"x")) == 64
    with pytest.raises(ServiceError, match=r"KEYS\.UNREACHABLE.*closed"):
        second.keys()


def test_a_forked_child_may_not_use_the_login(keys: Pkcs11Keys) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            keys.keys()
        except ServiceError as error:
            status = 0 if "fork" in error.detail else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert keys.keys() == []


# ---- not as it must be --------------------------------------------------------------------------------

AES = {Attribute.KEY_TYPE: KeyType.AES, Attribute.VALUE: bytes(32)}
CLOSED = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}


@pytest.mark.parametrize(
    ("attributes", "detail"),
    [
        ({Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True, Attribute.DERIVE: True}, "can be taken out"),
        ({Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: False, Attribute.DERIVE: True}, "is not sensitive"),
        (CLOSED | {Attribute.DERIVE: False, Attribute.ENCRYPT: True}, "may not derive"),
    ],
)
def test_a_key_with_wrong_attributes_is_not_used(
    soft: SoftToken, attributes: dict[Attribute, bool], detail: str
) -> None:
    soft.put("chip.1", ObjectClass.SECRET_KEY, AES | attributes)
    keys = soft.open()
    with pytest.raises(CustodyError, match=rf"KEYS\.ATTRIBUTES: chip\.1: .*{detail}.*ifpp keys audit"):
        keys.authorise(EID, b"m")
    assert [info.name for info in keys.keys()] == ["chip.1"]  # noqa: SIM118 - no dict
    keys.close()


def test_a_key_of_another_kind_is_not_used(soft: SoftToken) -> None:
    other = {Attribute.KEY_TYPE: KeyType.GENERIC_SECRET, Attribute.VALUE: bytes(32), Attribute.DERIVE: True}
    soft.put("chip.1", ObjectClass.SECRET_KEY, other | CLOSED)
    keys = soft.open()
    with pytest.raises(CustodyError, match=r"KEYS\.ATTRIBUTES.*the token does not do this"):
        keys.authorise(EID, b"m")
    keys.close()


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: b"", lambda s: bytes([s[0] ^ 1]) + s[1:]])
def test_a_signature_the_token_spoilt_does_not_go_out(
    keys: Pkcs11Keys, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    keys.generate(Purpose.AUDIT)
    signer, sign = keys.signer(Purpose.AUDIT), keys.sign
    monkeypatch.setattr(keys, "sign", lambda name, message: change(sign(name, message)))
    with pytest.raises(ServiceError, match=r"SIGNER\.FAILED.*does not hold"):
        signer.sign(b"x")


# ---- behind a daemon ----------------------------------------------------------------------------------


class Server:
    """`p11-kit server` with the token behind it."""

    def __init__(self, soft: SoftToken, socket: Path) -> None:
        self._soft, self._socket = soft, socket
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        words = ["p11-kit", "server", "--provider", self._soft.module, "--name", str(self._socket), "-f", "pkcs11:"]
        self._process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL)
        until_s = time.monotonic() + DEADLINE_S
        while not self._socket.exists():
            assert self._process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """To the server and to the process it has made for us."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(DEADLINE_S)


@pytest.fixture(scope="session")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """p11-kit-client.so keeps the first address of a process: one path for all tests."""
    return tmp_path_factory.mktemp("p11") / "socket"


@pytest.fixture
def server(soft: SoftToken, socket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    require()
    made = soft.open()
    made.generate(Purpose.AUDIT)
    made.close()
    running = Server(soft, socket)
    soft.module, server_module = _client(), soft.module
    monkeypatch.setenv("P11_KIT_SERVER_ADDRESS", f"unix:path={socket}")
    running._soft = _behind(soft, server_module)
    running.start()
    yield running
    running.kill()


def _client() -> str:
    found = next((name for name in CLIENTS if Path(name).is_file()), "")
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail("p11-kit is not installed, and CI must not skip it")
        pytest.skip("p11-kit is not installed (apt-get install p11-kit p11-kit-modules)")
    return found


def _behind(soft: SoftToken, module: str) -> SoftToken:
    made = object.__new__(SoftToken)
    made.__dict__.update(soft.__dict__ | {"module": module})
    return made


def test_a_daemon_killed_and_restarted_under_load(soft: SoftToken, server: Server, metrics: Metrics) -> None:
    keys = soft.open(sessions=8, metrics=metrics)
    signer = keys.signer(Purpose.AUDIT)
    check = VerificationKey.from_der(signer.public)
    over, made, failed = threading.Event(), [0] * 16, [0] * 16
    errors: list[str] = []

    def load(number: int) -> None:
        while not over.is_set():
            try:
                check.verify(signer.sign(b"x"), b"x", what="it")
                made[number] += 1
            except ServiceError as error:
                failed[number] += 1
                errors.append(error.code)
                time.sleep(0.01)

    def all_more(counts: list[int]) -> None:
        """Every thread counts on from here."""
        before, until_s = list(counts), time.monotonic() + DEADLINE_S
        while not all(now > then for now, then in zip(counts, before, strict=True)):
            assert time.monotonic() < until_s
            time.sleep(0.02)

    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(load, number) for number in range(16)]
        try:
            for _ in range(3):
                all_more(made)
                server.kill()
                all_more(failed)
                server.start()
            all_more(made)
        finally:
            over.set()
        for job in jobs:
            job.result(DEADLINE_S)
    assert set(errors) == {"KEYS.UNREACHABLE"}
    assert metrics.value("ifpp_key_reconnects_total", **TOKEN) >= 3
    keys.close()


def test_a_device_that_does_not_answer_keeps_nobody_and_is_used_when_it_does(
    soft: SoftToken, server: Server, metrics: Metrics
) -> None:
    keys = soft.open(timeout_s=SHORT_S, sessions=1, metrics=metrics)
    signer: Signer = eventually(lambda: keys.signer(Purpose.AUDIT))
    eventually(lambda: signer.sign(b"x"))
    server.signal(signal.SIGSTOP)
    told: list[str] = []
    for _ in range(2):  # the first is inside and hangs, the second waits for the one session
        with pytest.raises(ServiceError, match=r"KEYS\.UNREACHABLE") as caught:
            signer.sign(b"x")
        told.append(caught.value.detail)
    assert told == [f"no answer in {SHORT_S} s", f"all 1 sessions are busy for {SHORT_S} s"]
    server.signal(signal.SIGCONT)
    assert len(eventually(lambda: signer.sign(b"x"))) == 64
    keys.close()


def test_a_slow_device_serves_as_many_as_it_has_sessions(
    keys: Pkcs11Keys, soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sessions, both held at a gate: others wait, and all are served when it opens."""
    keys.generate(Purpose.AUDIT)
    narrow = soft.open(sessions=2)
    inside, gate = threading.Semaphore(0), threading.Event()

    def held(session: Any) -> int:
        inside.release()
        assert gate.wait(DEADLINE_S)
        return 1

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(narrow._token.run, "sign", held) for _ in range(6)]
        assert inside.acquire(timeout=DEADLINE_S)
        assert inside.acquire(timeout=DEADLINE_S)
        assert not inside.acquire(blocking=False)
        gate.set()
        assert [job.result(DEADLINE_S) for job in jobs] == [1] * 6
    narrow.close()


def test_every_fault_has_code_and_advice(keys: Pkcs11Keys) -> None:
    with pytest.raises(IfppError) as caught:
        keys.signer(Purpose.AUDIT)
    assert caught.value.code == "KEYS.MISSING"
    assert "ifpp keys init" in caught.value.advice
