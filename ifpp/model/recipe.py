"""A recipe: the named, versioned list of steps a station runs on one chip, and what such a chip then is.

Pure. Steps are data; `ifpp.fpa` and `ifpp.station` carry them out. What a step tells, which faults end it and what may
be tried again stands in `STEPS`, one row each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, TypeVar

import msgspec

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
_MaybeText = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Fqdn = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?)?$")]
_MAX_NICKNAME = 64  # bytes of UTF-8 (SGP.22 5.7.21)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="do"):
    """One step; `do` is its name in recipe files."""

    @property
    def name(self) -> str:
        return str(self.__struct_config__.tag)


class Identify(Step, frozen=True, tag="identify"):
    """Power the chip, read EID, EUICCInfo2 and the state of its factory services; claim what it is to get."""


class Fit(Step, frozen=True, tag="fit"):
    """Refuse what cannot work before anything is spent: chip against recipe and packages, recipe against itself.

    `chip`: the kind the chip says it is (SGP.32 chips name an IoT version); `tre`: "discrete" or "integrated", as its
    EUICCInfo2 says; `tre_product`: the beginning of its treProductReference.
    """

    chip: Literal["any", "consumer", "iot"] = "any"
    tre: Literal["any", "discrete", "integrated"] = "any"
    tre_product: _MaybeText = ""


class Load(Step, frozen=True, tag="load"):
    """Load the packages of the claim; with `profiles` (types as ordered) exactly those, in this order."""

    profiles: tuple[_Text, ...] = ()


class Download(Step, frozen=True, tag="download"):
    """Fetch the claim's profiles over the network, with activation codes (SGP.22); `profiles` as of load."""

    profiles: tuple[_Text, ...] = ()


class Notify(Step, frozen=True, tag="notify"):
    """Take over what the chip keeps for its SM-DP+ and deliver it, now or when they can be reached."""


class Verify(Step, frozen=True, tag="verify"):
    """Judge each result and read each profile back, before the next is loaded on top of it."""


class DeleteKeys(Step, frozen=True, tag="delete-keys"):
    """Delete the unused one-time keys (SGP.41 EUICCF03)."""


class Enable(Step, frozen=True, tag="enable"):
    """Enable a profile by its type, "" = the only one, and reset the chip; one enabled before is disabled by it."""

    profile: _MaybeText = ""


class Disable(Step, frozen=True, tag="disable"):
    """Disable the enabled profile again, such as after a connectivity test."""

    profile: _MaybeText = ""


class Connect(Step, frozen=True, tag="connect"):
    """See the enabled profile registered in a network through the head's modem (SGP.41 EUICCF05).

    `within_s`: the deadline in seconds; `roaming`: whether a visited network will do.
    """

    within_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 60.0
    roaming: bool = True


class Nickname(Step, frozen=True, tag="nickname"):
    """Name a profile on the chip; "" takes its name away."""

    text: _MaybeText
    profile: _MaybeText = ""


class DefaultAddress(Step, frozen=True, tag="default-address"):
    """Set the default SM-DP+ address, a FQDN; "" takes it away."""

    address: _Fqdn


class Eim(Step, frozen=True, tag="eim"):
    """Make an eIM known to an IoT chip that knows none (SGP.32 AddInitialEim).

    `certificate`: the eIM's certificate, `issuer`: that of who issued it, "" = itself; both PEM, in a recipe file the
    names of files beside it. `counter`: where its packages begin to count.
    """

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
    certificate: Annotated[str, msgspec.Meta(min_length=1)]
    issuer: str = ""
    fqdn: _Fqdn = ""
    id_type: Literal["oid", "fqdn", "proprietary"] = "proprietary"
    counter: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    protocols: tuple[
        Literal["retrieve-https", "retrieve-coaps", "inject-https", "inject-coaps", "proprietary"], ...
    ] = ()
    indirect_download: bool = False


class Lock(Step, frozen=True, tag="lock"):
    """Close the factory services for good (SGP.41 GENS13)."""


class ReadBack(Step, frozen=True, tag="read-back"):
    """Read the chip and compare it with all the recipe promised.

    `others`: whether the chip may hold profiles this recipe has not loaded.
    """

    others: Literal["refuse", "allow"] = "refuse"


class CleanToShip(Step, frozen=True, tag="clean-to-ship"):
    """Call the unit clean to ship; without this step it ends in stock."""


AnyStep = (
    Identify
    | Fit
    | Load
    | Download
    | Notify
    | Verify
    | DeleteKeys
    | Enable
    | Disable
    | Connect
    | Nickname
    | DefaultAddress
    | Eim
    | Lock
    | ReadBack
    | CleanToShip
)
S = TypeVar("S", bound=Step)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A recipe as its file says it; `about` is for people."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
    version: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,32}$")]
    steps: Annotated[tuple[AnyStep, ...], msgspec.Meta(max_length=64)] = msgspec.field(name="step")
    about: str = ""

    def all(self, kind: type[S]) -> tuple[S, ...]:
        """Its steps of a kind, in order."""
        return tuple(step for step in self.steps if isinstance(step, kind))

    @property
    def profiles(self) -> tuple[str, ...]:
        """The profile types it loads or downloads, in order; () = whatever the claim holds."""
        loads: tuple[Load | Download, ...] = (*self.all(Load), *self.all(Download))
        return tuple(name for step in loads for name in step.profiles)

    @property
    def online(self) -> bool:
        """Whether its profiles come over the network, with activation codes."""
        return bool(self.all(Download))

    @property
    def ships(self) -> bool:
        return bool(self.all(CleanToShip))


@lru_cache(256)
def digest(recipe: Recipe) -> str:
    """SHA-256 of what a recipe says, its comments and layout left out: two files that say the same have the same."""
    return hashlib.sha256(msgspec.json.encode(recipe, order="sorted")).hexdigest()


@dataclass(frozen=True, slots=True)
class Row:
    """What a step leaves in the unit's record, the faults that are its own, and what may be repeated."""

    evidence: str
    faults: tuple[str, ...]
    again: str


STEPS: dict[str, Row] = {
    "identify": Row("EID, versions, kind, TRE, free memory, keys", ("CONTACT.NO_ATR", "EUICC.NO_IFPP"), "re-seat"),
    "fit": Row("the profiles it is to hold", ("FIT.KIND", "RECIPE.PROFILES", "EIM.CERTIFICATE"), "no"),
    "load": Row("ICCID, commands, time, signed result", ("EUICC.LOAD_REFUSED", "EUICC.INTERRUPTED"), "same package"),
    "download": Row("SM-DP+, ICCID, commands, round trips, time", ("RSP.UNREACHABLE", "RSP.USED_UP"), "same code"),
    "notify": Row("how many were delivered, how many wait", (), "by the station, until taken"),
    "verify": Row("ICCID and AID in the chip's own list", ("PIR.READBACK",), "no"),
    "delete-keys": Row("keys deleted", ("EUICC.NOT_SEALED", "EUICC.NOT_AUTHORISED"), "re-seat"),
    "enable": Row("ICCID, what the chip answered", ("EUICC.POLICY", "EUICC.NOT_SWITCHED"), "re-seat"),
    "disable": Row("ICCID, what the chip answered", ("EUICC.POLICY", "EUICC.NOT_SWITCHED"), "re-seat"),
    "connect": Row("network, seconds", ("CONNECT.NO_COVERAGE", "CONNECT.DENIED", "CONNECT.NO_MODEM"), "re-seat"),
    "nickname": Row("ICCID, nickname", ("EUICC.NOT_SET",), "re-seat"),
    "default-address": Row("the address", ("EUICC.NOT_SET",), "re-seat"),
    "eim": Row("eIM, digest of its certificate", ("EIM.CERTIFICATE", "EIM.OTHER", "EUICC.NOT_SET"), "re-seat"),
    "lock": Row("keys deleted with it", ("EUICC.NOT_SEALED", "EUICC.NOT_AUTHORISED"), "re-seat"),
    "read-back": Row("all that was read, and each difference", ("READBACK.DIFFERS", "EUICC.NOT_SEALED"), "re-seat"),
    "clean-to-ship": Row("the proof of the seal", (), "no"),
}


# ---- can it work? ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a recipe cannot work: the number of the step (from 0; None: the whole), what is wrong, what to do."""

    step: int | None
    what: str
    advice: str


_BEGIN = (Identify, Fit, Load, Verify)
_BEGIN_ONLINE = (Identify, Fit, Download)
_FIELD = (Enable, Disable, Connect, Nickname, DefaultAddress, Eim)
_AGAIN = (Enable, Disable, Connect, Nickname, Notify)  # all others come once


def flaws(recipe: Recipe) -> Iterator[Flaw]:
    """Yield what makes a recipe one that no chip can be taken through, in the order of its steps."""
    begin: tuple[type[Step], ...] = _BEGIN_ONLINE if recipe.online else _BEGIN
    for place, kind in enumerate(begin):
        if place >= len(recipe.steps) or not isinstance(recipe.steps[place], kind):
            wanted = ", ".join(str(each.__struct_config__.tag) for each in begin)
            number = min(place, len(recipe.steps) - 1) if recipe.steps else None
            yield Flaw(number, "it begins otherwise", f"begin with {wanted}")
            return
    if len(set(recipe.profiles)) < len(recipe.profiles):
        yield Flaw(2, "one profile type comes twice", "name each type once")
    done: list[Step] = []
    for number, step in enumerate(recipe.steps):
        if number >= len(begin):
            yield from _misplaced(recipe, number, step, done)
        done.append(step)


def _misplaced(recipe: Recipe, number: int, step: Step, done: list[Step]) -> Iterator[Flaw]:
    def before(*kinds: type[Step]) -> bool:
        return any(isinstance(each, kinds) for each in done)

    if before(type(step)) and not isinstance(step, _AGAIN):
        yield Flaw(number, f"{step.name} comes a second time", "remove one of the two")
    if before(CleanToShip):
        yield Flaw(number, "it comes after clean-to-ship", "make clean-to-ship the last step")
    if before(ReadBack) and not isinstance(step, CleanToShip):
        yield Flaw(number, f"{step.name} comes after the final read-back", "read back after all that changes the chip")
    if recipe.online:
        yield from _online_flaws(number, step, read_back=before(ReadBack))
    else:
        yield from _factory_flaws(number, step, keys_gone=before(DeleteKeys), sealed=before(Lock) and before(ReadBack))
    if isinstance(step, Enable | Disable | Nickname):
        yield from _profile_flaws(recipe, number, step)
    enabled = _enabled(recipe, done)
    if isinstance(step, Connect) and enabled is None:
        yield Flaw(number, "no profile is enabled here", "put enable before it")
    if isinstance(step, Disable) and enabled != _named(recipe, step.profile):
        yield Flaw(number, "this profile is not enabled here", "name the one that was enabled before it")
    if isinstance(step, Nickname) and len(step.text.encode()) > _MAX_NICKNAME:
        yield Flaw(number, f"the nickname has more than {_MAX_NICKNAME} bytes", "shorten it")


def _online_flaws(number: int, step: Step, *, read_back: bool) -> Iterator[Flaw]:
    if isinstance(step, Load | Verify):
        yield Flaw(number, f"{step.name} does not go with download", "make it a recipe of its own")
    if isinstance(step, CleanToShip) and not read_back:
        yield Flaw(number, "it was not read back before", "put read-back before it")


def _factory_flaws(number: int, step: Step, *, keys_gone: bool, sealed: bool) -> Iterator[Flaw]:
    if isinstance(step, Notify):
        yield Flaw(number, "nothing of what is loaded offline is told to an SM-DP+", "remove it")
    if isinstance(step, (*_FIELD, Lock)) and not keys_gone:
        yield Flaw(number, f"no chip takes {step.name} while one-time keys remain", "put delete-keys before it")
    if isinstance(step, CleanToShip) and not sealed:
        yield Flaw(number, "it was not locked and read back before", "put lock and read-back before it")


def _profile_flaws(recipe: Recipe, number: int, step: Enable | Disable | Nickname) -> Iterator[Flaw]:
    loaded = recipe.profiles
    if step.profile and step.profile not in loaded:
        known = ", ".join(loaded) or "none by name"
        what = f"{step.profile!r} is not loaded by this recipe ({known})"
        yield Flaw(number, what, f"name it in {'download' if recipe.online else 'load'}: profiles = [...]")
    if not step.profile and len(loaded) > 1:
        yield Flaw(number, "it does not say which of the profiles", f'write profile = "{loaded[0]}"')


def _named(recipe: Recipe, profile: str) -> str:
    """The type a step means: the only one where it does not say."""
    return recipe.profiles[0] if not profile and len(recipe.profiles) == 1 else profile


def _enabled(recipe: Recipe, steps: Iterable[Step]) -> str | None:
    """The type of the profile that is enabled after these steps; None: none is."""
    enabled = None
    for step in steps:
        if isinstance(step, Enable):
            enabled = _named(recipe, step.profile)
        elif isinstance(step, Disable):
            enabled = None
    return enabled


def refers(recipe: Recipe) -> bool:
    """Whether a step speaks of "the only profile"."""
    return any(not step.profile for step in recipe.steps if isinstance(step, Enable | Disable | Nickname))


# ---- what it promises --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Promised:
    """One profile as a recipe leaves it; `nickname` None: nothing is said of it."""

    enabled: bool
    nickname: str | None


@dataclass(frozen=True, slots=True)
class Promise:
    """What a chip is once a recipe has ended: profiles by type ("" = each that has no name of its own).

    `address`, `eim` None: nothing is said of them. `keys_gone`, `locked`: as its steps say, and of every chip that
    downloads: it has no factory services, or has closed them. `others`: it may hold other profiles.
    """

    profiles: dict[str, Promised]
    address: str | None
    eim: Eim | None
    keys_gone: bool
    locked: bool
    others: bool

    def of(self, profile_type: str) -> Promised:
        """What it says of a profile of this type."""
        return self.profiles.get(profile_type, self.profiles.get("", Promised(enabled=False, nickname=None)))


def promise(recipe: Recipe) -> Promise:
    """What a chip must show after the steps of a recipe."""
    nicknames = {_named(recipe, step.profile): step.text for step in recipe.all(Nickname)}
    enabled = _enabled(recipe, recipe.steps)
    addresses, eims, reads = recipe.all(DefaultAddress), recipe.all(Eim), recipe.all(ReadBack)
    return Promise(
        profiles={name: Promised(name == enabled, nicknames.get(name)) for name in recipe.profiles or ("",)},
        address=addresses[0].address if addresses else None,
        eim=eims[0] if eims else None,
        keys_gone=bool(recipe.all(DeleteKeys)) or recipe.online,
        locked=bool(recipe.all(Lock)) or (recipe.online and recipe.ships),
        others=any(step.others == "allow" for step in reads),
    )


# ---- the recipes a line has without files, and which one a job order wants ---------------------------

_ABOUT_LOAD = "Load, verify, delete unused keys, lock: the profiles stay disabled."
IFPP_LOAD = Recipe(
    "ifpp-load",
    "1",
    (Identify(), Fit(), Load(), Verify(), DeleteKeys(), Lock(), ReadBack(others="allow"), CleanToShip()),
    _ABOUT_LOAD,
)
IFPP_STOCK = Recipe(
    "ifpp-stock", "1", (Identify(), Fit(), Load(), Verify()), "Load and verify; the unit stays open for rework."
)
