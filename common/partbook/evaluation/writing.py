"""Writing many pieces side by side: draws of each piece's own, bar lines counted, windows that slide.

A model hands over `Rows`, in each of which it writes one piece; whichever pieces share a call, each is the same. That
takes more than seeds: a sum's last bits depend on how many rows are multiplied together. Models therefore write in
float64, where such bits are 10⁻¹⁶ of a logit; drawn is in float32, as `partbook.model.generation` draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import GenerationError
from partbook.model.generation import Prefix, never_drawn, recent_pitches, window
from partbook.model.sampling import Constraint, Sampling, draw, masked
from partbook.music.tokens import Tokenizer

AS_THE_PRODUCT: Final = Sampling(max_tokens=4096)
"""Temperature 1, top-p 0.98, pieces that may end by themselves, at most 4,096 tokens: what `partbook generate` does."""


class Rows(Protocol):
    """A model that writes several pieces side by side, one a row."""

    def begin(self, row: int, ids: Sequence[int], random: torch.Generator) -> None:
        """Begin a piece that goes on from `ids` (none: from nothing); `random` is that piece's own."""

    def logits(self) -> Tensor:
        """Logits of each row's next token, (rows, vocabulary)."""

    def append(self, tokens: Sequence[int | None]) -> None:
        """Write one token down in each row; None leaves a row that has no piece alone."""


class BarLines:
    """Where a piece of tokens is, in quarter notes, by its bars and metres (4/4 before the first).

    A metre holds from the bar that begins after it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = np.arange(len(tokenizer), dtype=np.int16)
        self._starts = np.zeros(len(tokenizer), dtype=np.bool_)
        self._starts[tokenizer.bar_starts(ids)] = True
        self._metres: list[float | None] = []
        for token in range(len(tokenizer)):
            metres = [name.partition("_")[2] for name in tokenizer.names([token]) if name.startswith("Metre_")]
            self._metres.append(float(4 * Fraction(metres[-1])) if metres else None)

    def starts(self, token: int) -> bool:
        """Whether a token begins a bar."""
        return bool(self._starts[token])

    def metre(self, token: int) -> float | None:
        """Quarter notes in a bar of the metre that a token says; None where it says none."""
        return self._metres[token]


class _Draft:
    """One piece: its tokens, the quarter notes of its finished bars, and what it draws with."""

    def __init__(
        self,
        lines: BarLines,
        quarters: float,
        sampling: Sampling,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
    ) -> None:
        self._lines, self._wanted = lines, quarters
        self._done, self._bar, self._coming = 0.0, 0.0, 4.0  # no bar has begun
        self.sampling = sampling
        self.random = torch.Generator().manual_seed(sampling.seed)
        self.constraint = None if constraint is None else constraint.copy()
        self.ids: list[int] = []
        for token in prompt:
            self._write(token)
        self._drawn = 0

    def _write(self, token: int) -> None:
        if self._lines.starts(token):
            self._done += self._bar
            self._bar = self._coming
        self._coming = self._lines.metre(token) or self._coming
        self.ids.append(token)
        if self.constraint is not None:
            self.constraint.append(token)

    def take(self, token: int) -> bool:
        """Write a token down, unless the piece is long enough where it would begin a bar: then False."""
        if self._bar and self._lines.starts(token) and self._done + self._bar >= self._wanted:
            return False
        self._write(token)
        self._drawn += 1
        return True

    @property
    def full(self) -> bool:
        return self._drawn >= self.sampling.max_tokens


def write(
    open_rows: Callable[[int], Rows],
    tokenizer: Tokenizer,
    seeds: Sequence[int],
    quarters: float,
    prompts: Sequence[NDArray[np.int16]] | None,
    sampling: Sampling,
    *,
    most_rows: int,
    on_piece: Callable[[int], None] = lambda _: None,
    constraints: Sequence[Constraint | None] | None = None,
) -> list[NDArray[np.int16]]:
    """Pieces of `quarters` quarter notes, prompts included, each cut at the bar line at or after.

    A piece is shorter where EOS is drawn before, if it may be, or `sampling.max_tokens`.

    Args:
        open_rows: makes a given number of rows.
        tokenizer: the model's.
        seeds: one a piece.
        quarters: above 0.
        prompts: what each piece goes on from; None where all begin with nothing.
        sampling: how to draw; its seed is not looked at.
        most_rows: how many pieces to write side by side at most.
        on_piece: told how many pieces are finished, after each.
        constraints: one a piece, at its beginning, as `partbook.model.generation.generate` takes it; None where no
            piece has one.

    Raises:
        GenerationError: an argument is out of range, or a constraint leaves a piece no token.
    """
    if not (np.isfinite(quarters) and quarters > 0):
        raise GenerationError(f"quarters is {quarters}; it must be above 0.")
    if prompts is not None and len(prompts) != len(seeds):
        raise GenerationError(f"There are {len(prompts)} prompts for {len(seeds)} seeds; give one each.")
    if constraints is not None and len(constraints) != len(seeds):
        raise GenerationError(f"There are {len(constraints)} constraints for {len(seeds)} seeds; give one each.")
    if not seeds:
        return []
    lines = BarLines(tokenizer)
    given = prompts or [np.zeros(0, np.int16)] * len(seeds)
    grammars = constraints or [None] * len(seeds)
    waiting = iter(enumerate(zip(seeds, given, grammars, strict=True)))
    finished: dict[int, NDArray[np.int16]] = {}
    never = never_drawn(tokenizer, end=sampling.end)
    # Rows are written out together: 40 pieces are 20 rows twice, not 32 rows and then 8 of them.
    count = math.ceil(len(seeds) / math.ceil(len(seeds) / most_rows))
    with torch.inference_mode():
        rows = open_rows(count)
        writing: list[tuple[int, _Draft] | None] = [None] * count

        def begin(row: int) -> None:
            writing[row] = None
            for number, (seed, prompt, grammar) in waiting:
                draft = _Draft(lines, quarters, replace(sampling, seed=seed), [int(i) for i in prompt], grammar)
                rows.begin(row, draft.ids, draft.random)
                writing[row] = number, draft
                return

        for row in range(len(writing)):
            begin(row)
        while any(writing):
            logits = rows.logits().float().cpu()
            step: list[int | None] = [None] * len(writing)
            ended = []
            for row, place in enumerate(writing):
                if place is None:
                    continue
                number, draft = place
                recent = recent_pitches(draft.ids, sampling, tokenizer)
                token = draw(masked(logits[row], never, draft.constraint), sampling, draft.random, recent)
                if token != tokenizer.eos and draft.take(token):
                    step[row] = token
                    if not draft.full:
                        continue
                finished[number] = np.asarray(draft.ids, dtype=np.int16)
                step[row] = None
                ended.append(row)
                on_piece(len(finished))
            if len(ended) < sum(place is not None for place in writing):
                rows.append(step)
            for row in ended:
                begin(row)
    return [finished[number] for number in range(len(seeds))]


class SlidingRows(ABC):
    """Rows of a model that sees so many positions at once: a full row goes on from its own last bars.

    As `partbook.model.generation.Writer` slides: from the header, or what `prefix` says, and the tokens since a bar
    about halfway back.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, rows: int, prefix: Prefix | None = None) -> None:
        self._tokenizer, self._context, self._prefix = tokenizer, context, prefix
        self._ids: list[list[int]] = [[] for _ in range(rows)]
        self._lengths = [0] * rows  # positions filled, what stands in front included
        self._random = [torch.Generator() for _ in range(rows)]
        self._logits = torch.zeros(rows, len(tokenizer), dtype=torch.float64)

    @abstractmethod
    def _prime(self, row: int, front: Sequence[int], ids: Sequence[int], random: torch.Generator) -> Tensor:
        """Forget what the row held, read `front` and the piece's `ids`; logits of what comes next, (vocabulary,)."""

    @abstractmethod
    def _step(self, tokens: Tensor, active: Tensor) -> Tensor:
        """Read a token (rows,) in every active row (rows,); logits of what comes next, (rows, vocabulary)."""

    def begin(self, row: int, ids: Sequence[int], random: torch.Generator) -> None:
        """See `Rows`."""
        self._ids[row], self._random[row] = list(ids), random
        self._slide(row)

    def _slide(self, row: int) -> None:
        front, tail = window(self._ids[row], self._context, self._tokenizer, self._prefix)
        self._logits[row] = self._prime(row, front, tail, self._random[row]).double()
        self._lengths[row] = len(front) + len(tail)

    def logits(self) -> Tensor:
        """See `Rows`."""
        return self._logits

    def append(self, tokens: Sequence[int | None]) -> None:
        """See `Rows`."""
        full = []
        active = torch.zeros(len(tokens), dtype=torch.bool)
        for row, token in enumerate(tokens):
            if token is None:
                continue
            self._ids[row].append(token)
            if self._lengths[row] >= self._context:
                full.append(row)
            else:
                self._lengths[row] += 1
                active[row] = True
        if active.any():
            read = torch.tensor([self._tokenizer.bos if token is None else token for token in tokens])
            stepped = self._step(read, active)
            self._logits = torch.where(active[:, None], stepped, self._logits)
        for row in full:
            self._slide(row)
