"""The model's blocks, written by hand from Linear, LayerNorm, Conv1d, LSTM and SDPA.

Queries and keys have one length (QK-norm: Henry et al. 2020, arXiv 2010.04245), the feed-forward layer squares its
ReLU (So et al. 2021, "Primer", arXiv 2109.08668 §4).

Hand-written because adapters and per-recording gradients need plain layers, and because the key–value cache is part
of attention from the start. Shapes: b batch, t positions, s memory steps, d width, h heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partbook.model.clock import ClockState
from partbook.music.mel import BANDS, MEMORY_FRAMES

PITCH_CLASSES: Final = 12
MEMORY_STRIDE: Final = 16  # mel frames per memory step: 186 ms
MEMORY_STEPS: Final = MEMORY_FRAMES // MEMORY_STRIDE  # 43
QUERIES: Final = 256  # of a block of causal attention: its scores stay in a core's cache
GAIN: Final = 1.5  # of a query before training: with heads of 64 numbers, attention's logits reach ±12
assert MEMORY_STEPS * MEMORY_STRIDE == MEMORY_FRAMES


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one decoder layer: the past's (grown in place) and the memory's (computed once)."""

    key: Tensor | None = None  # (b, h, context, d/h)
    value: Tensor | None = None
    memory_key: Tensor | None = None  # (b, h, s, d/h); None where the block does not listen
    memory_value: Tensor | None = None

    @property
    def memory(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the sound, where the block listens."""
        if self.memory_key is None or self.memory_value is None:
            return None
        return self.memory_key, self.memory_value


@dataclass(slots=True)
class Cache:
    """Everything generation keeps between two steps."""

    layers: list[LayerCache] = field(default_factory=list)
    length: int = 0
    clock: ClockState | None = None


@dataclass(slots=True)
class Angles:
    """Cosines and sines by which queries and keys are turned, each (b or 1, h, t, d/2h).

    Half of the heads count tokens. The other half count musical time, a query from the moment after its token and a key
    from the moment before: both name the moment at which a token is, or was, foretold. So what was written exactly a
    bar ago lies exactly a bar away.
    """

    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]


def rotary_frequencies(head_dim: int) -> Tensor:
    """RoPE's angle a step (Su et al. 2021, arXiv 2104.09864 v5, §3.2.2), (head_dim / 2,)."""
    return 10_000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def angles_at(index: Tensor, before: Tensor, after: Tensor, frequencies: Tensor, heads: int) -> Angles:
    """Angles of tokens at `index`, written between times `before` and `after`, (b or 1, t) each."""
    counting = heads - heads // 2

    def turned(by: Tensor) -> Tensor:
        return (by.to(frequencies.dtype)[..., None] * frequencies)[:, None]  # (b, 1, t, d/2h)

    def both(time: Tensor) -> tuple[Tensor, Tensor]:
        rows = max(len(index), len(time))
        count = turned(index).expand(rows, counting, -1, -1)
        angle = torch.cat([count, turned(time).expand(rows, heads - counting, -1, -1)], dim=1)
        return angle.cos(), angle.sin()

    return Angles(both(after), both(before))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn (b, h, t, d/h) by angles (b or 1, h, t, d/2h)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries to keys at and before their own position, (b, h, t, d/h) each.

    torch's kernel, except where a processor multiplies bfloat16 under autocast: there the kernel's backward pass takes
    most of a step, and blocks of queries, each with the keys that it may see, take 0.6 of its time.
    """
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    query = query / math.sqrt(query.shape[-1])
    mixed = []
    for first in range(0, query.shape[2], QUERIES):
        last = min(first + QUERIES, query.shape[2])
        fit = query[:, :, first:last] @ key[:, :, :last].mT
        fit[..., first:] += torch.full((last - first, last - first), -math.inf, device=fit.device).triu(1)
        mixed.append(fit.softmax(-1, dtype=torch.float32) @ value[:, :, :last])
    return torch.cat(mixed, dim=2)


class Norm(nn.LayerNorm):
    """LayerNorm whose weight and bias (d,) may also be one copy for each recording of the batch: (recordings, d)."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, t, d) → (b, t, d); with copies, the batch is as many equal runs of rows as there are copies."""
        if self.weight.ndim == 1:
            return super().forward(input)
        level = F.layer_norm(input, self.normalized_shape, eps=self.eps)
        runs = level.view(len(self.weight), -1, level.shape[-1])  # (recordings, b/recordings · t, d)
        return torch.addcmul(self.bias[:, None], runs, self.weight[:, None]).view_as(level)


class _Attention(nn.Module):
    """The four projections that every attention has."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (b, t, d), each (b, h, t, d/h)."""
        query, key, value = (_split(f(x), self.heads) for f in (self.query, self.key, self.value))
        return query, key, value

    def merge(self, mixed: Tensor) -> Tensor:
        """(b, h, t, d/h) → (b, t, d)."""
        merged: Tensor = self.out(_merge(mixed))
        return merged


class SelfAttention(_Attention):
    """Causal attention with rotary positions, normalised queries and keys, and an optional cache."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gain = nn.Parameter(torch.full((heads, 1, 1), GAIN))

    def turned(self, x: Tensor, angles: Angles) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised and turned queries and keys, and values, of (b, t, d): each (b, h, t, d/h)."""
        query, key, value = self.project(x)
        size = query.shape[-1:]
        query = rotate(F.rms_norm(query, size) * self.gain, *angles.query)
        return query, rotate(F.rms_norm(key, size), *angles.key), value

    def forward(self, x: Tensor, angles: Angles, cache: LayerCache | None, past: int) -> Tensor:
        """(b, t, d) → (b, t, d); `angles` are those of positions past … past + t."""
        query, key, value = self.turned(x, angles)
        if cache is None:
            mixed = causal_attention(query, key, value)
        else:
            now = past + x.shape[1]
            assert cache.key is not None, "a cache is opened by PartbookModel.open_cache before use"
            assert cache.value is not None
            cache.key[:, :, past:now], cache.value[:, :, past:now] = key, value
            mask = torch.ones(x.shape[1], now, dtype=torch.bool, device=x.device).tril(past)
            mixed = F.scaled_dot_product_attention(
                query, cache.key[:, :, :now], cache.value[:, :, :now], attn_mask=mask
            )
        return self.merge(mixed)


class CrossAttention(_Attention):
    """Attention from the notes being written to the sound that came before."""

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(b, s, d) → two (b, h, s, d/h)."""
        return _split(self.key(memory), self.heads), _split(self.value(memory), self.heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, audible: Tensor) -> Tensor:
        """(b, t, d) → (b, t, d); `audible` (b, 1, 1, s) is False where there is nothing to attend to."""
        query = _split(self.query(x), self.heads)
        return self.merge(F.scaled_dot_product_attention(query, keys, values, attn_mask=audible))


class Block(nn.Module):
    """Pre-norm decoder block: self-attention, cross-attention where it listens, feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, listens: bool) -> None:
        super().__init__()
        self.norm_self = Norm(width)
        self.self_attention = SelfAttention(width, heads)
        self.norm_cross = Norm(width) if listens else None
        self.cross_attention = CrossAttention(width, heads) if listens else None
        self.norm_feed = Norm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        angles: Angles,
        memory: tuple[Tensor, Tensor] | None,
        audible: Tensor,
        cache: LayerCache | None,
        past: int,
    ) -> Tensor:
        """(b, t, d) → (b, t, d); `memory` is this block's keys and values of the sound, if it listens."""
        x = x + self.dropout(self.self_attention(self.norm_self(x), angles, cache, past))
        return self.feed(self.listen(x, memory, audible))

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor] | None:
        """What `listen` attends to of memory (b, s, d): two (b, h, s, d/h); None where the block does not listen."""
        return None if self.cross_attention is None else self.cross_attention.keys_values(memory)

    def listen(self, x: Tensor, memory: tuple[Tensor, Tensor] | None, audible: Tensor) -> Tensor:
        """(b, t, d) → (b, t, d)."""
        if memory is None or self.cross_attention is None or self.norm_cross is None:
            return x
        heard: Tensor = self.dropout(self.cross_attention(self.norm_cross(x), *memory, audible))
        return x + heard

    def feed(self, x: Tensor) -> Tensor:
        """(b, t, d) → (b, t, d)."""
        fed: Tensor = self.dropout(self.down(_square(F.relu(self.up(self.norm_feed(x))))))
        return x + fed


class MelEncoder(nn.Module):
    """Eight seconds of mel → memory: CNN 128 → 64 channels at stride 16, then a two-way LSTM.

    A learnt step of silence stands in front, so that attention has somewhere to look when there is no sound.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS, BANDS, kernel_size=6, stride=4, padding=1)
        self.second = nn.Conv1d(BANDS, 64, kernel_size=6, stride=4, padding=1)
        self.lstm = nn.LSTM(64, width // 2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(width)
        self.silence = nn.Parameter(torch.zeros(width))
        self.classes = nn.Linear(width, PITCH_CLASSES)

    def sounding(self, memory: Tensor) -> Tensor:
        """Logits of which pitch classes sound in each step, (b, 43, 12), of memory (b, 44, d): asked in training."""
        logits: Tensor = self.classes(memory[:, 1:])
        return logits

    def forward(self, mel: Tensor, has_memory: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the past.

        Args:
            mel: (b, 688, 128) in [-1, 1].
            has_memory: (b,) bool.

        Returns:
            memory (b, 1 + 43, d), and where it may be attended to, (b, 1, 1, 1 + 43) bool.
        """
        x = F.gelu(self.first(mel.transpose(1, 2)))  # (b, 128, 172)
        x = F.gelu(self.second(x)).transpose(1, 2)  # (b, 43, 64)
        steps, _ = self.lstm(x)  # (b, 43, d)
        silence = self.silence.expand(len(mel), 1, -1)
        memory = torch.cat([silence, self.norm(steps)], dim=1)
        heard = has_memory[:, None].expand(-1, MEMORY_STEPS)
        audible = torch.cat([torch.ones_like(has_memory)[:, None], heard], dim=1)
        return memory, audible[:, None, None, :]


def _square(x: Tensor) -> Tensor:
    return x * x  # a power's gradient costs twice as much


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)  # (b, h, t, d/h)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(-2)  # (b, t, d)
