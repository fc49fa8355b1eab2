"""ε of the same sums by every accountant at hand, as the table of docs/figures.md; ours must not be the lowest."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Callable
from functools import partial

from benchmarks.claims import Claim, report
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import NoisySum, Repeated

DELTA = 1e-5
# σ, q, rounds: what a plan of this project comes to, then a grid around it.
POINTS = (
    (0.9347, 0.064, 200),
    (2.487, 0.256, 200),
    (9.024, 1.0, 200),
    (0.6, 0.01, 200),
    (0.8, 0.1, 10),
    (1.0, 0.01, 1),
    (1.0, 0.01, 200),
    (1.0, 0.1, 200),
    (2.0, 0.1, 200),
    (2.0, 0.5, 10),
    (5.0, 0.01, 200),
    (5.0, 0.1, 200),
    (5.0, 0.5, 200),
    (5.0, 1.0, 10),
)
Accountant = Callable[[float, float, int], float]


def ours(noise: float, sampling: float, rounds: int) -> float:
    """Partbook's, for discrete noise."""
    return epsilon([Repeated(NoisySum(noise, sampling), rounds)], DELTA)


def pld(noise: float, sampling: float, rounds: int) -> float:
    """dp-accounting's privacy loss distribution, rounded to the pessimistic side."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(PoissonSampledDpEvent(sampling, GaussianDpEvent(noise)), rounds)
    return float(accountant.get_epsilon(DELTA))


def rdp(noise: float, sampling: float, rounds: int) -> float:
    """dp-accounting's Rényi accountant at its default orders."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    accountant.compose(PoissonSampledDpEvent(sampling, GaussianDpEvent(noise)), rounds)
    return float(accountant.get_epsilon(DELTA))


def opacus(name: str, noise: float, sampling: float, rounds: int) -> float:
    """One of Opacus' accountants."""
    from opacus import accountants

    accountant = getattr(accountants, name)()
    accountant.history = [(noise, sampling, rounds)]
    return float(accountant.get_epsilon(DELTA))


def flower(noise: float, sampling: float, rounds: int) -> float:
    """Flower's `RdpAccountant`, which wraps dp-accounting's; a recording is one of 10,000 in its terms."""
    from flwr.serverapp import (
        GaussianPrivacyEvent,
        NeighboringRelation,
        PrivacyConfig,
        RdpAccountant,
        SamplingMethod,
    )

    population = 10_000
    config = PrivacyConfig(
        target_delta=DELTA,
        population_size=population,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.POISSON,
    )
    accountant = RdpAccountant(config)
    event = GaussianPrivacyEvent(
        noise_multiplier=noise, sample_size=round(sampling * population), population_size=population
    )
    accountant.compose(event, rounds)
    return float(accountant.get_epsilon(DELTA))


ACCOUNTANTS: dict[str, Accountant] = {
    "Partbook": ours,
    "dp-accounting PLD": pld,
    "dp-accounting RDP": rdp,
    "Opacus PRV": partial(opacus, "PRVAccountant"),
    "Opacus RDP": partial(opacus, "RDPAccountant"),
    "Flower RdpAccountant": flower,
}


def main() -> int:
    """Print the table and the closing line."""
    import logging

    logging.disable(logging.WARNING)  # of orders at which a series does not converge
    warnings.simplefilter("ignore")
    print(
        f"ε at δ = {DELTA:g}, Poisson sampling, one recording added or removed; the first column's noise is discrete.\n"
    )
    print("| σ | q | Rounds | " + " | ".join(ACCOUNTANTS) + " |")
    print("|---" * (3 + len(ACCOUNTANTS)) + "|")
    found: dict[str, list[float]] = {name: [] for name in ACCOUNTANTS}
    for noise, sampling, rounds in POINTS:
        for name, accountant in ACCOUNTANTS.items():
            with contextlib.redirect_stdout(sys.stderr):
                found[name].append(accountant(noise, sampling, rounds))
        row = (f"{values[-1]:.3f}" for values in found.values())
        print(f"| {noise:g} | {sampling:g} | {rounds} | " + " | ".join(row) + " |", flush=True)

    def ratios(peer: str) -> list[float]:
        return [a / b for a, b in zip(found["Partbook"], found[peer], strict=True)]

    middle = [a for a, b in zip(ratios("dp-accounting PLD"), found["Partbook"], strict=True) if 1 <= b <= 12]
    claims = [
        *(Claim("ε, least ratio", "ratio", min(ratios(peer)), 1.0, peer, 1.0) for peer in list(ACCOUNTANTS)[1:4:2]),
        Claim(
            "ε where it is 1 to 12, mean ratio",
            "ratio, geometric mean",
            math.exp(math.fsum(map(math.log, middle)) / len(middle)),
            1.0,
            "dp-accounting PLD",
            1.3,
            at_least=False,
        ),
    ]
    return 0 if report("accounting", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
