"""APDU layers: class bytes, STORE DATA chains, 61xx and 6Cxx, what a dead or lying card does."""

from __future__ import annotations

import pytest

from ifpp.errors import CardError, SettingsError, TransportError, WireError
from ifpp.wire.apdu import (
    ISD_R,
    Apdu,
    CardChannel,
    Exchange,
    Response,
    StatusError,
    interindustry_cla,
    open_channel,
    proprietary_cla,
    split_blocks,
)
from tests.wire.build import Card, T0Card
from tests.wire.vectors import KAT, kat

OPENED = ("9000", "019000", "9000")


def test_kat_apdus_of_a_load_on_channel_1() -> None:
    card = Card()
    channel = CardChannel(card, 1)
    for number in range(len(KAT["session_mode"]["segments"])):
        assert channel.segment(kat("session_mode", "segments", number)) == b""
    assert [apdu.hex() for apdu in card.apdus] == KAT["session_mode"]["apdus_255_ch1"]


@pytest.mark.parametrize("channel", range(20))
def test_class_bytes_of_every_channel(channel: int) -> None:
    """T24: channels 0-3 in the first form, 4-19 in the further one."""
    low = channel < 4
    assert interindustry_cla(channel) == (channel if low else 0x40 + channel - 4)
    assert proprietary_cla(channel) == (0x80 + channel if low else 0xC0 + channel - 4)
    card = Card("6103", "AABBCC9000")
    assert CardChannel(card, channel).command(b"\xbf\x2e\x00") == b"\xaa\xbb\xcc"
    assert [apdu[0] for apdu in card.apdus] == [proprietary_cla(channel), interindustry_cla(channel)]


@pytest.mark.parametrize("channel", [-1, 20])
def test_other_channels_do_not_exist(channel: int) -> None:
    with pytest.raises(WireError, match="there is no logical channel"):
        CardChannel(Card(), channel)


@pytest.mark.parametrize("block_size", [1, 60, 120, 255])
@pytest.mark.parametrize("size", [1, 60, 61, 120, 250, 255, 256])
def test_blocks_of_a_chain(block_size: int, size: int) -> None:
    """T04: P1 is 11 on all but the last block, P2 counts from 00, every command starts anew."""
    command = bytes(i % 256 for i in range(size))
    card = Card()
    channel = CardChannel(card, 2, block_size)
    for _ in range(2):
        card.apdus.clear()
        channel.command(command)
        assert b"".join(apdu[5:] for apdu in card.apdus) == command
        assert [apdu[2] for apdu in card.apdus] == [0x11] * (len(card.apdus) - 1) + [0x91]
        assert [apdu[3] for apdu in card.apdus] == list(range(len(card.apdus)))
        assert all(apdu[:2] == b"\x82\xe2" and apdu[4] == len(apdu) - 5 <= block_size for apdu in card.apdus)


def test_a_chain_has_at_most_256_blocks_and_is_refused_before_the_first_byte() -> None:
    card = Card()
    channel = CardChannel(card, 0, 4)
    channel.command(bytes(1024))
    assert len(card.apdus) == 256
    card.apdus.clear()
    with pytest.raises(WireError, match="1025 bytes need 257 blocks of 4"):
        channel.command(bytes(1025))
    with pytest.raises(WireError, match="an empty command"):
        channel.command(b"")
    assert card.apdus == []


@pytest.mark.parametrize("block_size", [0, 256, -1])
def test_block_sizes_that_no_apdu_can_carry(block_size: int) -> None:
    with pytest.raises(SettingsError, match="a block has 1 to 255 bytes"):
        CardChannel(Card(), 0, block_size)


def test_get_response_collects_until_the_card_has_no_more() -> None:
    answer = bytes(i % 251 for i in range(700))
    card = T0Card({b"\xbf\x2b\x00": answer})
    channel = CardChannel(card, 1)
    assert channel.command(b"\xbf\x2b\x00") == answer
    assert channel.apdus == card.count == 4


def test_get_response_asks_for_the_announced_length() -> None:
    card = Card("6100", "AA6102", "BBCC9000")
    assert CardChannel(card, 1).command(b"\x80\x00") == b"\xaa\xbb\xcc"
    assert card.sent == ["81E29100028000", "01C0000000", "01C0000002"]


def test_data_beside_61xx_are_kept() -> None:
    card = Card("AABB6101", "CC9000")
    assert CardChannel(card, 0).command(b"\x80\x00") == b"\xaa\xbb\xcc"


def test_6cxx_repeats_the_command_once_with_the_right_length() -> None:
    card = Card("6C03", "AABBCC9000")
    channel = CardChannel(card, 0)
    assert channel.command(b"\x80\x00") == b"\xaa\xbb\xcc"
    assert card.sent == ["80E29100028000", "80E2910002800003"]
    assert channel.apdus == 2
    stubborn = Card("6C03", "6C04", "9000")
    with pytest.raises(StatusError) as caught:
        CardChannel(stubborn, 0).command(b"\x80\x00")
    assert caught.value.sw == 0x6C04
    assert len(stubborn.apdus) == 2


def test_6cxx_on_get_response() -> None:
    card = Card("6110", "6C02", "AABB9000")
    assert CardChannel(card, 0).command(b"\x80\x00") == b"\xaa\xbb"
    assert card.sent[1:] == ["00C0000010", "00C0000002"]


def test_an_endless_answer_is_bounded_in_bytes_and_in_rounds() -> None:
    def loud(_apdu: bytes) -> bytes:
        return bytes(256) + b"\x61\x00"

    channel = CardChannel(loud, 0)
    with pytest.raises(WireError, match="answer is longer than 65536 bytes"):
        channel.command(b"\x80\x00")
    assert channel.apdus == 257

    def silent(_apdu: bytes) -> bytes:
        return b"\x61\x10"

    channel = CardChannel(silent, 0)
    with pytest.raises(WireError, match="still announces data after 1024 GET RESPONSE"):
        channel.command(b"\x80\x00")


@pytest.mark.parametrize("answer", ["", "90"])
def test_less_than_a_status_word_means_that_the_card_has_gone(answer: str) -> None:
    with pytest.raises(TransportError) as caught:
        CardChannel(Card(answer), 0).command(b"\x80\x00")
    assert caught.value.code == "CONTACT.LOST"


def test_a_transport_error_passes_through_untouched() -> None:
    lost = TransportError("APDU.TIMEOUT", "no answer in 10 s")

    def broken(_apdu: bytes) -> bytes:
        raise lost

    with pytest.raises(TransportError) as caught:
        CardChannel(broken, 0).command(b"\x80\x00")
    assert caught.value is lost


@pytest.mark.parametrize("sw", [0x6985, 0x6A80, 0x6A88, 0x6601, 0x6F00, 0x6283, 0x1234])
def test_other_status_words_stop_the_chain_with_their_number(sw: int) -> None:
    card = Card("9000", f"{sw:04X}")
    with pytest.raises(StatusError, match=f"STORE DATA block 2 of 3 answered {sw:04X}") as caught:
        CardChannel(card, 0, 2).command(bytes(6))
    assert caught.value.sw == sw
    assert caught.value.code == "EUICC.STATUS_WORD"
    assert isinstance(caught.value, CardError)
    assert len(card.apdus) == 2


def test_91xx_is_success_with_a_proactive_command_pending() -> None:
    assert CardChannel(Card("AABB910C"), 0).command(b"\x80\x00") == b"\xaa\xbb"
    assert Response(b"", 0x910C).ok
    assert not Response(b"", 0x6100).ok


def test_a_card_that_answers_an_inner_block_has_decided() -> None:
    """A result must not be lost because the card gave it before the last block."""
    card = Card("9000", "6102", "AABB9000")
    assert CardChannel(card, 0, 2).command(bytes(6)) == b"\xaa\xbb"
    assert [apdu[1] for apdu in card.apdus] == [0xE2, 0xE2, 0xC0]


def test_only_store_data_and_get_response_are_counted() -> None:
    card = Card("9000", "019000", "6105", "6F03AABBCC9000")
    channel = open_channel(card)
    assert channel.apdus == 1  # the GET RESPONSE for the answer to SELECT
    channel.command(b"\x80\x00")
    channel.close()
    assert channel.apdus == 2


def test_open_channel_sends_the_opening_sequence() -> None:
    card = Card(*OPENED)
    channel = open_channel(card, ISD_R, 120)
    assert (channel.channel, channel.block_size) == (1, 120)
    channel.close()
    assert card.sent == [
        "80AA00000AA9088100820101830107",
        "0070000001",
        "01A4040010A0000005591010FFFFFFFF8900000100",
        "00708001",
    ]


@pytest.mark.parametrize("answer", ["6D00", "6E00", "6A86", "9000", "AABB9000"])
def test_the_answer_to_terminal_capability_does_not_matter(answer: str) -> None:
    assert open_channel(Card(answer, "019000", "9000")).channel == 1


@pytest.mark.parametrize(("number", "select", "store"), [("04", "40", "C0"), ("07", "43", "C3"), ("13", "4F", "CF")])
def test_a_channel_from_4_on_is_used_with_its_own_class_bytes(number: str, select: str, store: str) -> None:
    card = Card("9000", number + "9000", "9000")
    channel = open_channel(card)
    channel.command(b"\x80\x00")
    assert channel.channel == int(number, 16)
    assert (card.sent[2][:2], card.sent[3][:2]) == (select, store)


def test_a_card_without_logical_channels_is_used_on_its_basic_channel() -> None:
    card = Card("6E00", "6881", "9000")
    channel = open_channel(card)
    channel.close()
    assert channel.channel == 0
    assert [apdu[:2].hex() for apdu in card.apdus] == ["80aa", "0070", "00a4"]  # and nothing to close


@pytest.mark.parametrize(
    ("answer", "says"), [("9000", "0 bytes"), ("009000", "0)"), ("149000", "20)"), ("01029000", "2 bytes")]
)
def test_an_impossible_channel_number_is_refused(answer: str, says: str) -> None:
    with pytest.raises(WireError) as caught:
        open_channel(Card("9000", answer))
    assert says in str(caught.value)


def test_no_free_channel() -> None:
    with pytest.raises(StatusError, match="MANAGE CHANNEL open answered 6A81") as caught:
        open_channel(Card("9000", "6A81"))
    assert caught.value.sw == 0x6A81


@pytest.mark.parametrize(
    ("sw", "code"), [("6A82", "EUICC.NOT_AN_EUICC"), ("6999", "EUICC.NOT_AN_EUICC"), ("6985", "EUICC.STATUS_WORD")]
)
def test_a_card_without_isd_r_is_no_euicc_and_gets_its_channel_back(sw: str, code: str) -> None:
    card = Card("9000", "019000", sw)
    with pytest.raises(StatusError) as caught:
        open_channel(card)
    assert caught.value.code == code
    assert card.sent[-1] == "00708001"


def test_close_never_fails() -> None:
    CardChannel(Card("6F00"), 1).close()
    CardChannel(Card(""), 1).close()


def test_the_trace_hears_of_every_apdu_and_never_of_its_payload() -> None:
    heard: list[Exchange] = []
    ticks = iter([1.0, 1.25, 2.0, 2.5])
    card = Card("6104", "DEADBEEF9000")
    channel = CardChannel(card, 1, trace=heard.append, monotonic=lambda: next(ticks))
    channel.command(bytes.fromhex("CAFECAFE"))
    assert heard == [
        Exchange(0x81, 0xE2, 0x91, 0, 4, 0x6104, 0, 250.0),
        Exchange(0x01, 0xC0, 0, 0, 0, 0x9000, 4, 500.0),
    ]
    shown = repr(heard) + repr(Apdu(0, 0xE2, 0, 0, b"\xca\xfe")) + repr(Response(b"\xde\xad", 0x9000))
    assert not any(secret in shown.lower() for secret in ("cafe", "dead", "\\xca", "\\xde"))


def test_apdu_encoding() -> None:
    assert Apdu(0x00, 0xA4, 0x04, 0x00).encode().hex() == "00a40400"
    assert Apdu(0x00, 0xC0, 0, 0, le=256).encode().hex() == "00c0000000"
    assert Apdu(0x00, 0xA4, 0x04, 0x00, b"\x01\x02", 5).encode().hex() == "00a4040002010205"


def test_split_blocks_keeps_every_byte() -> None:
    assert split_blocks(b"abcdefg", 3) == [b"abc", b"def", b"g"]
