"""How long a command takes to say its help, from process start to process end, against half a second."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.claims import Claim, report

COMMANDS = ("--help", "node --help", "node ingest --help", "release pack --help", "serve --help", "generate --help")
LIMIT = 0.5  # seconds
TIMES = 7


def seconds(arguments: str) -> float:
    """The best of several runs; the first only warms the disk."""
    command = [sys.executable, "-m", "partbook.cli", *arguments.split()]
    best = float("inf")
    for _ in range(TIMES):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> int:
    """Measure every command."""
    claims = [Claim(f"partbook {c}", "s", seconds(c), LIMIT, "limit", 1.0, at_least=False) for c in COMMANDS]
    return 0 if report("startup", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
