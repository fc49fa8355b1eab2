"""Discrete Gaussian samples a second on one core, against a floor and against OpenDP's exact sampler.

Neither sampler uses a second thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import opendp.prelude as dp

from benchmarks.claims import Claim, report
from partbook.privacy.gaussian import discrete_gaussian

# Fewer would make noise dearer than masks.
FLOOR = 3e6

SIGMAS = (0.5, 8.0, 1e3, 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw with both samplers in turns, and compare the medians."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--samples", type=int, default=2_000_000, help="of ours, a turn")
    asked.add_argument("--peer-samples", type=int, default=10_000, help="of OpenDP's, a turn")
    asked.add_argument("--turns", type=int, default=5)
    options = asked.parse_args(arguments)
    dp.enable_features("contrib", "honest-but-curious")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=int)
    claims = []
    for sigma in SIGMAS:
        noise = dp.m.make_gaussian(*space, scale=sigma)
        zeros = [0] * options.peer_samples
        variance = Fraction(sigma) ** 2
        discrete_gaussian(variance, 1)
        ours, theirs = [], []
        for _ in range(options.turns):
            ours.append(options.samples / _seconds(partial(discrete_gaussian, variance, options.samples)))
            theirs.append(options.peer_samples / _seconds(partial(noise, zeros)))
        mine, peer = statistics.median(ours), statistics.median(theirs)
        print(f"σ = {sigma:g}: {mine / 1e6:.1f} million samples a second, OpenDP {peer / 1e6:.3f} million, one core")
        what = f"discrete Gaussian, σ = {sigma:g}"
        claims.append(Claim(what, "samples/s", mine, FLOOR, "limit", 1.0))
        claims.append(Claim(what, "samples/s", mine, peer, "OpenDP 0.16", 100.0))
    return 0 if report("noise", claims) else 1


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
