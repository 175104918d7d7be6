"""The steps of a recipe after the load, on simulated chips that judge each command by themselves."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from ifpp.errors import CardError, IfppError, TransportError, VerificationError
from ifpp.fpa.chip import Chip, Identity
from ifpp.fpa.configure import eims
from ifpp.fpa.final import ChipState, Expected, differences, read_state
from ifpp.fpa.load import load, prepare
from ifpp.fpa.steps import Steps, check_kind, eim_data, told
from ifpp.model.chip import EimData
from ifpp.model.ids import Eid, Iccid
from ifpp.model.recipe import (
    CleanToShip,
    DefaultAddress,
    DeleteKeys,
    Disable,
    Eim,
    Enable,
    Fit,
    Identify,
    Load,
    Lock,
    Nickname,
    ReadBack,
    Recipe,
    Step,
    Verify,
    flaws,
    promise,
)
from ifpp.sim import pki
from ifpp.sim.euicc import isdr
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.eum import Make
from ifpp.sim.fleet import card_contents
from ifpp.sim.tlv import bits, parse, parse_one, tlv
from ifpp.sim.world import JobPlan, build_world
from ifpp.trust.eim import check_eim
from tests.fpa.conftest import Case, cases
from tests.memory_port import MemoryPort

NOW = datetime.now(UTC)
CA = pki.self_signed(pki.name_of("IoT", "eIM CA"), ec.generate_private_key(ec.SECP256R1()))
LEAF = pki.below(CA, pki.EUICC, pki.name_of("IoT", "eIM"))
BEGIN: tuple[Step, ...] = (Identify(), Fit(), Load(("a", "b")), Verify())


def pem(holder: pki.Holder) -> str:
    return holder.certificate.public_bytes(Encoding.PEM).decode()


EIM = Eim(id="eim.example", certificate=pem(LEAF), issuer=pem(CA), fqdn="eim.example", id_type="fqdn", counter=3)


@dataclass(frozen=True)
class Loaded:
    """A chip with profiles a and b, one one-time key left, as it is before each test."""

    inside: Euicc
    eid: Eid
    profiles: dict[Iccid, str]
    eim: EimData

    def port(self) -> MemoryPort:
        return MemoryPort(Euicc(self.inside.chip.card, copy.deepcopy(self.inside.nvm)))

    def steps(self, chip: Chip, *steps: Step) -> Steps:
        return Steps(chip, self.eid, recipe(*steps), self.profiles, self.eim)

    def iccid(self, name: str) -> Iccid:
        return next(iccid for iccid, known in self.profiles.items() if known == name)


def recipe(*steps: Step) -> Recipe:
    return Recipe("r", "1", (*BEGIN, *steps))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    jobs = [JobPlan("JO-1", "TRACKER", "EU", ["st01"], types=("a", "b"))]
    make = Make(iot=True, tre="integrated", tre_product="SOC-7")
    world = build_world(tmp_path_factory.mktemp("r"), units=1, seed=3, jobs=jobs, profile_kb=(4, 5), make=make)
    both = cases(world)
    port = both[0].port()
    chip = Chip(port)
    chip.open()
    for case in both:
        prepare(chip, case.order)
        assert load(chip, case.order, case.key).fault is None
    profiles = {case.order.iccid: name for case, name in zip(both, "ab", strict=True)}
    return Loaded(port.chip, both[0].order.eid, profiles, eim_data(EIM, check_eim(EIM, NOW)))


def opened(loaded: Loaded) -> tuple[Chip, Euicc]:
    port = loaded.port()
    chip = Chip(port)
    chip.open()
    return chip, port.chip


def test_the_way_to_a_device_that_attaches_at_first_power_up(loaded: Loaded) -> None:
    chip, inside = opened(loaded)
    way = (DeleteKeys(), Enable("b"), Nickname("x", "a"), DefaultAddress("smdp.example"), EIM, Lock(), ReadBack())
    steps = loaded.steps(chip, *way)
    evidence = [steps.perform(step) for step in way]
    assert evidence[0] == {"keys_deleted": "1"}
    assert evidence[1] == {"iccid": str(loaded.iccid("b")), "switched": "done"}
    assert evidence[4]["added"] == "done"
    assert evidence[6]["locked"] == "true"
    assert evidence[6]["enabled"] == loaded.iccid("b")
    contents = card_contents(inside)
    assert [profile["enabled"] for profile in contents["profiles"]] == [False, True]
    assert [profile["nickname"] for profile in contents["profiles"]] == ["x", ""]
    assert (contents["default_address"], contents["eims"], contents["fpa_locked"]) == (
        "smdp.example",
        ["eim.example"],
        True,
    )
    assert steps.seal is not None
    assert steps.seal.keys_deleted == 1
    again = loaded.steps(chip, *way)
    assert [again.perform(step).get("switched", again) for step in way][1] == "was so", "once more changes nothing"
    assert again.differences == ()


@pytest.mark.parametrize("step", [Enable("a"), Nickname("x", "a"), DefaultAddress("a.example"), EIM])
def test_no_chip_takes_it_while_one_time_keys_remain(loaded: Loaded, step: Step) -> None:
    chip, inside = opened(loaded)
    before = inside.nvm.to_document()
    with pytest.raises(CardError) as caught:
        loaded.steps(chip, step).perform(step)
    assert caught.value.code in ("EUICC.NOT_SWITCHED", "EUICC.NOT_SET")
    assert inside.nvm.to_document() == before


def test_a_policy_rule_of_an_enabled_profile_forbids_another_one(loaded: Loaded) -> None:
    chip, inside = opened(loaded)
    first = inside.nvm.profiles[0]
    kept = b"".join(node.raw for node in parse(parse_one(first.metadata).value) if node.tag not in (0xB7, 0x99))
    owned = tlv(0xB7, tlv(0x80, bytes.fromhex("00f110"))) + tlv(0x99, bits({1}))
    first.enabled, first.metadata = True, tlv(0xBF25, kept + owned)
    steps = loaded.steps(chip, DeleteKeys(), Enable("b"))
    steps.perform(DeleteKeys())
    for forbidden in (Enable("b"), Disable("a")):
        with pytest.raises(CardError) as caught:
            steps.perform(forbidden)
        assert caught.value.code == "EUICC.POLICY"
    assert [profile.enabled for profile in inside.nvm.profiles] == [True, False]


def test_a_profile_that_is_not_there_cannot_be_enabled(loaded: Loaded) -> None:
    chip, inside = opened(loaded)
    del inside.nvm.profiles[1]
    steps = loaded.steps(chip, DeleteKeys(), Enable("b"))
    steps.perform(DeleteKeys())
    with pytest.raises(CardError, match="does not list"):
        steps.perform(Enable("b"))


def test_a_chip_that_knows_only_the_iot_form_gets_its_address_too(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, inside = opened(loaded)
    steps = loaded.steps(chip, DeleteKeys(), DefaultAddress("smdp.example"))
    steps.perform(DeleteKeys())
    monkeypatch.delitem(isdr._FUNCTIONS, 0xBF3F)
    steps.perform(DefaultAddress("smdp.example"))
    assert inside.nvm.default_dp_address == "smdp.example"
    monkeypatch.delitem(isdr._FUNCTIONS, 0xBF65)
    with pytest.raises(CardError) as caught:
        steps.perform(DefaultAddress("other.example"))
    assert caught.value.code == "EUICC.NOT_SET"


# ---- the eIM ---------------------------------------------------------------------------------------------


def test_a_chip_keeps_its_eim_and_takes_no_other(loaded: Loaded) -> None:
    chip, _ = opened(loaded)
    steps = loaded.steps(chip, DeleteKeys(), EIM)
    steps.perform(DeleteKeys())
    steps.perform(EIM)
    assert eims(chip) == (loaded.eim,)
    assert steps.perform(EIM)["added"] == "was so"
    other = replace(loaded.eim, id="other.example")
    with pytest.raises(CardError) as caught:
        Steps(chip, loaded.eid, recipe(EIM), loaded.profiles, other).perform(EIM)
    assert caught.value.code == "EIM.OTHER"
    assert eims(chip) == (loaded.eim,)


def with_eim(**changes: object) -> Eim:
    return msgspec.structs.replace(EIM, **changes)


def certificate(
    name: str = "eim.example", *, days: int = 0, ca: pki.Holder = CA, usage: str = "digital_signature"
) -> str:
    profile = replace(pki.EUICC, usage=frozenset({usage}), years=1)
    made = pki.below(ca, profile, pki.name_of("IoT", "eIM"), not_before=NOW + timedelta(days=days))
    if not name:
        return pem(made)
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    builder = x509.CertificateBuilder(
        ca.certificate.subject,
        made.certificate.subject,
        made.certificate.public_key(),
        made.certificate.serial_number,
        made.certificate.not_valid_before_utc,
        made.certificate.not_valid_after_utc,
    )
    signed = builder.add_extension(names, critical=False).sign(ca.key, hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


STRANGER = pki.self_signed(pki.name_of("IoT", "eIM CA"), ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize(
    ("eim", "why"),
    [
        (with_eim(certificate="nonsense"), "not a certificate"),
        (with_eim(issuer="nonsense"), "not a certificate"),
        (with_eim(issuer=pem(STRANGER)), "does not hold"),
        (with_eim(issuer=""), "has not issued it"),
        (with_eim(issuer=pem(LEAF)), "may not issue"),
        (with_eim(certificate=certificate(days=-800)), "is valid from"),
        (with_eim(certificate=certificate(days=5)), "is valid from"),
        (with_eim(certificate=certificate("", usage="key_cert_sign")), "not that of a signer"),
        (with_eim(certificate=certificate("other.example")), "is for other.example"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused_before_anything_is_sent(eim: Eim, why: str) -> None:
    with pytest.raises(VerificationError, match=why) as caught:
        check_eim(eim, NOW)
    assert caught.value.code == "EIM.CERTIFICATE"


def test_a_certificate_for_its_own_name_holds() -> None:
    der = check_eim(with_eim(certificate=certificate("eim.example")), NOW)
    assert der == x509.load_der_x509_certificate(der).public_bytes(Encoding.DER)


# ---- what the chip says it is ----------------------------------------------------------------------------


@pytest.fixture
def identity(loaded: Loaded) -> Identity:
    chip, _ = opened(loaded)
    return chip.identify(loaded.eid)


@pytest.mark.parametrize("fit", [Fit(), Fit(chip="iot"), Fit(tre="integrated"), Fit(tre_product="SOC")])
def test_a_chip_that_is_what_it_shall_be(identity: Identity, fit: Fit) -> None:
    check_kind(identity, fit)


@pytest.mark.parametrize("fit", [Fit(chip="consumer"), Fit(tre="discrete"), Fit(tre_product="SOC-8")])
def test_a_chip_of_another_kind_is_refused(identity: Identity, fit: Fit) -> None:
    with pytest.raises(CardError) as caught:
        check_kind(identity, fit)
    assert caught.value.code == "FIT.KIND"


def test_a_chip_that_does_not_say_is_not_taken_for_integrated(make_cases: Callable[..., list[Case]]) -> None:
    case = make_cases()[0]
    chip = Chip(case.port())
    chip.open()
    plain = chip.identify(case.order.eid)
    check_kind(plain, Fit(chip="consumer"))
    with pytest.raises(CardError, match="not said"):
        check_kind(plain, Fit(tre="integrated"))
    assert "tre" not in told(plain)


def test_the_record_says_what_the_chip_said(identity: Identity) -> None:
    said = told(identity)
    assert (said["kind"], said["iot"], said["tre"], said["tre_product"]) == ("iot", "1.2.0", "integrated", "SOC-7")


# ---- the final read-back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda nvm: setattr(nvm.profiles[1], "enabled", False), "is disabled"),
        (lambda nvm: setattr(nvm.profiles[0], "enabled", True), "is enabled"),
        (lambda nvm: setattr(nvm.profiles[0], "nickname", "y"), "is called 'y', not 'x'"),
        (lambda nvm: setattr(nvm, "default_dp_address", ""), "default SM-DP+ address is ''"),
        (lambda nvm: nvm.eims.clear(), "its eIM is none"),
        (lambda nvm: nvm.profiles.pop(0), "is not there"),
        (lambda nvm: nvm.profiles.append(copy.deepcopy(nvm.profiles[0])), ""),
        (lambda nvm: setattr(nvm, "locked", False), "not locked"),
    ],
)
def test_each_difference_is_named(loaded: Loaded, spoil: Callable[[object], None], says: str) -> None:
    chip, inside = opened(loaded)
    way = (DeleteKeys(), Enable("b"), Nickname("x", "a"), DefaultAddress("smdp.example"), EIM, Lock(), ReadBack())
    steps = loaded.steps(chip, *way)
    for step in way:
        steps.perform(step)
    spoil(inside.nvm)
    if not says:
        stranger = inside.nvm.profiles[-1]
        stranger.iccid = Iccid("8988211900000311930").swapped
        stranger.enabled, says = False, "8988211900000311930 was not to be there"
    with pytest.raises(CardError, match=re.escape(says)) as caught:
        steps.perform(ReadBack())
    assert caught.value.code == ("EUICC.NOT_SEALED" if "locked" in says else "READBACK.DIFFERS")
    assert len(steps.differences) == 1


class CutPort(MemoryPort):
    """Pulled at the n-th APDU of all, however often the chip is powered."""

    def __init__(self, chip: Euicc, at: int, *, executed: bool) -> None:
        super().__init__(chip)
        self._left = at
        self._executes = executed

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        self._left -= 1
        if not self._left:
            self.pull_at, self.executed = len(self.sent) + 1, self._executes
        return super().transmit(apdu, timeout_s)


STEPS: Sequence[Step] = (
    DeleteKeys(),
    Enable("a"),
    Enable("b"),
    Disable("a"),
    Disable("b"),
    Nickname("one", "a"),
    Nickname("", "a"),
    Nickname("two", "b"),
    DefaultAddress("smdp.example"),
    EIM,
    Lock(),
    ReadBack(others="allow"),
)


def true_state(inside: Euicc) -> dict[str, object]:
    return {
        key: value for key, value in card_contents(inside).items() if key not in ("keys", "results", "notifications")
    }


def as_told(state: ChipState) -> dict[str, object]:
    return {
        "profiles": [
            {"iccid": str(each.iccid), "enabled": bool(each.state), "nickname": each.nickname}
            for each in state.profiles
        ],
        "default_address": state.address,
        "eims": [] if state.eims is None else [each.id for each in state.eims],
        "keys_left": state.seal.keys_remaining,
        "fpa_locked": state.seal.locked,
    }


@settings(max_examples=120, deadline=None)
@given(
    way=st.lists(st.sampled_from(STEPS), max_size=9),
    at=st.integers(1, 60),
    executed=st.booleans(),
    wanted=st.lists(st.sampled_from(STEPS), max_size=9),
)
def test_whatever_is_done_and_wherever_it_is_cut_the_read_back_tells_the_truth(
    loaded: Loaded, way: list[Step], at: int, executed: bool, wanted: list[Step]
) -> None:
    """Any steps in any order, contact lost at any command; then the chip is read and held against any promise."""
    inside = loaded.port().chip
    chip = Chip(CutPort(inside, at, executed=executed))
    try:
        chip.open()
        steps = loaded.steps(chip, *way)
        for step in way:
            try:
                steps.perform(step)
            except TransportError:
                raise
            except IfppError:
                continue  # refused by the chip, which stays readable
    except TransportError:
        pass
    fresh = Chip(MemoryPort(inside))
    fresh.open()
    everything = promise(recipe(DefaultAddress("smdp.example"), EIM))
    promised = replace(promise(recipe(*wanted)), address="smdp.example", eim=EIM)
    try:
        state = read_state(fresh, everything)
    except IfppError as error:  # eIMs are told once no key is left
        assert inside.chip.keys_left, error  # noqa: PT017
        raise
    truth = true_state(inside)
    if inside.chip.keys_left:
        assert state.eims is None
    assert as_told(state) == truth
    found = differences(Expected(promised, loaded.profiles, loaded.eim), state)
    assert (found == ()) == kept(truth, loaded, promised.profiles, promised.keys_gone, promised.locked, inside)


def kept(truth, loaded, profiles, keys_gone, locked, inside) -> bool:  # type: ignore[no-untyped-def]
    """The promise once more, read in the chip's own memory."""
    there = {profile["iccid"]: profile for profile in truth["profiles"]}
    for iccid, name in loaded.profiles.items():
        if there[iccid]["enabled"] != profiles[name].enabled:
            return False
        if profiles[name].nickname not in (None, there[iccid]["nickname"]):
            return False
    if truth["default_address"] != "smdp.example" or truth["eims"] != ["eim.example"]:
        return False
    return not (keys_gone and truth["keys_left"]) and not (locked and not truth["fpa_locked"])


GOOD = (
    st.lists(st.sampled_from(STEPS), max_size=8, unique=True)
    .map(
        lambda way: recipe(
            DeleteKeys(), *(step for step in way if not isinstance(step, DeleteKeys | ReadBack)), ReadBack()
        )
    )
    .filter(lambda made: not list(flaws(made)))
)


@settings(max_examples=60, deadline=None)
@given(made=GOOD, at=st.integers(1, 60), executed=st.booleans())
def test_a_unit_that_is_seated_again_comes_to_what_its_recipe_promised(
    loaded: Loaded, made: Recipe, at: int, executed: bool
) -> None:
    inside = loaded.port().chip
    way = made.steps[len(BEGIN) :]
    for port in (CutPort(inside, at, executed=executed), MemoryPort(inside)):
        chip = Chip(port)
        try:
            chip.open()
            steps = Steps(chip, loaded.eid, made, loaded.profiles, loaded.eim)
            for step in way:
                steps.perform(step)
        except TransportError:
            continue
    assert steps.differences == ()
    assert steps.seal is not None


def test_a_recipe_that_ships_has_a_proof(loaded: Loaded) -> None:
    chip, _ = opened(loaded)
    steps = loaded.steps(chip, DeleteKeys(), Lock(), ReadBack(), CleanToShip())
    assert steps.perform(DeleteKeys()) == {"with": "lock"}, "one command may do both"
    steps.perform(Lock())
    steps.perform(ReadBack())
    assert steps.seal is not None
    assert (steps.seal.keys_deleted, steps.seal.locked, steps.seal.lpa_answers) == (1, True, True)
