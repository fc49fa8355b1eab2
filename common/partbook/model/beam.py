"""Beam search: the likeliest continuations, rather than drawn ones.

At every step each of up to `width` beams is extended by every token; the `width` likeliest extensions that do not end
are the next beams, and those among the first `width` that end with EOS are finished. Finished and unfinished
continuations are compared by log P / lp with lp = ((5 + |Y|) / 6)^α (Wu et al. 2016, arXiv 1609.08144 v2, §7, eq. 14),
where |Y| counts new tokens, EOS included. No coverage penalty: nothing is translated. The search ends with `width`
finished continuations, when no beam can become better than the best of them, or with `max_tokens`.

A constraint takes candidates away and leaves probabilities as the model gives them, so that the order is that of the
model among what the grammar allows. Nothing is random: the same model, prompt and machine give the same tokens.

Beams that have read as many tokens share a key–value cache, a row each. When their context is full each slides as
`partbook.model.generation.Writer` does; as bars begin at other places in other beams, there can be several caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import GenerationError
from partbook.model.generation import Prefix, hear, never_drawn, window
from partbook.model.layers import Cache
from partbook.model.sampling import Constraint, standing
from partbook.model.transformer import PartbookModel
from partbook.music.tokens import Tokenizer

WIDTH: Final = 5
WIDEST: Final = 4096
LENGTH_PENALTY: Final = 0.6


@dataclass(frozen=True, slots=True)
class Continuation:
    """New tokens after a prompt.

    Attributes:
        ids: without EOS.
        log_probability: of `ids`, and of EOS where it ended, given the prompt; in nats, at most 0.
        ended: whether the model ended the piece with EOS.
    """

    ids: tuple[int, ...]
    log_probability: float
    ended: bool

    def score(self, length_penalty: float) -> float:
        """log P / lp, by which continuations are compared."""
        return self.log_probability / _lp(len(self.ids) + self.ended, length_penalty)


def beam_search(
    model: PartbookModel,
    tokenizer: Tokenizer,
    prompt: NDArray[np.int16] | None = None,
    memory: NDArray[np.float32] | None = None,
    *,
    width: int = WIDTH,
    max_tokens: int = 512,
    length_penalty: float = LENGTH_PENALTY,
    end: bool = True,
    constraint: Constraint | None = None,
    prefix: Prefix | None = None,
) -> list[Continuation]:
    """The best continuations found, best first; at least one.

    Args:
        model: in evaluation mode.
        tokenizer: the model's own.
        prompt: token ids to go on from (without BOS); None starts a piece.
        memory: log-mel of the eight seconds before, (688, 128); None for silence.
        width: beams, 1 to 4,096; 1 is greedy search.
        max_tokens: at most this many new tokens, EOS included.
        length_penalty: α, 0 to 2; 0 compares probabilities, larger favours longer pieces.
        end: whether the model may end the piece.
        constraint: a grammar at the beginning of a piece; copies of it are told the prompt and then each beam's tokens.
        prefix: what stands in front when the context slides; see `partbook.model.generation.window`.

    Raises:
        GenerationError: an argument is out of range, or the constraint leaves no beam a token.
    """
    search = _Search(model, tokenizer, prompt, memory, width, max_tokens, length_penalty, end, constraint, prefix)
    with torch.inference_mode():
        while search.going:
            search.advance()
    return search.found()


def settled_tokens(
    model: PartbookModel,
    tokenizer: Tokenizer,
    prompt: NDArray[np.int16] | None = None,
    memory: NDArray[np.float32] | None = None,
    *,
    width: int = WIDTH,
    max_tokens: int = 512,
    length_penalty: float = LENGTH_PENALTY,
    end: bool = True,
    constraint: Constraint | None = None,
    prefix: Prefix | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """The tokens of `beam_search`'s best continuation, each as soon as all that may still become the best agree on it.

    Arguments and errors are those of `beam_search`; `cancelled` is asked before every step, and ends the stream.
    """
    search = _Search(model, tokenizer, prompt, memory, width, max_tokens, length_penalty, end, constraint, prefix)
    told = 0
    while search.going:
        if cancelled():
            return
        with torch.inference_mode():
            search.advance()
        settled = search.settled(told)
        yield from settled
        told += len(settled)
    yield from search.found()[0].ids[told:]


@dataclass(slots=True)
class _Beam:
    ids: list[int]  # new ones
    log_probability: float
    constraint: Constraint | None


@dataclass(slots=True)
class _Company:
    """Beams that have read as many tokens, and the cache whose rows they are."""

    cache: Cache
    beams: list[_Beam]
    logits: Tensor  # (beams, vocabulary), of what comes next


class _Search:
    def __init__(
        self,
        model: PartbookModel,
        tokenizer: Tokenizer,
        prompt: NDArray[np.int16] | None,
        memory: NDArray[np.float32] | None,
        width: int,
        max_tokens: int,
        length_penalty: float,
        end: bool,
        constraint: Constraint | None,
        prefix: Prefix | None,
    ) -> None:
        if not 1 <= width <= WIDEST:
            raise GenerationError(f"width is {width}; it must be from 1 to {WIDEST}.")
        if max_tokens < 1:
            raise GenerationError(f"max_tokens is {max_tokens}; it must be at least 1.")
        if not 0.0 <= length_penalty <= 2.0:
            raise GenerationError(f"length_penalty is {length_penalty}; it must be from 0 to 2.")
        self._model, self._tokenizer, self._prefix = model, tokenizer, prefix
        self._width, self._max_tokens, self._alpha = width, max_tokens, length_penalty
        self._never = torch.tensor(never_drawn(tokenizer, end=end))
        self._prompt = [] if prompt is None else [int(i) for i in prompt]
        self._finished: list[Continuation] = []
        self._steps = 0
        with torch.inference_mode():
            self._memory, self._audible = hear(model, memory)
            self._companies = self._prime([_Beam([], 0.0, standing(constraint, self._prompt))])

    @property
    def going(self) -> bool:
        """Whether another step may change what is best."""
        if not self._companies or self._steps >= self._max_tokens or len(self._finished) >= self._width:
            return False
        if not self._finished:
            return True
        # A log-probability only falls and lp only grows: no beam's score can rise above this.
        hoped = max(beam.log_probability for beam in self._beams()) / _lp(self._max_tokens, self._alpha)
        return hoped > max(c.score(self._alpha) for c in self._finished)

    def advance(self) -> None:
        """Extend every beam by one token."""
        candidates = self._candidates()
        if not candidates and not self._finished:
            raise GenerationError(
                "No beam has a token left: the constraint rules out all that the model may write here; loosen it, "
                "or let the piece end."
            )
        self._steps += 1
        kept: list[list[tuple[int, _Beam]]] = [[] for _ in self._companies]
        count = 0
        for rank, (log_probability, place, row, token) in enumerate(candidates):
            parent = self._companies[place].beams[row]
            if token == self._tokenizer.eos:
                if rank < self._width:
                    self._finished.append(Continuation(tuple(parent.ids), log_probability, ended=True))
                continue
            if count < self._width:
                kept[place].append((row, _Beam([*parent.ids, token], log_probability, parent.constraint)))
                count += 1
        self._companies = self._step(kept)

    def found(self) -> list[Continuation]:
        """Finished continuations, and beams where the tokens ran out; best first."""
        unfinished = []
        if self._steps >= self._max_tokens:
            unfinished = [Continuation(tuple(b.ids), b.log_probability, ended=False) for b in self._beams()]
        return sorted(self._finished + unfinished, key=lambda c: -c.score(self._alpha))

    def settled(self, told: int) -> list[int]:
        """The tokens after the first `told` that all continuations begin with."""
        others: list[Sequence[int]] = [beam.ids for beam in self._beams()]
        others += [continuation.ids for continuation in self._finished]
        agreed = []
        for tokens in zip(*(ids[told:] for ids in others), strict=False):
            if len(set(tokens)) > 1:
                break
            agreed.append(tokens[0])
        return agreed

    def _beams(self) -> Iterator[_Beam]:
        for company in self._companies:
            yield from company.beams

    def _candidates(self) -> list[tuple[float, int, int, int]]:
        """The likeliest extensions, best first: log-probability, company, row and token of each.

        Twice as many as there are beams: were half of them to end, there is still a next beam for each.
        """
        found: list[tuple[float, int, int, int]] = []
        for place, company in enumerate(self._companies):
            scores = company.logits.double().cpu().log_softmax(-1)  # (beams, vocabulary)
            scores[:, self._never] = -torch.inf
            for row, beam in enumerate(company.beams):
                if beam.constraint is not None:
                    scores[row].masked_fill_(~beam.constraint.allowed(), -torch.inf)
                scores[row] += beam.log_probability
            best, where = scores.flatten().topk(min(2 * self._width, scores.numel()))
            for score, index in zip(best.tolist(), where.tolist(), strict=True):
                if score > -np.inf:
                    found.append((score, place, *divmod(index, scores.shape[1])))
        return sorted(found, key=lambda one: (-one[0], one[1:]))[: 2 * self._width]

    def _step(self, kept: list[list[tuple[int, _Beam]]]) -> list[_Company]:
        """Companies of the next beams, each given with its parent's row, by company of the parent."""
        companies, full = [], []
        for company, chosen in zip(self._companies, kept, strict=True):
            if not chosen:
                continue
            rows, beams = [row for row, _ in chosen], [beam for _, beam in chosen]
            for beam in beams:
                if beam.constraint is not None:
                    beam.constraint = beam.constraint.copy()  # siblings share their parent's
                    beam.constraint.append(beam.ids[-1])
            if company.cache.length >= self._model.config.context:
                full += beams
                continue
            cache = _rows_of(company.cache, rows, len(company.beams))
            read = torch.tensor([[beam.ids[-1]] for beam in beams], device=self._memory.device)
            companies.append(_Company(cache, beams, self._model.step(read, cache, self._audible)[:, -1]))
        return companies + self._prime(full)

    def _prime(self, beams: list[_Beam]) -> list[_Company]:
        """Companies of beams whose caches are made from their windows."""
        by_length: dict[int, list[tuple[list[int], _Beam]]] = {}
        for beam in beams:
            front, tail = window([*self._prompt, *beam.ids], self._model.config.context, self._tokenizer, self._prefix)
            by_length.setdefault(len(front) + len(tail), []).append(([*front, *tail], beam))
        companies = []
        for together in by_length.values():
            start = torch.tensor([ids for ids, _ in together], device=self._memory.device)
            cache = self._model.open_cache(self._memory.expand(len(together), -1, -1))
            logits = self._model.step(start, cache, self._audible)[:, -1]
            companies.append(_Company(cache, [beam for _, beam in together], logits))
        return companies


def _rows_of(cache: Cache, rows: Sequence[int], held: int) -> Cache:
    """The cache, with these of its `held` rows in this order; what it held before is written over."""
    if list(rows) != list(range(held)):
        _select(cache, rows, held)
    return cache


def _select(state: Any, rows: Sequence[int], held: int) -> None:
    """Take rows of every tensor that a cache holds, and of what it holds them in."""
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            assert len(value) == held, f"{field.name} has a row a beam, as all in a cache"
            setattr(state, field.name, value.index_select(0, torch.tensor(rows, device=value.device)))
        elif isinstance(value, list):
            for one in value:
                _select(one, rows, held)
        elif dataclasses.is_dataclass(value):
            _select(value, rows, held)


def _lp(tokens: int, alpha: float) -> float:
    return float(((5 + tokens) / 6) ** alpha)
