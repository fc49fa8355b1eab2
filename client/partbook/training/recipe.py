"""How the base is trained, as a value: what two runs must share to be one run, and the learning rate at every token.

    cosine    warm-up, then down to a tenth along a cosine, as far as the last token
    stable    warm-up, the peak, then in a straight line to zero over the last share: for a run that may be prolonged
              (Hu et al. 2024, arXiv 2404.06395 v3, §4). Prolonged after its decay, it goes on from the decayed weights
              at the peak, as WSD-S does (Wen et al. 2024, arXiv 2410.05192).

Progress is counted in tokens that carried loss, so that how batches are filled changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from partbook.errors import ConfigError

_LEAST: Final = 0.1  # of the peak, at a cosine's end


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pretraining.

    Attributes:
        tokens: in all, that carry loss; the run ends with the step that reaches them.
        step_tokens: that a step's batch is filled to, about.
        muon_rate, adamw_rate: peak learning rates, see `partbook.training.muon`.
        weight_decay: of matrices other than embeddings.
        warmup: tokens until the peak.
        schedule: see above.
        decay: of `stable`: the share of all tokens over which the rate falls to zero.
        clip: L2 norm at which a step's gradient is clipped.
        dropout: of every Dropout layer of the model.
        average: decay of the weights' exponential moving average a step; younger weights count less until then.
        seed: of dropout, and of what else draws from torch within a step.
        corpus: hash of what batches are drawn from, or another name of it.
    """

    tokens: int
    step_tokens: int = 8192
    muon_rate: float = 0.02
    adamw_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup: int = 1_000_000
    schedule: Literal["cosine", "stable"] = "cosine"
    decay: float = 0.2
    clip: float = 1.0
    dropout: float = 0.1
    average: float = 0.999
    seed: int = 1
    corpus: str = ""

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "stable"):
            raise ConfigError(f'schedule: {self.schedule!r} is none; write "cosine" or "stable".')
        for name in ("tokens", "step_tokens", "muon_rate", "adamw_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is not above 0.")
        for name in ("warmup", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is below 0.")
        for name in ("dropout", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not from 0 to below 1.")
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay: {self.decay} is not a share above 0 and at most 1.")

    def share(self, seen: int) -> float:
        """Share of the peak rates for the step after `seen` tokens: above 0, at most 1."""
        # A step's rate is that of its end where it rises and of its beginning where it falls: never zero.
        if seen < self.warmup:
            return min(1.0, (seen + self.step_tokens) / self.warmup)
        if self.schedule == "cosine":
            done = min(1.0, (seen - self.warmup) / max(1, self.tokens - self.warmup))
            return _LEAST + (1.0 - _LEAST) * 0.5 * (1.0 + math.cos(math.pi * done))
        left = max(self.tokens - seen, 1) / self.tokens
        return min(1.0, left / self.decay)

    def averaging(self, step: int) -> float:
        """Decay of the moving average at a step n counted from 0: (1 + n) / (10 + n), at most `average`."""
        return min(self.average, (1 + step) / (10 + step))

    def as_state(self) -> dict[str, Any]:
        """As plain values, for a file."""
        return asdict(self)

    def differences(self, other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Names of what differs from another's `as_state`: its value, and this one's."""
        mine = asdict(self)
        names = sorted(mine.keys() | other.keys())
        return {name: (other.get(name), mine.get(name)) for name in names if other.get(name) != mine.get(name)}

    def prolonged(self, tokens: int) -> Recipe:
        """The same recipe to another number of tokens."""
        return replace(self, tokens=tokens)
