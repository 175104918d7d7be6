"""One factory's worth of partners for the tests: a tree, an EUM, an SM-DPf, chips that can sign results."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import bsp, pki
from ifpp.sim.documents import BoundPackage, JsonLinesWriter, Request, RequestItem, utc_now
from ifpp.sim.eum import Chip, Eum
from ifpp.sim.profiles import ProfileStock, iccid_swapped
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.template import build_template
from ifpp.sim.tlv import bits, integer, oid, parse, parse_one, tlv

TYPE = "tracker"


def stock(first_serial: int = 1) -> ProfileStock:
    return ProfileStock(
        TYPE,
        [build_template(4_000, seed=1)],
        provider="P",
        iccid_prefix="8988247",
        imsi_prefix="00101",
        first_serial=first_serial,
    )


class Parties:
    """`tree`, `eum`, `smdpf` and shorthands to order from them."""

    def __init__(self) -> None:
        self.tree = pki.Pki.create()
        self.eum = Eum(self.tree, seed=1)
        self.smdpf = SmDpf(self.tree.dppb, self.tree.ci.der)

    def item(self, chip: Chip, slot: int = 0, **changes: Any) -> RequestItem:
        otk_id, otk_public = chip.record.one_time_keys[slot]
        fields: dict[str, Any] = {
            "eid": chip.record.eid,
            "otk_id": otk_id,
            "otk_public": otk_public,
            "euicc_certificate": chip.record.certificate,
            "otk_list": chip.record.otk_list,
            "info2_type": chip.record.info2_type,
            "profile_type": TYPE,
            "sku": "S",
            "region": "R",
        }
        return RequestItem(**(fields | changes))

    def request(self, *items: RequestItem) -> Request:
        info2 = {items[0].info2_type: self.eum.info2(self.eum.issue(keys=1))}
        return Request("request-1", "order-1", self.eum.chain, info2, items)

    def bind(self, chip: Chip, slot: int = 0, *, ppk: bool = False) -> BoundPackage:
        return self.smdpf.bind(self.item(chip, slot), stock(slot + 1).take(), eum_chain=self.eum.chain, ppk=ppk)


def chip_key(chip: Chip) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(chip.card.euicc_private, "big"), ec.SECP256R1())


def result(
    chip: Chip,
    package: BoundPackage,
    *,
    seq: int = 0,
    error: tuple[int, int] | None = None,
    smdp_oid: str = pki.SMDP_OID,
    iccid: str = "",
    status: int = 0,
    transaction_id: bytes = b"",
    events: int = 0,
) -> bytes:
    """Sign a ProfileInstallationResult as the chip would; `error` is (command, reason)."""
    sima = tlv(0x30, tlv(0xA0, tlv(0x30, tlv(0x80, integer(status)))))
    success = tlv(0xA0, tlv(0x4F, bytes.fromhex("a0000005591010ffffffff8900001100")), tlv(0x04, sima))
    failure = tlv(0xA1, *(tlv(tag, integer(n)) for tag, n in zip((0x80, 0x81), error or (), strict=False)))
    data = tlv(
        0xBF27,
        tlv(0x80, transaction_id or package.transaction_id),
        tlv(
            0xBF2F,
            tlv(0x80, integer(seq)),
            tlv(0x81, bits({events})),
            tlv(0x0C, b"smdpf.example"),
            tlv(0x5A, iccid_swapped(iccid or package.iccid)),
        ),
        tlv(0x06, oid(smdp_oid)),
        tlv(0xA2, failure if error else success),
    )
    return tlv(0xBF37, data, tlv(0x5F37, pki.sign_raw(chip_key(chip), data)))


def deletion(chip: Chip, iccid: str, *, event: int = 3) -> bytes:
    """Sign an OtherSignedNotification as the chip would, of this event."""
    address = tlv(0x0C, b"smdpf.example")
    signed = tlv(0xBF2F, tlv(0x80, integer(9)), tlv(0x81, bits({event})), address, tlv(0x5A, iccid_swapped(iccid)))
    return tlv(0x30, signed, tlv(0x5F37, pki.sign_raw(chip_key(chip), signed)))


def report_line(package: BoundPackage, pir: bytes | None, **changes: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "eid": package.eid,
        "iccid": package.iccid,
        "transaction_id": package.transaction_id.hex(),
        "outcome": "PASS",
        "station": "st1",
        "head": "h1",
        "started_at": utc_now(),
        "ended_at": utc_now(),
    }
    line["pir" if pir else "fpa_error"] = (
        base64.b64encode(pir).decode() if pir else {"code": "CONTACT.NO_ATR", "text": "dead"}
    )
    return line | changes


def write_report(path: Path, *lines: dict[str, Any], smdp_oid: str = pki.SMDP_OID) -> Path:
    header = {
        "format": "ifpp.plr",
        "version": "1.0",
        "report_id": "r1",
        "smdp_oid": smdp_oid,
        "from": utc_now(),
        "to": utc_now(),
        "created_at": utc_now(),
    }
    with JsonLinesWriter(path, header) as out:
        for line in lines:
            out.add(line)
    return path


def opened(chip: Chip, slot: int, package: BoundPackage) -> tuple[bytes, bytes]:
    """Take a BPP apart with the chip's one-time key: (metadata BF25, profile). Raises bsp.SecurityError."""
    bpp = parse_one(package.bpp, 0xBF36)
    channel = bpp.need(0xBF23)
    secret = ec.derive_private_key(int.from_bytes(chip.card.one_time_keys[slot].private, "big"), ec.SECP256R1())
    session = bsp.derive(
        secret, channel.need(0x5F49).value, channel.need(0xA6).need(0x84).value, bytes.fromhex(package.eid)
    )
    assert [session.decrypt(block.raw) for block in bpp.need(0xA0).children()] == [bytes.fromhex("bf2400")]
    metadata = b"".join(session.verify(block.raw) for block in bpp.need(0xA1).children())
    replacement = bpp.first(0xA2)
    if replacement is not None:
        keys = parse(parse_one(session.decrypt(replacement.value), 0xBF26).value)
        mcv, s_enc, s_mac = (key.value for key in keys)
        session = bsp.Bsp(s_enc, s_mac, mcv)
    return metadata, b"".join(session.decrypt(block.raw) for block in bpp.need(0xA3).children())
