"""Writing music: nucleus sampling with a key–value cache, beyond the context where a piece is longer.

When the context is full the piece goes on from its own last bars: the cache is rebuilt from BOS and the tokens since
a bar about halfway back, exactly as training windows begin inside a recording.

Nucleus sampling: Holtzman et al. 2020 (arXiv 1904.09751 v2, §3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import GenerationError
from partbook.model.layers import Cache
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES
from partbook.music.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens.

    Attributes:
        seed: makes the draw repeatable on one machine.
        max_tokens: at most this many new tokens.
        temperature: > 0; logits are divided by it.
        top_p: in (0, 1]; the smallest set of tokens with this much probability is drawn from.
        end: whether the model may end the piece; where not, EOS is never drawn and the caller stops.
    """

    seed: int = 0
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 0.95
    end: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature <= 10.0:
            raise GenerationError(f"temperature is {self.temperature}; it must be above 0 and at most 10.")
        if not 0.0 < self.top_p <= 1.0:
            raise GenerationError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.max_tokens < 1:
            raise GenerationError(f"max_tokens is {self.max_tokens}; it must be at least 1.")
        if not 0 <= self.seed < 2**63:
            raise GenerationError(f"seed is {self.seed}; it must be from 0 to 2^63 - 1.")


class Writer:
    """One piece being written: the model, its cache, and the tokens so far (prompt included, BOS not)."""

    def __init__(
        self,
        model: PartbookModel,
        tokenizer: Tokenizer,
        memory: NDArray[np.float32] | None,
        prompt: NDArray[np.int16],
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        device = model.embedding.weight.device
        mel = np.full((MEMORY_FRAMES, BANDS), -1.0, np.float32) if memory is None else memory
        if mel.shape != (MEMORY_FRAMES, BANDS):
            raise GenerationError(
                f"The memory is {mel.shape}, not ({MEMORY_FRAMES}, {BANDS}): 8 s of log-mel are needed."
            )
        heard = torch.tensor([memory is not None], device=device)
        mel_tensor = torch.from_numpy(np.asarray(mel, dtype=np.float32))[None].to(device)
        self._memory, self._audible = model.encode(mel_tensor, heard)
        self.ids: list[int] = [int(i) for i in prompt]
        self._cache: Cache = model.open_cache(self._memory)
        self._logits = self._prime()

    def _prime(self) -> Tensor:
        self._cache.length = 0
        context = self._model.config.context
        full = len(self.ids) >= context - 1
        tail = self.ids[resume_at(self.ids, context, self._tokenizer) :] if full else self.ids
        start = torch.tensor([[self._tokenizer.bos, *tail]], device=self._memory.device)
        return self._model.step(start, self._cache, self._audible)[0, -1]

    def logits(self) -> Tensor:
        """Logits of the next token, (vocabulary,)."""
        return self._logits

    def append(self, token: int) -> None:
        """Write one token down and move on."""
        self.ids.append(token)
        if self._cache.length >= self._model.config.context:
            self._logits = self._prime()
        else:
            step = torch.tensor([[token]], device=self._memory.device)
            self._logits = self._model.step(step, self._cache, self._audible)[0, -1]


def resume_at(ids: Sequence[int], context: int, tokenizer: Tokenizer) -> int:
    """Where in `ids` a full context goes on from: the first bar of its last half; no bar there: exactly half."""
    half = max(0, len(ids) - context // 2)
    starts = tokenizer.bar_starts(np.asarray(ids[half:], dtype=np.int16))
    return half + (int(starts[0]) if len(starts) else 0)


def generate(
    model: PartbookModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
    *,
    prompt: NDArray[np.int16] | None = None,
    memory: NDArray[np.float32] | None = None,
) -> Iterator[int]:
    """New token ids, as they are drawn; EOS, if drawn, ends the stream and is not yielded.

    Args:
        model: in evaluation mode.
        tokenizer: the model's own.
        sampling: how to draw.
        prompt: token ids to go on from (without BOS); None starts a piece.
        memory: log-mel of eight seconds that "came before", (688, 128); None for silence.

    Raises:
        GenerationError: an argument is out of range.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    with torch.inference_mode():
        writer = Writer(model, tokenizer, memory, np.zeros(0, np.int16) if prompt is None else prompt)
    for _ in range(sampling.max_tokens):
        with torch.inference_mode():
            logits = writer.logits().float().cpu().clone()
            logits[[tokenizer.pad, tokenizer.bos]] = -torch.inf
            if not sampling.end:
                logits[tokenizer.eos] = -torch.inf
            token = draw(logits, sampling.temperature, sampling.top_p, generator)
        if token == tokenizer.eos:
            return
        yield token
        with torch.inference_mode():
            writer.append(token)


def draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One token from the nucleus of softmax(logits / temperature): logits (vocabulary,)."""
    probabilities, order = torch.softmax(logits / temperature, dim=-1).sort(descending=True)
    before = probabilities.cumsum(-1) - probabilities
    kept = torch.where(before < top_p, probabilities, torch.zeros_like(probabilities))
    return int(order[torch.multinomial(kept, 1, generator=generator)])
