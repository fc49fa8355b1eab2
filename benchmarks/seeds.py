"""The demo on three seeds: is the global model better than the base for every label, on transcribed held-out audio?

Prints the table of `docs/figures.md`, and one JSON line. What is said after it goes to the demo: `--noise none`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.claims import Claim, report

SEEDS = (1, 2, 3)


def main() -> int:
    """Run the demo once a seed, each label with other recordings, and compare."""
    rows: dict[str, list[tuple[float, float]]] = {}
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    for seed in SEEDS:
        out = Path("runs") / f"{stamp}-seed-{seed}"
        command = [
            sys.executable,
            "-m",
            "partbook.cli",
            "demo",
            "--seed",
            str(seed),
            "--out",
            str(out),
            "--json",
            *sys.argv[1:],
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for label, nll in json.loads(done.stdout)["heldout_nats_per_token"].items():
            rows.setdefault(label, []).append((nll["base"], nll["after"]))
    print("| Label | Base | " + " | ".join(f"After, seed {seed}" for seed in SEEDS) + " |")
    print("|---|---|" + "---|" * len(SEEDS))
    for label, pairs in rows.items():
        print(f"| {label} | {pairs[0][0]:.3f} | " + " | ".join(f"{after:.3f}" for _, after in pairs) + " |")
    claims = [
        Claim(f"held-out NLL, {label}, seed {seed}", "nats/token", after, before, "base model", 1.0, at_least=False)
        for label, pairs in rows.items()
        for seed, (before, after) in zip(SEEDS, pairs, strict=True)
    ]
    return 0 if report("seeds", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
