"""`python -m tests.bench.slow_keys MS FILE ARGUMENTS...`: ifpp as it is, over a key device that takes MS an operation.

The seam is the software provider: each operation is counted and waits. How many there were is written to FILE.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

# What each call costs a token: a chip's key is derived, then used.
_OPERATIONS = {"authorise": 2, "unwrap": 1, "wrap": 1, "unwrap_backup": 1, "sign": 1}


def main() -> None:
    pause_s, out = float(sys.argv.pop(1)) / 1000, Path(sys.argv.pop(1))
    from ifpp.trust.keyfile import SoftwareKeys
    from ifpp.trust.signer import SoftwareSigner

    counts: Counter[str] = Counter()
    lock = threading.Lock()
    for name, operations in _OPERATIONS.items():
        owner = SoftwareSigner if name == "sign" else SoftwareKeys
        setattr(owner, name, _slow(getattr(owner, name), name, operations, pause_s, counts, lock))
    atexit.register(lambda: out.write_text(str(sum(counts.values()))))
    from ifpp.__main__ import main as ifpp  # after the seam is in

    ifpp()


def _slow(
    call: Callable[..., Any], name: str, operations: int, pause_s: float, counts: Counter[str], lock: threading.Lock
) -> Callable[..., Any]:
    @wraps(call)
    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(operations * pause_s)
        with lock:
            counts[name] += operations
        return call(*args, **options)

    return slowly


if __name__ == "__main__":
    main()
