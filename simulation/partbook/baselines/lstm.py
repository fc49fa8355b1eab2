"""A recurrent language model of the base's size: two LSTM layers between tied embeddings.

LSTM: Hochreiter & Schmidhuber 1997 (Neural Computation 9). Tied embeddings: Press & Wolf 2017 (arXiv 1608.05859).
The same windows, optimiser and budget as the base's; it does not listen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from partbook.evaluation.language_model import Writing
from partbook.evaluation.writing import AS_THE_PRODUCT, Rows, SlidingRows
from partbook.model.generation import Prefix
from partbook.model.likelihood import token_losses, token_nats
from partbook.model.sampling import Sampling
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer

State = tuple[Tensor, Tensor]  # hidden and cell, each (layers, b, width)


@dataclass(frozen=True, slots=True)
class LstmConfig:
    """What fixes the network's shape: 4,586,832 parameters with 2,000 tokens, 0.2 % more than the base."""

    vocabulary: int = 2000
    width: int = 476
    layers: int = 2
    context: int = 1024  # positions of a training window, BOS included


class LstmNetwork(nn.Module):
    """Next-token logits given the tokens so far."""

    def __init__(self, config: LstmConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.lstm = nn.LSTM(config.width, config.width, config.layers, batch_first=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        open_forget_gates(self.lstm)

    def forward(self, ids: Tensor, mel: Tensor | None = None, has_memory: Tensor | None = None) -> Tensor:
        """Logits (b, t, vocabulary) for ids (b, t); the sound is not heard."""
        return self.advance(ids, None)[0]

    def advance(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Logits (b, t, vocabulary) for the next ids (b, t), and the state after them."""
        x, after = self.lstm(self.dropout(self.embedding(ids)), state)
        return F.linear(self.dropout(x), self.embedding.weight, self.bias), after


def open_forget_gates(lstm: nn.LSTM) -> None:
    """Let an untrained LSTM remember: forget gates biased by 1 (Jozefowicz et al. 2015, §2.2)."""
    for name, parameter in lstm.named_parameters():
        if name.startswith("bias_ih"):
            quarter = len(parameter) // 4
            with torch.no_grad():
                parameter[quarter : 2 * quarter] += 1.0


class LstmModel(Writing):
    """A trained `LstmNetwork` as a `LanguageModel`."""

    def __init__(self, network: LstmNetwork, tokenizer: Tokenizer, sampling: Sampling = AS_THE_PRODUCT) -> None:
        super().__init__("LSTM", tokenizer, sampling)
        self.network = network.eval()

    def nats(self, recording: Recording) -> NDArray[np.float64]:
        """See `LanguageModel`: in the windows that the transformer has."""
        network, pad = self.network, self.tokenizer.pad

        def losses(ids: Tensor, mel: Tensor, has_memory: Tensor) -> Tensor:
            return token_losses(network, ids, mel, has_memory, pad)

        return token_nats(losses, self.tokenizer, recording, network.config.context, torch.device("cpu"))

    def open_rows(self, rows: int) -> Rows:
        """See `Writing`."""
        return _LstmRows(copy.deepcopy(self.network).double(), self.tokenizer, rows, self.prefix)


class _LstmRows(SlidingRows):
    def __init__(self, network: LstmNetwork, tokenizer: Tokenizer, rows: int, prefix: Prefix | None) -> None:
        config = network.config
        super().__init__(tokenizer, config.context, rows, prefix)
        self._network = network
        self._hidden = torch.zeros(config.layers, rows, config.width, dtype=torch.float64)
        self._cell = torch.zeros_like(self._hidden)

    def _prime(self, row: int, front: Sequence[int], ids: Sequence[int], random: torch.Generator) -> Tensor:
        logits, (hidden, cell) = self._network.advance(torch.tensor([[*front, *ids]]), None)
        self._hidden[:, row], self._cell[:, row] = hidden[:, 0], cell[:, 0]
        return logits[0, -1]

    def _step(self, tokens: Tensor, active: Tensor) -> Tensor:
        # A resting row is moved along with the rest: priming sets it anew.
        logits, (self._hidden, self._cell) = self._network.advance(tokens[:, None], (self._hidden, self._cell))
        return logits[:, 0]
