"""Write dist/ifpp-VERSION-bundle.tar out of dist/wheels and dist/*.deb: `make bundle KEY=signing.pem`.

In it: the wheels, requirements.txt with their sums, pip to install them, the Debian package, sbom.json (CycloneDX 1.5),
manifest.json with the SHA-256 of every file, manifest.sig (ECDSA P-256 over SHA-256, by openssl) and install.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "package"))
from build import epoch, licence, metadata, pip, version  # noqa: E402 - the builder of the package beside this one

HOW = "make one, once, and keep it: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signing.pem"


def component(wheel: Path) -> dict[str, Any]:
    """Return what CycloneDX says of one wheel."""
    about = metadata(wheel)
    name, number = str(about["Name"]), str(about["Version"])
    said = licence(about)
    spdx = re.fullmatch(r"[A-Za-z0-9.+-]+( (OR|AND|WITH) [A-Za-z0-9.+-]+)*", str(about.get("License-Expression") or ""))
    if spdx:
        terms: dict[str, Any] = {"expression": said}
    else:
        terms = {"license": {"name": said}}
    plain = re.sub(r"[-_.]+", "-", name).lower()
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{plain}@{number}",
        "name": name,
        "version": number,
        "purl": f"pkg:pypi/{plain}@{number}",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
        "licenses": [terms],
        "properties": [{"name": "ifpp:file", "value": wheel.name}],
    }


def sbom(wheels: list[Path]) -> bytes:
    """Return the bill of materials: every wheel with version, sum and licence; nothing in it depends on the clock."""
    parts = [component(w) for w in wheels]
    own = next(p for p in parts if p["name"] == "ifpp")
    rest = [p for p in parts if p is not own]
    known = {p["name"].lower().replace("_", "-").replace(".", "-"): p["bom-ref"] for p in parts}
    wanted: dict[str, list[str]] = {}
    for wheel, part in zip(wheels, parts, strict=True):
        names = (re.match(r"[A-Za-z0-9_.-]+", line) for line in metadata(wheel).get_all("Requires-Dist", []))
        plain = {re.sub(r"[-_.]+", "-", n[0]).lower() for n in names if n}
        wanted[part["bom-ref"]] = sorted(known[n] for n in plain if n in known)
    serial = uuid.UUID(bytes=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[:16], version=4)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": rest,
        "dependencies": [{"ref": ref, "dependsOn": needs} for ref, needs in sorted(wanted.items())],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def requirements(wheels: list[Path]) -> bytes:
    """Return each wheel by name, version and sum."""
    lines = []
    for wheel in wheels:
        about, digest = metadata(wheel), hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{about['Name']}=={about['Version']} --hash=sha256:{digest}\n")
    return "".join(lines).encode()


def signed(manifest: bytes, key: Path) -> bytes:
    """Return the signature of `key` over the manifest."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "manifest.json"
        file.write_bytes(manifest)
        done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key, file], capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {key} does not sign: {done.stderr.decode().strip()}")
    return done.stdout


def write(target: Path, files: dict[str, bytes]) -> None:
    """Write a tar of `files`, which is there whole or not at all."""
    beside = target.with_suffix(".part")
    with tarfile.open(beside, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), epoch(), 0o644
            tar.addfile(member, io.BytesIO(content))
    beside.replace(target)


def main() -> None:
    """Build in the folder named by the first argument, signed with the key named by the second one."""
    if len(sys.argv) != 3 or not Path(sys.argv[2]).is_file():
        raise SystemExit(f"error: a bundle is signed: make bundle KEY=signing.pem\n  {HOW}")
    dist, key = Path(sys.argv[1]), Path(sys.argv[2])
    packages = list(dist.glob(f"ifpp_{version()}_*.deb"))
    wheels = sorted(p for p in dist.glob("wheels/*.whl") if not p.name.startswith("pip-"))
    if len(packages) != 1 or not wheels:
        raise SystemExit(f"error: {dist} has no package of this version: make package")
    installed = next(p for p in Path(sys.prefix).glob("lib/*/site-packages/pip-*.dist-info"))
    with tempfile.TemporaryDirectory() as scratch:
        pip("download", "-q", "--no-deps", f"pip=={installed.name[4:-10]}", "-d", scratch)
        helper = next(Path(scratch).glob("pip-*.whl"))
        files = {f"wheels/{w.name}": w.read_bytes() for w in sorted([*wheels, helper])}
    files[packages[0].name] = packages[0].read_bytes()
    files["requirements.txt"] = requirements(wheels)
    files["sbom.json"] = sbom(wheels)
    files["install.py"] = (HERE / "install.py").read_bytes()
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    said = {
        "format": "ifpp.bundle",
        "major": 1,
        "version": version(),
        "build": hashlib.sha256(json.dumps(sums).encode()).hexdigest(),
        "python": "3.11",
        "machine": os.uname().machine,
        "package": packages[0].name,
        "files": sums,
    }
    manifest = json.dumps(said, indent=1, sort_keys=True).encode() + b"\n"
    head = {"manifest.json": manifest, "manifest.sig": signed(manifest, key)}
    target = dist / f"ifpp-{version()}-bundle.tar"
    write(target, {**head, **files})
    (dist / "install.py").write_bytes(files["install.py"])
    print(target)  # noqa: T201 - its result


if __name__ == "__main__":
    main()
