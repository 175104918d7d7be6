"""Build dist/ifpp_VERSION_ARCH.deb, and dist/wheels with what is in it: `make package`.

Every wheel comes from requirements/site.txt and requirements/pcsc.txt, by hash; pyscard is compiled here. Two runs on
one tree give the same bytes (SOURCE_DATE_EPOCH, else the time of the last commit). For Debian 12 and its Python 3.11.

The package is a virtual environment in /usr/lib/ifpp over Debian's own python3, so that nothing of it meets Debian's
Python packages, and /usr/bin/ifpp. It starts nothing and has no conffiles: /etc/ifpp is the plant's alone.
"""

from __future__ import annotations

import email
import email.utils
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
HOME = "usr/lib/ifpp"
SITE = f"{HOME}/lib/python3.11/site-packages"
DOC = "usr/share/doc/ifpp"
UNITS = ("service", "timer", "target", "socket", "path", "slice", "mount")


def version() -> str:
    """Return the version of ifpp in this tree."""
    found = re.search(r'^__version__ = "([^"]+)"', (ROOT / "ifpp/__init__.py").read_text(), re.MULTILINE)
    if not found:
        raise SystemExit("error: ifpp/__init__.py has no __version__")
    return found[1]


def epoch() -> int:
    """Return the time every file gets, in Unix seconds: SOURCE_DATE_EPOCH, else the last commit, else 1980."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    log = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False)
    return int(log.stdout) if log.returncode == 0 and log.stdout else 315_532_800


def metadata(wheel: Path) -> Message:
    """Return the METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def licence(about: Message) -> str:
    """Return what a wheel says of its licence, in one line: SPDX where it has it, else its own words."""
    said = about.get("License-Expression")
    if not said:
        classes = [c.rsplit("::", 1)[1].strip() for c in about.get_all("Classifier", []) if c.startswith("License ::")]
        own = str(about.get("License") or "").strip().splitlines()
        said = " or ".join(classes) or (own[0] if own else "")
    return said or "not stated"


def pip(*arguments: str | Path) -> None:
    """Run pip of the Python that runs this, with what makes wheels reproducible."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(max(epoch(), 315_532_800)), "CFLAGS": "-O2 -g0", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, env=env, cwd=ROOT)


def make_wheels(folder: Path) -> list[Path]:
    """Fill `folder` with the wheels of what is locked, and of ifpp from exactly the files of this tree."""
    shutil.rmtree(folder, ignore_errors=True)
    locked = [x for name in ("site", "pcsc") for x in ("-r", ROOT / f"requirements/{name}.txt")]
    pip("wheel", "-q", "--no-deps", "--require-hashes", *locked, "-w", folder)
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", ".", "-w", folder)
    return sorted(folder.glob("*.whl"))


def environment(tree: Path, wheels: list[Path]) -> None:
    """Make the virtual environment of the package out of `wheels`."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("".join(f"{m['Name']}=={m['Version']}\n" for m in map(metadata, wheels)))
        offline = ("--no-index", "--find-links", wheels[0].parent, "--no-deps", "--no-compile")
        pip("install", "-q", *offline, "--target", tree / SITE, "-r", wanted)
    shutil.rmtree(tree / SITE / "bin", ignore_errors=True)
    for record in (tree / SITE).glob("*.dist-info/RECORD"):  # programs of libraries are left out, and what names them
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.startswith("../../bin/")))
    bin_ = tree / HOME / "bin"
    bin_.mkdir()
    (bin_ / "python3").symlink_to("/usr/bin/python3")
    (tree / HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    start = "import sys\n\nfrom ifpp.__main__ import main\n\nsys.exit(main())\n"
    (bin_ / "ifpp").write_text(f"#!/{HOME}/bin/python3 -I\n{start}")
    (bin_ / "ifpp").chmod(0o755)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/ifpp").symlink_to("../lib/ifpp/bin/ifpp")


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def system_files(tree: Path) -> None:
    """Place what systemd and udev read: units with their drop-ins, users, folders, names of devices."""
    for source in sorted(p for p in (ROOT / "systemd").rglob("*") if p.is_file()):
        if source.suffix[1:] in UNITS:
            _place(source, tree / "usr/lib/systemd/system" / source.name)
        elif source.parent.suffix == ".d" and source.parent.stem.rsplit(".", 1)[-1] in UNITS:
            _place(source, tree / "usr/lib/systemd/system" / source.parent.name / source.name)
        elif source.suffix == ".rules":
            _place(source, tree / "usr/lib/udev/rules.d" / source.name)
        elif "sysusers" in str(source.relative_to(ROOT)):
            _place(source, tree / "usr/lib/sysusers.d/ifpp.conf")
        elif "tmpfiles" in str(source.relative_to(ROOT)):
            _place(source, tree / "usr/lib/tmpfiles.d/ifpp.conf")


def documents(tree: Path, wheels: list[Path]) -> None:
    """Write documentation, examples, the changelog in Debian's form and the licences of everything carried."""
    for name in ("README.md", "RUNBOOK.md", "CHANGELOG.md", "SEQUENCE.md"):
        if (ROOT / name).exists():
            _place(ROOT / name, tree / DOC / name)
    for source in sorted((ROOT / "deploy").glob("*.md")):
        _place(source, tree / DOC / "deploy" / source.name)
    _place(ROOT / "systemd" / "README.md", tree / DOC / "systemd" / "README.md")
    _place(ROOT / "config" / "REFERENCE.md", tree / DOC / "config" / "REFERENCE.md")
    _place(ROOT / "deploy" / "pictures" / "station.png", tree / DOC / "deploy" / "pictures" / "station.png")
    for folder in ("config", "config/recipes", "stations"):
        for source in sorted(each for each in (ROOT / folder).iterdir() if each.suffix in (".toml", ".pem")):
            _place(source, tree / DOC / "examples" / folder / source.name)
    date = email.utils.formatdate(epoch())
    news = f"ifpp ({version()}) bookworm; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
    news += f" -- The ifpp project <ifpp@localhost>  {date}\n"
    (tree / DOC / "changelog.gz").write_bytes(gzip.compress(news.encode(), 9, mtime=0))
    text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: ifpp\n"
    text += "Comment: Licence texts are in the *.dist-info folder of each library.\n\n"
    text += "Files: *\nCopyright: the authors of ifpp\nLicense: Apache-2.0\n"
    text += " /usr/share/common-licenses/Apache-2.0 has its text.\n"
    for about in map(metadata, wheels):
        name = about["Name"]
        if name != "ifpp":
            who = " ".join(str(about.get("Author") or about.get("Author-email") or f"the authors of {name}").split())
            text += f"\nFiles: {SITE}/{re.sub('[-_.]+', '_', name)}*\nCopyright: {who}\n"
            text += f"License: {licence(about)}\nComment: {name} {about['Version']}\n"
    (tree / DOC / "copyright").write_text(text)


def control(tree: Path, arch: str) -> None:
    """Write DEBIAN/: control, maintainer scripts, sums."""
    folder = tree / "DEBIAN"
    folder.mkdir()
    size = sum(p.stat().st_size for p in tree.rglob("*") if p.is_file()) // 1024
    text = (HERE / "control").read_text().format(version=version(), arch=arch, size=size)
    (folder / "control").write_text(text)
    for script in ("preinst", "postinst", "prerm", "postrm"):
        _place(HERE / script, folder / script)
        (folder / script).chmod(0o755)
    files = sorted(p for p in tree.rglob("*") if p.is_file() and not p.is_symlink() and folder not in p.parents)
    # The format of md5sums asks for MD5; it protects nothing.
    sums = (f"{hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest()}  {p.relative_to(tree)}\n" for p in files)
    (folder / "md5sums").write_text("".join(sums))


def settle(tree: Path) -> None:
    """Give every file the same owner-independent mode and time, whatever the umask of who builds."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def main() -> None:
    """Build into the folder named, else dist."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(f"error: the package is for Python 3.11 (Debian 12), this is {sys.version.split()[0]}")
    dist = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist").resolve()
    dist.mkdir(exist_ok=True)
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    wheels = make_wheels(dist / "wheels")
    target = dist / f"ifpp_{version()}_{arch}.deb"
    with tempfile.TemporaryDirectory(dir=dist) as scratch:
        tree = Path(scratch) / "tree"
        environment(tree, wheels)
        system_files(tree)
        documents(tree, wheels)
        control(tree, arch)
        settle(tree)
        made = Path(scratch) / target.name
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch())}
        command = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z9", "-b", str(tree), str(made)]
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
        made.replace(target)
    print(target)  # noqa: T201 - its result


if __name__ == "__main__":
    main()
