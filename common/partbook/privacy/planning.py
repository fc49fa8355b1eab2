"""What a federation's noise costs, before anybody trains: σ for an ε, and what other batches would need."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from partbook.errors import ConfigError
from partbook.privacy.accounting import calibrate, epsilon_curve
from partbook.privacy.events import Against, NoisySum, Repeated

Kind = Literal["distributed", "local"]
BATCHES: Final = (32, 64, 128, 256)  # shown for comparison, and full participation with them
# A plan holds for any grid that a round may have, up to as many trained numbers. Both figures are a member's, and those
# of `NoisyGrid` with the least variance that it accepts, 16.
_PARAMETERS: Final = 10**8
_SLACK: Final = 5 * _PARAMETERS * math.exp(-16 * math.pi**2)
_TAIL: Final = 2.0001 * _PARAMETERS * math.exp(-72)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a federation wants.

    Attributes:
        epsilon: target ε for each recording after all rounds, against colluders.
        delta: δ, below one in `recordings`.
        recordings: of all labels together; in local mode a label is taken to have an equal part of them.
        rounds: how many.
        batch: recordings expected in one noisy sum: of all labels, in local mode of one.
        labels, threshold, colluders: members; fewest whose sum may be opened; how many may subtract their noise.
        kind: who makes the noise: all members together, or each alone.
        steps: noisy steps of one member in a round; local mode only.

    Raises:
        ConfigError: a figure is impossible; the message names it.
    """

    epsilon: float
    delta: float
    recordings: int
    rounds: int
    batch: float
    labels: int
    threshold: int
    colluders: int
    kind: Kind = "distributed"
    steps: int = 1

    def __post_init__(self) -> None:
        _require(0 < self.epsilon < math.inf, "epsilon", self.epsilon, "must be positive and finite")
        _require(self.recordings >= 1, "recordings", self.recordings, "must be at least 1")
        below = f"must be above 0 and below 1/recordings = {1 / max(self.recordings, 1):.3g}"
        _require(0 < self.delta * self.recordings < 1, "delta", self.delta, f"{below}, or ε may hide a recording lost")
        _require(self.rounds >= 1, "rounds", self.rounds, "must be at least 1")
        _require(self.labels >= 3, "labels", self.labels, "must be at least 3: of two, each learns the other's update")
        least, most = self.labels // 2 + 1, self.labels
        _require(least <= self.threshold <= most, "threshold", self.threshold, f"must be from {least} to {most}")
        free = f"must be from 0 to threshold − 1 = {self.threshold - 1}, so that somebody honest adds noise"
        _require(0 <= self.colluders < self.threshold, "colluders", self.colluders, free)
        _require(
            0 < self.batch <= self.pool, "batch", self.batch, f"must be above 0 and at most the {self.pool:g} there"
        )
        _require(self.kind in ("distributed", "local"), "mode", self.kind, "must be distributed or local")
        _require(self.steps >= 1, "steps", self.steps, "must be at least 1")
        _require(self.steps == 1 or self.kind == "local", "steps", self.steps, "is for local mode; use more rounds")

    @property
    def pool(self) -> float:
        """Recordings that one noisy sum draws from."""
        return self.recordings / self.labels if self.kind == "local" else self.recordings

    @property
    def sampling(self) -> float:
        """q."""
        return self.batch / self.pool


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch, and the noise it needs for the same ε.

    Attributes:
        batch: recordings expected in a sum.
        noise_multiplier: σ.
        noise: standard deviation of the noise in the mean update, a coordinate, in units of the clip C; the recordings'
            own signal drowns as it rises.
    """

    batch: float
    noise_multiplier: float

    @property
    def noise(self) -> float:
        """σ / batch."""
        return self.noise_multiplier / self.batch


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """A wish and the σ that grants it."""

    wish: Wish
    noise_multiplier: float

    def one_round(self, against: Against) -> tuple[Repeated, ...]:
        """What a round releases, as `events_of` will say it of the round's plan, tails and slack no smaller."""
        wish = self.wish
        if wish.kind == "local":
            return (Repeated(NoisySum(self.noise_multiplier, wish.sampling, _slack(wish), _tail(wish)), wish.steps),)
        honest, noise = wish.threshold - wish.colluders, self.noise_multiplier
        if against == "outsiders":
            noise *= math.sqrt(wish.threshold / honest)
        return (Repeated(NoisySum(noise, wish.sampling, _slack(wish), _tail(wish))),)

    def curve(self, against: Against, rounds: Iterable[int]) -> tuple[float, ...]:
        """ε after each of `rounds`."""
        return epsilon_curve(self.one_round(against), self.wish.delta, rounds)

    def spent(self, against: Against) -> float:
        """ε after all rounds."""
        return self.curve(against, [self.wish.rounds])[0]

    def toml(self) -> str:
        """The `[training]` section of the coordinator's configuration that carries the plan out."""
        wish = self.wish
        lines = [
            f"# ε = {self.spent('colluders'):.3f} at δ = {wish.delta:g} for each of {wish.recordings} recordings, with",
            f"# rounds = {wish.rounds} and threshold = {wish.threshold}, which belong above this section.",
            "[training]",
            f'kind = "{wish.kind}"',
            f"noise_multiplier = {self.noise_multiplier!r}",
            f"sampling = {float(wish.sampling)!r}",
            f"batch = {float(wish.batch)!r}",
            f"steps = {wish.steps}" if wish.kind == "local" else f"colluders = {wish.colluders}",
        ]
        return "\n".join(lines) + "\n"


def default_delta(recordings: int) -> float:
    """The largest power of ten below 1/(10·recordings): a tenth of the loss of one recording in all, at most.

    Raises:
        ConfigError: there are no recordings.
    """
    _require(recordings >= 1, "recordings", recordings, "must be at least 1")
    return float(f"1e-{len(str(10 * recordings))}")


def default_colluders(labels: int, threshold: int) -> int:
    """⌈n/3⌉ − 1, fewer than a third as PROTOCOL §1 has it, and never so many that nobody honest is left."""
    return max(0, min(-(-labels // 3) - 1, threshold - 1))


def planned(wish: Wish) -> PrivacyPlan:
    """The least noise that grants a wish.

    Raises:
        ConfigError: no noise that a plan can ask for does.
    """
    noise = calibrate(
        wish.epsilon,
        wish.delta,
        wish.sampling,
        wish.rounds,
        steps=wish.steps,
        slack=_slack(wish),
        tail=_tail(wish),
    )
    return PrivacyPlan(wish, noise)


def choices(wish: Wish) -> tuple[Choice, ...]:
    """What each of the usual batches would need, and the wish's own, smallest first.

    Raises:
        ConfigError: a batch needs more noise than a plan can ask for.
    """
    sizes = sorted({wish.batch, wish.pool, *(float(size) for size in BATCHES if size < wish.pool)})
    return tuple(Choice(size, planned(replace(wish, batch=size)).noise_multiplier) for size in sizes)


def milestones(rounds: int, rows: int = 8) -> tuple[int, ...]:
    """About `rows` rounds, evenly apart, from the first to the last."""
    return tuple(sorted({1, *(round(rounds * row / (rows - 1)) or 1 for row in range(1, rows))}))


def _slack(wish: Wish) -> float:
    return 0.0 if wish.kind == "local" else _SLACK * wish.labels


def _tail(wish: Wish) -> float:
    return _TAIL if wish.kind == "local" else _TAIL * wish.labels


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"`{name}` is {value} and {rule}.")
