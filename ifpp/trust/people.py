"""Who stands at a station: badges are known by a slow hash, so that the file of people does not hold the badges."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import scrypt
from secrets import token_hex

from ifpp.errors import SettingsError
from ifpp.settings import People

_COST, _BLOCK, _LANES = 1 << 14, 8, 1  # 16 MiB and some 50 ms a badge (RFC 7914)
_SHORTEST, _LONGEST = 4, 256


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person who has shown a badge."""

    name: str
    role: str


def new_salt() -> str:
    """Return a salt for a new file of people: 32 hex digits."""
    return token_hex(16)


def badge_hash(badge: str, salt: str) -> str:
    """Return what stands in the file of people for a badge's code; raises SettingsError OPERATOR.BADGE."""
    code = badge.strip()
    if not _SHORTEST <= len(code) <= _LONGEST or not code.isprintable():
        detail = f"a badge has {_SHORTEST} to {_LONGEST} printable characters"
        raise SettingsError("OPERATOR.BADGE", detail)
    return scrypt(code.encode(), salt=bytes.fromhex(salt), n=_COST, r=_BLOCK, p=_LANES, dklen=32).hex()


def recognise(people: People, badge: str) -> Somebody:
    """Return who has this badge; raises SettingsError OPERATOR.BADGE. Takes some 50 ms."""
    shown = badge_hash(badge, people.salt)
    found = [name for name, person in people.people.items() if hmac.compare_digest(person.badge, shown)]
    if not found:
        raise SettingsError("OPERATOR.BADGE", "nobody here has this badge")
    return Somebody(found[0], people.people[found[0]].role)
