"""deploy/bundle/install.py, as its own process, with small bundles: what is wrong is refused, nothing changes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pip
import pytest

INSTALL = Path(__file__).parents[2] / "deploy/bundle/install.py"
PROGRAM = 'import sys\n\n\ndef main():\n    assert sys.argv[1:] == ["--version"]\n    print("ifpp {}")\n'


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def _wheel(version: str, says: str) -> bytes:
    info = f"ifpp-{version}.dist-info"
    return _zipped(
        {
            "ifpp/__init__.py": b"",
            "ifpp/__main__.py": PROGRAM.format(says).encode(),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: ifpp\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": b"[console_scripts]\nifpp = ifpp.__main__:main\n",
            f"{info}/RECORD": b"",
        }
    )


@pytest.fixture(scope="module")
def pip_wheel() -> bytes:
    """The pip of this environment, as a wheel."""
    home = Path(pip.__file__).parent
    files = [p for p in home.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    return _zipped({str(p.relative_to(home.parent)): p.read_bytes() for p in files})


def _openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


class Maker:
    """Makes bundles signed by one key, and installs them into one prefix."""

    def __init__(self, folder: Path, pip_wheel: bytes) -> None:
        self.folder, self.pip = folder, pip_wheel
        self.key, self.public, self.prefix = folder / "key.pem", folder / "key.pub", folder / "opt"
        folder.mkdir(exist_ok=True)
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.key)
        _openssl("pkey", "-in", self.key, "-pubout", "-out", self.public)

    def files(self, version: str, says: str = "") -> dict[str, bytes]:
        wheel = _wheel(version, says or version)
        name = f"ifpp-{version}-py3-none-any.whl"
        line = f"ifpp=={version} --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n"
        return {f"wheels/{name}": wheel, "wheels/pip-0-py3-none-any.whl": self.pip, "requirements.txt": line.encode()}

    def bundle(self, version: str, *, says: str = "", changed: dict[str, bytes | None] | None = None) -> Path:
        """Write a bundle; `changed` replaces or (None) drops files after signing."""
        files = self.files(version, says)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        said = {"format": "ifpp.bundle", "major": 1, "version": version, "build": sums["requirements.txt"]}
        said |= {"python": "{}.{}".format(*sys.version_info), "machine": os.uname().machine, "files": sums}
        manifest = self.folder / "manifest"
        manifest.write_text(json.dumps(said))
        signature = _openssl("dgst", "-sha256", "-sign", self.key, manifest)
        files = {"manifest.json": manifest.read_bytes(), "manifest.sig": signature, **files}
        target = self.folder / f"{version}.tar"
        with tarfile.open(target, "w") as tar:
            for name, content in {**files, **(changed or {})}.items():
                if content is not None:
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        return target

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", INSTALL, "--prefix", self.prefix, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def install(self, bundle: Path) -> subprocess.CompletedProcess[str]:
        return self.run("--key", self.public, bundle)

    def says(self) -> str:
        program = self.prefix / "current/bin/ifpp"
        return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def maker(tmp_path: Path, pip_wheel: bytes) -> Maker:
    return Maker(tmp_path, pip_wheel)


def test_install_upgrade_rollback(maker: Maker) -> None:
    assert maker.install(maker.bundle("1.0")).returncode == 0
    assert "says it is 'ifpp 7'" in maker.install(maker.bundle("1.2", says="7")).stderr
    assert maker.says() == "ifpp 1.0", "what does not start is not switched to"
    bundle = maker.bundle("1.1")
    done = maker.install(bundle)
    assert done.returncode == 0, done.stderr
    assert maker.says() == "ifpp 1.1"
    assert maker.run("--rollback").returncode == 0
    assert maker.says() == "ifpp 1.0"
    new = next((maker.prefix / "versions").glob("1.1-*"))
    (new / ".complete").unlink()  # as a power cut leaves it: half there
    (new / "bin/ifpp").write_text("#!/bin/false\n")
    assert maker.install(bundle).returncode == 0
    assert maker.says() == "ifpp 1.1"


def test_nothing_to_go_back_to(maker: Maker) -> None:
    assert "no earlier installation" in maker.run("--rollback").stderr


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"manifest.sig": b"no signature"}, "signature"),
        ({"manifest.sig": None}, "no signed manifest"),
        ({"requirements.txt": b"ifpp==9\n"}, "requirements.txt is not the file that was signed"),
        ({"wheels/ifpp-1.0-py3-none-any.whl": b"changed"}, "is not the file that was signed"),
        ({"wheels/ifpp-1.0-py3-none-any.whl": None}, "missing"),
        ({"wheels/more-1.0-py3-none-any.whl": b"added"}, "not named by the manifest: wheels/more"),
        ({"../outside": b"x"}, "may not be in a bundle"),
    ],
)
def test_a_wrong_bundle_changes_nothing(maker: Maker, changed: dict[str, bytes | None], reason: str) -> None:
    done = maker.install(maker.bundle("1.0", changed=changed))
    assert done.returncode == 1
    assert reason in done.stderr
    assert not maker.prefix.exists()
    assert not (maker.folder.parent / "outside").exists()


def test_another_key(maker: Maker, tmp_path: Path, pip_wheel: bytes) -> None:
    other = Maker(tmp_path / "other", pip_wheel)
    done = maker.install(other.bundle("1.0"))
    assert (done.returncode, "the signature is not by" in done.stderr) == (1, True)
    assert not maker.prefix.exists()


def test_cut_off_anywhere(maker: Maker) -> None:
    whole = maker.bundle("1.0").read_bytes()
    for length in (0, 600, len(whole) // 2, len(whole) - 20_480):
        short = maker.folder / "short.tar"
        short.write_bytes(whole[:length])
        done = maker.install(short)
        assert (done.returncode, done.stderr[:8]) == (1, "refused:"), length
        assert not maker.prefix.exists()


def test_verify_only_looks(maker: Maker) -> None:
    done = maker.run("--key", maker.public, maker.bundle("1.0"), "--verify")
    assert (done.returncode, "whole and signed" in done.stdout) == (0, True)
    assert not maker.prefix.exists()
