"""Key agreement, key derivation and protected TLVs against the known answers of vectors/kat-ifpp.json."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import bsp
from ifpp.sim.tlv import header
from tests.sim.kat import EID, KAT, octets, private

KAT_EID = bytes.fromhex(EID)
HOST_ID = octets("hostId")
P256 = ec.SECP256R1()


def chip_end() -> bsp.Bsp:
    return bsp.derive(private("otk_priv"), octets("dp_ot_pub"), HOST_ID, KAT_EID)


def server_end() -> bsp.Bsp:
    return bsp.derive(private("dp_ot_priv"), octets("otk_pub"), HOST_ID, KAT_EID)


def test_key_agreement_from_both_ends() -> None:
    assert bsp.shared_secret(private("otk_priv"), octets("dp_ot_pub")) == octets("Z")
    assert bsp.shared_secret(private("dp_ot_priv"), octets("otk_pub")) == octets("Z")


def test_key_derivation() -> None:
    keys = bsp.session_keys(octets("Z"), HOST_ID, KAT_EID)
    assert keys == (octets("mcv"), octets("s_enc"), octets("s_mac"))
    assert KAT["s_enc"] not in repr(keys)
    assert str(keys.s_enc) not in repr(keys)


def test_third_party_vectors() -> None:
    """Osmocom pySim unit tests, classes TestECKA and BSP_Test."""
    mine = ec.derive_private_key(0xFB68A38CCEDB69E15CBE03C256228998AC398587E5DC7117F948145C839D61A4, P256)
    peer = bytes.fromhex(
        "0400f7b8d71403f21d84b00cd9e561178d737d3f4d065e62fee279271298dd4f07"
        "4794ab791b9939d4461296efe388aa26731064263af988b7d2c4d77da44801b5"
    )
    secret = bytes.fromhex("c9a993dd4879a8f7161f2085410edd4f9652f1df37be097ba96ba2ca6be528fe")
    assert bsp.shared_secret(mine, peer) == secret
    keys = bsp.session_keys(
        bytes.fromhex("8902dca391bbb22570fe60c176076246f568b1941265dff1d729e63039658089"),
        b"\x80" * 8,
        bytes.fromhex("89049032123451234512345678901335"),
    )
    assert keys.s_enc.hex() == "d782d575b22a38334556a3d9a1e2ae6b"
    assert keys.s_mac.hex() == "a35addc192ae8f934e2932116c7e89e7"
    assert keys.mcv.hex() == "734bc93ddb10c71c5ad13d420dc08b5b"


def test_brainpool_key_derivation() -> None:
    expected = KAT["brainpool"]
    on_brainpool = ec.derive_private_key(int(KAT["otk_priv"], 16), ec.BrainpoolP256R1())
    secret = bsp.shared_secret(on_brainpool, bytes.fromhex(expected["dp_ot_pub"]))
    keys = bsp.session_keys(secret, HOST_ID, KAT_EID)
    assert secret.hex() == expected["Z"]
    assert [part.hex() for part in keys] == [expected["mcv"], expected["s_enc"], expected["s_mac"]]


def test_point_of_another_curve_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        bsp.shared_secret(private("otk_priv"), bytes.fromhex(KAT["brainpool"]["dp_ot_pub"]))


def test_initial_chaining_vectors_step_with_every_block() -> None:
    state = chip_end()
    seen = [state.icv().hex()]
    state.encrypt(0x87, b"")
    seen.append(state.icv().hex())
    state.mac_only(0x88, b"x")
    seen.append(state.icv().hex())
    assert seen == [KAT["icv"][n] for n in "123"]


def test_protect_in_session_key_mode() -> None:
    expected = KAT["session_mode"]
    state = server_end()
    assert state.encrypt(0x87, bytes.fromhex("bf2400")).hex() == expected["t87"]
    assert state.mac_only(0x88, octets("bf25")).hex() == expected["t88"]
    assert state.encrypt(0x86, octets("upp")).hex() == expected["t86"][0]


def test_protect_in_random_key_mode() -> None:
    expected = KAT["ppk_mode"]
    state = server_end()
    state.encrypt(0x87, bytes.fromhex("bf2400"))
    state.mac_only(0x88, octets("bf25"))
    keys = [bytes.fromhex(expected[name]) for name in ("ppk_mcv", "ppk_enc", "ppk_cmac")]
    request = bytes.fromhex("bf2636") + b"".join(bytes((0x80 + n, 16)) + key for n, key in enumerate(keys))
    assert state.encrypt(0x87, request).hex() == expected["t87_rsk"]
    fresh = bsp.Bsp(keys[1], keys[2], keys[0])
    assert fresh.encrypt(0x86, octets("upp")).hex() == expected["t86"][0]


def test_take_apart_what_was_protected() -> None:
    expected = KAT["session_mode"]
    state = chip_end()
    assert state.decrypt(bytes.fromhex(expected["t87"])).hex() == "bf2400"
    assert state.verify(bytes.fromhex(expected["t88"])) == octets("bf25")
    assert state.decrypt(bytes.fromhex(expected["t86"][0])) == octets("upp")


def test_long_package_in_several_blocks() -> None:
    expected = KAT["multiseg"]
    upp = bytes((7 * i + 1) % 256 for i in range(2015))
    sender, receiver = server_end(), chip_end()
    for state in (sender, receiver):
        state.encrypt(0x87, bytes.fromhex("bf2400"))
        state.mac_only(0x88, octets("bf25"))
    blocks = [sender.encrypt(0x86, piece) for piece in bsp.split(upp)]
    assert [len(block) for block in blocks] == expected["seg_lengths"]
    assert [block[-8:].hex() for block in blocks] == expected["macs"]
    assert hashlib.sha256(b"".join(blocks)).hexdigest() == expected["sha256_concat"]
    assert b"".join(receiver.decrypt(block) for block in blocks) == upp


def test_skipped_mac_only_block_breaks_the_chain() -> None:
    """T06: the 88 steps counter and chaining value although nothing is encrypted."""
    state = chip_end()
    state.decrypt(bytes.fromhex(KAT["session_mode"]["t87"]))
    with pytest.raises(bsp.SecurityError):
        state.decrypt(bytes.fromhex(KAT["session_mode"]["t86"][0]))


@pytest.mark.parametrize("plain", [0, 1, 15, 16, 111, 112, 239, 240, 999, 1007])
def test_every_bit_of_a_block_is_guarded(plain: int) -> None:
    tlv = server_end().encrypt(0x87, bytes(plain))
    assert chip_end().decrypt(tlv) == bytes(plain)
    head = 2 + (tlv[1] & 0x7F if tlv[1] > 0x7F else 0)
    for at in (head, len(tlv) // 2, len(tlv) - 9, len(tlv) - 8, len(tlv) - 1):
        with pytest.raises(bsp.SecurityError):
            chip_end().decrypt(tlv[:at] + bytes((tlv[at] ^ 0x01,)) + tlv[at + 1 :])
    for at in range(head):
        with pytest.raises((bsp.StructureError, bsp.SecurityError)):
            chip_end().decrypt(tlv[:at] + bytes((tlv[at] ^ 0x10,)) + tlv[at + 1 :])


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "87",
        "8708" + "00" * 8,
        "8709" + "00" * 9,
        "8717" + "00" * 23,
        "878118" + "00" * 23,
        "8780" + "00" * 24,
        "8784000000" + "18" + "00" * 24,
        "8618" + "00" * 25,
    ],
)
def test_malformed_frames_are_structure_errors(broken: str) -> None:
    with pytest.raises(bsp.StructureError):
        chip_end().decrypt(bytes.fromhex(broken))


def test_oversized_block_is_a_structure_error() -> None:
    tlv = server_end().encrypt(0x86, bytes(1024))
    assert len(tlv) > bsp.MAX_TLV
    with pytest.raises(bsp.StructureError):
        chip_end().decrypt(tlv)


def test_wrong_padding_under_a_good_mac_is_a_structure_error() -> None:
    """A MAC over unpadded cipher blocks: only the padding check can notice."""
    for text in (bytes(16), b"\x01" * 16, b"\x80" + bytes(31)):
        sealed = _seal_unpadded(text)
        with pytest.raises(bsp.StructureError):
            chip_end().decrypt(sealed)


def _seal_unpadded(text: bytes) -> bytes:
    """Cipher blocks of `text` without padding, MACed as the block would be."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.cmac import CMAC

    keys = bsp.session_keys(octets("Z"), HOST_ID, KAT_EID)
    body = Cipher(algorithms.AES(keys.s_enc), modes.CBC(octets_icv())).encryptor().update(text)
    head = header(0x87, len(body) + 8)
    mac = CMAC(algorithms.AES(keys.s_mac))
    mac.update(keys.mcv + head + body)
    return head + body + mac.finalize()[:8]


def octets_icv() -> bytes:
    return bytes.fromhex(KAT["icv"]["1"])


def test_mac_only_block_in_place_of_an_encrypted_one() -> None:
    text = server_end().mac_only(0x88, bytes(16))
    with pytest.raises(bsp.StructureError):
        chip_end().decrypt(text)
    with pytest.raises(bsp.StructureError):
        chip_end().verify(server_end().encrypt(0x87, bytes(15)))


@pytest.mark.parametrize(("size", "pieces"), [(0, 0), (1, 1), (1007, 1), (1008, 2), (30000, 30)])
def test_split(size: int, pieces: int) -> None:
    cut = bsp.split(bytes(size))
    assert len(cut) == pieces
    assert b"".join(cut) == bytes(size)
    assert all(len(piece) == bsp.MAX_PLAINTEXT for piece in cut[:-1])
