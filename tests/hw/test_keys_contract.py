"""What every key provider does: an encrypted file, SoftHSM 2, and, named by environment, a real token.

IFPP_TEST_PKCS11_MODULE, IFPP_TEST_PKCS11_TOKEN and IFPP_TEST_PKCS11_PIN_FILE name a real token. Keys are made in it and
destroyed; one that holds keys of ifpp is refused.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import decode_ec_private_key, decode_ec_public_key

from ifpp.errors import SettingsError, VerificationError
from ifpp.hw.hsm import Pkcs11Keys
from ifpp.log import Secret
from ifpp.model.ids import Eid
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyplan import PLAN, compare
from ifpp.trust.keyring import KeyInfo, KeyProvider, Purpose
from ifpp.trust.signer import VerificationKey
from tests.real.softhsm import SoftToken
from tests.trust import rfc4493

EIDS = [Eid("89049032123451234512345678901235"), Eid("89086030202200000022000023022943")]
SIGNING = (Purpose.AUDIT, Purpose.REPORT, Purpose.STATION)
THREADS, ROUNDS = 16, 25
MESSAGES = [b"", b"m", bytes(16), bytes(range(40)), bytes(64), secrets.token_bytes(5000)]
_REAL = ("IFPP_TEST_PKCS11_MODULE", "IFPP_TEST_PKCS11_TOKEN", "IFPP_TEST_PKCS11_PIN_FILE")


@pytest.fixture(params=["software", pytest.param("softhsm", marks=pytest.mark.needs("softhsm")), "token"])
def keys(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyProvider]:
    """A provider with no keys."""
    made: KeyProvider
    if request.param == "software":
        made = SoftwareKeys.create(tmp_path / "keys.ifpp", Secret(b"4711"))
    elif request.param == "softhsm":
        made = SoftToken(tmp_path, monkeypatch).open()
    else:
        made = _real()
    yield made
    for info in made.keys():  # noqa: SIM118 - no dict
        made.destroy(info.name)
    made.close()


def _real() -> KeyProvider:
    module, token, pin_file = (os.environ.get(name, "") for name in _REAL)
    if not (module and token and pin_file):
        pytest.skip(f"opt-in: name a token with {', '.join(_REAL)}")
    pin = Secret(Path(pin_file).read_bytes().strip())
    made = Pkcs11Keys.open(module, token, pin, timeout_s=60.0, sessions=4)
    if found := made.keys():
        made.close()
        pytest.exit(f"refused: token {token} holds {len(found)} keys of ifpp; nothing was changed", returncode=1)
    return made


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_generated_key_is_the_next_version_and_as_planned(keys: KeyProvider, purpose: Purpose) -> None:
    made = [keys.generate(purpose) for _ in range(2)]
    assert [info.name for info in made] == [f"{purpose}.1", f"{purpose}.2"]
    assert {info.key_id for info in keys.keys()} == {info.key_id for info in made}  # noqa: SIM118
    assert made[0].key_id != made[1].key_id
    assert made[0].algorithm == PLAN[purpose].algorithm
    known = {info.name: info.key_id for info in made}
    assert compare(made, [purpose], known, datetime.now(UTC), token=keys.kind == "pkcs11") == []


@pytest.mark.parametrize("purpose", SIGNING)
def test_signatures_hold_also_those_of_an_older_version(keys: KeyProvider, purpose: Purpose) -> None:
    pairs = []
    for _ in range(2):
        info = keys.generate(purpose)
        signer = keys.signer(purpose)
        assert signer.public == info.public
        assert signer.key_id == info.key_id
        pairs.append((VerificationKey.from_der(signer.public), signer.sign(b"said")))
    keys.destroy(f"{purpose}.1")
    for key, signature in pairs:
        assert len(signature) == 64
        key.verify(signature, b"said", what="it")
    with pytest.raises(VerificationError, match=r"AUDIT\.SIGNATURE"):
        pairs[0][0].verify(pairs[1][1], b"said", what="the other's")


@pytest.mark.parametrize(
    "change",
    [lambda s: s[:-1], lambda s: b"", lambda s: s + b"\0", lambda s: bytes(64), lambda s: bytes([s[0] ^ 1]) + s[1:]],
    ids=["truncated", "none", "longer", "zero", "one bit"],
)
def test_a_changed_signature_does_not_hold(keys: KeyProvider, change: Callable[[bytes], bytes]) -> None:
    keys.generate(Purpose.AUDIT)
    signer = keys.signer(Purpose.AUDIT)
    with pytest.raises(VerificationError, match=r"AUDIT\.SIGNATURE"):
        VerificationKey.from_der(signer.public).verify(change(signer.sign(b"said")), b"said", what="it")


def test_each_chip_has_its_own_authorisation(keys: KeyProvider) -> None:
    keys.generate(Purpose.CHIP)
    macs = {(eid, message): keys.authorise(eid, message) for eid in EIDS for message in MESSAGES}
    assert all(len(mac) == 8 for mac in macs.values())
    assert len(set(macs.values())) == len(macs)
    assert all(keys.authorise(eid, message) == mac for (eid, message), mac in macs.items())


def _delivered(transport: KeyInfo, content_key: bytes) -> tuple[bytes, bytes]:
    """What an SM-DPf sends: its ephemeral point, and the wrapped content key."""
    assert transport.public is not None
    public = serialization.load_der_public_key(transport.public)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    shared = ephemeral.exchange(ec.ECDH(), public)
    wrapped = keywrap.aes_key_wrap(X963KDF(hashes.SHA256(), 32, b"").derive(shared), content_key)
    point = ephemeral.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return point, wrapped


@pytest.mark.parametrize("size", [16, 32])
def test_a_delivery_s_content_key_unwraps_also_with_an_older_version(keys: KeyProvider, size: int) -> None:
    content_key = secrets.token_bytes(size)
    old, new = keys.generate(Purpose.TRANSPORT), keys.generate(Purpose.TRANSPORT)
    for info in (old, new):
        assert keys.unwrap(info.name, *_delivered(info, content_key)).reveal() == content_key
    with pytest.raises(VerificationError, match=r"TRUST\.SIGNATURE"):
        keys.unwrap(old.name, *_delivered(new, content_key))


def test_a_changed_delivery_does_not_unwrap(keys: KeyProvider) -> None:
    info = keys.generate(Purpose.TRANSPORT)
    point, wrapped = _delivered(info, bytes(32))
    off_curve = point[:-1] + bytes([point[-1] ^ 1])
    bad: list[tuple[bytes | None, bytes]] = [(None, wrapped), (b"", wrapped), (point[:-1], wrapped)]
    bad += [(off_curve, wrapped), (point, wrapped[:-8]), (point, wrapped[:-1]), (point, b"")]
    bad += [(point, bytes([wrapped[0] ^ 1]) + wrapped[1:])]
    for ephemeral, content in bad:
        with pytest.raises(VerificationError, match=r"TRUST\.SIGNATURE"):
            keys.unwrap(info.name, ephemeral, content)
    assert keys.unwrap(info.name, point, wrapped).reveal() == bytes(32)


def test_a_backup_s_key_unwraps_also_with_an_older_version(keys: KeyProvider) -> None:
    content_key = secrets.token_bytes(32)
    sealed = []
    for _ in range(2):
        keys.generate(Purpose.BACKUP)
        sealed.append(keys.wrap(Secret(content_key)))
    assert [name for name, _ in sealed] == ["backup.1", "backup.2"]
    for name, wrapped in sealed:
        assert keys.unwrap_backup(name, wrapped).reveal() == content_key
        for changed in (wrapped[:-1], wrapped[:-8], bytes([wrapped[0] ^ 1]) + wrapped[1:]):
            with pytest.raises(VerificationError, match=r"TRUST\.SIGNATURE"):
                keys.unwrap_backup(name, changed)


def test_a_key_that_is_not_there_is_named(keys: KeyProvider) -> None:
    calls: list[Callable[[], object]] = [
        *(lambda purpose=purpose: keys.signer(purpose) for purpose in SIGNING),
        lambda: keys.authorise(EIDS[0], b"m"),
        lambda: keys.wrap(Secret(bytes(32))),
        lambda: keys.unwrap_backup("backup.1", bytes(40)),
        lambda: keys.unwrap("transport.1", _delivered_to_nobody(), bytes(40)),
        lambda: keys.destroy("audit.1"),
        lambda: keys.destroy("somebody else's"),
    ]
    for call in calls:
        with pytest.raises(SettingsError, match=r"KEYS\.MISSING"):
            call()


def _info(keys: KeyProvider, purpose: Purpose) -> KeyInfo:
    return next(info for info in keys.keys() if info.purpose == purpose)  # noqa: SIM118 - no dict


def _delivered_to_nobody() -> bytes:
    nobody = ec.generate_private_key(ec.SECP256R1()).public_key()
    return nobody.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def test_a_key_of_another_purpose_unwraps_nothing(keys: KeyProvider) -> None:
    keys.generate(Purpose.BACKUP)
    transport = keys.generate(Purpose.TRANSPORT)
    name, wrapped = keys.wrap(Secret(bytes(32)))
    with pytest.raises(SettingsError, match=r"KEYS\.MISSING"):
        keys.unwrap(name, _delivered(transport, bytes(32))[0], wrapped)
    with pytest.raises(SettingsError, match=r"KEYS\.MISSING"):
        keys.unwrap_backup(transport.name, wrapped)


def test_nothing_that_is_shown_shows_a_key(keys: KeyProvider) -> None:
    for purpose in Purpose:
        keys.generate(purpose)
    content_key = secrets.token_bytes(32)
    name, wrapped = keys.wrap(Secret(content_key))
    secret = keys.unwrap_backup(name, wrapped)
    shown = "".join(map(repr, [keys, keys.signer(Purpose.AUDIT), secret, *keys.keys()]))
    assert "4711" not in shown
    assert content_key.hex() not in shown
    assert repr(content_key) not in shown


def test_sixteen_threads_share_a_provider(keys: KeyProvider) -> None:
    for purpose in (Purpose.AUDIT, Purpose.CHIP, Purpose.TRANSPORT, Purpose.BACKUP):
        keys.generate(purpose)
    point, wrapped = _delivered(_info(keys, Purpose.TRANSPORT), b"c" * 32)
    signer, mac = keys.signer(Purpose.AUDIT), keys.authorise(EIDS[0], b"m")
    key = VerificationKey.from_der(signer.public)

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            message = f"{number}/{turn}".encode()
            key.verify(signer.sign(message), message, what="it")
            assert keys.authorise(EIDS[0], b"m") == mac
            assert keys.unwrap("transport.1", point, wrapped).reveal() == b"c" * 32
            content = secrets.token_bytes(32)
            assert keys.unwrap_backup(*keys.wrap(Secret(content))).reveal() == content

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


# ---- the same key in both ------------------------------------------------------------------------------


def test_rfc_4493_vectors() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    text = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    known = {
        0: "bb1d6929e95937287fa37d129b756746",
        16: "070a16b46b4d4144f79bdd9dd04a287c",
        40: "dfa66747de9ae63030ca32611497c827",
        64: "51f0bebf7e3b9d92fc49741779363cfe",
    }
    assert {size: rfc4493.cmac(key, text[:size]).hex() for size in known} == known


@pytest.mark.needs("softhsm")
def test_the_same_keys_do_the_same_in_a_file_and_in_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, token = SoftwareKeys.create(tmp_path / "keys.ifpp", Secret(b"4711")), SoftToken(tmp_path, monkeypatch)
    for purpose in Purpose:
        soft.generate(purpose)
    stays = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    uses = {
        Purpose.CHIP: {Attribute.DERIVE: True},
        Purpose.BACKUP: {Attribute.WRAP: True, Attribute.UNWRAP: True},
        Purpose.TRANSPORT: {Attribute.DERIVE: True},
    }
    values = {key.purpose: key.value.reveal() for key in soft._keys.values()}
    for purpose in (Purpose.CHIP, Purpose.BACKUP):
        aes = {Attribute.KEY_TYPE: KeyType.AES, Attribute.VALUE: values[purpose]}
        token.put(f"{purpose}.1", ObjectClass.SECRET_KEY, aes | stays | uses[purpose])
    pair = serialization.load_der_private_key(values[Purpose.TRANSPORT], None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    token.put("transport.1", ObjectClass.PRIVATE_KEY, decode_ec_private_key(pair) | stays | uses[Purpose.TRANSPORT])
    public = decode_ec_public_key(_info(soft, Purpose.TRANSPORT).public or b"")
    token.put("transport.1", ObjectClass.PUBLIC_KEY, public | {Attribute.PRIVATE: False})
    hard = token.open()
    for eid in EIDS:
        chip_key = rfc4493.ecb(values[Purpose.CHIP], bytes.fromhex(str(eid)))
        for message in MESSAGES:
            expected = rfc4493.cmac(chip_key, message)[:8]
            assert soft.authorise(eid, message) == expected
            assert hard.authorise(eid, message) == expected
    point, wrapped = _delivered(_info(soft, Purpose.TRANSPORT), b"c" * 32)
    providers: list[KeyProvider] = [soft, hard]
    for one, other in (providers, providers[::-1]):
        assert one.unwrap("transport.1", point, wrapped).reveal() == b"c" * 32
        name, sealed = one.wrap(Secret(b"k" * 32))
        assert other.unwrap_backup(name, sealed).reveal() == b"k" * 32
    hard.close()
