"""A real pcscd with 16 virtual readers: one for each test process, as the library allows."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from ifpp.errors import SettingsError
from ifpp.hw.pcsc import use_socket
from ifpp.roles.virtual_readers import MAX_READERS, VirtualReaders, require_tools

_CLONE_NEWNET = 0x40000000


@cache
def running() -> VirtualReaders:
    """Readers that are there until the test run ends; skips the test (with CI=true: fails it) without them."""
    require()
    readers = VirtualReaders(MAX_READERS, Path(tempfile.mkdtemp(prefix="ifpp-pcsc-")))
    readers.start()
    use_socket(str(readers.socket))
    return readers


def stop() -> None:
    """End what `running` started; for the end of the test run (workers of a parallel run know no atexit)."""
    if running.cache_info().currsize:
        running().stop()
        shutil.rmtree(running().folder, ignore_errors=True)


def enter(netns: str) -> None:
    """Let the calling thread make its connections in this network namespace."""
    with Path("/run/netns", netns).open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def require() -> None:
    """Skip a test that needs virtual readers where there can be none; with CI=true fail instead."""
    missing = ""
    if os.geteuid() != 0:
        missing = "the cards must enter a network namespace: root only"
    elif importlib.util.find_spec("smartcard") is None:
        missing = 'pyscard is not installed (pip install "ifpp[pcsc]")'
    else:
        try:
            require_tools()
        except SettingsError as error:
            missing = error.detail
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing}, and CI must not skip it")
    if missing:
        pytest.skip(missing)
