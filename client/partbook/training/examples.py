"""A label's windows: cut once, laid out when drawn, always by recording."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import STYLES
from partbook.music.windows import Span, Windows, gather, spans

STRIDE = 0.5  # training windows overlap by half, so that every bar is seen early and late in one
_POOL = 4  # batches whose windows are put in order of length


class Examples:
    """A label's recordings cut into windows, which are numbered through all of them."""

    def __init__(
        self, recordings: Sequence[Recording], tokenizer: Tokenizer, context: int, *, style: int | None = None
    ) -> None:
        """Cut recordings into windows of `context` positions.

        Args:
            recordings: one at least.
            tokenizer: the model's.
            context: positions, BOS included.
            style: the label's style number, from 0 to `STYLES` − 1, which every window says in its header; None says
                nothing of a style.

        Raises:
            ValueError: there is no recording, or no such style.
        """
        if not recordings:
            raise ValueError("There are no recordings to train on; ingest some first.")
        self._tokenizer = tokenizer
        if style is not None and not 0 <= style < STYLES:
            raise ValueError(f"Style {style} is not between 0 and {STYLES - 1}.")
        self.style = style
        told = [r if style is None else _in_style(r, style, tokenizer) for r in recordings]
        # A recording in which nothing was heard is one window: a piece that ends at once.
        nothing = [Span(0, 0, 0.0, True, (tokenizer.bos,))]
        items = [[(r, span) for span in spans(r, tokenizer, context, stride=STRIDE) or nothing] for r in told]
        self._items = [item for of_one in items for item in of_one]
        ends = np.cumsum([len(of_one) for of_one in items])
        self._rows = [np.arange(end - len(of_one), end) for end, of_one in zip(ends, items, strict=True)]
        self._marks = [int.from_bytes(hashlib.sha256(r.ids.tobytes()).digest()[:8], "little") for r in recordings]
        self._tokens = np.array([span.tokens for _, span in self._items])

    def __len__(self) -> int:
        """Recordings."""
        return len(self._rows)

    def draw(self, recordings: NDArray[np.int64], windows: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Windows of each of some recordings, none twice where there are enough: numbers, (recordings, windows).

        `random` gives one key, whoever is drawn; with it a recording's windows are a function of its own tokens. So
        one recording more or less changes nothing for the others, even in the eyes of somebody who knows the key.
        """
        key = int(random.integers(2**63))
        drawn = []
        for recording in recordings:
            own = np.random.Generator(np.random.Philox(key=[key, self._marks[recording]]))
            rows = self._rows[recording]
            drawn.append(own.choice(rows, windows, replace=len(rows) < windows))
        return np.array(drawn, dtype=np.int64).reshape(len(recordings), windows)

    def tokens(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens to predict in each window, header and EOS included; of the shape asked about."""
        counts: NDArray[np.int64] = self._tokens[windows]
        return counts

    def take(self, windows: NDArray[np.int64]) -> Windows:
        """Lay windows (n,) out as a batch, as long as the longest among them."""
        return gather([self._items[w] for w in windows], self._tokenizer)

    def batch(self, size: int, random: np.random.Generator) -> Windows:
        """Windows of `size` recordings drawn evenly, one window each, cut to the longest among them."""
        drawn = random.choice(len(self._rows), size, replace=size > len(self._rows))
        return self.take(np.array([random.choice(self._rows[r]) for r in drawn]))

    @property
    def pass_size(self) -> int:
        """Windows of one pass, as `once` makes it."""
        return sum(_part(len(rows)) for rows in self._rows)

    def once(self, size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """One pass over every recording: windows (size,) at a time, numbered as `draw` does; the last may be fewer.

        Windows overlap by half, so half of each recording's are drawn, and each token is met about once. Windows of
        like length share a batch, as far as a few batches' worth of them allow.
        """
        drawn = np.concatenate([random.choice(rows, _part(len(rows)), replace=False) for rows in self._rows])
        drawn = random.permutation(drawn)
        pools = [drawn[start : start + _POOL * size] for start in range(0, len(drawn), _POOL * size)]
        ordered = np.concatenate([pool[np.argsort(self._tokens[pool], kind="stable")] for pool in pools])
        starts = random.permutation(np.arange(0, len(ordered), size))
        return (ordered[start : start + size] for start in starts)


def _part(windows: int) -> int:
    return -(-windows // 2)


def _in_style(recording: Recording, style: int, tokenizer: Tokenizer) -> Recording:
    """The recording with its label's style in its header."""
    ids = tokenizer.styled(recording.ids, style)
    return replace(recording, ids=ids, bar_starts=recording.bar_starts + len(ids) - len(recording.ids))
