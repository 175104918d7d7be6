"""Exit 0 when an address answers with 200, else 1 and one line why: the health check of the containers.

python3 ready.py URL [--ca FILE --cert FILE --key FILE] [--says REGEX]; with `--says` a line of the answer must match.
Only the standard library, so that it starts quickly.
"""

from __future__ import annotations

import argparse
import re
import ssl
import sys
import urllib.request


def main() -> int:
    """Ask once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for name in ("--ca", "--cert", "--key", "--says"):
        parser.add_argument(name)
    wanted = parser.parse_args()
    try:
        context = None
        if wanted.ca:
            context = ssl.create_default_context(cafile=wanted.ca)
            context.load_cert_chain(wanted.cert, wanted.key)
        with urllib.request.urlopen(wanted.url, timeout=4, context=context) as answer:  # noqa: S310 - our own
            body = answer.read().decode()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{wanted.url}: {error}\n")
        return 1
    if wanted.says and not re.search(wanted.says, body, re.MULTILINE):
        sys.stderr.write(f"{wanted.url}: no line says {wanted.says}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
