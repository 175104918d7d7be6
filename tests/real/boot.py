"""A real systemd as the first process of a folder with a Debian in it, in namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

PATIENCE_S = 240.0
# Control groups are made inside one of this test's own. It is the first process of its namespace, not of the machine:
# nothing of it outlives it.
_OUTSIDE = """set -e; group=$1; root=$2
mkdir "$group"; echo $$ > "$group/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup sh -c "$3" sh "$root"
"""
_INSIDE = """set -e; cd "$1"
mount --make-rprivate /; mount --bind . .; cd "$1"
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/pts dev/shm; mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts; ln -s pts/ptmx dev/ptmx
for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
    set -- $node; mknod -m 666 "dev/$1" c 1 "$2"
done
mknod -m 666 dev/tty c 5 0
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup; mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mkdir -p old; pivot_root . old; cd /; umount -l /old; rmdir /old
mount --make-rshared /
export container=ifpp-test
exec /lib/systemd/systemd --system --unit=the-test.target --show-status=0
"""
_UNITS = {
    "the-test.target": "[Unit]\nWants=the-test.service basic.target\nAfter=basic.target\n",
    "the-test.service": "[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\n"
    "ExecStart=/bin/sh /the-test.sh\nStandardOutput=file:/the-test.log\nStandardError=file:/the-test.log\n",
}
_END = "--- the end"


def _groups() -> Path:
    """Return where systemd keeps control groups on this machine; skip where there are none."""
    for place, sign in (("/sys/fs/cgroup/systemd", "cgroup.procs"), ("/sys/fs/cgroup", "cgroup.controllers")):
        if os.access(Path(place, sign), os.W_OK):
            return Path(place)
    if os.environ.get("CI") == "true":
        pytest.fail("this machine has no control groups to boot in, and CI must not skip it")
    pytest.skip("this machine has no control groups to boot in")


def boot(root: Path, script: str) -> str:
    """Boot `root`, run `script` (sh, as root) when it is up, and return what it wrote. Fails after PATIENCE_S."""
    log, group = root / "the-test.log", _groups() / f"ifpp-test-{os.getpid()}"
    log.unlink(missing_ok=True)
    (root / "the-test.sh").write_text(f"{script}\necho '{_END}'\n")
    for name, text in _UNITS.items():
        (root / "etc/systemd/system" / name).write_text(text)
    first = subprocess.Popen(["sh", "-c", _OUTSIDE, "sh", str(group), str(root), _INSIDE], cwd="/")
    try:
        end_s = time.monotonic() + PATIENCE_S
        while not (log.exists() and _END in log.read_text()):
            assert first.poll() is None, "systemd has ended"
            assert time.monotonic() < end_s, log.read_text() if log.exists() else "it did not come up"
            time.sleep(0.2)
    finally:
        first.kill()  # and with it everything inside
        first.wait()
        _remove(group)
        for name in _UNITS:
            (root / "etc/systemd/system" / name).unlink()
    return log.read_text()


def _remove(group: Path) -> None:
    """Take the control groups away; they are empty as soon as the kernel has noticed the end of their processes."""
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        _remove_one(folder)
    _remove_one(group)


def _remove_one(folder: Path) -> None:
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
