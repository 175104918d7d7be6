"""The tcp:// card port against a scripted slot: exact frames, a pulled chip, a hung one, a lost reader."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ifpp.errors import SettingsError, TransportError
from ifpp.hw.port import make_port
from ifpp.hw.tcp import TcpPort
from ifpp.model.states import Lamp

Reply = Callable[[bytes], bytes | None]


@contextmanager
def slot(reply: Reply, seen: list[bytes]) -> Iterator[str]:
    """Serve one connection; `reply` returns the answer frame's payload, None for no answer, raises to hang up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            while header := stream.read(2):
                payload = stream.read(struct.unpack(">H", header)[0])
                seen.append(payload)
                try:
                    answer = reply(payload)
                except ConnectionAbortedError:
                    return
                if answer is not None:
                    connection.sendall(struct.pack(">H", len(answer)) + answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(5)
        listener.close()


def atr_or_ok(payload: bytes) -> bytes | None:
    if payload == b"\x04":
        return bytes.fromhex("3B00")
    if payload[:1] in (b"\xe0", b"\xe1"):
        return b"\x01"
    return bytes.fromhex("9000") if len(payload) >= 4 else None


def test_frames_are_exact() -> None:
    seen: list[bytes] = []
    with slot(atr_or_ok, seen) as url:
        port = make_port(url)
        port.open()
        assert port.wait_seated(0.5)
        assert port.power_up() == bytes.fromhex("3B00")
        assert port.transmit(bytes.fromhex("80E2910000"), 1) == bytes.fromhex("9000")
        port.lamp(Lamp.PASS)
        port.power_down()
        assert port.wait_removed(1.0)
        port.close()
    assert [frame.hex() for frame in seen] == ["e005", "01", "04", "80e2910000", "e202", "00", "e10a"]


def test_an_empty_answer_is_a_lost_chip() -> None:
    with slot(lambda payload: b"" if len(payload) >= 4 else atr_or_ok(payload), []) as url:
        port = TcpPort(url)
        port.open()
        with pytest.raises(TransportError) as caught:
            port.transmit(bytes(5), 1)
        assert caught.value.code == "CONTACT.LOST"
        assert port.wait_removed(0.1)  # the slot itself still answers
        port.close()


def test_a_chip_without_atr_has_its_own_code() -> None:
    with slot(lambda payload: b"" if payload == b"\x04" else None, []) as url:
        port = TcpPort(url)
        port.open()
        with pytest.raises(TransportError) as caught:
            port.power_up()
        assert caught.value.code == "CONTACT.NO_ATR"
        port.close()


def test_a_hung_chip_times_out_and_its_late_answer_can_never_be_taken_for_the_next() -> None:
    with slot(lambda payload: None, []) as url:
        port = TcpPort(url)
        port.open()
        with pytest.raises(TransportError) as caught:
            port.transmit(bytes(5), 0.05)
        assert caught.value.code == "APDU.TIMEOUT"
        with pytest.raises(TransportError) as again:
            port.transmit(bytes(5), 0.05)
        assert again.value.code == "HEAD.UNREACHABLE"


def test_a_slot_that_hangs_up_is_an_unreachable_head() -> None:
    def hang_up(payload: bytes) -> bytes:
        raise ConnectionAbortedError

    with slot(hang_up, []) as url:
        port = TcpPort(url)
        port.open()
        with pytest.raises(TransportError) as caught:
            port.transmit(bytes(5), 1)
        assert caught.value.code == "HEAD.UNREACHABLE"


def test_nobody_listening_is_an_unreachable_head() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = TcpPort(f"tcp://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(TransportError) as caught:
            port.open()
    assert caught.value.code == "HEAD.UNREACHABLE"


@pytest.mark.parametrize("url", ["tcp://", "tcp://host", "tcp://host:abc", "floppy://a", "reader"])
def test_a_bad_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_port(url)
    assert url in str(caught.value)


@pytest.mark.parametrize(("read", "said"), [(b"SN-0042", "SN-0042"), (b"", ""), (b"\xff\x00", "")])
def test_the_label_is_what_the_fixture_has_read(read: bytes, said: str) -> None:
    seen: list[bytes] = []
    with slot(lambda payload: read if payload == b"\xe3\x00" else None, seen) as url:
        port = make_port(url)
        port.open()
        assert port.label() == said
        port.close()
    assert seen == [b"\xe3\x00"]
