"""One key–value cache for several pieces that are written side by side, each at a position of its own.

`PartbookModel.step` moves all rows of its cache at once. Here every row begins when it likes, and a step reads one
token in each: the same function, as fast as the processor multiplies rather than as fast as Python calls.
"""

from __future__ import annotations

import torch
from torch import Tensor

from partbook.model.clock import ClockState, Moments
from partbook.model.layers import Cache, LayerCache
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES


class LockstepCache:
    """What several pieces in silence have read so far. Used under `torch.inference_mode()`."""

    def __init__(self, model: PartbookModel, rows: int) -> None:
        """An empty cache of `rows` rows, on the model's device and in its precision."""
        self._model = model
        weight = model.embedding.weight
        silence = weight.new_full((1, MEMORY_FRAMES, BANDS), -1.0)
        memory, audible = model.encode(silence, torch.zeros(1, dtype=torch.bool, device=weight.device))
        # In silence there is one step to attend to, the learnt one, which stands first.
        memory, self._audible = memory[:, :1], audible[..., :1]
        self._cache = model.open_cache(memory.expand(rows, -1, -1))
        self._lengths = torch.zeros(rows, dtype=torch.long, device=weight.device)
        self._clock = ClockState.beginning(rows, weight.device)

    @property
    def lengths(self) -> Tensor:
        """Positions filled in each row, (rows,)."""
        return self._lengths

    def prime(self, row: int, ids: Tensor) -> Tensor:
        """Empty a row and read `ids` (t,), BOS first, into it: logits of what comes next, (vocabulary,)."""
        one = []
        for layer in self._cache.layers:
            whole = layer.key, layer.value, layer.memory_key, layer.memory_value
            one.append(LayerCache(*(None if t is None else t[row : row + 1] for t in whole)))  # views: written in place
        self._lengths[row] = len(ids)
        cache = Cache(one)
        logits = self._model.step(ids[None], cache, self._audible)[0, -1]
        assert cache.clock is not None
        self._clock.put(slice(row, row + 1), cache.clock)
        return logits

    def step(self, ids: Tensor, active: Tensor) -> Tensor:
        """Read ids (rows,) in the active rows (rows,): logits of what comes next, (rows, vocabulary).

        The others' logits mean nothing. No active row may be full.
        """
        model, context = self._model, self._model.config.context
        now = int(self._lengths[active].max()) + 1
        assert now <= context, "a row is full; generation must slide before it steps"
        past = self._lengths.clamp(max=context - 1)
        heard = (torch.arange(now, device=ids.device) <= past[:, None])[:, None, None, :]  # (rows, 1, 1, now)
        began = self._clock.time
        clock = model.clock.advance(self._clock, ids)
        angles = model.angles(past, clock.time[:, None], began)
        x = model.embed(ids[:, None], Moments(*(each[:, None] for each in clock.moment)))
        everyone = torch.arange(len(ids), device=ids.device)
        for block, layer in zip(model.decoder(), self._cache.layers, strict=True):
            assert layer.key is not None
            assert layer.value is not None
            attention = block.self_attention
            query, key, value = attention.turned(block.norm_self(x), angles)
            # In a resting row this writes what its next step, or its priming if it is full, will write over.
            layer.key[everyone, :, past], layer.value[everyone, :, past] = key[:, :, 0], value[:, :, 0]
            x = x + attention.merge(_attend(query, layer.key[:, :, :now], layer.value[:, :, :now], heard))
            x = block.feed(block.listen(x, layer.memory, self._audible))
        self._clock = clock.where(active, self._clock)
        self._lengths += active
        return model.next_logits(x)[:, 0]


def _attend(query: Tensor, key: Tensor, value: Tensor, heard: Tensor) -> Tensor:
    # For one query a row, twice as fast on a CPU as scaled_dot_product_attention with a mask.
    scores = (query * query.shape[-1] ** -0.5) @ key.mT  # (rows, h, 1, now)
    mixed: Tensor = scores.masked_fill(~heard, -torch.inf).softmax(-1) @ value
    return mixed
