"""The PIN of the factory's keys: from a systemd credential or an inherited file descriptor, never from elsewhere.

Arguments and environment values are seen by every process of the machine; a file only root and this service may read,
or a pipe, is not.
"""

from __future__ import annotations

import os
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.log import Secret

_MAX_BYTES = 256
_DESCRIPTOR: list[Secret] = []


def take_pin(descriptor: int) -> None:
    """Read the PIN of this process from an inherited descriptor and close it; raises SettingsError KEYS.PIN."""
    where = f"--pin-fd {descriptor}"
    try:
        with os.fdopen(descriptor, "rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingsError("KEYS.PIN", f"no such open file ({error})", where=where) from None
    _DESCRIPTOR[:] = [_checked(content, where)]


def read_pin(credential: str) -> Secret:
    """Return the PIN handed over; raises SettingsError KEYS.PIN when there is none, or others may read it."""
    if _DESCRIPTOR:
        return _DESCRIPTOR[0]
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        detail = "no PIN was handed over, neither by --pin-fd nor by $CREDENTIALS_DIRECTORY"
        raise SettingsError("KEYS.PIN", detail)
    path = Path(folder, credential)
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError("KEYS.PIN", f"cannot be read ({error.strerror})", where=str(path)) from None
    if mode & 0o007:  # systemd gives its credentials an access list, whose mask stands where the group's rights do
        raise SettingsError("KEYS.PIN", f"has mode {mode & 0o777:04o}, others may read it", where=str(path))
    return _checked(content, str(path))


def _checked(content: bytes, where: str) -> Secret:
    pin = content.rstrip(b"\r\n")
    if not pin or len(pin) > _MAX_BYTES:
        raise SettingsError("KEYS.PIN", "is empty" if not pin else "is longer than a PIN", where=where)
    return Secret(pin)
