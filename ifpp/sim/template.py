"""A generator of realistic profile templates (SAIP 2.3, TCA): seeded content, any size from 2.3 kB up.

The row of profile elements is the usual one: header, mf, PUKs, PINs, telecom, usim, opt-usim, isim, akaParameter,
gsm-access, df-5gs, files, security domain, remote file management, an application, end. Only the files that matter are
filled; the template identifiers (2.23.143.1.2.x) create the rest by default. ICCID, IMSI and keys are placeholders.
"""

from __future__ import annotations

import random

from ifpp.sim.profiles import imsi_content, swapped
from ifpp.sim.tlv import integer, oid, tlv

PLACEHOLDER_ICCID = "8900000000000000000F"
PLACEHOLDER_IMSI = "001010000000000"
_LARGEST_FILE = 8_000
_ADF_USIM = bytes.fromhex("a0000000871002ff49ff0589")
_ADF_ISIM = bytes.fromhex("a0000000871004ff49ff0589")
_SSD = (bytes.fromhex("a0000001515350"), bytes.fromhex("a000000151535041"))
_APPLET = bytes.fromhex("f0492d504649465050")
# eUICC-Mandatory-services: usim, isim, milenage, javacard
_SERVICES = (0x81, 0x82, 0x84, 0x8B)
# file system templates used: mf, telecom, usim, opt-usim, gsm-access, isim, df-5gs
_TEMPLATES = {"mf": 1, "telecom": 3, "usim": 4, "opt-usim": 5, "gsm-access": 7, "isim": 8, "df-5gs": 13}
_READ_ALWAYS = bytes.fromhex("8001019000")
_UPDATE_ADM = bytes.fromhex("80015aa40683010a950108")
_READ_PIN = bytes.fromhex("800101a406830101950108")


def build_template(size: int, *, seed: int, name: str = "IFPP simulated profile") -> bytes:
    """Return a template of `size` bytes (a few bytes more or less; never less than its fixed part, 2.3 kB)."""
    filler = 0
    template = _package(filler, random.Random(seed), name)  # noqa: S311 - file content, not a secret
    for _ in range(2):  # length octets grow with the content: the second round corrects them
        filler = max(filler + size - len(template), 0)
        template = _package(filler, random.Random(seed), name)  # noqa: S311 - as above
    return template


def _package(filler: int, rng: random.Random, name: str) -> bytes:
    """Build all profile elements with `filler` bytes spread over one large file and the application."""
    in_file = min(filler // 4, _LARGEST_FILE)
    bodies = (
        (0xB0, _mf()),
        (0xA3, _puk_codes()),
        (0xA2, _pin_codes(local=False)),
        (0xB2, _telecom()),
        (0xB3, _usim(rng)),
        (0xB4, _opt_usim()),
        (0xA2, _pin_codes(local=True)),
        (0xA4, _aka()),
        (0xB8, _gsm_access()),
        (0xBC, _df_5gs()),
        (0xB5, _isim()),
        (0xA2, _pin_codes(local=True)),
        (0xA1, _files(rng, in_file)),
        (0xA6, _security_domain(rng)),
        (0xA7, _rfm(1, bytes.fromhex("b00120"), None)),
        (0xA7, _rfm(2, bytes.fromhex("b00140"), _ADF_USIM)),
        (0xA8, _application(rng, filler - in_file)),
        (0xAA, b""),
    )
    elements = (tlv(tag, _pe_header(number), body) for number, (tag, body) in enumerate(bodies, start=1))
    return _header(name) + b"".join(elements)


def _header(name: str) -> bytes:
    return tlv(
        0xA0,
        tlv(0x80, b"\x02"),
        tlv(0x81, b"\x03"),
        tlv(0x82, name.encode()),
        tlv(0x83, bytes.fromhex(PLACEHOLDER_ICCID)),
        tlv(0xA5, *(tlv(service) for service in _SERVICES)),
        tlv(0xA6, *(tlv(0x06, oid(f"2.23.143.1.2.{number}")) for number in _TEMPLATES.values())),
    )


def _pe_header(identification: int) -> bytes:
    return tlv(0xA0, tlv(0x80), tlv(0x81, integer(identification)))


def _template_id(name: str) -> bytes:
    return tlv(0x81, oid(f"2.23.143.1.2.{_TEMPLATES[name]}"))


def _file(tag: int, *contents: bytes, fcp: bytes = b"") -> bytes:
    """A File: descriptor (only where it differs from the template) and contents (records, if several)."""
    return tlv(tag, tlv(0xA1, fcp) if fcp else b"", *(tlv(0x83, content) for content in contents))


def _df(tag: int, fid: str, aid: bytes = b"") -> bytes:
    """The descriptor of an MF, DF or ADF."""
    fcp = tlv(0x83, bytes.fromhex(fid)) + (tlv(0x84, aid) if aid else b"")
    return _file(tag, fcp=fcp + tlv(0x8B, bytes.fromhex("2f0601")) + tlv(0xC6, bytes.fromhex("81010a0b")))


def _arr(tag: int, size: int = 0x30) -> bytes:
    """EF.ARR: access rules as records padded with FF."""
    rules = (_READ_ALWAYS, _READ_ALWAYS + _UPDATE_ADM, _READ_PIN + _UPDATE_ADM, _READ_PIN)
    return _file(tag, *(rule.ljust(size, b"\xff") for rule in rules))


def _mf() -> bytes:
    def dir_record(aid: bytes, label: bytes) -> bytes:
        return tlv(0x61, tlv(0x4F, aid), tlv(0x50, label)).ljust(0x21, b"\xff")

    return b"".join(
        (
            _template_id("mf"),
            _file(0xA2, fcp=tlv(0x8B, bytes.fromhex("2f0601")) + tlv(0xC6, bytes.fromhex("010a0b"))),
            _file(0xA3, b"en\xff\xff"),
            _file(0xA4, swapped(PLACEHOLDER_ICCID)),
            _file(0xA5, dir_record(_ADF_USIM, b"USIM"), dir_record(_ADF_ISIM, b"ISIM")),
            _arr(0xA6),
        )
    )


def _puk_codes() -> bytes:
    return tlv(0xA1, *(tlv(0x30, tlv(0x80, integer(ref)), tlv(0x81, b"12345678")) for ref in (0x01, 0x81)))


def _pin_codes(*, local: bool) -> bytes:
    """PIN and ADM of the MF, or the local PIN of an application."""
    codes: tuple[tuple[int, bytes, int, int], ...] = (
        (0x01, b"0000\xff\xff\xff\xff", 0x01, 6),
        (0x0A, b"55555555", 0, 3),
    )
    if local:
        codes = ((0x81, b"9999\xff\xff\xff\xff", 0x81, 3),)
    entries = (
        tlv(
            0x30,
            tlv(0x80, integer(ref)),
            tlv(0x81, value),
            tlv(0x82, integer(unblock)) if unblock else b"",
            tlv(0x83, integer(attributes)),
        )
        for ref, value, unblock, attributes in codes
    )
    return tlv(0xA1, tlv(0xA0, *entries))


def _telecom() -> bytes:
    return _template_id("telecom") + _df(0xA2, "7f10") + _arr(0xA3)


def _usim(rng: random.Random) -> bytes:
    return b"".join(
        (
            _template_id("usim"),
            _df(0xA2, "7fd0", _ADF_USIM),
            _file(0xA3, imsi_content(PLACEHOLDER_IMSI)),
            _arr(0xA4),
            _file(0xA8, bytes.fromhex("9effbf1dff3e0083410310010400403e39")),  # EF.UST
            _file(0xB2, (1 << rng.randrange(10)).to_bytes(2, "big")),  # EF.ACC
            _file(0xB5, bytes.fromhex("00000002")),  # EF.AD
            _file(0xB6, bytes.fromhex("11f2ff01"), bytes.fromhex("19f1ff01")),  # EF.ECC
        )
    )


def _opt_usim() -> bytes:
    plmns = b"\xff\xff\xff\x00\x00" * 20
    return b"".join((_template_id("opt-usim"), _file(0xA8, b"\xff\xff\xff\x00\x00"), _file(0xAF, plmns)))


def _isim() -> bytes:
    domain = b"ims.mnc001.mcc001.3gppnetwork.org"
    return b"".join(
        (
            _template_id("isim"),
            _df(0xA2, "7fb0", _ADF_ISIM),
            _file(0xA3, tlv(0x80, PLACEHOLDER_IMSI.encode() + b"@" + domain)),
            _file(0xA4, tlv(0x80, b"sip:" + PLACEHOLDER_IMSI.encode() + b"@" + domain)),
            _file(0xA5, tlv(0x80, domain)),
            _file(0xA6, bytes.fromhex("0100100000")),
            _file(0xA7, bytes.fromhex("000000")),
            _arr(0xA8),
        )
    )


def _aka() -> bytes:
    """Milenage: key and OPc are placeholders; rotation constants and sequence numbers take their defaults."""
    return tlv(0xA1, tlv(0xA1, tlv(0x80, b"\x01"), tlv(0x81, b"\x00"), tlv(0x82, bytes(16)), tlv(0x83, bytes(16))))


def _gsm_access() -> bytes:
    return _template_id("gsm-access") + _df(0xA2, "5f3b") + _file(0xA6, b"\x00")


def _df_5gs() -> bytes:
    return _template_id("df-5gs") + _df(0xA2, "5fc0") + _file(0xA8, bytes(4))


def _files(rng: random.Random, size: int) -> bytes:
    """Generic file management: an operator's directory with its roaming steering list of `size` bytes."""
    directory = tlv(
        0x62,
        tlv(0x82, bytes.fromhex("7821")),
        tlv(0x83, bytes.fromhex("7f66")),
        tlv(0x8B, bytes.fromhex("2f0601")),
        tlv(0xC6, bytes.fromhex("010a0b")),
    )
    steering = tlv(
        0x62,
        tlv(0x82, bytes.fromhex("4121")),
        tlv(0x83, bytes.fromhex("4f40")),
        tlv(0x8B, bytes.fromhex("2f0602")),
        tlv(0x80, max(size, 16).to_bytes(2, "big")),
        tlv(0x88),
    )
    commands = (tlv(0x80), directory, tlv(0x80, bytes.fromhex("7f66")), steering, tlv(0x81, rng.randbytes(size)))
    return tlv(0xA1, tlv(0x30, *commands))


def _security_domain(rng: random.Random) -> bytes:
    """The MNO security domain with one SCP80 key set (3 keys); the values are per template and secure nothing."""
    instance = tlv(
        0xA1,
        tlv(0x4F, _SSD[0]),
        tlv(0x4F, _SSD[1]),
        tlv(0x4F, bytes.fromhex("a000000151000000")),
        tlv(0x82, bytes.fromhex("82dc00")),
        tlv(0x83, b"\x0f"),
        tlv(0xC9, bytes.fromhex("810280008201f08301f08701f0")),
    )
    keys = (
        tlv(
            0x30,
            tlv(0x95, bytes((usage,))),
            tlv(0x82, integer(number)),
            tlv(0x83, integer(1)),
            tlv(0x30, tlv(0x30, tlv(0x80, b"\x88"), tlv(0x86, rng.randbytes(16)))),
        )
        for number, usage in ((1, 0x18), (2, 0x14), (3, 0x48))
    )
    return instance + tlv(0xA2, *keys)


def _rfm(number: int, tar: bytes, adf: bytes | None) -> bytes:
    """Remote file management of the UICC file system, or of one ADF."""
    access = tlv(0x30, tlv(0x80, adf), tlv(0x81, b"\x00"), tlv(0x82, b"\x00")) if adf else b""
    aid = bytes.fromhex("a000000559101000") + bytes((number,))
    return b"".join(
        (tlv(0x4F, aid), tlv(0xA0, tlv(0x04, tar)), tlv(0x81, b"\x02"), tlv(0x04, b"\x00"), tlv(0x04, b"\x00"), access)
    )


def _application(rng: random.Random, size: int) -> bytes:
    """A Java Card applet: load block of `size` bytes and one instance."""
    load = tlv(0xA1, tlv(0x4F, _APPLET), tlv(0xC4, rng.randbytes(size)))
    instance = tlv(
        0x30,
        tlv(0x4F, _APPLET),
        tlv(0x4F, _APPLET + b"\x01"),
        tlv(0x4F, _APPLET + b"\x01\x01"),
        tlv(0x82, bytes.fromhex("000000")),
        tlv(0x83, b"\x07"),
        tlv(0xC9, bytes.fromhex("8100")),
    )
    return load + tlv(0xA2, instance)
