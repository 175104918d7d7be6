"""From the table [keys] of a settings file to the keys themselves; the PIN comes from `ifpp.roles.pin`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ifpp.errors import ServiceError, SettingsError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.roles.pin import read_pin
from ifpp.roles.runtime import beside
from ifpp.settings import Keys
from ifpp.trust.keyring import KeyProvider, Purpose
from ifpp.trust.signer import Signer

log = get_logger("keys")


def open_keys(keys: Keys, settings_file: Path, metrics: Metrics | None = None) -> KeyProvider | None:
    """Open the keys; None where the settings say that there are none. The caller closes them.

    A PIN that is missing or wrong is no start: SettingsError KEYS.PIN and its kin. A token that does not answer now is
    asked again when it is needed.
    """
    if keys.provider == "none":
        return None
    pin = read_pin(keys.pin_credential)
    if keys.provider == "software":
        from ifpp.trust.keyfile import SoftwareKeys

        return SoftwareKeys.open(beside(settings_file, keys.file), pin)
    if not (keys.module and keys.token):
        raise SettingsError("SETTINGS.MISSING", "PKCS#11 wants keys.module and keys.token", where=str(settings_file))
    os.environ.update(keys.environment)
    from ifpp.hw.hsm import Pkcs11Keys

    module = str(beside(settings_file, keys.module))
    return Pkcs11Keys.open(module, keys.token, pin, timeout_s=keys.timeout_s, sessions=keys.sessions, metrics=metrics)


def create_keys(keys: Keys, settings_file: Path) -> None:
    """Make the encrypted file of a software provider when there is none; a token is made with its maker's tool."""
    if keys.provider == "software":
        from ifpp.trust.keyfile import SoftwareKeys

        path = beside(settings_file, keys.file)
        if not path.exists():
            SoftwareKeys.create(path, read_pin(keys.pin_credential)).close()


@contextmanager
def using_keys(keys: Keys, settings_file: Path, metrics: Metrics | None = None) -> Iterator[KeyProvider | None]:
    """The keys for the life of a process; see `open_keys`."""
    provider = open_keys(keys, settings_file, metrics)
    try:
        yield provider
    finally:
        if provider is not None:
            provider.close()


class LateKeys:
    """The keys of a command that needs them for some files only: opened at the first call, closed by `close`."""

    def __init__(self, keys: Keys, settings_file: Path) -> None:
        self._keys, self._settings_file = keys, settings_file
        self._opened: KeyProvider | None = None

    def __call__(self) -> KeyProvider | None:
        """See `open_keys`."""
        if self._opened is None:
            self._opened = open_keys(self._keys, self._settings_file)
        return self._opened

    def close(self) -> None:
        """Log out, if anybody asked."""
        if self._opened is not None:
            self._opened.close()


def signer_for(provider: KeyProvider | None, keys: Keys, purpose: Purpose) -> Signer | None:
    """Return the newest key of a purpose; None where there are no keys, or not this one.

    While the token is away it is a signer that asks for its key when it is used.
    """
    if provider is None or purpose not in keys.purposes:
        return None
    try:
        return provider.signer(purpose)
    except ServiceError as error:
        log.warning("keys.away", purpose=purpose, error=error)
        return _Later(provider, purpose)


class _Later:
    """A Signer whose token was away; every use raises ServiceError until it is back."""

    def __init__(self, provider: KeyProvider, purpose: Purpose) -> None:
        self._provider, self._purpose = provider, purpose
        self._found: Signer | None = None

    def _signer(self) -> Signer:
        if self._found is None:
            self._found = self._provider.signer(self._purpose)
        return self._found

    @property
    def key_id(self) -> str:
        return self._signer().key_id

    @property
    def public(self) -> bytes:
        return self._signer().public

    def sign(self, message: bytes) -> bytes:
        return self._signer().sign(message)
