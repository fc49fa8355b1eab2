"""What the strongest adversary shows of ε against what is claimed, with noise and without, and what an audit costs.

A lower bound at 95 % confidence lies below the truth in nineteen runs of twenty; see partbook.simulation.audit.bounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims import Claim, report
from partbook.model.checkpoint import BASE
from partbook.simulation.audit import membership, one_run
from partbook.simulation.audit.bounds import METHODS

# An audit that takes longer is not run before a release.
LIMIT = 15 * 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit of the sums and of the released model, and compare what they show with the claim."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=20)
    asked.add_argument("--epsilon", type=float, default=1.0)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--base", type=Path, default=BASE)
    asked.add_argument("--quick", action="store_true")
    options = asked.parse_args(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        sums = one_run.run(
            Path(folder),
            quick=options.quick,
            seed=options.seed,
            on_progress=lambda _: None,
            epsilon=options.epsilon,
            runs=options.runs,
            base=options.base,
        )
        print(sums.finding)
        model = membership.run(
            Path(folder),
            quick=options.quick,
            seed=options.seed,
            on_progress=lambda _: None,
            epsilon=options.epsilon,
            base=options.base,
        )
        print(model.finding)
    seconds = time.perf_counter() - began
    claimed = sums.figures["claim"]["epsilon"]
    above = sums.figures["runs_above_the_claim"]
    claims = []
    for method in METHODS:
        shown = sums.figures["with_noise"]["together"][f"epsilon_at_least_{method}"]
        what = f"ε shown with noise by {options.runs} runs together, {method} bound"
        # A bound may be nothing at all, which no ratio can be made of elsewhere.
        claims.append(Claim(what, "ε", max(shown, 1e-4), claimed, "claimed", 1.0, at_least=False))
    bare = min(one["epsilon_at_least_binomial"] for one in sums.figures["without_noise"]["runs"])
    claims.append(Claim("least ε shown by a run without noise", "ε", bare, claimed, "claimed", 1.0))
    caught = above["without_noise"]["binomial"]
    claims.append(Claim("runs without noise that are caught", "runs", caught, above["of"], "all of them", 1.0))
    told = model.figures["with noise"]
    least = told["auc_95"][0]
    claims.append(
        Claim("AUC of membership, lower end", "AUC", max(least, 1e-4), told["auc_allowed"], "allowed", 1.0, False)
    )
    claims.append(Claim("the audit", "s", seconds, LIMIT, "limit", 1.0, at_least=False))
    return 0 if report("audit", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
