"""`ifpp keys`: make, list, rotate, audit and destroy the factory's keys, with a signed record of every step."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.model.clock import parse_utc
from ifpp.roles.key_access import create_keys, open_keys
from ifpp.roles.people import check_person
from ifpp.roles.runtime import beside
from ifpp.settings import Keys, load_site, load_station
from ifpp.trust.ceremony import Act, Records, check_confirmations, confirm, read_confirmation
from ifpp.trust.keyplan import Difference, compare
from ifpp.trust.keyring import KeyInfo, KeyProvider, Purpose
from ifpp.trust.signer import (
    Signer,
    SoftwareSigner,
    VerificationKey,
    create_key,
    read_public_key,
    write_public_key,
)

_SIGNING = (Purpose.AUDIT, Purpose.REPORT, Purpose.STATION)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose keys: the table [keys] of a site file or of a station file."""

    file: Path
    keys: Keys

    @classmethod
    def load(cls, site_file: Path, station_file: Path | None) -> Place:
        """Read the settings; raises SettingsError KEYS.NONE when there are no keys."""
        file = site_file if station_file is None else station_file
        keys = load_site(file).keys if station_file is None else load_station(file).keys
        if keys.provider == "none":
            raise SettingsError("KEYS.NONE", 'keys.provider is "none"', where=str(file))
        if not any(purpose in keys.purposes for purpose in _SIGNING):
            detail = "purposes need one that signs the records: audit, report or station"
            raise SettingsError("SETTINGS.INVALID", detail, where=f"{file}: keys")
        return cls(file, keys)

    def records(self) -> Records:
        return Records(beside(self.file, self.keys.records))

    def people(self) -> dict[str, VerificationKey]:
        return {name: read_public_key(beside(self.file, file)) for name, file in self.keys.people.items()}

    @contextmanager
    def provider(self) -> Iterator[KeyProvider]:
        provider = open_keys(self.keys, self.file)
        assert provider is not None  # noqa: S101 - load() refused "none"
        try:
            yield provider
        finally:
            provider.close()


def init(place: Place, by: str, reason: str) -> None:
    """Make every key of the plan that is missing; a software file is made when there is none."""
    check_person(by, reason)
    records = place.records()
    create_keys(place.keys, place.file)
    with place.provider() as provider:
        there = {info.purpose for info in provider.keys()}  # noqa: SIM118 - no dict
        made = [provider.generate(Purpose(one)) for one in place.keys.purposes if Purpose(one) not in there]
        _show(made)
        if not made:
            _print("every key of the plan is there already; nothing was done")
            return
        _record(records, Act("init", " ".join(info.name for info in made), by, reason), provider, [])


def list_keys(place: Place) -> None:
    """Print every key that is there: name, kind, id, uses, when it was made."""
    with place.provider() as provider:
        _print(f"provider  {provider.kind}")
        _show(_sorted(provider.keys()))


def rotate(place: Place, purpose: str, by: str, reason: str, confirmations: Sequence[Path]) -> None:
    """Make the next version of a key; the one before it still verifies and unwraps until it is destroyed."""
    check_person(by, reason)
    if purpose not in place.keys.purposes:
        raise SettingsError("COMMAND.INVALID", f"one of {', '.join(place.keys.purposes)}", where=purpose)
    records, act = place.records(), Act("rotate", purpose, by, reason)
    agreed = _agreed(place, records, act, confirmations)
    with place.provider() as provider:
        _show([provider.generate(Purpose(purpose))])
        _record(records, act, provider, agreed)
    _print("processes that run take it at their next start; `ifpp keys destroy` ends the version before it")


def destroy(place: Place, name: str, by: str, reason: str, confirmations: Sequence[Path]) -> None:
    """Destroy an older version for good. Raises CustodyError KEYS.NEWEST, SettingsError COMMAND.INVALID."""
    check_person(by, reason)
    records, act = place.records(), Act("destroy", name, by, reason)
    agreed = _agreed(place, records, act, confirmations)
    with place.provider() as provider:
        found = provider.keys()
        info = next((one for one in found if one.name == name), None)
        if info is None:
            raise SettingsError("COMMAND.INVALID", "there is no such key; see `ifpp keys list`", where=name)
        if info.purpose in place.keys.purposes and info.version == _newest(found, info.purpose):
            raise CustodyError("KEYS.NEWEST", f"it is the newest {info.purpose} key", where=name)
        provider.destroy(name)
        _record(records, act, provider, agreed)
    _print(f"{name} is destroyed; key id {info.key_id}")


def confirm_act(place: Place, action: str, key: str, by: str, key_file: Path, out: Path) -> None:
    """Write one person's confirmation of a rotation or a destruction, signed with the person's own key."""
    records, signer = place.records(), SoftwareSigner.load(key_file)
    mine = place.keys.people.get(by)
    if mine is None or read_public_key(beside(place.file, mine)).key_id != signer.key_id:
        raise SettingsError("COMMAND.INVALID", f"the key is not the one of {by} in [keys] people", where=str(key_file))
    content = confirm(records, action, key, by, signer, datetime.now(UTC))
    try:
        with out.open("xb") as stream:
            stream.write(content)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(out)) from error
    _print(f"{by} confirms: {action} {key}, for one day, after record {records.number}: {out}")


def audit(place: Place) -> int:
    """Compare what is there with the plan and the ceremony records; returns 0 when nothing differs, else 1."""
    records = place.records()
    wanted = [Purpose(one) for one in place.keys.purposes]
    with place.provider() as provider:
        found, token = provider.keys(), provider.kind == "pkcs11"
    differences = compare(found, wanted, records.known, datetime.now(UTC), token=token)
    differences += _ceremonies(place, records)
    _print(f"provider  {provider.kind}, {len(found)} keys, {records.number} ceremony records")
    _show(_sorted(found))
    for one in differences:
        _print(f"{one.kind:10} {one.key}: {one.detail}")
    if not token:
        _print("note: a file's keys can be copied by whoever has the file and its PIN")
    _print(f"DIFFERENT: {len(differences)} findings" if differences else "AS PLANNED: nothing is missing, nothing more")
    return 1 if differences else 0


def personal(path: Path) -> None:
    """Make a key of a person, or of a courier, in a file of its own; raises CustodyError FILE.WRITE when it exists."""
    public = create_key(path)
    _print(f"private key  {path} (mode 0600: its owner's alone)")
    _print(f"public key   {public} (give it to whoever checks)")
    _print(f"key id       {read_public_key(public).key_id}")


def export_public(place: Place, name: str, out: Path) -> None:
    """Write the public key of a key pair in PEM; raises SettingsError COMMAND.INVALID, CustodyError FILE.WRITE."""
    with place.provider() as provider:
        info = next((one for one in provider.keys() if one.name == name), None)  # noqa: SIM118 - no dict
    if info is None or info.public is None:
        raise SettingsError("COMMAND.INVALID", "there is no such key pair; see `ifpp keys list`", where=name)
    write_public_key(out, info.public)
    _print(f"{name}  {info.key_id}\nwritten to {out}")


# ---- inside -------------------------------------------------------------------------------------------


def _agreed(place: Place, records: Records, act: Act, confirmations: Sequence[Path]) -> list[dict[str, str]]:
    if not place.keys.two_person:
        return []
    documents = [read_confirmation(path) for path in confirmations]
    check_confirmations(documents, act, records.head, place.people(), datetime.now(UTC))
    return documents


def _ceremonies(place: Place, records: Records) -> Iterator[Difference]:
    """Where two people are wanted, every rotation and destruction in the records must have them."""
    people = place.people() if place.keys.two_person else {}
    for one in records.all if place.keys.two_person else []:
        if one["action"] != "init":
            act = Act(one["action"], one["key"], one["by"], one["reason"])
            try:
                check_confirmations(one["confirmations"], act, one["previous"], people, parse_utc(one["at"]))
            except VerificationError as error:
                yield Difference("UNCONFIRMED", one["key"], f"record {one['number']}: {error.detail}")


def _record(records: Records, act: Act, provider: KeyProvider, agreed: Sequence[dict[str, str]]) -> None:
    found = provider.keys()
    path = records.write(act, _sorted(found), _signer(provider, found), datetime.now(UTC), agreed)
    _print(f"record {records.number}, SHA-256 {records.head}: {path}")


def _signer(provider: KeyProvider, found: Sequence[KeyInfo]) -> Signer:
    there = {info.purpose for info in found}
    return provider.signer(next(purpose for purpose in _SIGNING if purpose in there))


def _newest(found: Sequence[KeyInfo], purpose: Purpose) -> int:
    return max(info.version for info in found if info.purpose == purpose)


def _sorted(found: Sequence[KeyInfo]) -> list[KeyInfo]:
    return sorted(found, key=lambda info: (info.purpose, info.version))


def _show(found: Sequence[KeyInfo]) -> None:
    for info in found:
        made = info.created_at or "date not known"
        _print(f"{info.name:12} {info.algorithm:9} {info.key_id}  {made}  {' '.join(sorted(info.attributes))}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
