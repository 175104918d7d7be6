"""Pre-flight: does this package fit this chip? Asked of what the chip has said already, before a key is spent.

Everything that can be told from EUICCInfo2 and from the clear parts of package and order; no command is sent for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ifpp.errors import CardError, SupplyError, VerificationError
from ifpp.fpa.chip import Identity
from ifpp.fpa.load import Order
from ifpp.model.chip import EuiccInfo2, RspCapability, StoreMetadata, firmware_name, version_text
from ifpp.trust.chain import ci_key_id

_TEST_CLASS = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a line asks of a chip. `memory_factor`: free memory as a multiple of the packages.

    `svn`, `profile_version`: the lowest accepted, 3 bytes, b"" for any (the profile's own header is ciphertext).
    `denied`: profile type -> names of firmware (`firmware_name`) it must not be loaded into.
    """

    memory_factor: float = 1.0
    svn: bytes = b""
    profile_version: bytes = b""
    denied: Mapping[str, Collection[str]] = field(default_factory=dict)


def preflight(identity: Identity, orders: Sequence[Order], wanted: Wanted) -> None:
    """Refuse what cannot fit, all packages of a unit together; nothing was sent when it raises.

    Raises VerificationError EID.MISMATCH, CardError EUICC.NO_MEMORY, FIT.SVN, FIT.PROFILE_VERSION, FIT.CAPABILITY,
    SupplyError FIT.CI_KEY, FIT.RULE, FIT.DENIED.
    """
    # way of a unit, step 5
    info2, where = identity.info2, f"EID {identity.eid}"
    for order in orders:
        if identity.eid != order.eid:
            raise VerificationError("EID.MISMATCH", f"the package is bound to EID {order.eid}", where=where)
        _check_denied(identity, order.profile_type, wanted)
    if not orders:
        return
    _check_versions(info2, wanted, where)
    for order in orders:
        _check_ci(info2, order)
        _check_metadata(info2, order.bpp.metadata, several=len(orders) > 1)
    needed = round(sum(len(order.bpp.raw) for order in orders) * wanted.memory_factor)
    if info2.free_nvm < needed:
        raise CardError("EUICC.NO_MEMORY", f"{info2.free_nvm} bytes free, {needed} needed", where=where)


def preflight_online(identity: Identity, profile_types: Sequence[str], wanted: Wanted) -> None:
    """As `preflight`, of profiles of which nothing but their type is known yet: the chip itself judges the rest.

    Raises CardError FIT.SVN, FIT.PROFILE_VERSION, FIT.KIND while one-time keys remain, SupplyError FIT.DENIED.
    """
    if not profile_types:
        return
    where = f"EID {identity.eid}"
    for profile_type in profile_types:
        _check_denied(identity, profile_type, wanted)
    _check_versions(identity.info2, wanted, where)
    if left := identity.status.otk_remaining:
        detail = f"a chip without one-time keys is wanted, it has {left}: nothing is downloaded while they remain"
        raise CardError("FIT.KIND", detail, where=where)


def _check_denied(identity: Identity, profile_type: str, wanted: Wanted) -> None:
    firmware = firmware_name(identity.eid, identity.info2)
    if firmware in wanted.denied.get(profile_type, ()):
        detail = f"firmware {firmware} is on the denylist for {profile_type}"
        raise SupplyError("FIT.DENIED", detail, where=f"EID {identity.eid}")


def _check_versions(info2: EuiccInfo2, wanted: Wanted, where: str) -> None:
    svn = max(info2.svn, info2.highest_svn)
    if svn < wanted.svn:
        raise CardError("FIT.SVN", f"the chip has {version_text(svn)}, {version_text(wanted.svn)} wanted", where=where)
    profile = max(info2.profile_version, *info2.further_profile_versions, b"")
    if profile < wanted.profile_version:
        detail = f"the chip takes {version_text(profile)}, {version_text(wanted.profile_version)} wanted"
        raise CardError("FIT.PROFILE_VERSION", detail, where=where)


def _check_ci(info2: EuiccInfo2, order: Order) -> None:
    """The chip will verify CERT.DPpb up to a CI key it knows (SGP.22 4.5.2)."""
    key_id = ci_key_id((order.prepare.smdp_certificate, *order.prepare.other_certificates))
    if key_id not in info2.ci_pkids_verification:
        known = ", ".join(known.hex() for known in info2.ci_pkids_verification) or "none"
        raise SupplyError("FIT.CI_KEY", f"its CI key is {key_id.hex()}, the chip knows {known}", where=_name(order))


def _check_metadata(info2: EuiccInfo2, metadata: StoreMetadata, *, several: bool) -> None:
    where = f"ICCID {metadata.iccid}"
    needs = {
        RspCapability.ADDITIONAL_PROFILE: several,
        RspCapability.TEST_PROFILE: metadata.profile_class == _TEST_CLASS,
        RspCapability.SERVICE_SPECIFIC_DATA: metadata.service_data,
        RspCapability.IOT_SPECIFIC_METADATA: metadata.iot,
    }
    lacking = [bit.name.lower() for bit, needed in needs.items() if needed and bit not in info2.rsp_capability]
    if lacking:
        raise CardError("FIT.CAPABILITY", f"the chip has not {', '.join(lacking)}", where=where)
    forbidden = metadata.pprs & info2.forbidden_pprs
    if forbidden:
        rules = ", ".join(_rule(bit) for bit in sorted(forbidden))
        raise SupplyError("FIT.RULE", f"the profile sets {rules}, which the chip forbids", where=where)


def _rule(bit: int) -> str:
    """Name a profile policy rule (SGP.22 PprIds)."""
    return "pprUpdateControl" if bit == 0 else f"PPR{bit}"


def _name(order: Order) -> str:
    return f"ICCID {order.iccid}"
