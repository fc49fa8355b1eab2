"""The encoder–decoder: a token transformer that listens, through cross-attention, to the sound of the past."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partbook.model.clock import Clock, ClockState, Moments
from partbook.model.config import ModelConfig
from partbook.model.layers import (
    Angles,
    Block,
    Cache,
    LayerCache,
    MelEncoder,
    Norm,
    angles_at,
    rotary_frequencies,
)
from partbook.music.vocabulary import LONGEST_BAR

MOST_LEFT: Final = 64  # bars left that are told apart


class PartbookModel(nn.Module):
    """Next-token logits given tokens so far and, where there is one, the mel of the eight seconds before them.

    Input and output embeddings are one matrix (Press & Wolf 2017, arXiv 1608.05859).
    """

    frequencies: Tensor

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = MelEncoder(config.width)
        self.clock = Clock(config.vocabulary)
        self.place = nn.Embedding(LONGEST_BAR + 1, config.width)
        nothing = torch.zeros(MOST_LEFT + 1, config.width)
        self.left = nn.Embedding.from_pretrained(nothing, freeze=False, padding_idx=0)  # type: ignore[no-untyped-call]
        blocks = [
            Block(config.width, config.heads, config.hidden, dropout, listens=(number + 1) % config.listen_every == 0)
            for number in range(config.layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = Norm(config.width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("frequencies", rotary_frequencies(config.width // config.heads), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        # GPT-2's: 0.02 everywhere, residual outputs shrunk by the number of residual additions.
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                deep = name.endswith(("out", "down"))
                scale = 0.02 / math.sqrt(3 * self.config.layers) if deep else 0.02
                nn.init.normal_(module.weight, std=scale)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.005)

    def encode(self, mel: Tensor, has_memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (b, 44, d) and where it is audible (b, 1, 1, 44) of mel (b, 688, 128)."""
        encoded: tuple[Tensor, Tensor] = self.encoder(mel, has_memory)
        return encoded

    def forward(self, ids: Tensor, mel: Tensor, has_memory: Tensor) -> Tensor:
        """Logits (b, t, vocabulary) for ids (b, t), t ≤ context."""
        return self.decode(ids, *self.encode(mel, has_memory))

    def decode(self, ids: Tensor, memory: Tensor, audible: Tensor) -> Tensor:
        """Logits (b, t, vocabulary) for ids (b, t) and what `encode` made of the sound before them."""
        now, _ = self.clock.read(ids)
        x, angles = self.embed(ids, now), self.angles(0, now.time, torch.zeros_like(now.time[:, 0]))
        for block in self.decoder():
            x = block(x, angles, block.keys_values(memory), audible, None, 0)
        return self.next_logits(x)

    def open_cache(self, memory: Tensor) -> Cache:
        """An empty cache for `memory` (b, 44, d); holds context × layers × 2 × width floats per sequence."""
        config, batch = self.config, len(memory)
        shape = (batch, config.heads, config.context, config.width // config.heads)
        layers = []
        for block in self.decoder():
            key, value = memory.new_zeros(shape), memory.new_zeros(shape)
            layers.append(LayerCache(key, value, *(block.keys_values(memory) or (None, None))))
        return Cache(layers)

    def step(self, ids: Tensor, cache: Cache, audible: Tensor) -> Tensor:
        """Logits (b, t, vocabulary) for the next ids (b, t), which are added to the cache."""
        past, now = cache.length, cache.length + ids.shape[1]
        assert now <= self.config.context, "the cache is full; generation must slide before it steps"
        began, moments, cache.clock = self._read(ids, cache.clock if past else None)
        x, angles = self.embed(ids, moments), self.angles(past, moments.time, began)
        for block, layer in zip(self.decoder(), cache.layers, strict=True):
            x = block(x, angles, layer.memory, audible, layer, past)
        cache.length = now
        return self.next_logits(x)

    def _read(self, ids: Tensor, state: ClockState | None) -> tuple[Tensor, Moments, ClockState]:
        """Time before the first of ids (b, t), the moments after each, and where the clock then stands."""
        if state is None:
            now, state = self.clock.read(ids)
            return torch.zeros_like(now.time[:, 0]), now, state
        began, moments = state.time, []
        for column in ids.unbind(1):
            state = self.clock.advance(state, column)
            moments.append(state.moment)
        return began, Moments(*(torch.stack(each, 1) for each in zip(*moments, strict=True))), state

    def angles(self, past: int | Tensor, time: Tensor, began: Tensor) -> Angles:
        """Rotary angles of tokens from index `past` on, with the times after them (b, t) and before the first (b,)."""
        index = torch.arange(time.shape[1], device=time.device)[None]
        index = index + (past if isinstance(past, int) else past[:, None])
        before = torch.cat([began[:, None], time[:, :-1]], dim=1)
        return angles_at(index, before, time, self.frequencies, self.config.heads)

    def decoder(self) -> Iterator[Block]:
        """The decoder's blocks, in order."""
        for block in self.blocks:
            assert isinstance(block, Block), "blocks holds nothing else; ModuleList forgets types"
            yield block

    def embed(self, ids: Tensor, now: Moments) -> Tensor:
        """What the first block reads, (b, t, d), of ids (b, t) and the moments after them."""
        known = self.embedding(ids) + self.place(now.place.clamp(max=LONGEST_BAR))
        known = known + self.left(now.left.clamp(max=MOST_LEFT))
        x: Tensor = self.dropout(known * math.sqrt(self.config.width))
        return x

    def next_logits(self, x: Tensor) -> Tensor:
        """Logits (b, t, vocabulary) of what the last block wrote, (b, t, d)."""
        return F.linear(self.norm(x), self.embedding.weight)


def parameter_count(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def pick_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
