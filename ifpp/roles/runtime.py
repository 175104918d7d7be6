"""What every process does the same way: logs, signals, the line that says it is ready, and a way to end."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from ifpp.errors import IfppError, SettingsError
from ifpp.log import configure
from ifpp.model.structs import prepare_structs
from ifpp.roles import notify
from ifpp.settings import Site, Trust
from ifpp.trust.certificate import CertificatePolicies
from ifpp.trust.chain import TrustStore
from ifpp.trust.tls import Renewed, client_context

Main = Callable[[asyncio.Event], Awaitable[None]]


def run_until_stopped(main: Main) -> None:
    """Run a process: SIGTERM or Ctrl-C sets the stop event, a second one ends it at once.

    An IfppError that comes out of a task group is raised alone, so that it is shown in one line. Raises
    KeyboardInterrupt after the second signal.
    """
    configure()
    prepare_structs()
    notify.trace_hangs()
    try:
        asyncio.run(_with_signals(main))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        raise first_fault(group) from group


def first_fault(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first IfppError in a group, else its first exception."""
    faults, _ = group.split(IfppError)
    inner: BaseException = faults or group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner


async def _with_signals(main: Main) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()
        notify.stopping()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    await main(stop)


def say_ready(role: str, **facts: object) -> None:
    """Tell whoever started us that we serve now: one JSON line, and the service manager's word."""
    sys.stdout.write(json.dumps({"ready": True, "role": role, **facts}) + "\n")
    sys.stdout.flush()
    notify.ready(f"{role} serves")


def load_trust(site: Site, site_file: Path) -> TrustStore:
    """Read the trusted CI certificates of a site; raises SettingsError when there are none or one cannot be read."""
    folder = (site_file.parent / site.trust.roots).resolve()
    files = sorted(path for path in folder.glob("*") if path.suffix in (".der", ".pem"))
    if not files:
        raise SettingsError("SETTINGS.MISSING", "no trusted CI certificate (*.der, *.pem) here", where=str(folder))
    roots = [_der(path) for path in files]
    return TrustStore(roots, policies(site.trust))


def broker_tls(site: Site, site_file: Path) -> Renewed | None:
    """Return what the supervisor and people's commands show to the broker; None without TLS. Raises SettingsError."""
    if (tls := site.broker.tls) is None:
        return None
    return Renewed(client_context, *(beside(site_file, name) for name in (tls.ca, tls.cert, tls.key)))


def policies(trust: Trust) -> CertificatePolicies:
    """Return the certificate policy OIDs of the settings."""
    accepted = trust.policies
    return CertificatePolicies(
        ci=frozenset(accepted.ci),
        eum=frozenset(accepted.eum),
        euicc=frozenset(accepted.euicc),
        dppb=frozenset(accepted.dppb),
        sub_ca=frozenset(accepted.sub_ca),
    )


def beside(site_file: Path, name: str) -> Path:
    """A path in a settings file is relative to that file."""
    return (site_file.parent / name).resolve()


def _der(path: Path) -> bytes:
    try:
        return ssl.PEM_cert_to_DER_cert(path.read_text()) if path.suffix == ".pem" else path.read_bytes()
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", f"no certificate can be read ({error})", where=str(path)) from error
