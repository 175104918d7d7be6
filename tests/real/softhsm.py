"""SoftHSM 2 for tests: a token of its own in a temporary folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import Attribute, ObjectClass

from ifpp.errors import SettingsError
from ifpp.hw.hsm import Pkcs11Keys
from ifpp.hw.hsm.token import Token
from ifpp.log import Secret
from ifpp.metrics import Metrics
from ifpp.roles.demo_keys import DemoKeys, KeysKind, softhsm_module


def require() -> None:
    """Skip a test that needs SoftHSM where there is none; with CI=true fail instead."""
    try:
        softhsm_module()
    except SettingsError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"SoftHSM is not installed, and CI must not skip it: {error}")
        pytest.skip("SoftHSM is not installed (apt-get install softhsm2)")


class SoftToken:
    """A fresh, empty token; the library reads its settings when it begins, so one token at a time in a process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        require()
        made = DemoKeys(folder, KeysKind.PKCS11)
        made.prepare()
        self.module = str(softhsm_module())
        self.label = "ifpp-demo"
        self.objects = folder / "token" / "objects"
        self.pin = Secret((made.credentials / "ifpp-pin").read_bytes())
        monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "token" / "softhsm2.conf"))

    def open(self, *, timeout_s: float = 60.0, sessions: int = 4, metrics: Metrics | None = None) -> Pkcs11Keys:
        """Open it; by default with waits that no slow machine meets."""
        return Pkcs11Keys.open(
            self.module, self.label, self.pin, timeout_s=timeout_s, sessions=sessions, metrics=metrics
        )

    def put(self, label: str, kind: ObjectClass, template: dict[Attribute, Any]) -> None:
        """Put a key into the token as somebody with another tool would."""
        base = {Attribute.CLASS: kind, Attribute.LABEL: label, Attribute.TOKEN: True, Attribute.PRIVATE: True}
        token = Token(self.module, self.label, self.pin, timeout_s=60.0, sessions=1, metrics=None)
        token.run("put", lambda session: session.raw.create_object(base | template), again=False)
        token.close()
