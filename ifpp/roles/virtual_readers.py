"""A real pcscd with virtual readers, in a network namespace of its own: PC/SC without a single reader on the table.

Debian: packages pcscd, vsmartcard-vpcd and iproute2; root, or sudo without password, for the namespace. The machine's
own pcscd, its socket in /run and its USB readers are left alone.

A virtual reader listens on a TCP port (on all addresses, hence the namespace) and takes one connection as its card; a
driver library serves two of them and must be a file of its own for every pair. pcscd takes 16 readers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from itertools import count
from pathlib import Path

from ifpp.errors import ServiceError, SettingsError

MAX_READERS = 16
_DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
_FIRST_PORT = 0x8C7B
_SLOTS = 2  # of one driver library
_START_S = 10.0
_POLL_S = 0.05
_COMMAND_S = 10.0
_SERIAL = count(1)
# In the private mount namespace that `ip netns exec` makes, /run becomes a folder of ours: pcscd's socket lies in it.
_SCRIPT = """echo $$ > "$4"
mount --bind "$1" /run && exec env PCSCLITE_HP_DROPDIR="$2" setpriv --pdeathsig KILL pcscd -f -e -c "$3"
"""


class VirtualReaders:
    """`number` readers below `folder`; a Unix socket lies in it, so its path should be short.

    `socket`: path of pcscd's socket for [pcsc] of a station; `readers`: PC/SC names; `addresses`: host and port of
    each reader inside the network namespace `netns`. Use as a context manager, or call `start` and `stop`.
    """

    def __init__(self, number: int, folder: Path) -> None:
        if not 1 <= number <= MAX_READERS:
            raise SettingsError("SETTINGS.INVALID", f"pcscd takes 1 to {MAX_READERS} readers, not {number}")
        self.folder = folder.resolve()
        self._number = number
        self._process: subprocess.Popen[bytes] | None = None
        self.netns = f"ifpp-{os.getpid()}-{next(_SERIAL)}"
        self.socket = self.folder / "run" / "pcscd" / "pcscd.comm"
        self.readers = [f"ifpp virtual {place // _SLOTS + 1:02d} 00 {place % _SLOTS:02d}" for place in range(number)]
        self.addresses = [("127.0.0.1", _FIRST_PORT + place) for place in range(number)]

    def __enter__(self) -> VirtualReaders:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of pcscd; raises ServiceError PROCESS.DIED when it does not run."""
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):  # the process has not even begun
            raise self._death("pcscd does not run") from None

    def start(self) -> None:
        """Make the namespace and start pcscd; returns when all readers are there.

        Call it from a thread that stays: pcscd ends with the thread that started it.
        Raises SettingsError for what is missing on this machine, ServiceError when pcscd does not come up.
        """
        require_tools()
        _sweep()
        self._prepare()
        _as_root("ip", "netns", "add", self.netns)
        try:
            _as_root("ip", "-n", self.netns, "link", "set", "lo", "up")
            self.start_pcscd()
        except BaseException:
            self.stop()
            raise

    def start_pcscd(self) -> None:
        """Start pcscd, for the first time or again after it ended; as `start`."""
        shutil.rmtree(self.socket.parent, ignore_errors=True)
        self.socket.parent.mkdir(parents=True)
        words = [self.folder / "run", self.folder / "no-usb", self.folder / "conf", self._pid_file]
        command = ["ip", "netns", "exec", self.netns, "sh", "-c", _SCRIPT, "sh", *map(str, words)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*_root(), *command], stdout=log, stderr=log)
        end_s = time.monotonic() + _START_S
        while not self._listening():
            if self._process.poll() is not None:
                raise self._death("pcscd ended at once")
            if time.monotonic() > end_s:
                raise self._death(f"pcscd was not ready in {_START_S:g} s")
            time.sleep(_POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send pcscd a signal."""
        _as_root("kill", f"-{number.value}", str(self.pid))

    def kill_pcscd(self) -> None:
        """End pcscd with SIGKILL, as a crash does, and wait for its end."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_COMMAND_S)

    def stop(self) -> None:
        """End pcscd and remove the namespace; never fails."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ServiceError, subprocess.TimeoutExpired):
                self.kill_pcscd()
        with contextlib.suppress(ServiceError):
            _as_root("ip", "netns", "del", self.netns)

    def command(self, *words: str) -> list[str]:
        """Return the words that run a command as a neighbour of the readers, where their addresses are valid."""
        return [*_root(), "ip", "netns", "exec", self.netns, *words]

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def _log(self) -> Path:
        return self.folder / "pcscd.log"

    def _prepare(self) -> None:
        for name in ("conf", "no-usb", "drivers"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        entries = []
        for place in range(0, self._number, _SLOTS):
            name, port = f"ifpp virtual {place // _SLOTS + 1:02d}", f"0x{_FIRST_PORT + place:X}"
            driver = self.folder / "drivers" / f"vpcd{place // _SLOTS + 1:02d}.so"
            shutil.copy(_DRIVER, driver)
            entries.append(
                f'FRIENDLYNAME "{name}"\nDEVICENAME /dev/null:{port}\nLIBPATH {driver}\nCHANNELID {port}\n\n'
            )
        (self.folder / "conf" / "readers").write_text("".join(entries), encoding="utf-8")

    def _listening(self) -> bool:
        """Whether pcscd's socket is there and every reader listens."""
        ports = {row.split()[1].rpartition(":")[2] for row in self._tcp_table().splitlines()[1:]}
        return self.socket.exists() and all(f"{port:04X}" in ports for _, port in self.addresses)

    def _tcp_table(self) -> str:
        return _as_root("ip", "netns", "exec", self.netns, "cat", "/proc/net/tcp")

    def _death(self, what: str) -> ServiceError:
        tail = self._log.read_text(errors="replace").splitlines()[-3:] if self._log.exists() else []
        return ServiceError("PROCESS.DIED", f"{what}; its log ends: {' | '.join(tail) or '(empty)'}", where="pcscd")


def require_tools() -> None:
    """Raise SettingsError naming what virtual readers lack on this machine."""
    missing = [name for name in ("pcscd", "ip", "setpriv") if shutil.which(name) is None]
    if not _DRIVER.exists():
        missing.append("vsmartcard-vpcd")
    if missing:
        packages = "apt-get install pcscd vsmartcard-vpcd iproute2 util-linux"
        raise SettingsError("SETTINGS.MISSING", f"virtual readers need {', '.join(missing)} ({packages})")
    try:
        _as_root("true")
    except ServiceError:
        raise SettingsError(
            "SETTINGS.NEEDS_ROOT", "virtual readers need root, or sudo without password, for a network namespace"
        ) from None


def _sweep() -> None:
    """Remove the namespaces of processes that were killed before they could; their pcscd died with them."""
    for place in Path("/run/netns").glob("ifpp-*-*"):
        if not Path("/proc", place.name.split("-")[1]).exists():
            with contextlib.suppress(ServiceError):
                _as_root("ip", "netns", "del", place.name)


def _root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def _as_root(*command: str) -> str:
    """Run a command to its end and return what it printed; raises ServiceError."""
    try:
        done = subprocess.run([*_root(), *command], capture_output=True, text=True, check=True, timeout=_COMMAND_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ServiceError("PROCESS.DIED", f"{' '.join(command[:3])}: {said.strip()}", where="pcscd") from error
    return done.stdout
