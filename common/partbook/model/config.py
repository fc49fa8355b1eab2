"""Sizes of the model, as values that travel with every checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from partbook.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What fixes the model's shape.

    Attributes:
        vocabulary: token ids, PAD, BOS and EOS included.
        width: model dimension d.
        layers: decoder blocks.
        heads: attention heads; divides `width` into an even head size.
        hidden: width of the feed-forward layer.
        context: positions the decoder sees at once, BOS included.
        listen_every: every how manieth block listens to the sound of the past.
        adapter_rank: rank r of the LoRA adapters.
        adapter_scale: what B·A is multiplied by.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    context: int
    listen_every: int = 1
    adapter_rank: int = 8
    adapter_scale: float = 2.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ConfigError(
                f"width {self.width} does not divide into {self.heads} heads of even size; change one of them."
            )
        if min(self.vocabulary, self.layers, self.hidden, self.context, self.listen_every, self.adapter_rank) < 1:
            raise ConfigError(
                "vocabulary, layers, hidden, context, listen_every and adapter_rank must each be at least 1."
            )

    def to_json(self) -> str:
        """Canonical JSON (sorted keys)."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: not JSON, or a key is missing, unknown or of the wrong type.
        """
        try:
            fields = json.loads(text)
            config = cls(**fields)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"This is not a model configuration ({error}); restore config.json.") from error
        return config


def small(vocabulary: int) -> ModelConfig:
    """The laptop size: trains on two CPU cores."""
    return ModelConfig(vocabulary, width=256, layers=4, heads=4, hidden=1024, context=1024, listen_every=2)


def full(vocabulary: int) -> ModelConfig:
    """The design's size, for a GPU: 12 layers, 8 heads, 512 wide, 2048 hidden."""
    return ModelConfig(vocabulary, width=512, layers=12, heads=8, hidden=2048, context=1024, listen_every=2)


SIZES: Final = {"small": small, "full": full}
