"""A test bench around one virtual eUICC: a plain terminal, an SM-DPf whose every byte can be bent, one chip."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import binder, bsp, pki
from ifpp.sim.card_file import CardFile, OneTimeKey
from ifpp.sim.euicc import Euicc
from ifpp.sim.eum import Chip, Eum
from ifpp.sim.profiles import iccid_swapped, personalise
from ifpp.sim.template import build_template
from ifpp.sim.tlv import Node, parse, parse_one, read_integer, split_header, tlv

ISDR = bytes.fromhex("a0000005591010ffffffff8900000100")
ICCID = "8988211900000311922"
TRANSACTION = bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")
HOST_ID = b"IFPPDPF1"
TREE = pki.Pki.create()
TEMPLATE = build_template(3_000, seed=1)


class CardLike(Protocol):
    """A chip, or the way to one."""

    def process(self, apdu: bytes) -> bytes: ...


class SlotClient:
    """The station's end of a tcp:// slot, blocking."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, payload: bytes) -> None:
        self._socket.sendall(len(payload).to_bytes(2, "big") + payload)

    def ask(self, payload: bytes) -> bytes:
        self.send(payload)
        return self.receive()

    def receive(self) -> bytes:
        head = self._socket.recv(2, socket.MSG_WAITALL)
        if len(head) < 2:
            raise ConnectionError("closed")
        size = int.from_bytes(head, "big")
        return self._socket.recv(size, socket.MSG_WAITALL) if size else b""

    process = ask

    def close(self) -> None:
        self._socket.close()


class Terminal:
    """Opens a channel to the ISD-R and sends ES10 commands in blocks; `sent` lists every APDU."""

    def __init__(self, card: CardLike, *, block: int = 255, channel: int | None = None) -> None:
        self.card = card
        self.block = block
        self.channel = 0
        self.sent: list[bytes] = []
        if channel is None:
            self.open()
        else:
            self.channel = channel

    def open(self) -> None:
        self.channel = self.transmit(bytes.fromhex("0070000001"))[0]
        self.select()

    def select(self) -> bytes:
        return self.transmit(bytes((self.cla(0), 0xA4, 0x04, 0x00, len(ISDR))) + ISDR)

    def cla(self, base: int) -> int:
        """TS 102 221 10.1.1: channels 0 to 3 in the low bits, 4 to 19 in the second form."""
        return base | self.channel if self.channel < 4 else base | 0x40 | self.channel - 4

    def transmit(self, apdu: bytes) -> bytes:
        self.sent.append(apdu)
        return self.card.process(apdu)

    def blocks(self, command: bytes) -> Iterator[bytes]:
        """The STORE DATA APDUs of one command."""
        pieces = bsp.split(command, self.block)
        for number, piece in enumerate(pieces):
            kind = 0x91 if number == len(pieces) - 1 else 0x11
            yield bytes((self.cla(0x80), 0xE2, kind, number, len(piece))) + piece

    def send(self, command: bytes) -> tuple[bytes, int]:
        """One ES10 command: response data and the last status word (0 when the card is mute)."""
        answer = b""
        for apdu in self.blocks(command):
            answer = self.transmit(apdu)
            if answer != b"\x90\x00":
                break
        return self.fetch(answer)

    def fetch(self, answer: bytes) -> tuple[bytes, int]:
        data = b""
        while answer[-2:-1] == b"\x61":
            data += answer[:-2]
            answer = self.transmit(bytes((self.cla(0), 0xC0, 0, 0, answer[-1])))
        return data + answer[:-2], int.from_bytes(answer[-2:], "big")

    def ask(self, command: bytes) -> Node:
        """One command that must succeed with data; the parsed answer."""
        data, sw = self.send(command)
        assert sw == 0x9000, f"{sw:04X}"
        return parse_one(data)

    def load(self, bpp: bytes) -> tuple[bytes, int]:
        """All segments until one answers data or fails: the last answer."""
        for segment in segments(bpp):
            data, sw = self.send(segment)
            if data or sw != 0x9000:
                return data, sw
        raise AssertionError("the chip never answered a result")


def segments(bpp: bytes) -> list[bytes]:
    """Cut a BPP as SGP.22 2.5.5 says."""
    _, _, at = split_header(bpp)
    head = bpp[:at]
    found = []
    for member in parse(bpp[at:]):
        if member.tag == 0xBF23:
            found.append(head + member.raw)
        elif member.tag in (0xA0, 0xA2):
            found.append(member.raw)
        else:
            found.append(member.raw[: len(member.raw) - len(member.value)])
            found.extend(child.raw for child in member.children())
    return found


@dataclass
class Recipe:
    """How to make one BPP; tests change single ingredients. Byte strings left None are made the right way."""

    upp: bytes
    metadata: bytes
    target: binder.BindingTarget
    signer: pki.Holder = TREE.dppb
    transaction_id: bytes = TRANSACTION
    host_id: bytes = HOST_ID
    dp_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    channel_members: dict[int, bytes] = field(default_factory=dict)
    configure: bytes = bytes.fromhex("bf2400")
    ppk: bsp.SessionKeys | None = None
    replace_keys: bytes | None = None
    kdf_eid: bytes | None = None
    block_size: int = bsp.MAX_PLAINTEXT

    def sign(self, data: bytes) -> bytes:
        return pki.sign_raw(self.signer.key, data, deterministic=True)

    def channel(self) -> bytes:
        """BF23, its members replaced by `channel_members` before signing."""
        crt = tlv(0xA6, bytes.fromhex("800188810110"), tlv(0x84, self.host_id))
        own = {
            0x82: tlv(0x82, b"\x01"),
            0x80: tlv(0x80, self.transaction_id),
            0xA6: crt,
            0x5F49: tlv(0x5F49, pki.point(self.dp_key.public_key())),
        }
        members = b"".join({**own, **self.channel_members}.values())
        return tlv(0xBF23, members, tlv(0x5F37, self.sign(members + tlv(0x5F49, self.target.otk_public))))

    def session(self) -> bsp.Bsp:
        return bsp.derive(self.dp_key, self.target.otk_public, self.host_id, self.kdf_eid or self.target.eid16)

    def parts(self) -> list[bytes]:
        """The members A0 to A3."""
        session = self.session()
        made = [tlv(0xA0, session.encrypt(0x87, self.configure))]
        made.append(tlv(0xA1, *(session.mac_only(0x88, piece) for piece in bsp.split(self.metadata, 1008))))
        if self.ppk is not None:
            request = self.replace_keys
            if request is None:
                request = tlv(0xBF26, tlv(0x80, self.ppk.mcv), tlv(0x81, self.ppk.s_enc), tlv(0x82, self.ppk.s_mac))
            made.append(tlv(0xA2, session.encrypt(0x87, request)))
            session = bsp.Bsp(self.ppk.s_enc, self.ppk.s_mac, self.ppk.mcv)
        made.append(tlv(0xA3, *(session.encrypt(0x86, piece) for piece in bsp.split(self.upp, self.block_size))))
        return made

    def bpp(self) -> bytes:
        return tlv(0xBF36, self.channel(), *self.parts())

    def prepare(self) -> bytes:
        return binder.prepare_download(self.target, self.transaction_id, self.signer.der, self.sign)


@dataclass
class Bench:
    """One powered chip on a terminal."""

    chip: Chip
    card: Euicc
    terminal: Terminal

    def target(self, slot: int = 0) -> binder.BindingTarget:
        return binder.BindingTarget(self.chip.card.eid, self.chip.card.one_time_keys[slot].public)

    def recipe(self, *, slot: int = 0, iccid: str = ICCID, **changes: Any) -> Recipe:
        """A sound package for this chip; `changes` replace fields of Recipe."""
        made: dict[str, Any] = {
            "upp": personalise(TEMPLATE, iccid),
            "metadata": metadata(iccid),
            "target": self.target(slot),
            **changes,
        }
        return Recipe(**made)

    def provision(self, recipe: Recipe) -> tuple[bytes, int]:
        """PrepareDownload and load: the last answer."""
        assert "A0" in answer_of(self.terminal.ask(recipe.prepare()))
        return self.terminal.load(recipe.bpp())

    def replug(self) -> None:
        """Cut the power, power up, open a channel anew."""
        self.card.power_off()
        self.card.reset()
        self.terminal.open()


def new_bench(
    *, keys: int = 3, options: Callable[[Euicc], None] | None = None, tree: pki.Pki = TREE, **issue: Any
) -> Bench:
    """A fresh chip of the bench's EUM; `options` may set the manufacturer's choices in its NVM."""
    chip = Eum(tree, seed=7).issue(keys=keys, **issue)
    card = Euicc(chip.card)
    if options is not None:
        options(card)
    card.reset()
    return Bench(chip, card, Terminal(card))


def metadata(iccid: str = ICCID, *, extra: bytes = b"") -> bytes:
    owner = b"\x00\xf1\x10"
    made = binder.store_metadata(iccid_swapped(iccid), "Test MNO", "Test", fqdn="smdpf.example", mcc_mnc=owner)
    return tlv(0xBF25, parse_one(made).value, extra)


def answer_of(node: Node) -> dict[str, bytes]:
    """Members by tag in hex."""
    return {f"{child.tag:X}": child.value for child in node.children()}


def outcome(pir: bytes) -> tuple[int, int] | None:
    """(bppCommandId, errorReason) of a result, None for success."""
    final = parse_one(pir, 0xBF37).need(0xBF27).need(0xA2).children()[0]
    if final.tag == 0xA0:
        return None
    return read_integer(final.need(0x80).value), read_integer(final.need(0x81).value)


def sequence(pir: bytes) -> int:
    return read_integer(parse_one(pir, 0xBF37).need(0xBF27).need(0xBF2F).need(0x80).value)


def results(terminal: Terminal) -> list[bytes]:
    """All installation results the chip keeps."""
    kept = terminal.ask(bytes.fromhex("bf2b00")).need(0xA0).children()
    return [each.raw for each in kept if each.tag == 0xBF37]


def installed(terminal: Terminal) -> list[bytes]:
    """ICCIDs (swapped) of GetProfilesInfo."""
    return [entry.need(0x5A).value for entry in terminal.ask(bytes.fromhex("bf2d00")).need(0xA0).children()]


def status(terminal: Terminal) -> tuple[int, int]:
    """(state, keys remaining) of GetFpaStatus."""
    answer = terminal.ask(bytes.fromhex("f902a000")).need(0xA0)
    return read_integer(answer.need(0x80).value), read_integer(answer.need(0x81).value)


def key_states(terminal: Terminal) -> list[int]:
    listed = terminal.ask(bytes.fromhex("f902a100")).need(0xA1).need(0x30).need(0xA2)
    return [read_integer(entry.need(0x82).value) for entry in listed.children()]


def flip(data: bytes, at: int, mask: int = 0x01) -> bytes:
    at %= len(data)
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


def kat_card(
    one_time_keys: Sequence[OneTimeKey], *, eid: str, euicc_private: bytes, roots: tuple[bytes, ...]
) -> CardFile:
    """A chip with a given identity; its own certificates play no part in what it answers here."""
    return CardFile(
        eid=eid,
        euicc_private=euicc_private,
        euicc_certificate=TREE.eum.der,
        eum_certificate=TREE.eum.der,
        ci_certificates=roots,
        one_time_keys=tuple(one_time_keys),
        free_nvm=100_000,
        reported_nvm=100_000,
    )
