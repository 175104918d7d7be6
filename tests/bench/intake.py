"""Taking packages of 45 kB in, every signature checked: packages a second on one core, and the memory that takes.

Each package must be really bound and signed, so making a file takes longer than taking it in; that is measured apart.
Sizes: IFPP_BENCH_INTAKE="1000 5000" (small file, large file); the goal for memory stands for "1000 100000", which
takes some minutes and 12 GB of disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ifpp.line.intake import import_file
from ifpp.sim import documents, pki
from ifpp.sim.documents import RequestItem
from ifpp.sim.eum import Chip, Eum
from ifpp.sim.profiles import ProfileStock
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.template import build_template
from ifpp.store.factory import Factory
from ifpp.trust.chain import TrustStore
from tests.bench.table import goal

_SIZES = "1000 5000"
_PROFILE_BYTES = 44_400  # makes a package of 45 kB
_PER_S, _GROWTH = 500, 1.2


def run() -> bool:
    small, large = (int(size) for size in os.environ.get("IFPP_BENCH_INTAKE", _SIZES).split())
    figures = []
    with tempfile.TemporaryDirectory() as name:
        for count in (small, large):
            folder = Path(name) / str(count)
            start = time.monotonic()
            make(folder, count)
            made = count / (time.monotonic() - start)
            figures.append(_in_a_process_of_its_own(folder))
            sys.stdout.write(f"{count} packages: made {made:.0f}/s, {json.dumps(figures[-1])}\n")
            sys.stdout.flush()
            for path in folder.iterdir():
                path.unlink()
    first, last = figures
    met = goal("packages taken in a second, one core", last["import_per_s"], _PER_S, at_least=True)
    met &= goal("packages only verified a second, one core", last["verify_per_s"], _PER_S, at_least=True)
    return met & goal("peak memory, large file / small", last["peak_mb"] / first["peak_mb"], _GROWTH, at_least=False)


def make(folder: Path, count: int) -> None:
    """Write eUICC data and a delivery of one package for each chip."""
    folder.mkdir()
    tree = pki.Pki.create()
    eum, smdpf = Eum(tree, seed=1), SmDpf(tree.dppb, tree.ci.der)
    template = build_template(_PROFILE_BYTES, seed=1)
    names = {"provider": "P", "iccid_prefix": "8988247", "imsi_prefix": "00101"}
    stock = ProfileStock("bench", [template], **names, first_serial=1)
    (folder / "ci.der").write_bytes(tree.ci.der)
    chips = [eum.issue(keys=1) for _ in range(count)]
    info2 = {chips[0].record.info2_type: eum.info2(chips[0])}
    records = (chip.record for chip in chips)
    documents.write_esed(folder / "chips.esed.jsonl", records, batch_id="bench", eum_chain=eum.chain, info2=info2)
    documents.write_delivery(
        folder / "packages.esbpp.jsonl",
        (smdpf.bind(_item(chip), stock.take(), eum_chain=eum.chain) for chip in chips),
        delivery_id="bench",
        request_id="bench",
        order_ref="bench",
        smdp_oid=smdpf.oid,
        smdp_chain=smdpf.chain,
    )


def _item(chip: Chip) -> RequestItem:
    record = chip.record
    otk_id, otk_public = record.one_time_keys[0]
    return RequestItem(
        eid=record.eid,
        otk_id=otk_id,
        otk_public=otk_public,
        euicc_certificate=record.certificate,
        otk_list=record.otk_list,
        info2_type=record.info2_type,
        profile_type="bench",
        sku="S",
        region="R",
    )


def _in_a_process_of_its_own(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.intake", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def take(folder: Path) -> dict[str, float]:
    """Verify and import what `make` made, on one core; return the figures."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    trust = TrustStore([(folder / "ci.der").read_bytes()])
    with closing(Factory.open(f"sqlite:///{folder / 'factory.db'}", writer="intake")) as factory:

        def timed(name: str, *, dry_run: bool) -> float:
            start = time.monotonic()
            report = import_file(folder / name, factory, trust, now=datetime.now(UTC), line="L1", dry_run=dry_run)
            return round(report.items / (time.monotonic() - start), 1)

        return {
            "chips_per_s": timed("chips.esed.jsonl", dry_run=False),
            "verify_per_s": timed("packages.esbpp.jsonl", dry_run=True),
            "import_per_s": timed("packages.esbpp.jsonl", dry_run=False),
            "peak_mb": _peak_mb(),
        }


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1000


if __name__ == "__main__":
    sys.stdout.write(json.dumps(take(Path(sys.argv[1]))))
