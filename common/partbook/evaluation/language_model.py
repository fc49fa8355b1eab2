"""The seam between what writes music and what judges it: nats of a piece's tokens, pieces from seeds.

All models that are compared share one tokeniser, the shipped base's, so that a nat a token is the same for all.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.evaluation.writing import AS_THE_PRODUCT, Rows, SlidingRows, write
from partbook.model.generation import Prefix
from partbook.model.likelihood import token_losses, token_nats
from partbook.model.lockstep import LockstepCache
from partbook.model.sampling import Constraint, Sampling
from partbook.model.transformer import PartbookModel
from partbook.music.grammar import Grammar
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import KINDS, NUMBER, SYMBOLS

ROWS: Final = 32  # pieces side by side; more are no faster on a CPU


class LanguageModel(Protocol):
    """What says how likely a piece is, and writes pieces."""

    @property
    def name(self) -> str:
        """What a table calls it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The shipped base's."""

    @property
    def bound(self) -> bool:
        """Whether `nats` is an upper bound ("≤") rather than the value itself."""

    def nats(self, recording: Recording) -> NDArray[np.float64]:
        """Negative log-probability of each token of a recording and of its end, (tokens + 1,)."""

    def sample(self, seed: int, quarters: float, prompt: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """A piece of `quarters` quarter notes with its prompt, cut at the bar line at or after, or ended before."""

    def sample_many(
        self,
        seeds: Sequence[int],
        quarters: float,
        prompts: Sequence[NDArray[np.int16]] | None = None,
        *,
        on_piece: Callable[[int], None] = lambda _: None,
    ) -> list[NDArray[np.int16]]:
        """The pieces that `sample` writes, one a seed; `on_piece` is told how many are finished."""


class Writing(ABC):
    """A model's pieces, given its rows: what every `LanguageModel` here inherits."""

    bound: bool = False

    constraint: Constraint | None
    """A grammar at the beginning of a piece, which all pieces keep to: of scores, that they be music."""
    prefix: Prefix | None = None
    """What stands in front of a window that slid; CUT and the header where None. Of no use without windows."""

    def __init__(self, name: str, tokenizer: Tokenizer, sampling: Sampling = AS_THE_PRODUCT) -> None:
        self.name, self.tokenizer, self.sampling = name, tokenizer, sampling
        self.constraint = Grammar(tokenizer, said=[NUMBER["Hand_score"]])

    @abstractmethod
    def open_rows(self, rows: int) -> Rows:
        """Rows to write pieces in."""

    def sample(self, seed: int, quarters: float, prompt: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """See `LanguageModel`."""
        return self.sample_many([seed], quarters, None if prompt is None else [prompt])[0]

    def sample_many(
        self,
        seeds: Sequence[int],
        quarters: float,
        prompts: Sequence[NDArray[np.int16]] | None = None,
        *,
        on_piece: Callable[[int], None] = lambda _: None,
    ) -> list[NDArray[np.int16]]:
        """See `LanguageModel`. A seed's piece is the same whatever other pieces are asked for with it.

        Raises:
            GenerationError: `quarters` or a seed is out of range, or prompts and seeds differ in number.
        """
        return write(
            self.open_rows,
            self.tokenizer,
            seeds,
            quarters,
            prompts,
            self.sampling,
            most_rows=ROWS,
            on_piece=on_piece,
            constraints=[
                self._constraint(prompt) for prompt in (prompts if prompts is not None else [None] * len(seeds))
            ],
        )

    def _constraint(self, prompt: NDArray[np.int16] | None) -> Constraint | None:
        """The grammar; of a piece that ends after as many bars as its header says, where it says so."""
        if isinstance(self.constraint, Grammar) and prompt is not None:
            for symbol in prompt.tolist():
                if symbol < len(KINDS) and KINDS[symbol] == "Bars":
                    return self.constraint.within(int(SYMBOLS[symbol].partition("_")[2]))
        return self.constraint


class Transformer(Writing):
    """A `PartbookModel`, base or adapted, that writes in silence and is scored with what a recording sounds like."""

    def __init__(
        self, name: str, model: PartbookModel, tokenizer: Tokenizer, sampling: Sampling = AS_THE_PRODUCT
    ) -> None:
        super().__init__(name, tokenizer, sampling)
        self.model = model.eval()

    def nats(self, recording: Recording) -> NDArray[np.float64]:
        """See `LanguageModel`: in windows that begin on bars, each with the eight seconds of sound before it."""
        model, pad = self.model, self.tokenizer.pad

        def losses(ids: Tensor, mel: Tensor, has_memory: Tensor) -> Tensor:
            return token_losses(model, ids, mel, has_memory, pad)

        device = model.embedding.weight.device
        return token_nats(losses, self.tokenizer, recording, model.config.context, device)

    def open_rows(self, rows: int) -> Rows:
        """See `Writing`."""
        return _TransformerRows(copy.deepcopy(self.model).double(), self.tokenizer, rows, self.prefix)


class _TransformerRows(SlidingRows):
    def __init__(self, model: PartbookModel, tokenizer: Tokenizer, rows: int, prefix: Prefix | None) -> None:
        super().__init__(tokenizer, model.config.context, rows, prefix)
        self._device = model.embedding.weight.device
        self._cache = LockstepCache(model, rows)

    def _prime(self, row: int, front: Sequence[int], ids: Sequence[int], random: torch.Generator) -> Tensor:
        start = torch.tensor([*front, *ids], device=self._device)
        return self._cache.prime(row, start).cpu()

    def _step(self, tokens: Tensor, active: Tensor) -> Tensor:
        return self._cache.step(tokens.to(self._device), active.to(self._device)).cpu()
