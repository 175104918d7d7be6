"""What a unit used up: its packages, and one insertion of the socket; told with the result, in one transaction.

A package is used up once. Who is told of it twice, for the line could not tell in time, knows it by its SHA-256.
"""

from __future__ import annotations

from ifpp.model.clock import parse_utc, uuid7
from ifpp.model.mes import Material
from ifpp.model.messages import ProfileResult, UnitResultEvent
from ifpp.model.states import PackageState
from ifpp.station.records import Events


def used_up(result: UnitResultEvent, *, socket_id: str = "", remaining: int | None = None) -> Events:
    """Return the `S/evt/material` events of one result; `remaining` insertions are left to the socket."""
    told = [
        _of(result, *_what(one), profile_type=one.profile_type, used=installed, spoiled=not installed)
        for one in result.profiles
        if (installed := one.package_state == PackageState.INSTALLED) or _spoiled(one.package_state, one.key_consumed)
    ]
    socket = _of(result, "SOCKET", socket_id or f"{result.node_id}/{result.head_id}", remaining=remaining)
    return [("material", one) for one in (*told, socket)]


def _what(one: ProfileResult) -> tuple[str, str]:
    """A package goes by the SHA-256 of its bytes, an activation code by its number in the books."""
    return ("BPP", one.bpp_sha256) if one.bpp_sha256 else ("CODE", one.package_id)


def _spoiled(state: str, key_consumed: bool) -> bool:
    return state == PackageState.FAILED and key_consumed


def _of(
    result: UnitResultEvent,
    kind: str,
    ref: str,
    *,
    profile_type: str = "",
    used: bool = True,
    spoiled: bool = False,
    remaining: int | None = None,
) -> Material:
    return Material(
        schema="material/1.0",
        id=uuid7(parse_utc(result.ts)),
        ts=result.ts,
        node_id=result.node_id,
        boot_id=result.boot_id,
        kind=kind,
        qty_used=int(used),
        qty_spoiled=int(spoiled),
        remaining=remaining,
        profile_type=profile_type,
        ref=ref,
        unit=result.unit,
        job_order_id=result.job_order_id,
    )
