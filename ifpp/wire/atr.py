"""What an Answer To Reset says of the link: the first protocol it offers and how fast it can be (ISO/IEC 7816-3 8)."""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.errors import WireError

# ISO/IEC 7816-3 tables 7 and 8: TA1 high nibble -> Fi (clock cycles), low nibble -> Di; the others are reserved.
_FI = {0: 372, 1: 372, 2: 558, 3: 744, 4: 1116, 5: 1488, 6: 1860, 9: 512, 10: 768, 11: 1024, 12: 1536, 13: 2048}
_DI = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 64, 8: 12, 9: 20}
_TA, _TB, _TC, _TD = 0x10, 0x20, 0x40, 0x80


@dataclass(frozen=True, slots=True)
class Atr:
    """The interface bytes that matter here. `fi` and `di` are 0 when TA1 holds a reserved value."""

    protocol: int
    fi: int = 372
    di: int = 1

    def bit_rate(self, clock_hz: int) -> int | None:
        """Bits a second at this card clock once the reader has negotiated TA1; None when clock or TA1 say nothing."""
        return clock_hz * self.di // self.fi if clock_hz and self.fi and self.di else None


def parse_atr(raw: bytes) -> Atr:
    """Read TA1 and the first protocol (T=0 when no TD1 names one); raises WireError when it breaks off."""
    if len(raw) < 2:
        raise WireError(f"{len(raw)} bytes", where="ATR")
    present, at = raw[1], 2
    ta1, td1 = 0x11, 0x00
    for bit in (_TA, _TB, _TC, _TD):
        if present & bit:
            if at >= len(raw):
                raise WireError("ends within its interface bytes", where="ATR")
            ta1 = raw[at] if bit == _TA else ta1
            td1 = raw[at] if bit == _TD else td1
            at += 1
    fi, di = _FI.get(ta1 >> 4, 0), _DI.get(ta1 & 0x0F, 0)
    return Atr(td1 & 0x0F, fi, di) if fi and di else Atr(td1 & 0x0F, 0, 0)
