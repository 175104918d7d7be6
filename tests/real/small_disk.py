"""A disk that is really full: a tmpfs of a few hundred kilobytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted folder that can be filled to the last byte, and given room again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (4096, 1):
                while True:
                    try:
                        ballast.write(b"\0" * size)
                    except OSError:
                        break

    def clear(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_kb: int = 256) -> Iterator[SmallDisk]:
    """Mount one at `folder` for the block; without root the test is skipped, with CI=true it fails."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail(f"a tmpfs cannot be mounted, and CI must not skip it: {done.stderr.strip()}")
        pytest.skip("a tmpfs can be mounted by root only")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
