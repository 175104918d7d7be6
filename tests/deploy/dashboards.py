"""The dashboards as they are shipped, and their expressions as Prometheus would be asked them."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

from tests.real.prometheus import ROOT

FOLDER = ROOT / "deploy" / "grafana"


def maker() -> ModuleType:
    """`deploy/grafana/make.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("make_dashboards", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def shipped() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def expressions() -> dict[str, str]:
    """ "dashboard: panel A" -> expression for every line and station."""
    return {
        f"{name}: {panel['title']} {target['refId']}": target["expr"].replace("$line", ".*").replace("$station", ".*")
        for name, board in shipped().items()
        for panel in board["panels"]
        for target in panel["targets"]
    }
