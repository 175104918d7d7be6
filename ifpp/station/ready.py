"""Before anything is spent: can this recipe be carried out on this chip, at this head, with what the store has?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from ifpp.errors import CardError, SupplyError
from ifpp.fpa.chip import Identity
from ifpp.fpa.steps import check_kind, eim_data
from ifpp.hw.network import NetworkPort
from ifpp.hw.port import CardPort
from ifpp.model.chip import EimData
from ifpp.model.messages import Claim, ClaimedPackage
from ifpp.model.recipe import Connect, Eim, Fit, Recipe, refers
from ifpp.station.downloads import is_code
from ifpp.trust.eim import check_eim


def check(recipe: Recipe, identity: Identity, claim: Claim, port: CardPort, at: datetime) -> EimData | None:
    """Refuse what cannot be carried out to its end; returns the eIM the chip is to get, its certificate checked.

    Raises CardError FIT.KIND, CONNECT.NO_MODEM, SupplyError RECIPE.PROFILES, VerificationError EIM.CERTIFICATE.
    """
    for fit in recipe.all(Fit):
        check_kind(identity, fit)
    _check_source(recipe, [*claim.unresolved, *claim.packages], identity)
    if recipe.all(Connect) and not isinstance(port, NetworkPort):
        raise CardError("CONNECT.NO_MODEM", "this head has no modem", where=port.url)
    _check_profiles(recipe, [*claim.installed, *claim.unresolved, *claim.packages], identity)
    for step in recipe.all(Eim):
        if identity.info2.kind != "iot":
            raise CardError("FIT.KIND", "an eIM is for chips of the kind iot", where=f"EID {identity.eid}")
        return eim_data(step, check_eim(step, at))
    return None


def _check_source(recipe: Recipe, packages: Sequence[ClaimedPackage], identity: Identity) -> None:
    """A recipe either loads packages or downloads with activation codes, and the store has the one or the other."""
    other = [package for package in packages if is_code(package) is not recipe.online]
    if other:
        there, wanted = ("packages", "downloads") if recipe.online else ("activation codes", "loads packages")
        detail = f"the store has {there} for it, the recipe {recipe.name} {wanted}"
        raise SupplyError("RECIPE.PROFILES", detail, where=f"EID {identity.eid}")


def _check_profiles(recipe: Recipe, packages: Sequence[ClaimedPackage], identity: Identity) -> None:
    """An emptied unit has no packages: its recipe ends before it speaks of a profile."""
    there = [package.profile_type for package in packages]
    where = f"EID {identity.eid}"
    if there and recipe.profiles and Counter(there) != Counter(recipe.profiles):
        detail = f"the recipe loads {', '.join(recipe.profiles)}; the store has {', '.join(there)}"
        raise SupplyError("RECIPE.PROFILES", detail, where=where)
    if refers(recipe) and len(there) > 1 and not recipe.profiles:
        raise SupplyError("RECIPE.PROFILES", f"the recipe speaks of one profile, there are {len(there)}", where=where)


def in_order(recipe: Recipe, packages: Sequence[ClaimedPackage]) -> list[ClaimedPackage]:
    """The packages in the order in which the recipe loads them; without one, as the store has it."""
    place = {name: number for number, name in enumerate(recipe.profiles)}
    return sorted(packages, key=lambda package: place.get(package.profile_type, 0))
