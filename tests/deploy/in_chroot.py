"""`make install-test`: package, bundle and README in a fresh Debian 12. It takes minutes: not in `make test`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp import __version__
from ifpp.sim.pki import Pki
from tests.real import chroot
from tests.real.boot import boot
from tests.real.chroot import Chroot

ROOT = Path(__file__).parents[2]
STORE = """cd /srv/kept; export CREDENTIALS_DIRECTORY=/srv/kept/credentials
ifpp store serve --config config/site.toml & store=$!
python3 - <<'END'
import sys, time, tomllib, urllib.request
url = tomllib.load(open("/srv/kept/config/site.toml", "rb"))["store"]["url"]
for _ in range(300):
    try:
        print(urllib.request.urlopen(f"{url}/readyz").status)
        sys.exit(0)
    except OSError:
        time.sleep(0.1)
sys.exit("the store did not answer")
END
code=$?; kill $store; wait $store; exit $code
"""

SITE = """enterprise = "e"
site = "s"
area = "a"
line = "L1"
[store]
database = "sqlite:////var/lib/ifpp/store/factory.db"
[keys]
provider = "software"
file = "/var/lib/ifpp/supervisor/keys.ifpp"
records = "/var/lib/ifpp/supervisor"
"""
STATION = """id = "st01"
journal = "/var/lib/ifpp/station/st01/journal.db"
[heads.h01]
port = "tcp://127.0.0.1:9101"
[window]
socket = "/run/ifpp/st01.sock"
"""
UNITS = """
told() { for unit in "$@"; do for name in Id ActiveState NRestarts ExecMainStatus StatusText; do
    printf '%s|' "$(systemctl show -P $name $unit)"; done; echo; done; }
until_status() { for _ in $(seq 300); do told $1 | grep -q "$2" && break; sleep 0.1; done; told $1; }
chgrp -R ifpp /etc/ifpp
umask 077
printf 'the right PIN' > /etc/credstore/ifpp-supervisor.pin
install -d -o ifpp-supervisor /var/lib/ifpp/supervisor
install -d -o ifpp-supervisor /run/made
install -o ifpp-supervisor -m 400 /etc/credstore/ifpp-supervisor.pin /run/made/ifpp-pin
setpriv --reuid ifpp-supervisor --regid ifpp-factory --groups ifpp env CREDENTIALS_DIRECTORY=/run/made \\
    ifpp keys init --by a --reason b --config /etc/ifpp/config/site.toml > /dev/null
systemctl enable ifpp-store ifpp-supervisor ifpp-station@st01 ifpp-report.timer ifpp-backup.timer
echo "target $(systemctl start ifpp.target; echo $?)"
until_status ifpp-supervisor 'runs line'
told ifpp-store ifpp-station@st01 ifpp-report.timer
stat -c '%n %U %G %a' /var/lib/ifpp/*/* /run/ifpp/*
echo "report $(systemctl start ifpp-report; echo $?)"
echo "backup $(systemctl start ifpp-backup; echo $?)"
ls /var/lib/ifpp/backup
udevadm test /sys/class/mem/null 2>&1 | grep 60-ifpp.rules

mkdir -p /run/systemd/system/ifpp-store.service.d
printf '[Service]\\nWatchdogSec=12\\nRestartSec=1\\n' > /run/systemd/system/ifpp-store.service.d/soon.conf
systemctl daemon-reload
systemctl restart ifpp-store
systemctl kill --kill-whom=main --signal=STOP ifpp-store
echo "hung: $(until_status ifpp-store 'active|1|.*serves')"
journalctl -u ifpp-store -o cat | grep -o "Failed with result 'watchdog'\\|Fatal Python error: Aborted"

printf 'a wrong PIN' > /etc/credstore/ifpp-supervisor.pin
systemctl restart ifpp-supervisor
echo "wrong PIN: $(until_status ifpp-supervisor 'failed')"

systemctl stop ifpp.target
for unit in ifpp-station@st01 ifpp-store; do echo "stopped: $(until_status $unit inactive)"; done
journalctl -o cat -u 'ifpp*' | grep '^Stopped'
"""

pytestmark = pytest.mark.timeout(900)


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would hold of this tree, which nobody edits meanwhile."""
    copy = tmp_path_factory.mktemp("source") / "ifpp"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


def build(tree: Path, what: str, *arguments: Path) -> None:
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000"}
    subprocess.run([sys.executable, tree / f"deploy/{what}/build.py", *arguments], check=True, env=env)


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build package and bundle; return their folder, with key.pub in it."""
    chroot.require()
    dist = tmp_path_factory.mktemp("dist")
    key = dist / "key.pem"
    curve = "ec_paramgen_curve:P-256"
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", dist / "key.pub"], check=True)
    build(tree, "package", dist)
    build(tree, "bundle", dist, key)
    return dist


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    chroot.require()
    made = Chroot(tmp_path_factory.mktemp("debian") / "root")
    yield made
    shutil.rmtree(made.root)


@pytest.fixture(scope="module")
def media(built: Path, debian: Chroot) -> Path:
    """The bundle and its key, carried into the chroot."""
    for path in (*built.glob("*.tar"), built / "key.pub", built / "install.py"):
        shutil.copy(path, debian.root / "mnt" / path.name)
    return Path("/mnt") / f"ifpp-{__version__}-bundle.tar"


@pytest.fixture(scope="module")
def installed(debian: Chroot, media: Path) -> Chroot:
    """The package out of the bundle, installed without a network."""
    good(debian.run("python3", "-I", "/mnt/install.py", "--key", "/mnt/key.pub", media, "--deb"))
    return debian


def test_the_same_bytes_twice(tree: Path, built: Path, tmp_path: Path) -> None:
    build(tree, "package", tmp_path)
    name = f"ifpp_{__version__}_*.deb"
    assert next(built.glob(name)).read_bytes() == next(tmp_path.glob(name)).read_bytes()


def test_what_the_package_holds(built: Path) -> None:
    package = next(built.glob("*.deb"))
    listing = subprocess.run(
        ["dpkg-deb", "-c", package], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert all(" root/root " in line for line in listing)
    names = [line.split(None, 5)[5] for line in listing]
    assert not [n for n in names if n.endswith(".pyc") or re.match(r"\./(etc|var|home|root|tmp|opt)/", n)]
    modes = {line[:10] for line in listing}
    assert modes <= {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}, "no setuid, nothing others may write"
    for wanted in ("./usr/share/doc/ifpp/copyright", "./usr/share/doc/ifpp/examples/config/site.toml"):
        assert wanted in names
    unpacked = built / "unpacked"
    subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    here = str(ROOT).encode()
    assert not [p for p in unpacked.rglob("*") if p.is_file() and not p.is_symlink() and here in p.read_bytes()]


def test_the_bill_of_materials_names_every_wheel(built: Path) -> None:
    bundle = built / f"ifpp-{__version__}-bundle.tar"
    folder = built / "bundle"
    folder.mkdir()
    subprocess.run(["tar", "-C", folder, "-xf", bundle], check=True)
    bill = json.loads((folder / "sbom.json").read_text())
    parts = [bill["metadata"]["component"], *bill["components"]]
    assert {p["properties"][0]["value"] for p in parts} == {
        p.name for p in folder.glob("wheels/*.whl") if not p.name.startswith("pip-")
    }
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements/site.txt").read_text(), re.MULTILINE))
    assert {p["purl"].split("/")[1].split("@")[0] for p in parts} == {*locked, "pyscard", "ifpp"}
    assert all(p["licenses"] and p["hashes"] for p in parts)


def test_the_package_starts(installed: Chroot) -> None:
    assert good(installed.run("ifpp", "--version")).strip() == f"ifpp {__version__}"
    good(installed.run("ifpp", "demo", "--units", "2", "--keep", "/srv/kept", "--json", "/srv/out.json"))
    assert good(installed.run("sh", "-c", STORE)).split()[-1] == "200"
    good(installed.run("/usr/lib/ifpp/bin/python3", "-I", "-c", "import smartcard.scard, psycopg, pkcs11, serial"))


def test_the_package_checks_itself(installed: Chroot) -> None:
    assert good(installed.run("dpkg", "--verify", "ifpp")) == ""
    assert good(installed.run("dpkg", "--audit")) == ""


def test_systemd_takes_the_units(installed: Chroot) -> None:
    folder = installed.root / "usr/lib/systemd/system"
    units = [p.name for p in sorted(folder.glob("ifpp*")) if p.is_file()]
    sources = ROOT / "systemd"
    assert bool(units) == bool(list(sources.rglob("*.service")))
    if units:
        names = [re.sub(r"@\.", "@st01.", name) for name in units]
        done = installed.run("systemd-analyze", "verify", "--man=no", *names)
        assert (done.returncode, [x for x in done.stderr.splitlines() if "ifpp" in x]) == (0, [])
        assert "ifpp" in (installed.root / "etc/passwd").read_text()


def test_the_units_run_under_systemd(installed: Chroot) -> None:
    """Under every restriction of theirs: start in order, keys, reports, a hang, a wrong PIN, stop in order."""
    etc = installed.root / "etc/ifpp"
    (etc / "config/trust").mkdir()
    (etc / "config/trust/ci.der").write_bytes(Pki.create().ci.der)
    (etc / "config/site.toml").write_text(SITE)
    (etc / "stations/st01.toml").write_text(STATION)
    told = boot(installed.root, UNITS)
    for line in (
        "target 0",
        "ifpp-supervisor.service|active|0|0|runs line L1, epoch 1",
        "ifpp-store.service|active|0|0|serves http://127.0.0.1:8470",
        "ifpp-report.timer|active",
        "/var/lib/ifpp/store/factory.db ifpp-store ifpp-factory 660",
        "/run/ifpp/st01.sock ifpp-station ifpp 660",
        "report 0",
        "backup 0",
        "hung: ifpp-store.service|active|1|0|serves http://127.0.0.1:8470",
        "Failed with result 'watchdog'",
        "Fatal Python error: Aborted",
        "wrong PIN: ifpp-supervisor.service|failed|0|78|",
        "stopped: ifpp-station@st01.service|inactive|0|0|",
        "stopped: ifpp-store.service|inactive|",
    ):
        assert line in told, told
    assert "ifpp-station@st01.service|active|0|0|st01 takes" in told, told
    assert re.search(r"^factory-[0-9TZ]+$", told, re.MULTILINE), told
    assert told.count("60-ifpp.rules") == 1, "udev has nothing to say of its lines"
    order = [line for line in told.splitlines() if line.startswith("Stopped")]
    assert [re.findall(r"ifpp-(\w+)", line)[0] for line in order[-2:]] == ["station", "store"], told


def test_back_to_the_package_before(installed: Chroot, media: Path, tmp_path: Path) -> None:
    again = installed.run("python3", "-I", "/mnt/install.py", "--rollback", "--deb")
    assert "no earlier installation" in again.stderr
    kept = installed.root / "var/lib/ifpp-packages"
    subprocess.run(["dpkg-deb", "-R", kept / (kept / "current").readlink(), tmp_path / "older"], check=True)
    control = tmp_path / "older/DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {__version__}", "Version: 0.0.1"))
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tmp_path / "older"), str(kept / "older.deb")]
    subprocess.run(command, check=True)
    (kept / "previous").symlink_to("older.deb")
    good(installed.run("python3", "-I", "/mnt/install.py", "--rollback", "--deb"))
    assert good(installed.run("dpkg-query", "-W", "-f", "${Version}", "ifpp")) == "0.0.1"
    good(installed.run("python3", "-I", "/mnt/install.py", "--rollback", "--deb"))
    assert good(installed.run("dpkg-query", "-W", "-f", "${Version}", "ifpp")) == __version__
    assert good(installed.run("ifpp", "--version")).strip() == f"ifpp {__version__}"


def test_the_bundle_without_a_network(debian: Chroot, media: Path) -> None:
    assert good(debian.run("python3", "-I", "-c", "import socket; print(len(socket.if_nameindex()))")).strip() == "1"
    good(debian.run("python3", "-I", "/mnt/install.py", "--key", "/mnt/key.pub", media))
    assert good(debian.run("/opt/ifpp/current/bin/ifpp", "--version")).strip() == f"ifpp {__version__}"
    good(debian.run("/opt/ifpp/current/bin/ifpp", "demo", "--units", "2"))


def test_a_removed_package_leaves_the_books(installed: Chroot) -> None:
    (installed.root / "etc/ifpp").mkdir(exist_ok=True)
    (installed.root / "etc/ifpp/site.toml").write_text("# the plant's\n")
    good(installed.run("dpkg", "--purge", "ifpp"))
    assert not (installed.root / "usr/lib/ifpp").exists()
    assert (installed.root / "etc/ifpp/site.toml").read_text() == "# the plant's\n"


BEYOND = ("PROFILE.der", "pcsc", "pkcs11")  # a profile of one's own, root's readers, a token


def _blocks() -> list[list[str]]:
    """The command blocks of README's first chapter, without their comments."""
    chapter = re.search(r"^## Try it$(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert chapter
    blocks = re.findall(r"^```sh\n(.*?)^```", chapter[1], re.DOTALL | re.MULTILINE)
    return [[re.split(r"\s+#", line)[0] for line in block.splitlines()] for block in blocks]


def test_readme_word_for_word(debian: Chroot, tree: Path) -> None:
    """Every command of its first chapter but `make test`, in a copy of the tree, without what BEYOND names."""
    first, demos, questions = _blocks()
    assert first == ["make demo", "make test"]
    shutil.copytree(tree, debian.root / "srv/ifpp")
    proxies = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    mounts = chroot.index(debian)

    def follow(command: str, **more: str) -> str:
        done = debian.run("sh", "-c", f"cd /srv/ifpp && {command}", network=True, mounts=mounts, **proxies, **more)
        return good(done)

    assert "every unit is accounted for" in follow(first[0])
    for command in demos:
        if not any(word in command for word in BEYOND):
            assert follow(command), command
    kept = json.loads((debian.root / "srv/ifpp/demo-kept/fleet-st01.json").read_text())
    eid = re.findall(r"[0-9]{32}", json.dumps(kept))[0]
    for command in questions:
        told = follow(command.replace("EID", eid) + " || echo not zero", C="--config demo-kept/config/site.toml")
        assert told, command
        assert "not zero" not in told or "gate" in command or "check" in command, told
