"""Tokens out of a gradient: a beam search that writes a window from left to right so that its gradient matches.

A decoder is causal, so the gradient of a window is a sum over positions whose t-th term depends on the first t tokens
alone. Whoever has guessed t - 1 of them knows their terms, and one directional derivative of the logits gives the
inner product of *every* next token's term with what was seen. So the search needs no relaxation of tokens to real
vectors, as gradient matching usually does (Zhu et al. 2019, arXiv 1906.08935; Deng et al. 2021, "TAG", arXiv
2103.06819; Balunović et al. 2022, "LAMP", arXiv 2202.08827), and no low rank, as the exact attack by the spans of
linear layers does (Petrov et al. 2024, "DAGER", arXiv 2405.15586), which adapters of rank 8 confine to a few tokens.
Like LAMP's, the search then tries swaps and replacements in the whole window.

What decides is the cosine of a guess's gradient with what was seen: it does not change when an update is clipped, and
at 1 the attacker knows that every token is right. Coordinates are divided by their spread over windows that the public
model writes itself, so that no private music is needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES
from partbook.music.tokens import Tokenizer

_RIDGE = 0.01  # of the mean variance, added to each coordinate's: quiet coordinates are not trusted without end
_STEP = 1e-2  # of the central difference, along a unit vector: float32 loses less than a thousandth with it
_ROWS = 64  # candidates whose gradients are held at once
_SURE = 0.995  # a cosine that only the right tokens reach


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard the search tries.

    Attributes:
        widths: of the beam, one search each until one is sure of its result.
        sweeps: rounds of replacements and swaps afterwards, each taking the best of all.
        replacements: tried at each position in a sweep.
        own: windows that the public model writes, to learn what gradients look like.
    """

    widths: tuple[int, ...] = (16, 32)
    sweeps: int = 6
    replacements: int = 6
    own: int = 48


@dataclass(frozen=True, slots=True)
class Guess:
    """What the search found: tokens (length,), and the cosine of their gradient with what was seen."""

    tokens: NDArray[np.int64]
    cosine: float


class Matcher:
    """An attacker who knows the model, the adapter, the tokeniser, and how long the window is.

    The window is a whole recording: it begins in silence, and EOS ends it.
    """

    def __init__(
        self,
        model: PartbookModel,
        adapter: Mapping[str, Tensor],
        tokenizer: Tokenizer,
        length: int,
        *,
        seed: int,
        effort: Effort,
    ) -> None:
        """Learn from the public model what gradients look like.

        Args:
            model: with adapters attached.
            adapter: the state that the update starts from.
            tokenizer: the model's.
            length: tokens of the window, without BOS and EOS.
            seed: of the windows that the public model writes.
            effort: how hard to try.
        """
        self._logits = _Logits(model.eval())
        self._model = model
        self._state = {name: adapter[name].detach() for name in sorted(adapter)}
        self._bos, self._eos = tokenizer.bos, tokenizer.eos
        self._never = torch.tensor([tokenizer.pad, tokenizer.bos, tokenizer.cut, tokenizer.eos])
        self._length, self._effort = length, effort
        self._embedding = model.embedding.weight.detach()
        with torch.no_grad():
            silence = torch.full((1, MEMORY_FRAMES, BANDS), -1.0)
            self._memory = model.encode(silence, torch.zeros(1, dtype=torch.bool))
        written = self.written(effort.own, seed)
        rows = [torch.from_numpy(written[:, :stop]) for stop in range(1, length + 1, 2)]
        seen = torch.cat([self._gradients(self._begun(ids), last=True) for ids in rows])
        variance = seen.var(0)
        self._weights = 1 / (variance + _RIDGE * variance.mean()).sqrt()

    def written(self, count: int, seed: int) -> NDArray[np.int64]:
        """Windows as the public model writes them, (count, length): the guess of somebody who saw no update."""
        random = torch.Generator().manual_seed(seed)
        ids = self._begun(torch.empty((count, 0), dtype=torch.int64))
        for _ in range(self._length):
            chances = self._next(ids).softmax(1).index_fill(1, self._never, 0.0)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=random)], 1)
        return ids[:, 1:].numpy()

    def gradient(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The gradient of the summed loss of a window (length,), EOS included: (d,) in canonical order."""
        whole = self._begun(torch.from_numpy(np.append(tokens, self._eos))[None])
        return self._gradients(whole)[0].numpy()

    def invert(self, seen: NDArray[np.floating], *, sharpness: float | None = None) -> Guess:
        """The tokens whose gradient best matches an update.

        Args:
            seen: (d,), as it was read: towards *lower* loss, at any scale.
            sharpness: nats that a cosine of 1 is worth against the model's own belief, where white noise is known to
                lie over the update; None takes what was seen at face value.
        """
        weights = self._weights if sharpness is None else torch.ones_like(self._weights)
        target = weights * -torch.from_numpy(np.asarray(seen, np.float32))
        target = target / target.norm().clamp_min(1e-30)
        best: tuple[float, Tensor] | None = None
        for width in self._effort.widths:
            score, ids = self._refined(target, weights, sharpness, *self._beam(target, weights, sharpness, width))
            if best is None or score > best[0]:
                best = score, ids
            if sharpness is None and score > _SURE:
                break
        assert best is not None, "there is a width"
        ids = best[1]
        total = weights * self._gradients(ids[None])[0]
        return Guess(ids[1:-1].numpy(), float(total @ target / total.norm()))

    def likeliest(self) -> NDArray[np.int64]:
        """The window that the public model believes in most, as far as the search finds it: (length,)."""
        dimension = len(self._weights)
        return self.invert(np.ones(dimension), sharpness=0.0).tokens

    def _beam(
        self, target: Tensor, weights: Tensor, sharpness: float | None, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best whole window: ids (1 + length + 1,), its weighted gradient (d,), and its log-probability ()."""
        ids = self._begun(torch.empty((1, 0), dtype=torch.int64))
        total, belief = torch.zeros(1, len(target)), torch.zeros(1)
        for position in range(self._length + 1):
            logits = self._next(ids)
            believed = belief[:, None] + logits.log_softmax(1)
            with_target = self._inner(ids, (weights * target).expand(len(ids), -1), logits)
            with_total = self._inner(ids, weights * total, logits)
            size = self._sizes(logits)
            # The norm of a term is nearly that of its error at the output times a factor of the prefix's own.
            likeliest = logits.argmax(1)
            one = weights * self._gradients(torch.cat([ids, likeliest[:, None]], 1), last=True)
            factor = one.square().sum(1) / size.gather(1, likeliest[:, None])[:, 0].clamp_min(1e-12)
            dot = (total @ target)[:, None] + with_target
            norm = total.square().sum(1)[:, None] + 2 * with_total + factor[:, None] * size
            score = _score(dot / norm.clamp_min(1e-12).sqrt(), believed, sharpness)
            if position < self._length:
                score[:, self._never] = -math.inf
                allowed = score.shape[1] - len(self._never)
            else:
                score[:, torch.arange(score.shape[1]) != self._eos] = -math.inf
                allowed = 1
            chosen = score.flatten().topk(min(width, allowed * len(ids))).indices
            row, token = chosen // score.shape[1], chosen % score.shape[1]
            belief = believed[row, token]
            ids = torch.cat([ids[row], token[:, None]], 1)
            total = total[row] + weights * self._gradients(ids, last=True)
        score = _score((total @ target) / total.norm(dim=1), belief, sharpness)
        best = int(score.argmax())
        return ids[best], total[best], belief[best]

    def _refined(
        self, target: Tensor, weights: Tensor, sharpness: float | None, ids: Tensor, total: Tensor, belief: Tensor
    ) -> tuple[float, Tensor]:
        """Better windows by replacing one token or swapping two neighbours, until there is none; score and ids."""
        best = float(_score(total @ target / total.norm(), belief, sharpness))
        for _ in range(self._effort.sweeps):
            scale = (total @ target) / total.square().sum()
            missing = weights * (target - scale * total)
            logits = self._all(ids[None])[0, :-1]
            gain = self._inner(ids[None], missing[None], logits[None])[0]
            own = ids[1:, None]
            distance = torch.cdist(self._embedding[ids[1:]], self._embedding)
            gain = (gain - gain.gather(1, own)) / (distance + 1e-6)
            gain[:, self._never] = -math.inf
            candidates = _neighbours(ids, gain.scatter(1, own, -math.inf)[:-1], self._effort.replacements)
            gradients = weights * self._gradients(candidates)
            cosines = (gradients @ target) / gradients.norm(dim=1)
            scores = _score(cosines, self._beliefs(candidates), sharpness)
            found = int(scores.argmax())
            if float(scores[found]) <= best + 1e-6:
                break
            best, ids, total = float(scores[found]), candidates[found], gradients[found]
        return best, ids

    def _begun(self, ids: Tensor) -> Tensor:
        return F.pad(ids, (1, 0), value=self._bos)

    def _all(self, ids: Tensor, state: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (b, t, vocabulary); `state` holds a copy of the adapter for each row."""
        named = {f"model.{name}": tensor for name, tensor in (state or self._state).items()}
        with torch.no_grad():
            out: Tensor = functional_call(self._logits, named, (ids, *self._heard(len(ids))))
        return out

    def _next(self, ids: Tensor) -> Tensor:
        return self._all(ids)[:, -1]

    def _beliefs(self, ids: Tensor) -> Tensor:
        logs = self._all(ids)[:, :-1].log_softmax(-1)
        return logs.gather(2, ids[:, 1:, None]).sum((1, 2))

    def _heard(self, rows: int) -> tuple[Tensor, Tensor]:
        memory, audible = self._memory
        return memory.expand(rows, -1, -1), audible.expand(rows, -1, -1, -1)

    def _gradients(self, ids: Tensor, *, last: bool = False) -> Tensor:
        """Gradient of each row's summed loss, or of its last token's: (b, d)."""
        found = []
        for rows in torch.split(ids, _ROWS):
            copies = {
                f"model.{name}": tensor.expand(len(rows), *tensor.shape).clone().requires_grad_()
                for name, tensor in self._state.items()
            }
            logits = functional_call(self._logits, copies, (rows[:, :-1], *self._heard(len(rows))))
            losses = F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")
            loss = (losses[:, -1] if last else losses).sum()
            found.append(torch.cat([g.flatten(1) for g in torch.autograd.grad(loss, list(copies.values()))], 1))
        return torch.cat(found)

    def _inner(self, ids: Tensor, directions: Tensor, logits: Tensor) -> Tensor:
        """Inner products of directions (b, d) with the term of every token at the last position, (b, vocabulary).

        With logits (b, t, vocabulary) it is at every position. The gradient of a token's loss is Jᵀ(p - e), so one
        derivative J·direction, taken as a central difference, serves all tokens.
        """
        norms = directions.norm(dim=1, keepdim=True)
        unit = directions / norms.clamp_min(1e-30)
        ahead, behind = (self._all(ids, self._moved(sign * _STEP * unit)) for sign in (1, -1))
        slope = (ahead - behind) * (norms[:, :, None] / (2 * _STEP))
        slope = slope[:, : logits.shape[1]] if logits.ndim == 3 else slope[:, -1]
        inner: Tensor = (logits.softmax(-1) * slope).sum(-1, keepdim=True) - slope
        return inner

    def _moved(self, steps: Tensor) -> dict[str, Tensor]:
        state, start = {}, 0
        for name, tensor in self._state.items():
            part = steps[:, start : start + tensor.numel()]
            state[name] = tensor + part.view(len(steps), *tensor.shape)
            start += tensor.numel()
        return state

    def _sizes(self, logits: Tensor) -> Tensor:
        """Squared norm of every token's error at the model's output, (b, vocabulary)."""
        table = self._embedding
        mean = logits.softmax(1) @ table
        return table.square().sum(1) - 2 * mean @ table.T + mean.square().sum(1, keepdim=True)


class _Logits(nn.Module):
    """The decoder as a function of the adapter."""

    def __init__(self, model: PartbookModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, memory: Tensor, audible: Tensor) -> Tensor:
        return self.model.decode(ids, memory, audible)


def _score(cosine: Tensor, belief: Tensor, sharpness: float | None) -> Tensor:
    """What the search maximises: the cosine, or with noise over it the posterior's logarithm.

    Noise of variance s² a coordinate over an update of norm C: log-likelihood <seen, C·g/|g|> / s² plus what does not
    depend on the guess, so sharpness is |seen| C / s².
    """
    return cosine if sharpness is None else sharpness * cosine + belief


def _neighbours(ids: Tensor, gain: Tensor, replacements: int) -> Tensor:
    """Windows (n, t) one replacement or one swap away; gain (positions, vocabulary) says which replacements."""
    found = []
    for position, tokens in enumerate(gain.topk(replacements, 1).indices, start=1):
        changed = ids.repeat(replacements, 1)
        changed[:, position] = tokens
        found.append(changed)
    for position in range(1, len(gain)):
        swapped = ids.clone()
        swapped[[position, position + 1]] = ids[[position + 1, position]]
        found.append(swapped[None])
    return torch.cat(found)
