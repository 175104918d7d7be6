#!/usr/bin/python3 -I
"""Install ifpp from a bundle on a Debian 12 machine without network: python3 and openssl are all it needs.

    python3 -I install.py --key ifpp.pub ifpp-VERSION-bundle.tar            into PREFIX, from the wheels
    python3 -I install.py --key ifpp.pub ifpp-VERSION-bundle.tar --deb      the Debian package
    python3 -I install.py --rollback [--deb]                                back to what was there before
    python3 -I install.py --key ifpp.pub ifpp-VERSION-bundle.tar --verify   only look

This file and the public key are handed over once, by another way than the bundles; a copy inside a bundle proves
nothing. Nothing changes before signature, names and sums of every file are right, and PREFIX/current changes in one
rename at the end: an installation that was cut off leaves the old one as it was, and is simply started again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

BIGGEST = 1 << 30
PACKAGES = Path("/var/lib/ifpp-packages")


class Refused(Exception):  # noqa: N818 - what the operator reads
    """The bundle is not installed; the text says why."""


def tell(text: str) -> None:
    """Say it to the operator."""
    sys.stdout.write(f"{text}\n")


def unpack(bundle: Path, folder: Path) -> None:
    """Write the bundle's plain files into `folder`: nothing but files, each once, none outside."""
    try:
        with tarfile.open(bundle, "r:") as tar:
            total = 0
            for member in tar:
                total += member.size
                if not member.isreg() or not re.fullmatch(r"(wheels/)?[A-Za-z0-9_][A-Za-z0-9_.+~-]*", member.name):
                    raise Refused(f"{bundle}: {member.name!r} may not be in a bundle")
                target = folder / member.name
                if target.exists() or total > BIGGEST:
                    raise Refused(f"{bundle}: {member.name!r} is there twice, or the bundle is too big")
                target.parent.mkdir(exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None  # noqa: S101 - a plain file has content
                with source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
                if target.stat().st_size != member.size:
                    raise Refused(f"{bundle} is cut off in {member.name}")
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"{bundle} is damaged or cut off: {error}") from error


def verify(folder: Path, key: Path) -> dict[str, object]:
    """Return the manifest: signed by `key`, and exactly the files it names are here, byte for byte."""
    manifest, signature = folder / "manifest.json", folder / "manifest.sig"
    if not manifest.exists() or not signature.exists():
        raise Refused("the bundle has no signed manifest: it is cut off, or it is no bundle of ifpp")
    command = ["openssl", "dgst", "-sha256", "-verify", str(key), "-signature", str(signature), str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(f"the signature is not by {key}: {why[0] if why else 'no reason given'}")
    said = json.loads(manifest.read_bytes())
    if said.get("format") != "ifpp.bundle" or said.get("major") != 1:
        raise Refused("the manifest's format is not known here: a newer install.py is needed")
    here = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"manifest.json", "manifest.sig"}
    wanted = said["files"]
    if here != set(wanted):
        differ = sorted(here ^ set(wanted))
        raise Refused(f"missing, or not named by the manifest: {', '.join(differ)}")
    for name, digest in sorted(wanted.items()):
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise Refused(f"{name} is not the file that was signed")
    return said  # type: ignore[no-any-return]  # JSON


def _switch(link: Path, target: str) -> None:
    """Let `link` lead to `target`, in one rename that is on disk afterwards."""
    beside = link.with_name(f".{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)
    handle = os.open(link.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _known(link: Path) -> str | None:
    return str(link.readlink()) if link.is_symlink() and link.exists() else None


def _make_current(home: Path, name: str) -> None:
    """Let `current` lead to `name`, and `previous` to what it was."""
    was = _known(home / "current")
    if was == name:
        return
    if was:
        _switch(home / "previous", was)
    _switch(home / "current", name)


def install_wheels(folder: Path, said: dict[str, object], prefix: Path) -> None:
    """Make PREFIX/versions/VERSION of the wheels, try it, and switch PREFIX/current to it."""
    if str(said["python"]) != f"{sys.version_info[0]}.{sys.version_info[1]}" or said["machine"] != os.uname().machine:
        raise Refused(f"the bundle is for Python {said['python']} on {said['machine']}")
    name = f"versions/{said['version']}-{str(said['build'])[:12]}"
    target = prefix / name
    if not (target / ".complete").exists():
        shutil.rmtree(target, ignore_errors=True)  # what an installation that was cut off has left
        (target / "bin").mkdir(parents=True)
        (target / "bin/python3").symlink_to("/usr/bin/python3")
        (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
        pip = next(folder.glob("wheels/pip-*.whl"))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        python = str(target / "bin/python3")
        command = [python, f"{pip}/pip", "install", "-q", "--isolated", "--no-index", "--no-deps", "--require-hashes"]
        command += ["--disable-pip-version-check", "--find-links", str(folder / "wheels")]
        subprocess.run([*command, "-r", str(folder / "requirements.txt")], check=True, env=environment)
        answer = subprocess.run([target / "bin/ifpp", "--version"], check=True, capture_output=True, text=True)
        if answer.stdout.split() != ["ifpp", said["version"]]:
            raise Refused(f"what was installed says it is {answer.stdout.strip()!r}")
        (target / ".complete").touch()
        os.sync()
    _make_current(prefix, name)
    tell(f"ifpp {said['version']}: {prefix}/current/bin/ifpp; what was there before stays for --rollback")


def install_package(folder: Path, said: dict[str, object]) -> None:
    """Install the Debian package, and keep it for a rollback."""
    source = folder / str(said["package"])
    PACKAGES.mkdir(mode=0o755, exist_ok=True)
    kept = PACKAGES / f"{str(said['build'])[:12]}-{source.name}"
    beside = kept.with_suffix(".part")
    shutil.copyfile(source, beside)
    beside.replace(kept)
    _apt(kept)
    _make_current(PACKAGES, kept.name)


def _apt(package: Path, *options: str) -> None:
    """Install one file; what it depends on is looked at before anything changes."""
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "--reinstall", *options]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for look in (["--simulate"], []):
        done = subprocess.run([*command, *look, package], capture_output=True, text=True, check=False, env=env)
        if done.returncode != 0:
            raise Refused(
                f"the package does not go in (after a cut-off run: dpkg --configure -a)\n{done.stderr.strip()}"
            )


def rollback(home: Path, *, package: bool) -> None:
    """Go back to what was there before the last installation; once more goes forward again."""
    was = _known(home / "previous")
    if was is None:
        raise Refused(f"{home} knows of no earlier installation")
    if package:
        _apt(home / was, "--allow-downgrades")
    _make_current(home, was)
    tell(f"back at {was}")


def run(arguments: argparse.Namespace) -> None:
    """Do what was asked, one installation at a time."""
    home = PACKAGES if arguments.deb else arguments.prefix
    if arguments.rollback:
        rollback(home, package=arguments.deb)
        return
    if not arguments.bundle or not arguments.key:
        raise Refused("name the bundle and --key, the public key that was handed over apart from it")
    with tempfile.TemporaryDirectory(prefix="ifpp-bundle-") as scratch:
        folder = Path(scratch)
        unpack(arguments.bundle, folder)
        said = verify(folder, arguments.key)
        tell(f"the bundle of ifpp {said['version']} is whole and signed by {arguments.key}")
        if arguments.verify:
            return
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(f"another installation into {home} is at work") from error
            if arguments.deb:
                install_package(folder, said)
            else:
                install_wheels(folder, said, arguments.prefix)


def main() -> None:
    """Exit 0: done; 1: refused or failed, and what was there before still is."""
    parser = argparse.ArgumentParser(description="Install ifpp from a signed bundle, without a network.")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--key", type=Path, help="public key (PEM) that signs bundles, got apart from them")
    parser.add_argument("--prefix", type=Path, default=Path("/opt/ifpp"))
    parser.add_argument("--deb", action="store_true", help="install the Debian package instead of the wheels")
    parser.add_argument("--verify", action="store_true", help="look at the bundle, change nothing")
    parser.add_argument("--rollback", action="store_true", help="back to what was installed before")
    try:
        run(parser.parse_args())
    except (Refused, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"refused: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
