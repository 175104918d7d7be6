"""deploy/compose.yml and what it starts: held against the repository, the program, its settings, and real programs."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml

from ifpp import __version__
from ifpp.__main__ import app
from ifpp.bus.broker import BrokerKind
from ifpp.bus.rights import BrokerFiles, settings
from ifpp.settings import Site, load_site
from tests.deploy.in_site import recipe
from tests.deploy.test_mosquitto import TRAPS
from tests.real.mosquitto import require
from tests.real.prometheus import RULES, promtool
from tests.real.prometheus import require as require_prometheus

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "containers" / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, facts in SERVICES.items() if facts["image"].startswith("ifpp:")]
RUNNING = [name for name, facts in SERVICES.items() if "profiles" not in facts]
SITE_FOLDER = "${IFPP_SITE:-./site}"
PLANT = "${IFPP_PLANT_ADDRESS:?}"
every = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(DEPLOY / "containers" / "site.toml")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that prepare.sh makes, completed once the CA and the broker's rights are there."""
    need_root()
    folder = tmp_path_factory.mktemp("prepared") / "site"
    prepare = ["sh", str(DEPLOY / "containers" / "prepare.sh"), str(folder)]
    subprocess.run(prepare, check=True)
    for words in recipe():
        if words[:5] == ["docker", "compose", "run", "--rm", "ca"]:
            command = [sys.executable, "-m", "ifpp", *words[5:]]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    subprocess.run(prepare, check=True)
    return folder


def need_root() -> None:
    """What gives files to users wants root; with CI=true that is a failure."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("not root, and CI must not skip it")
    pytest.skip("giving files to other users wants root")


def mounts(name: str) -> list[tuple[str, str, bool]]:
    """Source, target, and whether it may be written, of each volume."""
    found = []
    for volume in SERVICES[name].get("volumes", []):
        source, _, target = volume.removesuffix(":ro").rpartition(":")
        found.append((source, target, not volume.endswith(":ro")))
    return found


def granted(name: str) -> dict[str, str]:
    """Where a service finds each of its secrets."""
    grants = [g if isinstance(g, dict) else {"source": g, "target": g} for g in SERVICES[name].get("secrets", [])]
    return {grant["source"]: str(Path("/run/secrets") / grant["target"]) for grant in grants}


def words_of(name: str) -> list[str]:
    """Everything a service is called with."""
    facts = SERVICES[name]
    health = facts.get("healthcheck", {}).get("test", [])
    return [str(word) for word in (*facts.get("entrypoint", []), *facts.get("command", []), *health)]


# ---- images ---------------------------------------------------------------------------------------------


@every
def test_every_image_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z/-]+:v?\d+(\.\d+)+(-[a-z0-9.]+)?", image), image
    if name in OURS:
        assert image == f"ifpp:{__version__}"
        context = (DEPLOY / SERVICES[name]["build"]["context"]).resolve()
        assert (context / SERVICES[name]["build"]["dockerfile"]).samefile(DEPLOY / "containers" / "Containerfile")


def instructions() -> list[tuple[str, str]]:
    """The Containerfile: each instruction with its words on one line."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.MULTILINE)).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def test_the_image_is_built_from_this_tree_and_hashes() -> None:
    found = instructions()
    assert [words for word, words in found if word == "FROM"] == ["debian:12.11-slim AS build", "debian:12.11-slim"]
    ignored = (DEPLOY / "containers" / "Containerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    assert not [word for word, _ in found if word == "ADD"]
    for word, words in found:
        if word == "COPY" and "--from=" not in words:
            for source in words.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
    assert all((ROOT / one).exists() for one in allowed)
    pips = [step for word, words in found if word == "RUN" for step in words.split("&& ") if "/pip " in step]
    assert len(pips) == 5
    for step in pips:
        assert "--require-hashes" in step or "--no-index" in step or "pip uninstall" in step, step


def test_the_image_runs_as_nobody_and_holds_no_secret() -> None:
    found = instructions()
    last = len(found) - 1 - [word for word, _ in found][::-1].index("FROM")
    final = found[last:]
    assert [words for word, words in final if word == "USER"] == ["10001:10001"]
    names = [word for word, _ in final]
    assert names.index("USER") > max(i for i, word in enumerate(names) if word in ("RUN", "COPY"))
    assert not [words for word, words in found if word == "ARG"]
    assert not re.search(r"(?i)passw|secret(?!s)|token", CONTAINERFILE.replace("CREDENTIALS_DIRECTORY", ""))
    assert json.loads(dict(final)["ENTRYPOINT"]) == ["ifpp"]
    assert json.loads(dict(final)["CMD"]) == SERVICES["store"]["command"]
    health = shlex.split(dict(final)["HEALTHCHECK"].partition("CMD ")[2].strip("[]").replace(",", " "))
    assert health == SERVICES["store"]["healthcheck"]["test"][1:]
    assert "/readyz" in health[3]


def test_the_wheel_builder_is_found_among_the_locked() -> None:
    """The line of sed in the Containerfile."""
    (script,) = re.findall(r"sed -n '(.*?)' requirements/runtime.txt", CONTAINERFILE)
    command = ["sed", "-n", script, str(ROOT / "requirements" / "runtime.txt")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("flit-core==")
    assert len(lines) >= 2
    assert all("--hash=sha256:" in line for line in lines[1:])


# ---- rights ---------------------------------------------------------------------------------------------


@every
def test_a_container_may_little(name: str) -> None:
    facts = SERVICES[name]
    assert facts["read_only"] is True
    assert facts["cap_drop"] == ["ALL"]
    assert facts["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in facts["tmpfs"]
    assert {"privileged", "devices", "pid", "ipc"} & facts.keys() == set()
    assert facts.get("network_mode", "none") == "none"
    assert not [source for source, _, _ in mounts(name) if "docker.sock" in source]
    assert re.fullmatch(r"\d+[mg]", facts["mem_limit"])
    assert 0 < facts["pids_limit"] <= 200
    assert facts["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    if name in RUNNING:
        assert facts["cpus"] > 0
        assert facts["restart"] == "unless-stopped"
        assert facts["healthcheck"]["test"][0] == "CMD"
    if name not in ("postgres", "ca"):
        assert "cap_add" not in facts
        assert not facts.get("user", "10001" if name in OURS else "0").startswith("0")


def test_who_waits_for_whom_waits_for_health() -> None:
    for facts in SERVICES.values():
        for other, wanted in facts.get("depends_on", {}).items():
            assert other in RUNNING
            assert wanted == {"condition": "service_healthy"}
    assert set(SERVICES["supervisor"]["depends_on"]) == {"postgres", "broker"}


# ---- networks -------------------------------------------------------------------------------------------


def test_only_two_ports_are_open_to_the_plant(site: Site) -> None:
    published = {name: SERVICES[name]["ports"] for name in SERVICES if "ports" in SERVICES[name]}
    plant = {name: [p.removeprefix(f"{PLANT}:") for p in ports if PLANT in p] for name, ports in published.items()}
    assert {name: ports for name, ports in plant.items() if ports} == {
        "store": [f"{site.store.port}:{site.store.port}"],
        "broker": [f"{site.broker.port}:{site.broker.port}"],
    }
    for name, ports in published.items():
        assert "plant" in SERVICES[name]["networks"]
        for port in ports:
            host, _, rest = port.rpartition("}:") if PLANT in port else port.partition(":")
            assert PLANT in port or ipaddress.ip_address(host).is_loopback
            assert re.fullmatch(r"(\d+):\1", rest)
    assert COMPOSE["networks"] == {"plant": {}, "inner": {"internal": True}}
    assert SERVICES["postgres"]["networks"] == SERVICES["supervisor"]["networks"] == ["inner"]


def test_names_and_ports_agree_with_the_settings(site: Site) -> None:
    address = urlsplit(site.store.url)
    for name, host in (("store", address.hostname), ("broker", site.broker.host)):
        assert SERVICES[name]["networks"]["inner"]["aliases"] == [host]
    assert (address.scheme, address.port) == ("https", site.store.port)
    assert address.geturl() + "/readyz" in words_of("store")
    assert site.broker.host in words_of("broker")
    assert f"http://127.0.0.1:{site.supervisor.metrics_port}/metrics" in words_of("supervisor")
    database = urlsplit(site.store.database)
    assert (database.hostname, database.path[1:]) == ("postgres", SERVICES["postgres"]["environment"]["POSTGRES_DB"])
    assert database.username is None
    assert site.store.metrics_host == site.supervisor.metrics_host == site.store.host
    assert ipaddress.ip_address(site.store.host).is_unspecified
    (server,) = re.findall(r"echo \"(\S+?)\$role", (DEPLOY / "containers" / "prepare.sh").read_text())
    assert server == f"postgres:{5432}:{database.path[1:]}:ifpp_"


# ---- secrets --------------------------------------------------------------------------------------------


def test_every_secret_is_a_file_and_never_a_value() -> None:
    for name, facts in COMPOSE["secrets"].items():
        assert facts == {"file": f"{SITE_FOLDER}/secrets/{name}"}
    assert {secret for name in SERVICES for secret in granted(name)} == set(COMPOSE["secrets"])
    for name, facts in SERVICES.items():
        for variable, value in facts.get("environment", {}).items():
            if re.search("PASS|SECRET|TOKEN|KEY|PIN", variable):
                assert re.search("FILE$", variable), f"{name}: {variable}"
                assert value in granted(name).values(), f"{name}: {variable}"
    text = (DEPLOY / "compose.yml").read_text() + (DEPLOY / ".env.example").read_text()
    assert not re.search(r"(?i)password[\"']?\s*[:=]\s*[^\s/{]", re.sub("password_encryption=\\S+", "", text))


@pytest.mark.parametrize("name", OURS)
def test_who_asks_for_a_secret_has_it(name: str, site: Site) -> None:
    has = set(granted(name).values())
    asked = {word for word in words_of(name) if word.startswith("/run/secrets/")}
    assert asked <= has
    environment = SERVICES[name].get("environment", {})
    if role := environment.get("PGUSER"):
        assert f"'{role}'" in (DEPLOY / "postgresql" / "roles.sql").read_text()
        assert environment["PGPASSFILE"] == f"/run/secrets/{role.removeprefix('ifpp_')}.pgpass"
    tls = {"store": site.store.tls, "supervisor": site.broker.tls, "desk": site.broker.tls}.get(name)
    if tls:
        assert tls.key in has
    if name in ("supervisor", "desk", "owner"):
        assert f"/run/secrets/{site.keys.pin_credential}" in has
        assert "CREDENTIALS_DIRECTORY=/run/secrets" in CONTAINERFILE


def test_the_example_names_what_the_compose_file_asks_for() -> None:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    named = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    assert set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yml").read_text())) == named


# ---- files ----------------------------------------------------------------------------------------------


def test_every_mounted_file_is_there_and_its_readers_may_read_it(prepared: Path) -> None:
    """In the repository, or made by the recipe; each secret belongs to who reads it."""
    for name in SERVICES:
        for source, _, _ in mounts(name):
            if not source.startswith((".", "$")):
                assert source in COMPOSE["volumes"]
                continue
            path = (DEPLOY / source.replace(SITE_FOLDER, str(prepared))).resolve()
            assert path.exists(), f"{name}: {source}"
    owners = {"postgres": 999, "grafana": 472, "broker": 1883}
    for name in SERVICES:
        for secret in granted(name):
            facts = (prepared / "secrets" / secret).stat()
            assert facts.st_uid == owners.get(name, 10001), f"{name}: {secret}"
            assert facts.st_mode & 0o077 == 0
            assert facts.st_size > 0
    assert (prepared / "mosquitto" / "acl").stat().st_uid == owners["broker"]
    assert not list((prepared / "config" / "tls").glob("*.key"))
    assert (prepared / "pki").stat().st_mode & 0o777 == 0o700
    assert not [name for name in SERVICES if name != "ca" for source, _, _ in mounts(name) if "/pki" in source]


def test_preparing_again_changes_no_secret(prepared: Path) -> None:
    before = {path.name: path.read_bytes() for path in (prepared / "secrets").iterdir()}
    (prepared / "config" / "site.toml").write_text("mine")
    subprocess.run(["sh", str(DEPLOY / "containers" / "prepare.sh"), str(prepared)], check=True)
    assert {path.name: path.read_bytes() for path in (prepared / "secrets").iterdir()} == before
    assert (prepared / "config" / "site.toml").read_text() == "mine"
    assert len(set(before.values())) == len(before) - 1  # the probe has one key for two readers


# ---- commands -------------------------------------------------------------------------------------------


def command_of(words: list[str]) -> None:
    """Read words as the program does; raises what it raises for a command or option it does not know."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize("name", ["store", "supervisor"])
def test_the_program_knows_its_commands(name: str) -> None:
    command_of(list(SERVICES[name]["command"]))


def test_the_program_knows_what_the_recipe_says() -> None:
    text = (DEPLOY / "site.md").read_text()
    said = re.findall(r"docker compose run --rm (\S+) ?([^`\n]*)", text)
    assert len(said) > 12
    for name, words in said:
        assert "tools" in SERVICES[name]["profiles"]
        if name == "grants":
            assert not words.strip()
        else:
            command_of(shlex.split(words, comments=True))
    with pytest.raises(Exception, match="No such option"):
        command_of(["store", "migrate", "--now"])


def test_others_know_their_options() -> None:
    require_prometheus()
    for name, program in (("prometheus", "prometheus"), ("alertmanager", "prometheus-alertmanager")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
        for option in SERVICES[name]["command"]:
            assert option.partition("=")[0] + "=" in done.stdout + done.stderr


# ---- what the others read -------------------------------------------------------------------------------


def test_the_measured_traps_of_mosquitto_are_set(site: Site, prepared: Path) -> None:
    made = (prepared / "mosquitto" / "mosquitto.conf").read_text()
    for setting in TRAPS:
        assert f"\n{setting}\n" in made
    home = Path("/etc/ifpp")
    tls = home / "config" / "tls"
    own = tls / f"broker-{site.broker.host}.pem"
    files = BrokerFiles(
        tls / "ca.pem",
        own,
        own.with_suffix(".key"),
        tls / "crl.pem",
        home / "mosquitto/acl",
        home / "mosquitto/persistence",
    )
    wanted = settings(site.broker.host, site.broker.port, files)
    assert made.replace(str(prepared), str(home)) == wanted
    targets = {target for _, target, _ in mounts("broker")} | set(granted("broker").values())
    assert {str(path) for path in (files.ca, files.cert, files.key, files.crl)} <= targets
    assert ("/etc/ifpp/mosquitto/persistence", True) in [(target, writes) for _, target, writes in mounts("broker")]


def test_prometheus_takes_its_files(prepared: Path, tmp_path: Path) -> None:
    for source, target, _ in mounts("prometheus"):
        if source.startswith((".", "$")):
            path, place = DEPLOY / source.replace(SITE_FOLDER, str(prepared)), tmp_path / target[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, place)
    conf = tmp_path / "etc/prometheus/prometheus.yml"
    assert SERVICES["prometheus"]["command"][0] == "--config.file=/etc/prometheus/prometheus.yml"
    assert "rules found" in promtool("check", "config", conf)


def test_prometheus_asks_whom_the_rules_know(site: Site) -> None:
    conf = yaml.safe_load((DEPLOY / "containers" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in conf["scrape_configs"]}
    assert set(jobs) >= set(re.findall(r'job="([^"]+)"', RULES.read_text()))
    targets = {name: job["static_configs"][0]["targets"] for name, job in jobs.items() if "static_configs" in job}
    assert targets == {
        "ifpp-store": [f"store:{site.store.metrics_port}"],
        "ifpp-supervisor": [f"supervisor:{site.supervisor.metrics_port}"],
    }
    (manager,) = conf["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert f"127.0.0.1:{manager.replace('alertmanager', '9093')}" in SERVICES["alertmanager"]["ports"]


def test_alertmanager_takes_its_file(prepared: Path) -> None:
    if shutil.which("amtool") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("amtool is not installed, and CI must not skip it")
        pytest.skip("amtool is not installed (apt-get install prometheus-alertmanager)")
    command = ["amtool", "check-config", str(prepared / "config" / "alertmanager.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    places = {target: (DEPLOY / source).resolve() for source, target, _ in mounts("grafana") if source.startswith(".")}
    assert places["/etc/grafana/provisioning"] == folder.resolve()
    (source,) = yaml.safe_load((folder / "datasources" / "ifpp.yml").read_text())["datasources"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    address = urlsplit(source["url"])
    assert address.hostname == "prometheus"
    assert f"127.0.0.1:{address.port}:{address.port}" in SERVICES["prometheus"]["ports"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "ifpp.yml").read_text())["providers"]
    boards = list(places[provider["options"]["path"]].glob("*.json"))
    assert {json.loads(board.read_text())["uid"] for board in boards} >= {"ifpp-operator", "ifpp-capacity"}


# ---- all of it, without an engine -----------------------------------------------------------------------


@pytest.mark.needs("mosquitto")
@pytest.mark.needs("postgresql")
@pytest.mark.timeout(240)
def test_the_recipe_brings_a_site_up(tmp_path: Path) -> None:
    """Its commands, mounts, users and secrets with real programs, in namespaces: see tests/deploy/in_site.py."""
    need_root()
    require(BrokerKind.MOSQUITTO)
    apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine allows no namespaces")
    command = [*apart, sys.executable, "-m", "tests.deploy.in_site", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    assert seen["codes"] == {"broker": 0, "store": 0, "supervisor": 0}
    for name, user in (("broker", "1883"), ("store", "10001"), ("supervisor", "10001")):
        status = seen["status"][name]
        assert set(status["Uid"].split() + status["Gid"].split()) == {user}
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert (status["Groups"], status["NoNewPrivs"]) == ("", "1")
        assert "ermission denied" not in seen["logs"][name]
    assert seen["writable"] == []
    assert "password authentication failed" in seen["stranger"]
    assert seen["backup"] > 10_000
    assert "a new database" in seen["said"]
