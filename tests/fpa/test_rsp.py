"""Online downloads end to end: virtual chip, station, SM-DP+ over HTTPS, journal; and everything that can go wrong."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ifpp.errors import CustodyError, VerificationError
from ifpp.fpa.es9 import Es9Client
from ifpp.fpa.rsp import Download, Lpa, close_left_open, deliver, download
from ifpp.model.ids import Iccid
from ifpp.model.rsp import ActivationCode, Function, SessionStep
from ifpp.model.states import PackageState
from ifpp.sim import pki
from ifpp.sim.eum import Eum
from ifpp.sim.smdp_plus import Order, SmdpPlus, State
from ifpp.sim.tlv import bits, parse_one, tlv
from ifpp.trust.chain import TrustStore
from ifpp.trust.tls import outward_context
from ifpp.wire import rsp
from ifpp.wire.bpp import parse_bpp, segment_blocks
from ifpp.wire.es9 import parse_package
from tests.fpa.online import Seat, Site

NOW = timedelta(0)


def fault(got: Download) -> str:
    return "" if got.verdict.fault is None else got.verdict.fault.code


def nothing_left(site: Site, seat: Seat) -> None:
    """Nothing on the chip, nothing under way, nothing owed."""
    assert seat.iccids == set()
    assert site.book.left_open(seat.eid) is None
    assert site.book.owed_of(seat.eid) == ()


# ---- what goes well ------------------------------------------------------------------------------------


def test_a_profile_is_fetched_loaded_and_told(site: Site) -> None:
    order, seat = site.release(), site.seat()
    got = site.download(seat)
    assert fault(got) == ""
    assert (got.verdict.state, got.verdict.spent, got.tied) == (PackageState.INSTALLED, True, True)
    assert got.iccid == order.profile.iccid
    assert seat.iccids == {got.iccid}
    again = site.download(seat)
    assert (again.verdict.state, again.verdict.pir) == (got.verdict.state, got.verdict.pir), "nobody has taken it over"
    assert site.smdp.calls["initiateAuthentication"] == 1
    site.book.taken(seat.eid, "P-1")
    assert site.book.left_open(seat.eid) is None
    assert got.verdict.pir is not None
    assert [notice.raw for notice in site.book.owed_of(seat.eid)] == [got.verdict.pir.raw]
    assert order.state == "DOWNLOADED"
    deliver(seat.chip, seat.eid, site.es9(), site.book)
    assert order.state == "INSTALLED"
    assert site.book.owed_of(seat.eid) == ()
    assert seat.chip.notifications() == ()


def test_the_fewest_commands_and_round_trips(site: Site) -> None:
    """Counted against the sizes of what has to be said; on a T=0 card an answer takes a GET RESPONSE per 256 bytes."""
    site.release()
    seat, es9 = site.seat(), site.es9()
    sizes: list[tuple[int, int]] = []
    bodies: dict[Function, bytes] = {}
    command, call = seat.chip.command, es9.call

    def counting(tlv: bytes, *, loading: bool = False) -> bytes:
        answer = command(tlv, loading=loading)
        sizes.append((len(tlv), len(answer)))
        return answer

    def keeping(address: str, function: Function, body: bytes) -> bytes:
        bodies[function] = call(address, function, body)
        return bodies[function]

    seat.chip.command = counting  # type: ignore[method-assign]
    es9.call = keeping  # type: ignore[method-assign]
    got = download(seat.chip, site.order(seat), site.lpa(es9=es9))
    assert es9.round_trips == 3
    least = sum(-(-sent // 255) + -(-answered // 256) for sent, answered in sizes)
    assert got.verdict.apdus == least
    package = parse_package(bodies[Function.GET_BOUND_PROFILE_PACKAGE]).bpp
    # EUICCInfo1, challenge, AuthenticateServer, PrepareDownload, and the package's segments
    assert len(sizes) == 4 + len(package.segments)
    assert least == segment_blocks(package.segments) + 1 + sum(-(-a // 255) + -(-b // 256) for a, b in sizes[:4])
    assert parse_bpp(package.raw).segments == package.segments


def test_what_is_known_of_a_chip_is_not_asked_again(site: Site) -> None:
    counts = []
    for number, known in enumerate((False, True)):
        site.release(f"M-{number}")
        seat = site.seat()
        info1 = rsp.parse_info1(seat.chip.command(rsp.info1_request())) if known else None
        got = download(seat.chip, site.order(seat, f"M-{number}"), site.lpa(), info1)
        counts.append((fault(got), got.verdict.apdus))
    assert counts == [("", counts[0][1]), ("", counts[0][1] - 2)], "a command and its GET RESPONSE"


def test_a_confirmation_code_is_proved(site: Site) -> None:
    site.release(code="2468")
    seat = site.seat()
    assert fault(site.download(seat, confirmation_code="2468")) == ""


def test_several_profiles_on_one_chip(site: Site) -> None:
    seat = site.seat()
    orders = [site.release(f"M-{number}") for number in range(3)]
    for number, order in enumerate(orders):
        wanted = Iccid(order.profile.iccid)
        got = site.download(seat, f"M-{number}", iccid=wanted, package_id=f"P-{number}")
        assert (fault(got), got.iccid) == ("", wanted)
        with pytest.raises(CustodyError):
            site.download(seat, "M-9", package_id="P-9")
        site.book.taken(seat.eid, f"P-{number}")
    assert len(seat.iccids) == 3
    deliver(seat.chip, seat.eid, site.es9(), site.book)
    assert [order.state for order in orders] == ["INSTALLED"] * 3


def test_connections_are_used_again(site: Site) -> None:
    before = site.server.connections
    for number in range(4):
        site.release(f"M-{number}")
        assert fault(site.download(site.seat(), f"M-{number}")) == ""
    assert site.server.connections - before <= 1


def test_a_new_connection_takes_up_the_tls_session(site: Site) -> None:
    context = outward_context(site.ca)

    async def reused() -> bool | None:
        async with Es9Client(context) as client:
            await client.call(site.smdp.address, Function.INITIATE_AUTHENTICATION, b"{}")
        return context._last["localhost"].session_reused

    assert [site.loop.run(reused()) for _ in range(3)] == [False, True, True]


def test_connections_that_begin_together_do_not_wait_for_each_others_session(site: Site) -> None:
    context = outward_context(site.ca)
    for _ in range(2):
        begun = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            begun.do_handshake()
    seats = [site.seat() for _ in range(8)]
    client = site.client_for(timeout_s=20)
    for number, _ in enumerate(seats):
        site.release(f"T-{number}")
    with ThreadPoolExecutor(len(seats)) as pool:
        lpas = [site.lpa(es9=site.es9(client)) for _ in seats]
        orders = [site.order(seat, f"T-{number}") for number, seat in enumerate(seats)]
        found = list(pool.map(download, [seat.chip for seat in seats], orders, lpas))
    assert [fault(one) for one in found] == [""] * len(seats)


def test_what_else_a_chip_is_asked(site: Site) -> None:
    site.release()
    seat = site.seat()
    assert rsp.parse_addresses(seat.chip.command(rsp.addresses_request())) == ("", "lpa.ds.example")
    assert rsp.parse_rat(seat.chip.command(rsp.rat_request())) == (frozenset({1, 2}),)
    assert rsp.parse_memory_reset(seat.chip.command(rsp.memory_reset_request())) == 1, "nothing to delete"
    assert fault(site.download(seat)) == ""
    assert rsp.parse_memory_reset(seat.chip.command(rsp.memory_reset_request())) == 0
    assert seat.iccids == set()


@pytest.mark.parametrize(("allowed", "code"), [(True, ""), (False, "FIT.RULE")])
def test_policy_rules_are_looked_up_before_the_key_is_made(site: Site, allowed: bool, code: str) -> None:
    order, seat = site.release(), site.seat()
    order.metadata = tlv(0xBF25, parse_one(order.metadata).value, tlv(0x99, bits({1})))
    if not allowed:
        seat.euicc.nvm.rat = b""
    assert fault(site.download(seat)) == code
    assert [reason for _, reason in site.smdp.cancelled] == ([] if allowed else [3])
    assert len(seat.euicc.nvm.session_keys) == 0


# ---- what the SM-DP+ refuses -----------------------------------------------------------------------------


def expire(order: Order) -> None:
    order.state = State.EXPIRED


@pytest.mark.parametrize(
    ("details", "matching_id", "code"),
    [
        ({}, "M-2", "RSP.CODE_REFUSED"),
        ({"state": State.INSTALLED}, "M-1", "RSP.CODE_REFUSED"),
        ({"eid": "8" * 32}, "M-1", "RSP.NOT_ELIGIBLE"),
        ({"eligible": False}, "M-1", "RSP.NOT_ELIGIBLE"),
        ({"state": State.EXPIRED}, "M-1", "RSP.USED_UP"),
        ({"attempts_left": 0}, "M-1", "RSP.USED_UP"),
    ],
)
def test_refusals(site: Site, details: dict[str, Any], matching_id: str, code: str) -> None:
    order, seat = site.release(**details), site.seat()
    state = order.state
    got = site.download(seat, matching_id)
    assert (fault(got), got.verdict.state, got.verdict.spent) == (code, PackageState.FAILED, False)
    assert order.state is state
    assert site.smdp.calls["initiateAuthentication"] == 1, "not tried again"
    nothing_left(site, seat)


def test_a_chip_that_is_full(site: Site) -> None:
    site.release()
    seat = site.seat(reported_nvm=100)
    assert fault(site.download(seat)) == "EUICC.NO_MEMORY"
    nothing_left(site, seat)


def test_confirmation_codes_are_not_guessed(site: Site) -> None:
    order, seat = site.release(code="2468"), site.seat()
    missing = site.download(seat)
    assert fault(missing) == "RSP.CONFIRMATION"
    assert (order.state, order.code_attempts_left) == (State.RELEASED, 3), "cancelled for later"
    assert [reason for _, reason in site.smdp.cancelled] == [2]
    codes = [fault(site.download(seat, confirmation_code="0000")) for _ in range(4)]
    assert codes == ["RSP.CONFIRMATION", "RSP.CONFIRMATION", "RSP.USED_UP", "RSP.USED_UP"]
    nothing_left(site, seat)


def test_a_code_belongs_to_the_first_chip_that_asked(site: Site) -> None:
    order, first, second = site.release(code="1"), site.seat(), site.seat()
    site.download(first)
    assert order.eid == first.eid
    assert fault(site.download(second, confirmation_code="1")) == "RSP.NOT_ELIGIBLE"
    assert fault(site.download(first, confirmation_code="1")) == ""


# ---- wrong servers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "code", "reasons"),
    [
        ("challenge", "RSP.MISMATCH", []),
        ("address", "RSP.MISMATCH", []),
        ("transaction", "RSP.MISMATCH", []),
        ("signature1", "TRUST.SIGNATURE", []),
        ("signature2", "TRUST.SIGNATURE", [127]),
        ("bind_signature", "TRUST.SIGNATURE", [127]),
        ("bpp_transaction", "RSP.MISMATCH", [127]),
        ("metadata", "RSP.OTHER_PROFILE", [4]),
    ],
)
def test_lies(site: Site, lie: str, code: str, reasons: list[int]) -> None:
    order, seat = site.release(), site.seat()
    site.smdp.lies.add(lie)
    got = site.download(seat)
    assert (fault(got), got.verdict.state) == (code, PackageState.FAILED)
    assert [reason for _, reason in site.smdp.cancelled] == reasons
    assert order.state is (State.ERROR if reasons else State.RELEASED)
    assert len(seat.port.sent) < 30, "no byte of a package"
    assert seat.euicc.nvm.session is None
    nothing_left(site, seat)


def test_another_profile_than_ordered(site: Site) -> None:
    order, seat = site.release(), site.seat()
    other = Iccid("8988211900000311922")
    assert fault(site.download(seat, iccid=other)) == "RSP.OTHER_PROFILE"
    assert (order.state, site.smdp.cancelled[0][1]) == (State.ERROR, 4)
    nothing_left(site, seat)


def issued(site: Site, profile: pki.CertificateProfile, not_before: datetime | None = None) -> pki.Holder:
    return pki.below(site.tree.ci, profile, pki.name_of("SM-DP+", "test"), not_before=not_before)


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda site: {"dpauth": issued(site, pki.DPAUTH, not_before=LONG_AGO)}, "TRUST.CHAIN"),
        (lambda site: {"dppb": issued(site, pki.DPPB, not_before=LONG_AGO)}, "TRUST.CHAIN"),
        (lambda site: {"dpauth": site.tree.dppb}, "TRUST.CHAIN"),
        (lambda site: {"dppb": issued(site, pki.DPAUTH)}, "TRUST.CHAIN"),
        (lambda site: {"dppb": issued(site, replace(pki.DPPB, rid="2.999.11"))}, "RSP.MISMATCH"),
        (lambda _site: {"dpauth": SmdpPlus.create(pki.Pki.create()).dpauth}, "TRUST.CHAIN"),
    ],
    ids=["CERT.DPauth expired", "CERT.DPpb expired", "role DPpb", "role DPauth", "another server's", "another CI's"],
)
def test_certificates(site: Site, change: Callable[[Site], dict[str, pki.Holder]], code: str) -> None:
    for name, holder in change(site).items():
        setattr(site.smdp, name, holder)
    site.release()
    seat = site.seat()
    assert fault(site.download(seat)) == code
    nothing_left(site, seat)


def test_a_ci_the_chip_does_not_know(site: Site) -> None:
    foreign = Seat(site.seat().euicc.__class__(Eum(pki.Pki.create(), seed=2).issue(keys=0).card))
    site.release()
    assert fault(site.download(foreign)) == "FIT.CI_KEY", "the server says so"
    site.smdp.lies.add("any_ci")
    assert fault(site.download(foreign)) == "FIT.CI_KEY", "a server that does not care is refused here"
    assert [apdu[5:7].hex() for apdu in foreign.port.sent if apdu[5:7] == b"\xbf\x38"] == []


def test_a_ci_that_is_not_trusted_here(site: Site) -> None:
    site.release()
    lpa = site.lpa(trust=TrustStore([pki.Pki.create().ci.der]))
    seat = site.seat()
    assert fault(download(seat.chip, site.order(seat), lpa)) == "TRUST.CHAIN"
    nothing_left(site, seat)


def test_the_oid_of_the_activation_code(site: Site) -> None:
    site.release()
    seat = site.seat()
    code = ActivationCode(site.smdp.address, "M-1", "2.999.11")
    assert fault(site.download(seat, code=code)) == "RSP.MISMATCH"
    assert fault(site.download(seat, code=replace(code, oid=pki.SMDP_OID))) == ""


@pytest.mark.parametrize("kind", ["expired", "another CI", "another name"])
def test_tls(site: Site, kind: str) -> None:
    tls = {
        "expired": lambda: site.tls_holder(not_before=LONG_AGO),
        "another CI": lambda: pki.below(
            pki.Pki.create().ci, replace(pki.DPTLS, hosts=("localhost",)), pki.name_of("X", "localhost")
        ),
        "another name": lambda: pki.below(
            site.tree.ci, replace(pki.DPTLS, hosts=("smdp.example",)), pki.name_of("X", "smdp.example")
        ),
    }[kind]()
    smdp = SmdpPlus.create(site.tree)
    server = site.serve(smdp, tls)
    seat = site.seat()
    got = site.download(seat, code=ActivationCode(smdp.address, "M-1"))
    assert (fault(got), got.tied) == ("RSP.TLS", False)
    assert smdp.calls.total() == 0
    site.loop.run(server.stop())


# ---- networks --------------------------------------------------------------------------------------------

STEPS = ["initiateAuthentication", "authenticateClient", "getBoundProfilePackage"]


@pytest.mark.parametrize("trouble", ["cut", "cut_after", "503"])
@pytest.mark.parametrize("function", STEPS)
def test_trouble_once_costs_a_session_and_no_profile(site: Site, function: str, trouble: str) -> None:
    order, seat = site.release(), site.seat()
    site.server.troubles[function] = [trouble]
    got = site.download(seat)
    assert (fault(got), got.verdict.state) == ("", PackageState.INSTALLED)
    assert order.bindings == 1, "bound again to the same key"
    assert [reason for _, reason in site.smdp.cancelled] == ([] if function == STEPS[0] else [2])
    assert site.smdp.calls["initiateAuthentication"] <= 2


@pytest.mark.parametrize("function", STEPS)
def test_trouble_that_stays_ends_after_a_few_attempts(site: Site, function: str) -> None:
    order, seat = site.release(), site.seat()
    site.server.troubles[function] = ["503"] * 3
    got = site.download(seat)
    assert (fault(got), got.verdict.state, got.verdict.spent) == ("RSP.UNREACHABLE", PackageState.FAILED, False)
    assert seat.euicc.nvm.session is None, "the chip's session was ended"
    left = site.book.left_open(seat.eid)
    assert (left is None) == (function == STEPS[0])
    assert site.download(seat).verdict.state is PackageState.INSTALLED
    assert order.bindings == 1


def test_a_slow_server(site: Site) -> None:
    site.release()
    seat = site.seat()
    site.server.troubles["authenticateClient"] = ["slow"]
    es9 = site.es9(site.client_for(timeout_s=2))
    got = download(seat.chip, site.order(seat), site.lpa(es9=es9, attempts=1))
    assert fault(got) == "RSP.UNREACHABLE"
    left = site.book.left_open(seat.eid)
    assert left is not None
    assert (left.step, bool(left.cancelled)) == (SessionStep.CANCELLED, True)


@pytest.mark.parametrize("trouble", ["garbage", "oversize", "400"])
def test_answers_that_are_none(site: Site, trouble: str) -> None:
    order, seat = site.release(), site.seat()
    site.server.troubles["getBoundProfilePackage"] = [trouble]
    assert fault(site.download(seat)) == "RSP.ANSWER"
    assert [reason for _, reason in site.smdp.cancelled] == [2]
    assert order.state is State.RELEASED
    nothing_left(site, seat)


def test_nobody_listens(site: Site) -> None:
    seat = site.seat()
    got = site.download(seat, code=ActivationCode("localhost:9", "M-1"))
    assert (fault(got), got.tied) == ("RSP.UNREACHABLE", False)
    nothing_left(site, seat)


# ---- what dies in the middle -----------------------------------------------------------------------------


def commands_of_a_download(site: Site) -> int:
    site.release("M-0")
    seat = site.seat()
    before = len(seat.port.sent)
    assert fault(site.download(seat, "M-0")) == ""
    return len(seat.port.sent) - before


@pytest.mark.parametrize("executed", [False, True], ids=["not executed", "executed"])
def test_a_chip_pulled_at_any_command(site: Site, executed: bool) -> None:
    """Whatever is pulled: the next seating brings exactly one profile, bound at most once, and the server knows."""
    ways = set()
    for at in range(commands_of_a_download(site)):
        matching_id = f"M-{executed}-{at}"
        order, seat = site.release(matching_id), site.seat()
        seat.port.pull_at, seat.port.executed = len(seat.port.sent) + at + 1, executed
        first = site.download(seat, matching_id)
        ways.add((fault(first), first.verdict.state))
        seat.seat_again()
        second = site.download(seat, matching_id)
        assert (fault(second), second.verdict.state) == ("", PackageState.INSTALLED), at
        assert seat.iccids == {second.iccid}
        assert order.bindings == 1
        deliver(seat.chip, seat.eid, site.es9(), site.book)
        assert order.state is State.INSTALLED
        left = site.book.left_open(seat.eid)
        assert left is not None
        assert left.step is SessionStep.SETTLED
    assert ways == {("CONTACT.LOST", PackageState.FAILED), ("CONTACT.LOST", PackageState.UNKNOWN)}


class DiedError(BaseException):
    """The station's process ends here."""


class Dying:
    """Ends the process at the n-th call into the book or to the server, before or after it is carried out."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left, self.after = at, after

    def around(self, target: object, name: str) -> Callable[..., object]:
        real = getattr(target, name)

        def call(*arguments: object) -> object:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise DiedError
            found = real(*arguments)
            if self.left == 0:
                raise DiedError
            return found

        return call


class _Watched:
    def __init__(self, target: object, dying: Dying, *names: str) -> None:
        self._target = target
        for name in names:
            setattr(self, name, dying.around(target, name))

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)


def watched(target: object, dying: Dying, *names: str) -> Any:
    """`target` with some of its calls watched."""
    return _Watched(target, dying, *names)


@pytest.mark.parametrize("keeps_session", [False, True], ids=["chip forgets", "chip keeps"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_station_that_dies_at_any_step(site: Site, after: bool, keeps_session: bool) -> None:
    """keep, three calls to the server, keep, settle: six instants, before and after each."""
    for at in range(1, 7):
        site.smdp.cancelled.clear()
        order, seat = site.release(f"D-{at}"), site.seat(keeps_session=keeps_session)
        dying = Dying(at, after=after)
        lpa = site.lpa()
        mortal: Lpa = replace(
            lpa,
            es9=watched(lpa.es9, dying, "call"),
            custody=watched(site.book, dying, "keep", "settle"),
        )
        with pytest.raises(DiedError):
            download(seat.chip, site.order(seat, f"D-{at}"), mortal)
        left = site.book.left_open(seat.eid)
        seat.seat_again()
        again = site.download(seat, f"D-{at}")
        assert (fault(again), again.verdict.state) == ("", PackageState.INSTALLED), at
        assert seat.iccids == {again.iccid}
        assert order.bindings == 1
        opened = left is not None and left.step is SessionStep.OPENED
        if keeps_session and opened and at > 2:
            assert [reason for _, reason in site.smdp.cancelled] == [2], at
        deliver(seat.chip, seat.eid, site.es9(), site.book)
        assert order.state is State.INSTALLED


def test_a_result_that_is_gone_is_not_guessed(site: Site) -> None:
    site.release()
    seat = site.seat()
    lpa = site.lpa()
    mortal = replace(lpa, custody=watched(site.book, Dying(1, after=False), "settle"))
    with pytest.raises(DiedError):
        download(seat.chip, site.order(seat), mortal)
    seat.seat_again()
    for entry in seat.chip.notifications():
        seat.chip.forget(entry.seq_number)
    with pytest.raises(VerificationError) as missing:
        close_left_open(seat.chip, seat.eid, lpa)
    assert missing.value.code == "PIR.MISSING"
    got = site.download(seat)
    assert (fault(got), got.verdict.state) == ("PIR.MISSING", PackageState.UNKNOWN)
    left = site.book.left_open(seat.eid)
    assert left is not None
    site.book.end(left)


# ---- many heads ------------------------------------------------------------------------------------------


def test_sixteen_heads_at_once(site: Site) -> None:
    seats = [site.seat() for _ in range(16)]
    orders = [site.release(f"H-{number}") for number in range(16)]
    before = site.server.connections

    def one(number: int, seat: Seat) -> Download:
        lpa = site.lpa()
        got = download(seat.chip, site.order(seat, f"H-{number}"), lpa)
        deliver(seat.chip, seat.eid, lpa.es9, site.book)
        return got

    with ThreadPoolExecutor(16) as heads:
        found = list(heads.map(one, range(16), seats))
    assert {fault(got) for got in found} == {""}
    assert len({got.iccid for got in found}) == 16
    assert {order.state for order in orders} == {State.INSTALLED}
    assert site.server.connections - before <= 16
