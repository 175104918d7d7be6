"""What a station keeps of online downloads and owes to SM-DP+, and how it gets there once they can be reached."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from ifpp.errors import ServiceError
from ifpp.fpa.rsp import deliver, download, forget_delivered, notices
from ifpp.model.ids import Iccid
from ifpp.model.rsp import Function, Notice, OpenSession, SessionStep
from ifpp.sim.smdp_plus import State
from ifpp.station.rsp_outbox import RspOutbox
from ifpp.wire import es10
from tests.fpa.online import Site
from tests.fpa.test_rsp import fault

NOW = timedelta(0)


def outbox(site: Site) -> RspOutbox:
    return RspOutbox(site.book, site.client, pause_s=0, leave_s=0)


def test_what_could_not_be_told_is_told_later_in_order(site: Site) -> None:
    seats = [site.seat() for _ in range(2)]
    orders = [site.release(f"M-{number}") for number in range(2)]
    for number, seat in enumerate(seats):
        assert fault(site.download(seat, f"M-{number}")) == ""
    site.server.troubles["handleNotification"] = ["503", "503"]
    with pytest.raises(ServiceError):
        deliver(seats[0].chip, seats[0].eid, site.es9(), site.book)
    assert len(seats[0].chip.notifications()) == 1, "the chip keeps what nobody has taken"
    assert site.loop.run(outbox(site).deliver()) == 0, "still away: not asked again for the second"
    assert site.server.troubles["handleNotification"] == []
    assert site.loop.run(outbox(site).deliver()) == 2
    assert [order.state for order in orders] == [State.INSTALLED] * 2
    assert [entry["eid"] for entry in site.smdp.notifications] == [seat.eid for seat in seats]
    for seat in seats:
        assert len(seat.chip.notifications()) == 1
        forget_delivered(seat.chip, seat.eid, site.book)
        assert seat.chip.notifications() == ()
        assert site.book.delivered_of(seat.eid) == ()


def test_it_goes_on_by_itself_until_it_is_told_to_stop(site: Site) -> None:
    order, seat = site.release(), site.seat()
    assert fault(site.download(seat)) == ""
    site.server.troubles["handleNotification"] = ["cut", "cut"]

    async def until_taken() -> None:
        taken = asyncio.Event()

        class Telling:
            async def call(self, address: str, function: Function, body: bytes) -> bytes:
                answer = await site.client.call(address, function, body)
                taken.set()
                return answer

        running = asyncio.create_task(RspOutbox(site.book, Telling(), pause_s=0, leave_s=0).run())
        await taken.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    site.loop.run(until_taken())
    assert order.state is State.INSTALLED


def test_a_server_that_is_away_holds_up_only_its_own(site: Site) -> None:
    site.release()
    seat = site.seat()
    away = Notice(seat.eid, 900, "localhost:9", b"\x30\x00")
    site.book.owe([away, away])
    assert fault(site.download(seat)) == ""
    assert site.loop.run(outbox(site).deliver()) == 1
    assert site.book.owed_of(seat.eid) == (away,)


def test_a_notice_nobody_wants_is_parked(site: Site) -> None:
    seat = site.seat()
    site.book.owe([Notice(seat.eid, 901, site.smdp.address, b"\x30\x00")])
    assert site.loop.run(outbox(site).deliver()) == 0
    assert site.book.owed_of(seat.eid) == ()
    rows = site.journal.read(
        lambda connection: connection.execute("SELECT refused FROM rsp_notice WHERE seq_number = 901").fetchall()
    )
    assert "RSP." in rows.result()[0][0]


def test_a_cancelled_session_is_told_when_the_server_is_back(site: Site) -> None:
    order, seat = site.release(), site.seat()
    site.server.troubles["getBoundProfilePackage"] = ["cut"]
    got = download(seat.chip, site.order(seat), site.lpa(attempts=1))
    assert fault(got) == "RSP.UNREACHABLE"
    assert order.state is State.LINKED
    assert site.loop.run(outbox(site).deliver()) == 1
    assert (order.state, site.smdp.cancelled[0][1]) == (State.RELEASED, 2)
    assert site.book.left_open(seat.eid) is None


def test_all_kinds_of_notifications_are_read_in_one_command(site: Site) -> None:
    site.release()
    seat = site.seat()
    got = site.download(seat)
    assert got.iccid is not None
    seat.chip.command(es10.enable_request(got.iccid))
    found = notices(seat.chip, seat.eid)
    assert [(notice.raw[0], notice.address) for notice in found] == [
        (0xBF, site.smdp.address),
        (0x30, site.smdp.address),
    ]
    site.book.owe(found)
    deliver(seat.chip, seat.eid, site.es9(), site.book)
    assert [(entry["kind"], entry["verified"]) for entry in site.smdp.notifications] == [
        ("result", True),
        ("other", True),
    ]
    assert seat.chip.notifications() == ()


def test_old_delivered_notices_are_purged(site: Site) -> None:
    seat = site.seat()
    notice = Notice(seat.eid, 7, site.smdp.address, b"\x30\x00")
    site.book.owe([notice])
    site.book.delivered(notice)
    assert site.book.purge(timedelta(hours=1)).result() == 0
    assert site.book.purge(NOW).result() == 1
    assert site.book.delivered_of(seat.eid) == ()


def test_the_book_gives_back_what_it_keeps(site: Site) -> None:
    eid = site.seat().eid
    session = OpenSession(
        eid=eid,
        package_id="P",
        address="smdp.example",
        transaction_id=b"\x01",
        smdp_oid="2.999.10",
        step=SessionStep.LOADING,
        iccid=Iccid("8988211900000311922"),
        certificates=(site.tree.dppb.der, site.tree.eum.der),
        cancelled=b"\xbf",
    )
    site.book.keep(session)
    assert site.book.left_open(eid) == session
    site.book.end(replace(session, transaction_id=b"\x02"))
    assert site.book.left_open(eid) == session, "another session is not ended with it"
    site.book.end(session)
    assert site.book.left_open(eid) is None
