"""The steps of a recipe that come after the load, carried out on one chip. Blocking; safe to repeat from the start."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from ifpp.errors import CardError, SupplyError, TransportError
from ifpp.fpa import configure
from ifpp.fpa.chip import Chip, Identity
from ifpp.fpa.final import Expected, differences, read_state, seal_differences
from ifpp.fpa.seal import Seal, delete_keys, lock
from ifpp.hw.network import NetworkPort, Registration, wait_registered
from ifpp.model.chip import EimData, Permit, Tre, version_text
from ifpp.model.ids import Eid, Iccid
from ifpp.model.recipe import (
    Connect,
    DefaultAddress,
    DeleteKeys,
    Disable,
    Eim,
    Enable,
    Fit,
    Lock,
    Nickname,
    ReadBack,
    Recipe,
    Step,
    promise,
)
from ifpp.trust.eim import certificate_digest
from ifpp.wire.fpx import Es10fCodec

Evidence = dict[str, str]
_ID_TYPES = {"oid": 1, "fqdn": 2, "proprietary": 3}
_PROTOCOLS = ("retrieve-https", "retrieve-coaps", "inject-https", "inject-coaps", "proprietary")


class Steps:
    """One chip on its way through a recipe. `profiles`: type of each that was loaded; `eim`: see `eim_data`.

    `seal` is what the final read-back found; None before.
    """

    def __init__(
        self, chip: Chip, eid: Eid, recipe: Recipe, profiles: Mapping[Iccid, str], eim: EimData | None = None
    ) -> None:
        self._chip = chip
        self._eid = eid
        self._where = f"EID {eid}"
        self._expected = Expected(promise(recipe), profiles, eim)
        self._deleted = 0
        self._together = _together(recipe)
        self.differences: tuple[str, ...] = ()
        self.seal: Seal | None = None

    def perform(self, step: Step, permit: Permit | None = None) -> Evidence:
        """Carry out one step and return what it leaves in the record; raises the faults of its row in `STEPS`."""
        match step:
            case DeleteKeys() | Lock():
                return self._delete(step, permit)
            case Enable() | Disable():
                return self._switch(step)
            case Connect():
                return connect(self._chip, step, self._where)
            case ReadBack():
                return self._read_back()
        return self._set(step)

    def _delete(self, step: DeleteKeys | Lock, permit: Permit | None) -> Evidence:
        if isinstance(step, DeleteKeys) and self._together:
            return {"with": Lock().name}
        work = delete_keys if isinstance(step, DeleteKeys) else lock
        deleted = work(self._chip, self._eid, permit)
        self._deleted += deleted
        return {"keys_deleted": str(deleted)}

    def _switch(self, step: Enable | Disable) -> Evidence:
        iccid = self._iccid(step.profile)
        work = configure.enable if isinstance(step, Enable) else configure.disable
        return {"iccid": str(iccid), "switched": work(self._chip, iccid)}

    def _set(self, step: Step) -> Evidence:
        match step:
            case Nickname():
                iccid = self._iccid(step.profile)
                configure.set_nickname(self._chip, iccid, step.text)
                return {"iccid": str(iccid), "nickname": step.text}
            case DefaultAddress():
                configure.set_default_address(self._chip, step.address, self._where)
                return {"address": step.address}
            case Eim():
                return self._add_eim()
        raise ValueError(step.name)

    def _iccid(self, profile_type: str) -> Iccid:
        """The profile a step means; the fit check has seen that there is one."""
        profiles = self._expected.profiles
        return next(iccid for iccid, known in profiles.items() if profile_type in ("", known))

    def _add_eim(self) -> Evidence:
        eim = self._expected.eim
        assert eim is not None  # noqa: S101 - whoever has such a step has checked its certificate
        done = configure.add_eim(self._chip, eim, self._where)
        return {"eim": eim.id, "certificate": certificate_digest(eim.certificate), "added": done}

    def _read_back(self) -> Evidence:
        """Raises CardError EUICC.NOT_SEALED, READBACK.DIFFERS, which name each difference."""
        state = read_state(self._chip, self._expected.promise, self._deleted)
        self.differences = differences(self._expected, state)
        if self.differences:
            unsealed = seal_differences(self._expected.promise, state.seal)
            code = "EUICC.NOT_SEALED" if unsealed else "READBACK.DIFFERS"
            raise CardError(code, "; ".join(self.differences), where=self._where)
        self.seal = state.seal
        return {
            "profiles": str(len(state.profiles)),
            "enabled": ", ".join(str(each.iccid) for each in state.profiles if each.state),
            "keys_remaining": str(state.seal.keys_remaining),
            "locked": str(state.seal.locked).lower(),
            "assistant_answers": str(state.seal.lpa_answers).lower(),
            **({} if state.address is None else {"address": state.address}),
            **({} if state.eims is None else {"eims": ", ".join(each.id for each in state.eims)}),
        }


def permit_requests(recipe: Recipe, codec: Es10fCodec) -> dict[str, bytes]:
    """The commands of a recipe that chips may obey the device maker alone for, by the name of their step."""
    wanted = {} if _together(recipe) or not recipe.all(DeleteKeys) else {DeleteKeys().name: codec.delete_request()}
    return wanted | ({Lock().name: codec.lock_request(delete_first=True)} if recipe.all(Lock) else {})


def _together(recipe: Recipe) -> bool:
    """Whether the lock follows at once on the deletion: then one of its commands may do both."""
    return any(isinstance(one, DeleteKeys) and isinstance(two, Lock) for one, two in pairwise(recipe.steps))


def connect(chip: Chip, step: Connect, where: str) -> Evidence:
    """See the enabled profile in a network; raises CONNECT.NO_MODEM, CONNECT.NO_COVERAGE, CONNECT.DENIED."""
    port = chip.port
    if not isinstance(port, NetworkPort):
        raise CardError("CONNECT.NO_MODEM", "this head has no modem", where=port.url)
    stands, seconds = wait_registered(port, step.within_s, roaming=step.roaming)
    if stands is Registration.HOME or (stands is Registration.ROAMING and step.roaming):
        return {"network": stands.name.lower(), "seconds": f"{seconds:.1f}"}
    detail = f"{stands.name.lower()} after {step.within_s:g} s"
    if stands is Registration.DENIED:
        raise SupplyError("CONNECT.DENIED", detail, where=where)
    raise TransportError("CONNECT.NO_COVERAGE", detail, where=where)  # three in a row: the head's antenna


# ---- before anything is spent ------------------------------------------------------------------------


def check_kind(identity: Identity, fit: Fit) -> None:
    """Hold what the chip says it is against what the recipe wants; raises CardError FIT.KIND."""
    info2 = identity.info2
    said = (
        (fit.chip, info2.kind, "a chip of the kind"),
        (fit.tre, info2.form or "not said", "a chip that is"),
    )
    for wanted, found, what in said:
        if wanted not in ("any", found):
            raise CardError("FIT.KIND", f"{what} {wanted} is wanted, this one: {found}", where=f"EID {identity.eid}")
    if not info2.tre_product.startswith(fit.tre_product):
        detail = f"TRE product {fit.tre_product!r} is wanted, this one: {info2.tre_product!r}"
        raise CardError("FIT.KIND", detail, where=f"EID {identity.eid}")


def told(identity: Identity) -> Evidence:
    """What a chip said of itself, for the unit's record."""
    info2 = identity.info2
    tre = "" if info2.tre is None else ", ".join(bit.name.lower() for bit in Tre if bit in info2.tre)
    found = {
        "kind": info2.kind,
        "svn": version_text(max(info2.svn, info2.highest_svn)),
        "iot": ", ".join(map(version_text, info2.iot_versions)),
        "tre": tre,
        "tre_product": info2.tre_product,
        "free_nvm": str(info2.free_nvm),
        "keys": str(identity.status.otk_remaining),
    }
    return {key: value for key, value in found.items() if value}


def eim_data(step: Eim, certificate: bytes) -> EimData:
    """What a chip gets to know of an eIM whose certificate (DER) was checked."""
    return EimData(
        id=step.id,
        fqdn=step.fqdn,
        id_type=_ID_TYPES[step.id_type],
        counter=step.counter,
        certificate=certificate,
        protocols=frozenset(_PROTOCOLS.index(name) for name in step.protocols),
        indirect_download=step.indirect_download,
    )
