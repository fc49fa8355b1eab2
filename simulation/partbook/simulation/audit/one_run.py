"""The audit of the sums: the adversary names every canary's coin, and its right guesses bound ε from below.

All coins are guessed, so that how many guesses there are is fixed before any sum is seen. The same attack on the same
federation without its noise shows that there is something to find, and that the attack finds it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ConfigError
from partbook.simulation.audit.bounds import LEVEL, METHODS, Guessed, Method, epsilon_of_mu, explained, needed
from partbook.simulation.audit.results import AuditResult

if TYPE_CHECKING:
    from partbook.simulation.audit.canaries import Federation

_NAMES: Final[dict[Method, str]] = {"binomial": "binomial", "gaussian": "Gaussian"}


def right_guesses(scores: NDArray[np.float64], coins: NDArray[np.bool_], guesses: int) -> int:
    """Right ones among the `guesses` that the adversary is surest of: in above ½, out below."""
    surest = np.argsort(-np.abs(scores - 0.5), kind="stable")[:guesses]
    return int(np.sum((scores[surest] > 0.5) == coins[surest]))


@dataclass(frozen=True, slots=True)
class OneRun:
    """Runs of one kind.

    Attributes:
        runs: one each.
        together: all guesses of all runs.
        scores, coins: of every canary of every run.
    """

    runs: tuple[Guessed, ...]
    together: Guessed
    scores: NDArray[np.float64]
    coins: NDArray[np.bool_]

    @classmethod
    def of(cls, played: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]], guesses: int, delta: float) -> OneRun:
        """Guess all coins of (scores, coins), run by run."""
        right = [right_guesses(scores, coins, guesses) for scores, coins in played]
        runs = tuple(Guessed.of(len(coins), guesses, r, delta) for (_, coins), r in zip(played, right, strict=True))
        together = Guessed.of(sum(run.canaries for run in runs), guesses * len(runs), sum(right), delta)
        scores, coins = (np.concatenate(parts) for parts in zip(*played, strict=True))
        return cls(runs, together, scores, coins)

    def bounds(self, method: Method) -> list[float]:
        """Each run's."""
        return [run.bound(method) for run in self.runs]

    def above(self, claim: float, method: Method) -> int:
        """Runs whose bound is above a claim."""
        return sum(bound > claim for bound in self.bounds(method))

    def contradicts(self, claim: float) -> bool:
        """Whether a claim is refuted: by all guesses together, or by more runs than chance explains."""
        return any(
            self.together.bound(method) > claim or not explained(self.above(claim, method), len(self.runs))
            for method in METHODS
        )

    def to_json(self) -> dict[str, Any]:
        """Every run, and all of them."""
        return {"runs": [run.to_json() for run in self.runs], "together": self.together.to_json()}


def run(
    out: Path,
    *,
    quick: bool,
    seed: int,
    on_progress: Callable[[str], None],
    epsilon: float = 1.0,
    runs: int = 20,
    base: Path | None = None,
) -> AuditResult:
    """Attack a federation that claims `epsilon` at δ = 1e-5, and the same federation without its noise.

    Args:
        out: folder for the plot.
        quick: a smaller federation.
        seed: of canaries and coins. Noise is the system's, as always.
        on_progress: told each run.
        epsilon: the claim.
        runs: with noise, and as many without; the first with noise goes through masks and messages.
        base: the base model; the shipped one where None.

    Raises:
        ConfigError: the claim is one that so few canaries cannot refute, or that no noise grants.
        PartbookError: whatever ended the run that goes through messages.
    """
    from partbook.model.checkpoint import BASE
    from partbook.simulation.audit.canaries import Federation, Setting

    setting = Setting(epsilon=epsilon, base=base or BASE)
    if quick:
        setting = Setting(epsilon=epsilon, each=8, rounds=2, base=base or BASE)
    if runs < 1:
        raise ConfigError(f"An audit needs a run, not {runs}.")
    most = Guessed.of(setting.canaries, setting.canaries, setting.canaries, setting.delta)
    if most.binomial <= epsilon:
        raise ConfigError(
            f"With {setting.canaries} canaries no attack can show an ε above {most.binomial:.2f}, so a claim of "
            f"{epsilon:g} could not fail; audit a smaller ε{', or without --quick' if quick else ''}."
        )
    random = np.random.default_rng(seed)
    federation = Federation(setting, random)
    protected: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    bare: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    for number in range(runs):
        coins = federation.coins(random)
        if number:
            view = federation.play(coins)
        else:
            with tempfile.TemporaryDirectory() as folder:
                view = federation.play_messages(coins, Path(folder))
        protected.append((view.scores(), coins))
        on_progress(f"run {number + 1} of {runs} with noise")
    for number in range(runs):
        coins = federation.coins(random)
        bare.append((federation.play(coins, protected=False).scores(), coins))
        on_progress(f"run {number + 1} of {runs} without noise")
    on, off = (OneRun.of(played, setting.canaries, setting.delta) for played in (protected, bare))
    return _result(out, federation, on, off, seed)


def _result(out: Path, federation: Federation, on: OneRun, off: OneRun, seed: int) -> AuditResult:
    setting, claim, runs = federation.setting, federation.claimed, len(on.runs)
    broken = on.contradicts(claim)
    # Without noise nothing is Gaussian, so the control is held to the bound that assumes nothing.
    noticed = off.above(claim, "binomial")
    above = {method: on.above(claim, method) for method in METHODS}
    most = max(on.together.bound(method) for method in METHODS)
    right = f"{on.together.right:,} of {on.together.guesses:,} guesses right"
    if broken:
        first = (
            f"The claim of ε = {claim:.2f} is broken: {max(above.values())} of {runs} runs gave a 95 % lower bound "
            f"above it, and all of them together ({right}) show ε to be at least {most:.2f}"
        )
    else:
        first = (
            f"With noise, {max(above.values()) or 'none'} of {runs} runs gave a 95 % lower bound above the claimed "
            f"ε of {claim:.2f}, and all of them together ({right}) show it to be at least {most:.2f}"
        )
    least = min(off.bounds("binomial"))
    second = (
        f"; with the noise left out, the same attack showed in every run that ε is at least {least:.2f}."
        if noticed == runs
        else f"; but with the noise left out only {noticed} of {runs} runs went above the claim, so that its silence "
        "proves little."
    )
    against = "everybody who reads the sums and the models; no member colludes"
    must = needed(on.together.canaries, claim, setting.delta)
    figures: Mapping[str, Any] = {
        "claim": {
            "epsilon": round(claim, 4),
            "delta": setting.delta,
            "against": against,
            "mu": round(federation.mu, 4),
            "epsilon_of_mu": round(epsilon_of_mu(federation.mu, setting.delta), 4),
        },
        "federation": {
            "labels": setting.labels,
            "canaries_of_each": setting.each,
            "rounds": setting.rounds,
            "trained_numbers": federation.plan.parameters,
            "training": federation.plan.training.model_dump(),
        },
        "confidence": 1 - LEVEL,
        "seed": seed,
        "runs_above_the_claim": {
            "with_noise": above,
            "without_noise": {method: off.above(claim, method) for method in METHODS},
            "of": runs,
        },
        "right_guesses_that_would_contradict_the_claim": {"right": must, "of": on.together.guesses},
        "with_noise": on.to_json(),
        "without_noise": off.to_json(),
    }
    facts = (
        ("Claimed", f"ε = {claim:.3f} at δ = {setting.delta:g}, against {against}"),
        (
            "Federation",
            f"{setting.labels} labels of {setting.each} canaries, each in by a fair coin; {setting.rounds} rounds, all "
            f"recordings in each; {federation.plan.parameters:,} trained numbers; "
            f"σ = {federation.plan.training.model_dump()['noise_multiplier']:g}",
        ),
        ("Adversary", "knows every canary, the model before each round and the exact sum of each; no coin, no noise"),
        *_facts("With noise", on),
        *_facts("Without noise", off),
        ("To contradict the claim", f"{must:,} of {on.together.guesses:,} guesses would have to be right"),
        (
            "Messages",
            "the first run with noise went through vaults, keys, nodes, masks and signed messages; in the others the "
            "members' vectors were added up directly, which gives the same sums",
        ),
    )
    path = out / "one-run.png"
    _draw(path, claim, setting.delta, on, off)
    title = "Which recordings were in the sums?"
    return AuditResult(title, first + second, figures, path, not broken and noticed == runs, facts)


def _facts(name: str, kind: OneRun) -> tuple[tuple[str, str], ...]:
    each, together = kind.runs[0], kind.together
    right = ", ".join(str(one.right) for one in kind.runs)
    largest = " and ".join(f"{max(kind.bounds(method)):.2f} ({_NAMES[method]})" for method in METHODS)
    whole = " and ".join(f"{together.bound(method):.2f} ({_NAMES[method]})" for method in METHODS)
    return (
        (f"{name}: right guesses, run by run", f"{right} of {each.guesses}"),
        (f"{name}: largest lower bound of a run", f"ε ≥ {largest}"),
        (f"{name}: all runs together", f"{together.right:,} of {together.guesses:,} right; ε ≥ {whole}"),
    )


def _draw(path: Path, claim: float, delta: float, on: OneRun, off: OneRun) -> None:
    """Bounds of all runs against the claim, and what the adversary saw of canaries that were in or out."""
    from partbook.simulation.audit.drawing import INK, QUIET, SOFT, label_colour, new_figure, plain, save

    figure = new_figure("What the sums give away", "every canary of every run; lower bounds at 95 % confidence", 4.3)
    blue, orange = label_colour(0), label_colour(1)
    left = figure.add_axes((0.07, 0.14, 0.40, 0.62))
    spread = np.linspace(-0.28, 0.28, max(len(on.runs), 2))
    for x, kind, colour in ((0, on, blue), (1, off, orange)):
        for method, marker, shift in zip(METHODS, "o^", (-0.03, 0.03), strict=True):
            found = kind.bounds(method)
            left.scatter(
                x + spread[: len(found)] + shift, found, s=22, marker=marker, color=colour, alpha=0.75, linewidths=0
            )
    left.axhline(claim, color=QUIET, linewidth=1.2, linestyle=(0, (4, 3)))
    left.annotate(
        f"claimed: ε = {claim:.2f} at δ = {delta:g}", (0.02, claim), xycoords=("axes fraction", "data"),
        xytext=(0, 4), textcoords="offset points", fontsize=8.5, style="italic", color=QUIET,
    )  # fmt: skip
    left.set_xlim(-0.5, 1.5)
    left.set_ylim(-0.08 * max(off.bounds("gaussian")), None)
    left.set_xticks([0, 1], ["with noise", "without noise"])
    left.set_ylabel("ε is at least", fontsize=9.5, color=SOFT)
    left.scatter([], [], s=22, marker="o", color=INK, label="binomial bound")
    left.scatter([], [], s=22, marker="^", color=INK, label="Gaussian bound")
    left.legend(
        loc="upper left", bbox_to_anchor=(0.0, 0.88), fontsize=8.5, edgecolor="none", framealpha=1.0, labelcolor=SOFT
    )
    plain(left)
    for row, (kind, title) in enumerate(((on, "with noise"), (off, "without noise"))):
        axes = figure.add_axes((0.57, 0.53 - 0.39 * row, 0.40, 0.25))
        low, high = float(min(kind.scores.min(), -0.1)), float(max(kind.scores.max(), 1.1))
        bins = np.linspace(low, high, 49).tolist()
        for inside, colour, label in ((False, SOFT, "was out"), (True, blue if kind is on else orange, "was in")):
            axes.hist(kind.scores[kind.coins == inside], bins, color=colour, alpha=0.6, label=label)
        axes.axvline(0.5, color=INK, linewidth=0.8)
        axes.set_yticks([])
        axes.set_title(title, loc="left", fontsize=9.5, color=INK)
        axes.legend(loc="upper left", bbox_to_anchor=(0.56, 1.0), fontsize=8.5, frameon=False, labelcolor=SOFT)
        plain(axes)
        if row:
            axes.set_xlabel("share of a canary that the adversary finds in the sums", fontsize=9.5, color=SOFT)
    save(figure, path)
