"""A trained `KneserNey` as a `LanguageModel`: it has no windows, and writes from its last tokens alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.baselines.kneser_ney import KneserNey
from partbook.evaluation.language_model import Writing
from partbook.evaluation.writing import AS_THE_PRODUCT, Rows
from partbook.model.sampling import Sampling
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer


class KneserNeyModel(Writing):
    """Scores whole pieces, each token given the four before it."""

    def __init__(self, model: KneserNey, tokenizer: Tokenizer, sampling: Sampling = AS_THE_PRODUCT) -> None:
        super().__init__(f"{model.order}-gram", tokenizer, sampling)
        self.model = model

    def nats(self, recording: Recording) -> NDArray[np.float64]:
        """See `LanguageModel`."""
        return self.model.nats(recording.ids, self.tokenizer.eos)

    def open_rows(self, rows: int) -> Rows:
        """See `Writing`."""
        return _NgramRows(self.model, rows)


class _NgramRows:
    def __init__(self, model: KneserNey, rows: int) -> None:
        self._model = model
        self._pasts: list[list[int]] = [[] for _ in range(rows)]
        self._logits = torch.zeros(rows, model.vocabulary, dtype=torch.float64)

    def begin(self, row: int, ids: Sequence[int], random: torch.Generator) -> None:
        self._pasts[row] = [int(i) for i in ids]
        self._look_up(row)

    def logits(self) -> Tensor:
        return self._logits

    def append(self, tokens: Sequence[int | None]) -> None:
        for row, token in enumerate(tokens):
            if token is not None:
                self._pasts[row].append(token)
                self._look_up(row)

    def _look_up(self, row: int) -> None:
        self._logits[row] = torch.from_numpy(self._model.distribution(self._pasts[row])).log()
