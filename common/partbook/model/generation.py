"""Writing music: tokens drawn one by one with a key–value cache, beyond the context where a piece is longer.

When the context is full the piece goes on from its own last bars: the cache is rebuilt from the tokens since a bar
about halfway back, exactly as training windows begin inside a recording. In front of them stands the header as it is
at that place (key, metre, tempo, bars left), or what a `Prefix` says.

How a token is drawn: `partbook.model.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import GenerationError
from partbook.model.layers import Cache
from partbook.model.sampling import Constraint, Sampling, draw, masked, standing
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES
from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import KINDS

Prefix = Callable[[Sequence[int]], Sequence[int]]
"""What stands in front of a window that begins inside a piece: token ids, of the tokens before the window."""


class Writer:
    """One piece being written: the model, its cache, and the tokens so far (prompt included, BOS not)."""

    def __init__(
        self,
        model: PartbookModel,
        tokenizer: Tokenizer,
        memory: NDArray[np.float32] | None,
        prompt: NDArray[np.int16],
        prefix: Prefix | None = None,
    ) -> None:
        """A piece that goes on from `prompt`, with `memory` (688, 128) or silence; `prefix`: see `window`.

        Raises:
            GenerationError: the memory has another shape, or the prefix is too long.
        """
        self._model, self._tokenizer, self._prefix = model, tokenizer, prefix
        self._memory, self._audible = hear(model, memory)
        self.ids: list[int] = [int(i) for i in prompt]
        self._cache: Cache = model.open_cache(self._memory)
        self._logits = self._prime()

    def _prime(self) -> Tensor:
        self._cache.length = 0
        front, tail = window(self.ids, self._model.config.context, self._tokenizer, self._prefix)
        start = torch.tensor([[*front, *tail]], device=self._memory.device)
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
    """Where in `ids` a full context goes on from: the first bar of its last half; no bar there: exactly half.

    Where the piece's header says how many bars there shall be, the first bar of the third quarter at which a header can
    say how many are left.
    """
    written = np.asarray(ids, dtype=np.int16)
    half = max(0, len(ids) - context // 2)
    starts = half + tokenizer.bar_starts(written[half:]).astype(np.int64)
    if not len(starts):
        return half
    for start in starts[starts < half + context // 4].tolist():
        if _says_bars(tokenizer.header_at(written, start)):
            return int(start)
    return int(starts[0])


def _says_bars(header: Sequence[int]) -> bool:
    return any(token < len(KINDS) and KINDS[token] == "Bars" for token in header)


def window(
    ids: Sequence[int], context: int, tokenizer: Tokenizer, prefix: Prefix | None = None
) -> tuple[list[int], list[int]]:
    """What a model with so much context reads of a piece so far: what stands in front, and the last of its tokens.

    Short of the context that is BOS and everything. Else the tokens begin where `resume_at` says, and `prefix` is given
    all those before. Without one the header stands in front as it is by then (`Tokenizer.header_at`): key, metre,
    tempo, and how many bars are left; or CUT alone, where what was written without a grammar has a header without end.

    Raises:
        GenerationError: the prefix is empty or leaves no place for a token to come.
    """
    if len(ids) < context - 1:
        return [tokenizer.bos], list(ids)
    at = resume_at(ids, context, tokenizer)
    room = context - 1 - (len(ids) - at)
    if prefix is None:
        header = tokenizer.header_at(np.asarray(ids, dtype=np.int16), at)
        return header if len(header) <= room else [tokenizer.cut], list(ids[at:])
    front = [int(i) for i in prefix(ids[:at])]
    if not 1 <= len(front) <= room:
        raise GenerationError(
            f"The prefix of a window is {len(front)} tokens long; with {len(ids) - at} tokens to go on from it must "
            f"be from 1 to {room}."
        )
    return front, list(ids[at:])


def hear(model: PartbookModel, memory: NDArray[np.float32] | None) -> tuple[Tensor, Tensor]:
    """What `PartbookModel.encode` makes of one memory, (688, 128), or of silence.

    Raises:
        GenerationError: the memory has another shape.
    """
    weight = model.embedding.weight
    mel = np.full((MEMORY_FRAMES, BANDS), -1.0, np.float32) if memory is None else memory
    if mel.shape != (MEMORY_FRAMES, BANDS):
        raise GenerationError(f"The memory is {mel.shape}, not ({MEMORY_FRAMES}, {BANDS}): 8 s of log-mel are needed.")
    heard = torch.tensor([memory is not None], device=weight.device)
    return model.encode(torch.from_numpy(np.asarray(mel, dtype=np.float32))[None].to(weight), heard)


def never_drawn(tokenizer: Tokenizer, *, end: bool) -> list[int]:
    """Tokens that stand in front of a piece or beside it, and EOS where the model may not end the piece."""
    return [tokenizer.pad, tokenizer.bos, tokenizer.cut, *(() if end else (tokenizer.eos,))]


@lru_cache(maxsize=4)
def _pitched(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(
        token for token in range(len(tokenizer)) if any(name.startswith("Pitch_") for name in tokenizer.names([token]))
    )


def recent_pitches(ids: Sequence[int], sampling: Sampling, tokenizer: Tokenizer) -> list[int]:
    """The tokens that the repetition penalty lowers: those of the last `repetition_window` that hold a pitch.

    Bars, positions and lengths recur in all music and are left alone. None where the penalty is off.
    """
    if sampling.repetition_penalty == 1.0:
        return []
    pitched = _pitched(tokenizer)
    return [token for token in ids[-sampling.repetition_window :] if token in pitched]


def generate(
    model: PartbookModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
    *,
    prompt: NDArray[np.int16] | None = None,
    memory: NDArray[np.float32] | None = None,
    constraint: Constraint | None = None,
    prefix: Prefix | None = None,
) -> Iterator[int]:
    """New token ids, as they are drawn; EOS, if drawn, ends the stream and is not yielded.

    Args:
        model: in evaluation mode.
        tokenizer: the model's own.
        sampling: how to draw.
        prompt: token ids to go on from (without BOS); None starts a piece.
        memory: log-mel of eight seconds that "came before", (688, 128); None for silence.
        constraint: a grammar at the beginning of a piece; a copy of it is told the prompt and then every token drawn.
            It only ever narrows: what is not drawn without it is not drawn with it.
        prefix: what stands in front when the context slides, in place of the header; see `window`.

    Raises:
        GenerationError: an argument is out of range, or the constraint leaves no token.
    """
    given = np.zeros(0, np.int16) if prompt is None else prompt
    grammar = standing(constraint, given.tolist())
    never = never_drawn(tokenizer, end=sampling.end)
    generator = torch.Generator().manual_seed(sampling.seed)
    with torch.inference_mode():
        writer = Writer(model, tokenizer, memory, given, prefix)
    for _ in range(sampling.max_tokens):
        with torch.inference_mode():
            logits = masked(writer.logits().float().cpu(), never, grammar)
            token = draw(logits, sampling, generator, recent_pitches(writer.ids, sampling, tokenizer))
        if token == tokenizer.eos:
            return
        yield token
        if grammar is not None:
            grammar.append(token)
        with torch.inference_mode():
            writer.append(token)
