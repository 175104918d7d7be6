"""`ifpp --help` under 150 ms of CPU, and nothing heavy imported for it."""

from __future__ import annotations

import resource
import subprocess
import sys

from tests.bench.table import goal, row

_HEAVY = ("sqlalchemy", "cryptography", "aiohttp", "aiomqtt", "msgspec", "prometheus_client", "rich", "textual")
_RUNS = 9


def run() -> bool:
    help_ms = row("ifpp --help, CPU", [_cpu_ms("-m", "ifpp", "--help") for _ in range(_RUNS)], "ms")
    row("python alone, CPU", [_cpu_ms("-c", "pass") for _ in range(_RUNS)], "ms")
    probe = "import sys, ifpp.__main__; print([name for name in sys.argv[1:] if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe, *_HEAVY], capture_output=True, text=True, check=True)
    sys.stdout.write(f"heavy modules imported: {loaded.stdout.strip()}\n")
    return goal("ifpp --help, CPU ms", help_ms, 150, at_least=False) and loaded.stdout.strip() == "[]"


def _cpu_ms(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
