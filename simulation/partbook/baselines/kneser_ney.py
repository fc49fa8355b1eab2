"""An n-gram model with interpolated, modified Kneser–Ney smoothing, exact and in arrays.

Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling" (Computer Speech & Language
13), §3: at the highest order an n-gram counts as often as it occurs, below it as many times as there are different
tokens it follows; from each count one of three discounts is taken, and what they free goes to the next lower order.

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + γ(h) p(w | h'),   γ(h) = (D₁ N₁(h) + D₂ N₂(h) + D₃ N₃₊(h)) / c(h)

with h' = h without its first token, N₁, N₂ and N₃₊ how many tokens follow h once, twice and more often, and
D₁ = 1 - 2Y n₂/n₁, D₂ = 2 - 3Y n₃/n₂, D₃ = 3 - 4Y n₄/n₃ where Y = n₁/(n₁ + 2n₂) and nᵢ n-grams of the order count i.
Below the unigrams all tokens that can be written are as likely. A piece is preceded by n - 1 times BOS (§2.1).

An n-gram is one integer, its tokens the digits: sorted, they are grouped by what comes before the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AlteredFile, ConfigError

ORDER: Final = 5
_FALLBACK: Final = (0.5, 1.0, 1.5)  # discounts where there is too little to estimate them from (Heafield's KenLM)


@dataclass(frozen=True, slots=True)
class _Order:
    """The n-grams of one order, sorted.

    Attributes:
        keys: each n-gram as a number, ascending, int64 (n-grams,).
        taken: count less its discount, over its context's count, float64 (n-grams,).
        contexts: what comes before each last token, once, ascending, int64 (contexts,).
        begins: the first n-gram of each context, and one past the last, int64 (contexts + 1,).
        left: γ of each context, float64 (contexts,).
    """

    keys: NDArray[np.int64]
    taken: NDArray[np.float64]
    contexts: NDArray[np.int64]
    begins: NDArray[np.int64]
    left: NDArray[np.float64]


class KneserNey:
    """Probabilities of token ids given the `order` - 1 before them. Immutable."""

    def __init__(self, counts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], vocabulary: int, bos: int,
                 never: Iterable[int]) -> None:  # fmt: skip
        """A model of given counts.

        Args:
            counts: keys (ascending) and counts of each order from 1 up; below the highest, Kneser–Ney's.
            vocabulary: how many ids there are.
            bos: what stands before a piece.
            never: ids that are never predicted, BOS among them.
        """
        self.order = len(counts)
        self.vocabulary, self.bos, self.never = vocabulary, bos, tuple(sorted(set(never)))
        self._counts = tuple(counts)
        self.discounts = tuple(_discounts(c) for _, c in counts)
        self._orders = [_smoothed(k, c, d, vocabulary) for (k, c), d in zip(counts, self.discounts, strict=True)]
        floor = np.full(vocabulary, 1.0 / (vocabulary - len(self.never)))
        floor[list(self.never)] = 0.0
        lowest = self._orders[0]
        self._unigrams = floor * lowest.left[0]
        self._unigrams[lowest.keys] += lowest.taken

    @classmethod
    def train(
        cls, pieces: Sequence[NDArray[np.int16]], *, vocabulary: int, bos: int, eos: int, never: Iterable[int],
        order: int = ORDER,
    ) -> KneserNey:  # fmt: skip
        """Count pieces of ids (without BOS and EOS).

        Takes about 60 bytes for each token of them.

        Raises:
            ConfigError: there is nothing to count, or an n-gram of this order and vocabulary exceeds 63 bits.
        """
        if not pieces:
            raise ConfigError("There is no piece to count n-grams in; give at least one.")
        if vocabulary**order > 2**63 - 1:
            raise ConfigError(f"{order}-grams of {vocabulary} tokens do not fit 63 bits; choose a lower order.")
        keys = np.concatenate([_keys(piece, vocabulary, bos, eos, order) for piece in pieces])
        keys.sort()
        found = [_counted(keys)]
        for lower in range(order - 1, 0, -1):
            # Distinct n-grams of the order above, without their first token: how many tokens each follows.
            keys = np.sort(found[-1][0] % vocabulary**lower)
            found.append(_counted(keys))
        return cls(found[::-1], vocabulary, bos, {bos, *never})

    def nats(self, ids: NDArray[np.int16], eos: int) -> NDArray[np.float64]:
        """Negative log-probability of each token of a piece and of its end: (tokens + 1,)."""
        keys = _keys(ids, self.vocabulary, self.bos, eos, self.order)
        probability = self._unigrams[keys % self.vocabulary]
        for index, order in enumerate(self._orders[1:], start=2):
            key = keys % self.vocabulary**index
            place, seen = _find(order.contexts, key // self.vocabulary)
            own, present = _find(order.keys, key)
            backed = np.where(seen, order.left[place], 1.0) * probability
            probability = backed + np.where(present, order.taken[own], 0.0)
        with np.errstate(divide="ignore"):  # a token that is never predicted costs infinitely much
            result: NDArray[np.float64] = -np.log(probability)
        return result

    def distribution(self, past: Sequence[int]) -> NDArray[np.float64]:
        """Probability of every id after `past`, before which BOS stands: (vocabulary,)."""
        probability: NDArray[np.float64] = self._unigrams.copy()
        history = [self.bos] * (self.order - 1) + [int(i) for i in past[-(self.order - 1) :]]
        context = 0
        for back, order in enumerate(self._orders[1:]):
            context += history[-1 - back] * self.vocabulary**back
            at = int(np.searchsorted(order.contexts, context))
            if at == len(order.contexts) or order.contexts[at] != context:
                break  # nor has any longer context been seen
            probability *= order.left[at]
            begin, end = order.begins[at], order.begins[at + 1]
            probability[order.keys[begin:end] % self.vocabulary] += order.taken[begin:end]
        return probability

    def save(self, path: Path) -> None:
        """Write the counts as npz; replaces the file whole."""
        arrays: dict[str, Any] = {
            "about": np.array([self.order, self.vocabulary, self.bos, *self.never], dtype=np.int64)
        }
        for number, (keys, counts) in enumerate(self._counts, start=1):
            # Differences of ascending keys are small and alike, and so compress.
            arrays[f"keys{number}"] = np.diff(keys, prepend=0)
            arrays[f"counts{number}"] = counts.astype(np.int32)
        temporary = path.with_suffix(".part.npz")
        np.savez_compressed(temporary, **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> KneserNey:
        """Read what `save` wrote.

        Raises:
            AlteredFile: the file is missing or is not an n-gram model.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                order, vocabulary, bos, *never = (int(n) for n in file["about"])
                counts = [
                    (np.cumsum(file[f"keys{n}"]), file[f"counts{n}"].astype(np.int64)) for n in range(1, order + 1)
                ]
            return cls(counts, vocabulary, bos, never)
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise AlteredFile(f"{path} is not an n-gram model ({error}); train it again.") from error

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many n-grams of each order from 1 up."""
        return tuple(len(keys) for keys, _ in self._counts)


def _keys(ids: NDArray[np.int16], vocabulary: int, bos: int, eos: int, order: int) -> NDArray[np.int64]:
    """The n-gram that ends at each token of a piece and at its end: (tokens + 1,)."""
    padded = np.concatenate([np.full(order - 1, bos), ids, [eos]]).astype(np.int64)
    keys = np.zeros(len(ids) + 1, dtype=np.int64)
    for place in range(order):
        keys = keys * vocabulary + padded[place : place + len(keys)]
    return keys


def _counted(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct values of ascending keys, and how often each occurs."""
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[begins], np.diff(begins, append=len(keys))


def _discounts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """D₁, D₂ and D₃₊ of n-grams with these counts."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == i)) for i in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return _FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    within = all(0.0 < d <= i for i, d in enumerate(found, start=1))
    return found if within else _FALLBACK


def _smoothed(
    keys: NDArray[np.int64],
    counts: NDArray[np.int64],
    discounts: tuple[float, float, float],
    vocabulary: int,
) -> _Order:
    contexts, sizes = _counted(keys // vocabulary)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    total = np.add.reduceat(counts, begins[:-1]).astype(np.float64)
    discount = np.array(discounts)[np.minimum(counts, 3) - 1]
    freed = np.add.reduceat(discount, begins[:-1])
    taken = (counts - discount) / np.repeat(total, sizes)
    return _Order(keys, taken, contexts, begins, freed / total)


def _find(among: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each key stands among ascending ones (anywhere, if it does not), and whether it does."""
    place = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    return place, among[place] == keys
