"""A sequence autoencoder of the base's size, after MusicVAE: one latent vector says what a window is about.

Roberts et al. 2018, "A Hierarchical Latent Vector Model for Learning Long-Term Structure in Music" (arXiv 1803.05428
v5), §3: a bidirectional LSTM reads the window, its last states give mean and variance of z, an LSTM that hears z at
every step writes the window down again. The decoder is the paper's flat one (§5.3); conductors need bars of one length.
The prior is a standard normal. While training, divergence from it costs nothing up to `FREE_NATS` a window (free bits,
Kingma et al. 2016, arXiv 1606.04934 v2, App. C.8), and what is above counts in full only after a fifth of the steps
(annealing, Bowman et al. 2016, arXiv 1511.06349 v4, §3.1), lest the decoder learn to do without z.

What is reported is the bound: minus the evidence lower bound of each window, with one draw of z or, tighter, with
several (Burda et al. 2016, arXiv 1509.00519 v4, eq. 8).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from partbook.baselines.lstm import State, open_forget_gates
from partbook.evaluation.language_model import Writing
from partbook.evaluation.writing import AS_THE_PRODUCT, Rows, SlidingRows
from partbook.model.generation import Prefix
from partbook.model.likelihood import token_nats
from partbook.model.sampling import Sampling
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer

FREE_NATS: Final = 16.0
ANNEALED: Final = 0.2  # share of the steps over which the divergence's weight rises to 1


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """What fixes the network's shape: 4,577,296 parameters with 2,000 tokens, 0.01 % more than the base."""

    vocabulary: int = 2000
    width: int = 256
    encoder: int = 312  # a direction
    latent: int = 128
    decoder: int = 368
    layers: int = 2
    context: int = 1024  # positions of a training window, BOS included


class VaeNetwork(nn.Module):
    """Encoder, latent and decoder; input and output embeddings are one matrix."""

    def __init__(self, config: VaeConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.forwards = nn.LSTM(config.width, config.encoder, batch_first=True)
        self.backwards = nn.LSTM(config.width, config.encoder, batch_first=True)
        self.mean = nn.Linear(2 * config.encoder, config.latent)
        self.log_variance = nn.Linear(2 * config.encoder, config.latent)
        self.first = nn.Linear(config.latent, 2 * config.layers * config.decoder)
        self.decoder = nn.LSTM(
            config.width + config.latent, config.decoder, config.layers, batch_first=True, dropout=dropout
        )
        self.out = nn.Linear(config.decoder, config.width)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        for lstm in (self.forwards, self.backwards, self.decoder):
            open_forget_gates(lstm)

    def encode(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each (b, latent), for the first `lengths` (b,) of ids (b, t)."""
        x = self.dropout(self.embedding(ids))
        last = (lengths - 1)[:, None, None].expand(-1, 1, self.config.encoder)
        there = self.forwards(x)[0].gather(1, last)[:, 0]
        # Each row from its own end to its beginning, so that padding is never read.
        turned = (lengths[:, None] - 1 - torch.arange(ids.shape[1], device=ids.device)).clamp(min=0)
        back = self.backwards(x.gather(1, turned[:, :, None].expand_as(x)))[0].gather(1, last)[:, 0]
        read = torch.cat([there, back], dim=-1)
        return self.mean(read), self.log_variance(read)

    def open(self, z: Tensor) -> State:
        """The decoder's state before it writes, of z (b, latent)."""
        states = torch.tanh(self.first(z)).view(len(z), 2, self.config.layers, -1).permute(1, 2, 0, 3)
        return states[0].contiguous(), states[1].contiguous()

    def advance(self, ids: Tensor, z: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (b, t, vocabulary) for the next ids (b, t), and the state after them."""
        x = self.dropout(self.embedding(ids))
        x = torch.cat([x, z[:, None].expand(-1, ids.shape[1], -1)], dim=-1)
        x, after = self.decoder(x, state)
        return F.linear(self.out(self.dropout(x)), self.embedding.weight, self.bias), after


@dataclass(frozen=True, slots=True)
class Bound:
    """What a window costs: nats of each token given z (b, t), 0 at padding; KL divergence of z from its prior (b,)."""

    tokens: Tensor
    divergence: Tensor


def evidence_bound(network: VaeNetwork, ids: Tensor, noise: Tensor, pad: int) -> Bound:
    """The two sides of minus the evidence lower bound.

    Args:
        network: the model.
        ids: BOS, tokens, EOS where a piece ends, padding: (b, t + 1).
        noise: standard normal, (b, latent): what z is drawn with.
        pad: id of padding.
    """
    targets = ids[:, 1:]
    lengths = (targets != pad).sum(dim=1).clamp(min=1)
    mean, log_variance = network.encode(targets, lengths)
    z = mean + torch.exp(0.5 * log_variance) * noise
    logits, _ = network.advance(ids[:, :-1], z, network.open(z))
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=pad)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1)
    return Bound(losses.view_as(targets), divergence)


def training_loss(found: Bound, tokens: int, progress: float) -> Tensor:
    """What windows add to a step's nats a token, of so many tokens in all: free bits, annealed.

    `progress` runs from 0 to 1 over the training.
    """
    weight = min(1.0, progress / ANNEALED)
    return (found.tokens.sum() + weight * (found.divergence - FREE_NATS).clamp(min=0.0).sum()) / tokens


class VaeModel(Writing):
    """A trained `VaeNetwork` as a `LanguageModel`: `nats` is an upper bound."""

    bound = True

    def __init__(
        self, network: VaeNetwork, tokenizer: Tokenizer, sampling: Sampling = AS_THE_PRODUCT, *, draws: int = 1
    ) -> None:
        """A model that scores each window with so many draws of z; the same ones every time."""
        super().__init__("VAE", tokenizer, sampling)
        self.network, self.draws = network.eval(), draws

    def nats(self, recording: Recording) -> NDArray[np.float64]:
        """See `LanguageModel`. What z costs a window is spread evenly over the window's tokens."""
        random = torch.Generator().manual_seed(0)
        network, pad = self.network, self.tokenizer.pad

        def losses(ids: Tensor, mel: Tensor, has_memory: Tensor) -> Tensor:
            written = ids[:, 1:] != pad
            given, weights = [], []
            for _ in range(self.draws):
                noise = torch.randn(len(ids), network.config.latent, generator=random)
                found = evidence_bound(network, ids, noise, pad)
                given.append(found.tokens.double())
                if self.draws == 1:
                    total = given[0].sum(dim=1) + found.divergence.double()
                else:
                    weights.append(_log_weight(network, ids, noise, found, pad))
            if self.draws > 1:
                total = math.log(self.draws) - torch.stack(weights).logsumexp(0)
            tokens = torch.stack(given).mean(0)
            over = (total - tokens.sum(dim=1)) / written.sum(dim=1).clamp(min=1)
            return tokens + over[:, None] * written

        return token_nats(losses, self.tokenizer, recording, network.config.context, torch.device("cpu"))

    def open_rows(self, rows: int) -> Rows:
        """See `Writing`: a piece's first window has its z from the prior, later ones from what they go on from."""
        return _VaeRows(copy.deepcopy(self.network).double(), self.tokenizer, rows, self.prefix)


def _log_weight(network: VaeNetwork, ids: Tensor, noise: Tensor, found: Bound, pad: int) -> Tensor:
    """log p(x, z) - log q(z | x) of each window, (b,), with the z that `noise` draws."""
    targets = ids[:, 1:]
    mean, log_variance = network.encode(targets, (targets != pad).sum(dim=1).clamp(min=1))
    mean, log_variance, noise = mean.double(), log_variance.double(), noise.double()
    z = mean + torch.exp(0.5 * log_variance) * noise
    ratio = 0.5 * (noise.square() + log_variance - z.square()).sum(dim=1)
    return ratio - found.tokens.double().sum(dim=1)


class _VaeRows(SlidingRows):
    def __init__(self, network: VaeNetwork, tokenizer: Tokenizer, rows: int, prefix: Prefix | None) -> None:
        config = network.config
        super().__init__(tokenizer, config.context, rows, prefix)
        self._network = network
        self._z = torch.zeros(rows, config.latent, dtype=torch.float64)
        self._hidden = torch.zeros(config.layers, rows, config.decoder, dtype=torch.float64)
        self._cell = torch.zeros_like(self._hidden)

    def _prime(self, row: int, front: Sequence[int], ids: Sequence[int], random: torch.Generator) -> Tensor:
        z = torch.randn(1, self._network.config.latent, generator=random).double()
        if ids:
            mean, log_variance = self._network.encode(torch.tensor([[*ids]]), torch.tensor([len(ids)]))
            z = mean + torch.exp(0.5 * log_variance) * z
        start = torch.tensor([[*front, *ids]])
        logits, (hidden, cell) = self._network.advance(start, z, self._network.open(z))
        self._z[row], self._hidden[:, row], self._cell[:, row] = z[0], hidden[:, 0], cell[:, 0]
        return logits[0, -1]

    def _step(self, tokens: Tensor, active: Tensor) -> Tensor:
        # A resting row is moved along with the rest: priming sets it anew.
        state = self._hidden, self._cell
        logits, (self._hidden, self._cell) = self._network.advance(tokens[:, None], self._z, state)
        return logits[:, 0]
