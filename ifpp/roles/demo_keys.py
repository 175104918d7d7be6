"""The keys of a demo: an encrypted file or a SoftHSM token of its own, a fresh PIN, and who is told of it.

The PIN is in `credentials/`, as systemd would hand it over: processes get the folder's name, never the PIN.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from ifpp.errors import ServiceError, SettingsError

_CREDENTIAL = "ifpp-pin"
_TOKEN = "ifpp-demo"  # noqa: S105 - a label
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
_TOOL_S = 60.0


class KeysKind(StrEnum):
    """What holds the keys of a demo."""

    NONE = "none"
    SOFTWARE = "software"
    PKCS11 = "pkcs11"


class DemoKeys:
    """Keys in `folder`; `table` is the [keys] table of every settings file of the line."""

    def __init__(self, folder: Path, kind: KeysKind) -> None:
        self.kind = kind
        self._folder = folder.resolve()
        self._module = softhsm_module() if kind is KeysKind.PKCS11 else Path()

    @property
    def credentials(self) -> Path:
        """The folder with the PIN."""
        return self._folder / "credentials"

    @property
    def environment(self) -> Mapping[str, str]:
        """What every process finds in its environment: where the PIN lies."""
        if self.kind is KeysKind.NONE:
            return os.environ
        return os.environ | {"CREDENTIALS_DIRECTORY": str(self.credentials)}

    @property
    def table(self) -> str:
        """The table [keys], with paths that hold from everywhere."""
        lines = ["[keys]", f'provider = "{self.kind}"']
        if self.kind is KeysKind.NONE:
            return "\n".join(lines) + "\n"
        lines += [f'records = "{self._folder / "ceremonies"}"', f'pin_credential = "{_CREDENTIAL}"']
        if self.kind is KeysKind.SOFTWARE:
            lines += [f'file = "{self._folder / "keys.ifpp"}"']
        else:
            configuration = self._folder / "token" / "softhsm2.conf"
            lines += [f'module = "{self._module}"', f'token = "{_TOKEN}"', "sessions = 8"]
            lines += [f'environment = {{ SOFTHSM2_CONF = "{configuration}" }}']
        return "\n".join(lines) + "\n"

    def prepare(self) -> None:
        """Make the PIN, and the token that waits for its keys. Blocking; raises ServiceError PROCESS.DIED."""
        if self.kind is KeysKind.NONE:
            return
        self.credentials.mkdir(mode=0o700, parents=True)
        pin = secrets.token_hex(16)
        (self.credentials / _CREDENTIAL).touch(mode=0o600, exist_ok=False)
        (self.credentials / _CREDENTIAL).write_text(pin)
        if self.kind is KeysKind.PKCS11:
            self._make_token(pin)

    def _make_token(self, pin: str) -> None:
        """SoftHSM's tool takes a PIN as an argument or from a terminal; this token is a demo's and guards nothing."""
        token = self._folder / "token"
        (token / "objects").mkdir(mode=0o700, parents=True)
        configuration = token / "softhsm2.conf"
        lines = (f"directories.tokendir = {token / 'objects'}", "objectstore.backend = file", "log.level = ERROR", "")
        configuration.write_text("\n".join(lines))
        words = ["softhsm2-util", "--module", str(self._module), "--init-token", "--free", "--label", _TOKEN]
        done = subprocess.run(
            [*words, "--so-pin", secrets.token_hex(16), "--pin", pin],
            env=os.environ | {"SOFTHSM2_CONF": str(configuration)},
            capture_output=True,
            text=True,
            timeout=_TOOL_S,
            check=False,
        )
        if done.returncode:
            raise ServiceError("PROCESS.DIED", f"softhsm2-util ended with {done.returncode}", where=str(token))


def softhsm_module() -> Path:
    """Where SoftHSM's PKCS#11 library is; raises SettingsError KEYS.NO_TOKEN when it is not installed."""
    module = next((Path(name) for name in _MODULES if Path(name).is_file()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        detail = "SoftHSM 2 is not installed (Debian: apt-get install softhsm2), or take --keys software"
        raise SettingsError("KEYS.NO_TOKEN", detail, where="--keys pkcs11")
    return module
