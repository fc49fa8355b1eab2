"""A stranger's first quarter of an hour: a fresh clone, an empty home, `make demo`, and `make demo` again.

Clones the last commit of this repository into a temporary folder, so commit first. Memory is the sum over all
processes of the run of what each holds alone or shares, sampled every two seconds (PSS where the system tells it).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.claims import Claim, report

ROOT = Path(__file__).parent.parent


def measured(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds taken and largest memory in GiB; exits if the command fails."""
    began, largest = time.monotonic(), 0
    process = psutil.Popen(command, cwd=folder, env=environment)
    while process.poll() is None:
        total = 0
        for member in [process, *process.children(recursive=True)]:
            try:
                memory = member.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
            except psutil.Error:
                continue  # it ended while we looked
        largest = max(largest, total)
        time.sleep(2.0)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - began, largest / 2**30


def main() -> int:
    """Clone, run twice, compare with the limits."""
    with tempfile.TemporaryDirectory(prefix="partbook-fresh-") as temporary:
        home, clone = Path(temporary) / "home", Path(temporary) / "partbook"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)  # noqa: S607 (git on PATH)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON", "XDG_"))}
        environment["HOME"] = str(home)
        first, memory = measured(["make", "demo"], clone, environment)
        second, _ = measured(["make", "demo"], clone, environment)
    claims = [
        Claim("make demo in a fresh clone, all set-up included", "min", first / 60, 12.0, "limit", 1.0, at_least=False),
        Claim("memory of make demo, all processes", "GiB", memory, 6.0, "limit", 1.0, at_least=False),
        Claim("make demo again", "min", second / 60, 5.0, "limit", 1.0, at_least=False),
    ]
    return 0 if report("fresh", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
