"""`ifpp people`: who may act at a station, and as what."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ifpp.errors import CustodyError, SettingsError
from ifpp.settings import People, Person, PersonRole, load_people
from ifpp.trust.people import badge_hash, new_salt, recognise

_HEAD = "# Who may act at a station, and as what. Written by `ifpp people`; holds no badge, only a slow hash of each.\n"
_MAX_REASON = 200


def add(file: Path, name: str, role: PersonRole) -> None:
    """Enter a person, or give one a new badge or role; the badge's code comes from standard input.

    Raises SettingsError (a badge that is none, or somebody else's), CustodyError FILE.WRITE.
    """
    people = load_people(file) if file.exists() else People(new_salt())
    code = sys.stdin.readline()
    try:
        other = recognise(people, code).name
    except SettingsError:
        other = name
    if other != name:
        raise SettingsError("OPERATOR.BADGE", f"this is the badge of {other}", where=str(file))
    person = Person(role=role, badge=badge_hash(code, people.salt))
    write_people(file, People(people.salt, {**people.people, name: person}))
    sys.stdout.write(f"{name}: {role}\n")


def remove(file: Path, name: str) -> None:
    """Take a person out; raises SettingsError OPERATOR.UNNAMED for one who is not in."""
    people = load_people(file)
    if name not in people.people:
        raise SettingsError("OPERATOR.UNNAMED", f"{name!r} is not in it", where=str(file))
    write_people(file, People(people.salt, {key: one for key, one in people.people.items() if key != name}))
    sys.stdout.write(f"{name}: removed\n")


def show(file: Path) -> None:
    """Print who is in."""
    for name, person in sorted(load_people(file).people.items()):
        sys.stdout.write(f"{name:<32} {person.role}\n")


def write_people(file: Path, people: People) -> None:
    """Write the file of people; raises SettingsError for a name that is none, CustodyError FILE.WRITE."""
    lines = [_HEAD, f'salt = "{people.salt}"\n']
    for name, person in sorted(people.people.items()):
        lines.append(f'\n[people.{name}]\nrole = "{person.role}"\nbadge = "{person.badge}"\n')
    part = file.with_suffix(".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        load_people(part)  # a name that is none must not make a file that cannot be read
        part.replace(file)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(file)) from error
    except SettingsError:
        part.unlink()
        raise SettingsError("OPERATOR.UNNAMED", "a name is 1 to 32 of A-Z a-z 0-9 _ -", where=str(file)) from None


def check_person(by: str, reason: str) -> None:
    """Nothing is changed without name and reason. Raises SettingsError COMMAND.INVALID."""
    for name, text in (("--by", by), ("--reason", reason)):
        if not 0 < len(text.strip()) <= _MAX_REASON:
            raise SettingsError("COMMAND.INVALID", f"write 1 to {_MAX_REASON} characters", where=name)
