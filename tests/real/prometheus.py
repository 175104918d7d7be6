"""A real Prometheus for tests, its Alertmanager, promtool and amtool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ifpp.bus.broker import free_port

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "ifpp.rules.yml"
ROUTES = RULES.with_name("alertmanager.yml")


def require(package: str = "prometheus", *programs: str) -> None:
    """Skip a test that needs Prometheus where there is none; with CI=true fail instead."""
    if all(map(shutil.which, programs or ("prometheus", "promtool"))):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{package} is not installed, and CI must not skip it")
    pytest.skip(f"{package} is not installed (apt-get install {package})")


def require_alertmanager() -> None:
    """As `require`, of Alertmanager."""
    require("prometheus-alertmanager", "prometheus-alertmanager", "amtool")


def amtool(*arguments: str | Path) -> str:
    """Run amtool; fails the test with its words."""
    require_alertmanager()
    done = subprocess.run(["amtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def promtool(*arguments: str | Path) -> str:
    """Run promtool; fails the test with its words."""
    require()
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """Answers of a running one."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **values: str) -> Any:
        """Return the data of an API call; raises OSError while it is not ready."""
        address = f"{self._base}/api/v1/{path}?{urllib.parse.urlencode(values)}"
        with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310 - our own address
            return json.load(answer)["data"]

    def firing(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that fire, by name."""
        alerts = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}

    def healthy(self) -> bool:
        """Whether every target was scraped at least once."""
        try:
            targets = self.ask("targets")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and all(one["health"] == "up" for one in targets)


class Alertmanager:
    """Answers of a running one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Return what it was told, by the alert's name; nothing while it is not ready."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=20) as answer:  # noqa: S310 - our own
                return {one["labels"]["alertname"]: one for one in json.load(answer)}
        except OSError:
            return {}


@contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    """An Alertmanager with the routes that ifpp ships, alone."""
    require_alertmanager()
    folder.mkdir()
    port = free_port()
    words = [f"--config.file={ROUTES}", f"--storage.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    command = ["prometheus-alertmanager", *words, "--cluster.listen-address="]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Alertmanager(port)
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def running(folder: Path, targets: dict[str, list[int]], manager: Alertmanager | None = None) -> Iterator[Prometheus]:
    """Scrape ports of this machine, by job, five times a second, with the rules that ifpp ships; tell `manager`."""
    require()
    folder.mkdir()
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    quick = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
    told = [{"static_configs": [{"targets": [f"127.0.0.1:{manager.port}"]}]}] if manager else []
    settings = {
        "global": quick,
        "rule_files": [str(RULES)],
        "scrape_configs": jobs,
        "alerting": {"alertmanagers": told},
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    port = free_port()
    words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command = ["prometheus", *words, f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(Prometheus(port).healthy)
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(60)


def wait_for(true: Callable[[], bool], patience_s: float = 60, *, about: str = "") -> None:
    """Wait until something is so."""
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, f"{about or true} is still not so"
        time.sleep(0.1)
