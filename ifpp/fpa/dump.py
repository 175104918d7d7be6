"""Everything a chip tells, as plain values for JSON; it is read and not changed.

What a chip does not answer is None, with the reason under `unanswered`. Bytes are hex.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from ifpp.errors import IfppError, TransportError
from ifpp.fpa.chip import Chip
from ifpp.fpa.configure import eims
from ifpp.model.chip import (
    Authorisation,
    EimData,
    EuiccInfo2,
    FpaState,
    FpaStatus,
    NotificationEvent,
    OtkList,
    OtkState,
    PirEntry,
    ProfileInfo,
    RspCapability,
    Tre,
    number_name,
    version_text,
)
from ifpp.wire import configuration, es10

SCHEMA = "chip/1.0"
T = TypeVar("T")
Document = dict[str, Any]


def dump(chip: Chip) -> Document:
    """Read all there is of a powered chip; raises TransportError, and what GetEID raises."""
    found: Document = {"schema": SCHEMA, "atr": chip.atr.hex(), "eid": str(chip.eid())}
    refused: dict[str, str] = {}

    def ask(name: str, read: Callable[[], T], shape: Callable[[T], Any]) -> None:
        try:
            found[name] = shape(read())
        except TransportError:
            raise
        except IfppError as error:
            found[name], refused[name] = None, f"{error.code}: {error.detail}"

    ask("info2", lambda: es10.parse_info2(chip.command(es10.info2_request())), _info2)
    ask("factory_services", chip.status, _services)
    ask("one_time_keys", chip.keys, _keys)
    ask("profiles", chip.profiles, lambda said: [_profile(profile) for profile in said])
    ask("notifications", chip.notifications, _notifications)
    ask("addresses", lambda: configuration.parse_addresses(chip.command(configuration.addresses_request())), asdict)
    ask("rules", lambda: configuration.parse_rat(chip.command(configuration.rat_request())), _rules)
    ask("eims", lambda: eims(chip), lambda said: [_eim(each) for each in said])
    ask("assistant_answers", chip.answers_field_lpa, bool)
    found["unanswered"] = refused
    return found


def _info2(info2: EuiccInfo2) -> Document:
    return {
        "kind": info2.kind,
        "svn": version_text(max(info2.svn, info2.highest_svn)),
        "firmware": version_text(info2.firmware),
        "profile_version": version_text(info2.profile_version),
        "further_profile_versions": [version_text(each) for each in info2.further_profile_versions],
        "iot_versions": [version_text(each) for each in info2.iot_versions],
        "ipa_mode": info2.ipa_mode,
        "tre": None if info2.tre is None else _names(Tre, info2.tre),
        "tre_product": info2.tre_product,
        "free_nvm": info2.free_nvm,
        "capabilities": _names(RspCapability, info2.rsp_capability),
        "forbidden_rules": sorted(info2.forbidden_pprs),
        "ci_verification": [key.hex() for key in info2.ci_pkids_verification],
        "ci_signing": [key.hex() for key in info2.ci_pkids_signing],
        "raw": info2.raw.hex(),
    }


def _services(status: FpaStatus) -> Document:
    state = number_name(FpaState, status.state)
    return {"state": state, "keys_remaining": status.otk_remaining, "flags": status.flags}


def _keys(listed: OtkList) -> list[Document]:
    return [
        {"slot": key.slot, "otk_id": key.otk_id.hex(), "state": number_name(OtkState, key.state)} for key in listed.keys
    ]


def _notifications(entries: tuple[PirEntry, ...]) -> list[Document]:
    return [
        {
            "seq": entry.seq_number,
            "events": _names(NotificationEvent, entry.events),
            "iccid": _text(entry.iccid),
        }
        for entry in entries
    ]


def _profile(profile: ProfileInfo) -> Document:
    return {
        "iccid": _text(profile.iccid),
        "aid": profile.aid.hex(),
        "state": profile.state,
        "class": profile.profile_class,
        "nickname": profile.nickname,
        "name": profile.name,
        "provider": profile.provider,
        "rules": sorted(profile.pprs),
    }


def _rules(rows: tuple[Authorisation, ...]) -> list[Document]:
    return [{"rules": sorted(row.pprs), "operators": list(row.operators), "consent": row.consent} for row in rows]


def _eim(eim: EimData) -> Document:
    return {
        "id": eim.id,
        "fqdn": eim.fqdn,
        "id_type": eim.id_type,
        "counter": eim.counter,
        "certificate_b64": base64.b64encode(eim.certificate).decode(),
        "protocols": sorted(eim.protocols),
        "indirect_download": eim.indirect_download,
    }


def _names(kind: type[NotificationEvent | RspCapability | Tre], numbers: frozenset[int]) -> list[str]:
    return [number_name(kind, number) for number in sorted(numbers)]


def _text(value: str | None) -> str | None:
    return None if value is None else str(value)
