"""A unit's session keys and its profile in plain, known here from the chip: no byte of them is in a station's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.model.states import Lamp
from ifpp.sim.bsp import Bsp
from tests.station.shop import Shop, shop, truth, world
from tests.station.test_head import CLEAN

__all__ = ["shop", "world"]
_WINDOW = 24


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """What the chip derived and decrypted."""
    found: set[bytes] = set()
    make, decrypt = Bsp.__init__, Bsp.decrypt

    def made(self: Bsp, s_enc: bytes, s_mac: bytes, mcv: bytes) -> None:
        found.update((s_enc, s_mac))
        make(self, s_enc, s_mac, mcv)

    def decrypted(self: Bsp, tlv: bytes) -> bytes:
        text = decrypt(self, tlv)
        found.update(text[at : at + _WINDOW] for at in range(0, len(text) - _WINDOW, _WINDOW))
        return text

    monkeypatch.setattr(Bsp, "__init__", made)
    monkeypatch.setattr(Bsp, "decrypt", decrypted)
    return found


def kept(journal: Path) -> Iterator[bytes]:
    for path in journal.parent.glob(f"{journal.name}*"):
        yield path.read_bytes()


async def test_no_session_key_and_no_profile_is_in_a_stations_files(shop: Shop, secrets: set[bytes]) -> None:
    chip = shop.chip()
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        content = b"\n".join(kept(shop.path))
        await run.supervise()
        content += b"\n".join(kept(shop.path))
    assert truth(chip) == CLEAN
    assert str(shop.eid()).encode() in content  # it is the right place to look at
    profile = {one for one in secrets if len(one) == _WINDOW and len(set(one)) > 4}  # padding is no secret
    assert len(secrets) - len(profile) >= 2
    assert len(profile) > 100
    assert [one.hex() for one in secrets if len(set(one)) > 4 and one in content] == []
