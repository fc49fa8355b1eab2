"""From logits to a token: what may be drawn, how the distribution is shaped, and the draw.

Applied in this order, each step to what the one before it left:

1. mask: tokens that are never drawn, and those that a `Constraint` rules out, get the logit -∞;
2. repetition: logits of tokens written lately are divided by the penalty where above 0 and multiplied by it where
   below (Keskar et al. 2019, arXiv 1909.05858, §4.1);
3. temperature: logits are divided by it;
4. top-k: the k likeliest stay (Fan et al. 2018, arXiv 1805.04833);
5. top-p: the smallest set with this much of the remaining probability stays (Holtzman et al. 2020, arXiv 1904.09751 v2,
   §3.1);
6. min-p: tokens at least this share as likely as the likeliest stay (Nguyen et al. 2024, arXiv 2407.01082, §3);
7. one of the rest is drawn in proportion to its probability.

Everything here is a pure function of logits (vocabulary,), float32 on the CPU, and of a generator of random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import torch
from torch import Tensor

from partbook.errors import GenerationError

TOP_P: Final = 0.98
"""What the base writes most like people with: with 0.95 rhythms vary too little and bars come back too often, with 1
notes fall out of the key (docs/figures.md)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens.

    Attributes:
        seed: makes the draw repeatable on one machine.
        max_tokens: at most this many new tokens.
        temperature: > 0; logits are divided by it.
        top_p: in (0, 1]; the smallest set of tokens with this much probability is drawn from.
        end: whether the model may end the piece; where not, EOS is never drawn and the caller stops.
        top_k: this many of the likeliest tokens are drawn from; 0 for all.
        min_p: in [0, 1]; tokens less likely than this share of the likeliest are not drawn. 0 is off.
        repetition_penalty: from 1 to 10; tokens with a pitch that were written lately become less likely. 1 is off.
        repetition_window: how many tokens back "lately" reaches, at least 1.
    """

    seed: int = 0
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = TOP_P
    end: bool = True
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature <= 10.0:
            raise GenerationError(f"temperature is {self.temperature}; it must be above 0 and at most 10.")
        if not 0.0 < self.top_p <= 1.0:
            raise GenerationError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.max_tokens < 1:
            raise GenerationError(f"max_tokens is {self.max_tokens}; it must be at least 1.")
        if not 0 <= self.seed < 2**63:
            raise GenerationError(f"seed is {self.seed}; it must be from 0 to 2^63 - 1.")
        if self.top_k < 0:
            raise GenerationError(f"top_k is {self.top_k}; it must be at least 1, or 0 for all tokens.")
        if not 0.0 <= self.min_p <= 1.0:
            raise GenerationError(f"min_p is {self.min_p}; it must be from 0 to 1.")
        if not 1.0 <= self.repetition_penalty <= 10.0:
            raise GenerationError(f"repetition_penalty is {self.repetition_penalty}; it must be from 1 to 10.")
        if self.repetition_window < 1:
            raise GenerationError(f"repetition_window is {self.repetition_window}; it must be at least 1.")


class Constraint(Protocol):
    """What a grammar allows next. It stands at the beginning of a piece and is told every token in turn."""

    def allowed(self) -> Tensor:
        """Which tokens may come next, (vocabulary,) bool on the CPU."""

    def append(self, token: int) -> None:
        """This token was written."""

    def copy(self) -> Self:
        """The same state, which goes its own way from here."""


def standing(constraint: Constraint | None, ids: Sequence[int]) -> Constraint | None:
    """A copy of a constraint that was told `ids`; the one given stays as it is."""
    if constraint is None:
        return None
    copied = constraint.copy()
    for token in ids:
        copied.append(int(token))
    return copied


def masked(logits: Tensor, never: Sequence[int], constraint: Constraint | None = None) -> Tensor:
    """A copy of logits (vocabulary,) with -∞ for tokens in `never` and those that a constraint rules out.

    Raises:
        GenerationError: no token is left.
    """
    kept = logits.clone()
    kept[list(never)] = -torch.inf
    if constraint is not None:
        kept = kept.masked_fill(~constraint.allowed(), -torch.inf)
    if not math.isfinite(float(kept.max())):
        raise GenerationError(
            "No token is left to draw: the constraint rules out all that the model may write here; loosen it, "
            "or let the piece end."
            if constraint is not None
            else "No token is left to draw: the model gives none a finite logit; check its weights."
        )
    return kept


def penalised(logits: Tensor, recent: Sequence[int], penalty: float) -> Tensor:
    """Logits (vocabulary,) with those of the tokens in `recent` lowered, each once however often it is there."""
    if penalty == 1.0 or not recent:
        return logits
    tokens = torch.tensor(sorted(set(recent)))
    lowered, held = logits.clone(), logits[tokens]
    lowered[tokens] = torch.where(held > 0, held / penalty, held * penalty)
    return lowered


def shaped(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Temperature, top-k, top-p and min-p: weights, and the tokens they belong to, likeliest first.

    The weights (vocabulary,) are not normalised; they are 0 for what is not drawn.
    """
    weights, order = torch.softmax(logits / sampling.temperature, dim=-1).sort(descending=True)
    if sampling.top_k:
        weights = torch.cat([weights[: sampling.top_k], torch.zeros_like(weights[sampling.top_k :])])
        weights = weights / weights.sum()
    before = weights.cumsum(-1) - weights
    weights = torch.where(before < sampling.top_p, weights, torch.zeros_like(weights))
    if sampling.min_p:
        weights = torch.where(weights >= sampling.min_p * weights[0], weights, torch.zeros_like(weights))
    return weights, order


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator, recent: Sequence[int] = ()) -> int:
    """One token of masked logits (vocabulary,): steps 2 to 7; `recent` is what the repetition penalty lowers."""
    weights, order = shaped(penalised(logits, recent, sampling.repetition_penalty), sampling)
    return int(order[torch.multinomial(weights, 1, generator=generator)])
