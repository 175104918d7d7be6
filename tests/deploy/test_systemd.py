"""The units in systemd/: systemd takes them, they are as tight as was promised, and they fit the program they start."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from ifpp.line import lease
from ifpp.settings import Deadlines, Keys
from ifpp.station import agent
from ifpp.storefront import app as storefront
from tests.deploy.test_runbook import _fault
from tests.real.prometheus import ROOT

HOME = ROOT / "systemd"
UNITS = sorted(path for suffix in ("service", "timer", "target") for path in HOME.glob(f"*.{suffix}"))
SERVICES = [path for path in UNITS if path.suffix == ".service"]
PROCESSES = ("ifpp-store.service", "ifpp-supervisor.service", "ifpp-station@.service")
EXPOSED = {"ifpp-station@.service": 20}  # tenths, at most; every other unit:
_TIGHT = 15
GUIDE = (HOME / "README.md").read_text()
_UNITS_OF_TIME = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}
_RULE_WORDS = {
    *("ACTION", "SUBSYSTEM", "SUBSYSTEMS", "GOTO", "LABEL", "GROUP", "MODE", "SYMLINK"),
    *("ENV{}", "ATTR{}", "IMPORT{builtin}"),
}


def settings(unit: Path) -> dict[str, list[str]]:
    """Every key of a unit with its values, in order; what comes in two sections is not told apart."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9]+)([a-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS_OF_TIME[unit]


def commands(unit: Path) -> list[str]:
    """What a unit runs, in order."""
    found = settings(unit)
    return [line for key in ("ExecStartPre", "ExecStart", "ExecStartPost") for line in found[key]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as on a machine of a station st01, but with this tree's program."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd is not installed, and CI must not skip it")
        pytest.skip("systemd is not installed")
    folder = tmp_path_factory.mktemp("units")
    program = Path(sys.executable).parent / "ifpp"
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/ifpp ", f"{program} ")
        (folder / unit.name.replace("@.", "@st01.")).write_text(text)
    return folder


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


# ---- systemd's own word ------------------------------------------------------------------------------------


def test_systemd_takes_every_unit(installed: Path) -> None:
    done = run("systemd-analyze", "verify", "--man=no", *sorted(installed.iterdir()))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_unit_that_is_wrong_is_found(installed: Path, tmp_path: Path) -> None:
    unit = tmp_path / "ifpp-store.service"
    unit.write_text((installed / unit.name).read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in run("systemd-analyze", "verify", "--man=no", unit).stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_unit_is_tight_and_says_what_is_left_open_and_why(unit: Path, installed: Path) -> None:
    where = installed / unit.name.replace("@.", "@st01.")
    look = ("systemd-analyze", "security", "--offline=true", "--no-pager")
    limit = EXPOSED.get(unit.name, _TIGHT)
    assert run(*look, f"--threshold={limit}", where).returncode == 0
    assert run(*look, "--threshold=5", where).returncode != 0, "the threshold means something"
    (figure,) = re.findall(r"Overall exposure level for .*: ([0-9.]+) ", run(*look, where).stdout)
    assert re.search(rf"^\| `{re.split('[.@]', unit.name)[0]}[@.].*\| {figure} \|", GUIDE, re.MULTILINE), figure
    left = [found["name"] for found in json.loads(run(*look, "--json=short", where).stdout) if found["exposure"]]
    assert left
    named = {re.split(r"[=~/]", name)[0] for name in left} - {"RestrictAddressFamilies"}
    told = (HOME / "ifpp-supervisor.service").read_text() if "as in ifpp-supervisor" in unit.read_text() else ""
    comments = "\n".join(line for line in (unit.read_text() + told).splitlines() if line.startswith("#"))
    assert [name for name in named if name not in comments] == []


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_nothing_but_comments_says_what_users_and_folders_are_called(unit: Path) -> None:
    """Each user and group of a unit is made by sysusers, each folder by the unit itself or by tmpfiles."""
    found, made = settings(unit), (HOME / "ifpp.sysusers.conf").read_text()
    assert re.search(rf"^u {found['User'][0]} ", made, re.MULTILINE)
    for group in (*found["Group"], *found["SupplementaryGroups"]):
        assert re.search(rf"^g {group} ", made, re.MULTILINE)
    folders = (HOME / "ifpp.tmpfiles.conf").read_text()
    own = {f"/var/lib/{one}" for path in SERVICES for one in settings(path)["StateDirectory"]}
    for path in found["ReadWritePaths"]:
        assert path.removeprefix("-") in own or f"d {path} " in folders
    assert found["WorkingDirectory"] == [f"/var/lib/{found['StateDirectory'][0]}"]


# ---- the program ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_commands_and_options_of_a_unit_exist(unit: Path) -> None:
    lines = [found[0] for line in commands(unit) if (found := re.search(r"/usr/bin/ifpp [^']+", line))]
    assert lines
    assert [fault for line in lines if (fault := _fault(line.replace("/usr/bin/", "").replace("$$", "")))] == []


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_is_checked_before_it_starts_without_its_pin(name: str) -> None:
    unit = HOME / name
    role = re.split("[-@.]", name)[1]
    check, start = commands(unit)
    assert f"ifpp check --for {role} " in check
    assert all(file in check for file in re.findall(r"/etc/ifpp/\S+", start)), "it looks at the same files"
    if settings(unit)["LoadCredential"]:
        assert check.startswith("/usr/bin/env -u CREDENTIALS_DIRECTORY ")


def test_a_pin_goes_where_the_program_looks_for_it() -> None:
    with_keys = {unit.name for unit in SERVICES if settings(unit)["LoadCredential"]}
    assert with_keys == {unit.name for unit in SERVICES} - {"ifpp-store.service"}, "the store signs nothing"
    for unit in SERVICES:
        for credential in settings(unit)["LoadCredential"]:
            name, source = credential.split(":")
            assert name == Keys().pin_credential
            assert "/" not in source, "a credential of a name may be missing: not every site has keys"


def test_a_process_is_watched_with_room_and_drains_in_time() -> None:
    watched = {name: seconds(settings(HOME / name)["WatchdogSec"][0]) for name in PROCESSES}
    beats = (storefront.SWEEP_S, lease._RENEW_S, agent._SNAPSHOT_S)
    assert all(limit >= 10 * beat for limit, beat in zip(watched.values(), beats, strict=True))
    for name in PROCESSES:
        found = settings(HOME / name)
        assert (found["Type"], found["NotifyAccess"], found["KillSignal"]) == (["notify"], ["main"], ["SIGTERM"])
        assert float(found["RestartSec"][0]) * float(found["StartLimitBurst"][0]) < seconds(
            found["StartLimitIntervalSec"][0]
        ), "a check that goes on failing comes to its end"
    drain = seconds(settings(HOME / "ifpp-station@.service")["TimeoutStopSec"][0])
    assert drain > 2 * Deadlines().load_apdu_s + agent._DRAIN_S


def test_the_timers_start_what_is_there_and_the_target_has_everything() -> None:
    for timer in HOME.glob("*.timer"):
        assert (HOME / f"{timer.stem}.service").exists()
    for unit in UNITS:
        wanted = settings(unit)["WantedBy"]
        started_by_timer = (HOME / f"{unit.stem}.timer").exists() and unit.suffix == ".service"
        assert wanted == (
            [] if started_by_timer else ["multi-user.target" if unit.suffix == ".target" else "ifpp.target"]
        )


# ---- users, folders, devices, the package --------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-sysusers needs root")
def test_users_and_folders_are_made(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for _ in range(2):  # a second time, as an upgrade does, changes nothing
        assert run("systemd-sysusers", f"--root={tmp_path}", HOME / "ifpp.sysusers.conf").returncode == 0
        done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", HOME / "ifpp.tmpfiles.conf")
        assert (done.returncode, done.stderr) == (0, "")
    users = dict(line.split(":", 1) for line in (tmp_path / "etc/passwd").read_text().splitlines())
    assert set(users) >= {"ifpp-store", "ifpp-supervisor", "ifpp-station"}
    assert all("nologin" in line for name, line in users.items() if name.startswith("ifpp"))
    members = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert members["ifpp"] == "ifpp-store,ifpp-supervisor"
    modes = {name: (tmp_path / name).stat().st_mode & 0o7777 for name in ("etc/ifpp", "etc/credstore", "run/ifpp")}
    assert modes == {"etc/ifpp": 0o750, "etc/credstore": 0o700, "run/ifpp": 0o2750}


def test_the_device_rules_can_be_read() -> None:
    rules = HOME / "60-ifpp.rules"
    lines = [line for line in rules.read_text().splitlines() if line and not line.startswith("#")]
    labels = re.findall(r'^LABEL="(\w+)"$', rules.read_text(), re.MULTILINE)
    gone = [goto for line in lines for goto in re.findall(r'GOTO="(\w+)"', line)]
    assert set(gone) == set(labels)
    for line in lines:
        parts = [re.fullmatch(r'([A-Z]+(?:{(\w+)})?)(==|!=|\+=|=)"([^"]*)"', part.strip()) for part in line.split(", ")]
        assert all(parts), line
        for part in filter(None, parts):
            word = part[1] if part[1] == "IMPORT{builtin}" else re.sub(r"{\w+}", "{}", part[1])
            assert word in _RULE_WORDS, line
    for link in re.findall(r'SYMLINK\+="([^"]+)"', rules.read_text()):
        assert link.startswith("ifpp/")
    if run("udevadm", "verify", "--help").returncode == 0 if shutil.which("udevadm") else False:
        assert run("udevadm", "verify", rules).returncode == 0


def test_the_package_takes_every_file(tmp_path: Path) -> None:
    source = importlib.util.spec_from_file_location("build", ROOT / "deploy/package/build.py")
    assert source is not None
    assert source.loader is not None
    build = importlib.util.module_from_spec(source)
    source.loader.exec_module(build)
    build.system_files(tmp_path)
    placed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert placed == {f"usr/lib/systemd/system/{unit.name}" for unit in UNITS} | {
        "usr/lib/sysusers.d/ifpp.conf",
        "usr/lib/tmpfiles.d/ifpp.conf",
        "usr/lib/udev/rules.d/60-ifpp.rules",
    }
