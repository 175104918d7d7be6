"""A small Debian 12 to install into: made once by debootstrap, kept in the user's cache, unpacked for each use."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What a plant's machine has before ifpp comes; and what README asks for: Python, git, make.
PACKAGES = "python3,ca-certificates,openssl,systemd,udev,libpcsclite1,tzdata,git,make,python3-venv"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
# Mounts and processes are gone with the one that asked for them; nothing is left behind.
ENTER = """set -e; root=$1; shift
ip link set lo up
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""


def require() -> None:
    """Skip where no chroot can be made; with CI=true fail instead."""
    missing = ""
    if os.geteuid() != 0:
        missing = "a chroot needs root"
    elif not all(map(shutil.which, ("debootstrap", "unshare", "ip"))):
        missing = "debootstrap, unshare or ip is not installed (apt-get install debootstrap util-linux iproute2)"
    elif subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode != 0:
        missing = "this machine allows no namespaces of its own"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing}, and CI must not skip it")
    if missing:
        pytest.skip(missing)


def _mirror() -> str:
    """Return where this machine's own apt gets bookworm from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not lines:
        pytest.fail("this machine's apt knows no bookworm to make a chroot from")
    return lines[0]


def _base() -> Path:
    """Return the tar of a fresh Debian, made if there is none yet."""
    name = hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"ifpp-tests/bookworm-{name}.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(f".{os.getpid()}")
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(beside), _mirror()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        part = kept.with_suffix(f".{os.getpid()}.tar")
        subprocess.run(["tar", "-C", beside, "--exclude=./var/cache/apt/archives/*.deb", "-cf", part, "."], check=True)
        shutil.rmtree(beside)
        part.replace(kept)
    return kept


class Chroot:
    """An unpacked Debian."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        subprocess.run(["tar", "-C", root, "-xf", _base()], check=True)

    def run(
        self, *command: str | Path, network: bool = False, mounts: tuple[Path, ...] = (), **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run in it, cut off from every network but its own loopback unless `network`; `mounts` come in as they are."""
        enter = ENTER
        for path in mounts:
            (self.root / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
            enter = enter.replace("exec", f'mount --rbind "{path}" "$root{path}"\nexec')
        if network:
            enter = enter.replace("ip link set lo up\n", "")
        spaces = ["--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        whole = ["unshare", *spaces, "sh", "-c", enter, "sh", str(self.root), *map(str, command)]
        env = {**ENVIRONMENT, **more}
        return subprocess.run(whole, capture_output=True, text=True, check=False, env=env, cwd="/")


def index(debian: Chroot) -> tuple[Path, ...]:
    """Let pip in the chroot use what pip uses here; return the folders it has to see."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    lines = [line.split("=", 1) for line in said.stdout.splitlines()]
    own = {key.rsplit(".", 1)[1]: value.strip("'") for key, value in lines if "cert" not in key}
    text = "".join(f"{key} = {value.replace(chr(92) + 'n', ' ')}\n" for key, value in own.items())
    (debian.root / "etc/pip.conf").write_text(f"[global]\n{text}")
    shutil.copy("/etc/resolv.conf", debian.root / "etc/resolv.conf")
    shutil.copy("/etc/hosts", debian.root / "etc/hosts")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        shutil.copy(bundle, debian.root / "etc/ssl/certs/ca-certificates.crt")
    words = [Path(w.removeprefix("file://")) for value in own.values() for w in re.split(r"\\n|\s", value)]
    return tuple(sorted({Path("/", *w.parts[1:3]) for w in words if w.is_absolute() and w.exists()}))
