"""What a chip is configured to: addresses, nicknames, rules it authorises (SGP.22 v2) and its eIMs (SGP.32 v1).

Request builders and bounded parsers as in `ifpp.wire.es10`.
"""

from __future__ import annotations

from ifpp.errors import WireError
from ifpp.model.chip import Addresses, Authorisation, EimData
from ifpp.model.ids import Iccid
from ifpp.wire import fields
from ifpp.wire.tlv import Tlv, bit_string, integer, read, read_as, write

_NICKNAME, _ADDRESSES, _DEFAULT_ADDRESS, _RAT = 0xBF29, 0xBF3C, 0xBF3F, 0xBF43
_GET_EIM, _ADD_EIM, _DEFAULT_ADDRESS_IOT = 0xBF55, 0xBF57, 0xBF65
_MAX_ADDRESS, _MAX_EIM_ID = 255, 128
_CONSENT = 0


def nickname_request(iccid: Iccid, nickname: str) -> bytes:
    """SetNickname (SGP.22 5.7.21)."""
    return write(_NICKNAME, write(fields.ICCID, iccid.swapped), write(0x90, nickname.encode()))


def parse_nickname(data: bytes) -> int:
    """Return 0 ok, 1 iccidNotFound, 127."""
    return read_as(_NICKNAME, data, what="SetNickname").need(0x80).integer()


def addresses_request() -> bytes:
    """GetEuiccConfiguredAddresses (SGP.22 5.7.3)."""
    return write(_ADDRESSES)


def parse_addresses(data: bytes) -> Addresses:
    """Return both addresses; "" for one that is not set."""
    answer = read_as(_ADDRESSES, data, what="GetEuiccConfiguredAddresses")
    default, root = answer.first(0x80), answer.first(0x81)
    return Addresses(default.text(_MAX_ADDRESS) if default else "", root.text(_MAX_ADDRESS) if root else "")


def default_address_request(address: str, *, iot: bool = False) -> bytes:
    """SetDefaultDpAddress (SGP.22 5.7.4), or with `iot` in the form of SGP.32 v1."""
    return write(_DEFAULT_ADDRESS_IOT if iot else _DEFAULT_ADDRESS, write(0x80, address.encode()))


def parse_default_address(data: bytes, *, iot: bool = False) -> int:
    """Return 0 ok, 127."""
    tag = _DEFAULT_ADDRESS_IOT if iot else _DEFAULT_ADDRESS
    return read_as(tag, data, what="SetDefaultDpAddress").need(0x80).integer()


def rat_request() -> bytes:
    """GetRAT (SGP.22 5.7.22)."""
    return write(_RAT)


def parse_rat(data: bytes) -> tuple[Authorisation, ...]:
    """Return the RulesAuthorisationTable."""
    rows = read_as(_RAT, data, what="GetRAT").need(0xA0).sequence_of(fields.SEQUENCE)
    return tuple(_authorisation(row) for row in rows)


def eims_request() -> bytes:
    """GetEimConfigurationData (SGP.32 v1) of every eIM."""
    return write(_GET_EIM)


def parse_eims(data: bytes) -> tuple[EimData, ...]:
    """Return the eIMs a chip knows."""
    listed = read_as(_GET_EIM, data, what="GetEimConfigurationData").need(0xA0)
    return tuple(_eim(member) for member in listed.sequence_of(fields.SEQUENCE))


def add_eim_request(eim: EimData) -> bytes:
    """AddInitialEim (SGP.32 v1) of one eIM, with its certificate."""
    return write(_ADD_EIM, write(0xA0, _eim_written(eim)))


def parse_add_eim(data: bytes) -> int:
    """Return 0 ok; 1 insufficientMemory, 2 associatedEimAlreadyExists, 3 ciPKUnknown, 5, 6, 7, 127."""
    answer = read_as(_ADD_EIM, data, what="AddInitialEim")
    error = answer.first(0x81)
    if error is not None:
        return error.integer()
    answer.need(0xA0)
    return 0


def _authorisation(row: Tlv) -> Authorisation:
    operators = row.need(0xA1).sequence_of(fields.SEQUENCE)
    flags = row.first(0x82)
    return Authorisation(
        pprs=row.need(0x80).bits(),
        operators=tuple(operator.need(0x80).sized(3).hex() for operator in operators),
        consent=bool(flags) and _CONSENT in (flags.bits() if flags else ()),
    )


def _eim(member: Tlv) -> EimData:
    fqdn, id_type, counter = member.first(0x81), member.first(0x82), member.first(0x83)
    key, protocols = member.first(0xA5), member.first(0x87)
    return EimData(
        id=member.need(0x80).text(_MAX_EIM_ID),
        fqdn=fqdn.text(_MAX_ADDRESS) if fqdn else "",
        id_type=id_type.integer() if id_type else None,
        counter=counter.integer() if counter else None,
        certificate=_certificate(key),
        protocols=protocols.bits() if protocols else frozenset(),
        indirect_download=member.first(0x89) is not None,
    )


def _certificate(key: Tlv | None) -> bytes:
    """eimPublicKeyData, when it is a certificate: tagged A1 implicitly, it is a SEQUENCE elsewhere."""
    found = key.first(0xA1) if key else None
    return write(fields.SEQUENCE, found.value) if found else b""


def _eim_written(eim: EimData) -> bytes:
    try:
        content = read(eim.certificate, what="eIM certificate").value if eim.certificate else b""
    except WireError as error:
        raise WireError("the eIM's certificate is no DER object", where=eim.id) from error
    return write(
        fields.SEQUENCE,
        write(0x80, eim.id.encode()),
        write(0x81, eim.fqdn.encode()) if eim.fqdn else b"",
        write(0x82, integer(eim.id_type)) if eim.id_type is not None else b"",
        write(0x83, integer(eim.counter)) if eim.counter is not None else b"",
        write(0xA5, write(0xA1, content)) if content else b"",
        write(0x87, bit_string(eim.protocols)) if eim.protocols else b"",
        write(0x89) if eim.indirect_download else b"",
    )
