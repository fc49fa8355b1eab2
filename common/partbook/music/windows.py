"""Training examples: a stretch of whole bars, and the eight seconds of sound that came before it.

A window at a piece's beginning starts with BOS; one inside it with CUT and the header in force there, so that a
window's beginning is told from a piece's (`Tokenizer.header_at`).

The decoder learns to go on from what it heard: its memory is the mel of the past, never of the notes it must write,
so the task cannot be solved by transcription. Where there is no past (a recording's first bars), memory is absent
and the model uses its learnt silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partbook.music.mel import BANDS, MEMORY_FRAMES, memory_before
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch of examples.

    Attributes:
        ids: BOS or CUT and header, then tokens, then EOS where the recording ends, then PAD; int64 (batch, length + 1).
        memory: log-mel of the past, float32 (batch, 688, 128).
        has_memory: whether there is a past, bool (batch,).
    """

    ids: NDArray[np.int64]
    memory: NDArray[np.float32]
    has_memory: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Span:
    """Where one window lies: tokens [start, stop) of a recording, sounding from `second`; `last` if it ends it.

    `prefix` stands in front of the tokens, BOS or CUT first.
    """

    start: int
    stop: int
    second: float
    last: bool
    prefix: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """What is to be foretold: all but the first id, EOS included."""
        return len(self.prefix) - 1 + self.stop - self.start + self.last


def spans(recording: Recording, tokenizer: Tokenizer, length: int, *, stride: float = 1.0) -> list[Span]:
    """Cut a recording into windows that begin on bars and fill at most `length` positions with what precedes them.

    Args:
        recording: what to cut.
        tokenizer: what its ids were written by.
        length: model positions a window may fill, BOS or CUT and header included.
        stride: 1.0 cuts end to end; 0.5 lets each window begin halfway through the one before.

    Returns:
        Windows in order; the last may be short. With `stride` 1.0 every token is in exactly one window, unless
        a single bar alone is longer than a window, in which case it is cut inside the bar.
    """
    total = len(recording.ids)
    # The first window begins with the header, which is no bar.
    starts = [0, *(int(s) for s in recording.bar_starts[1:] if s < total)]
    seconds = [float(s) for s in recording.bar_seconds]
    result: list[Span] = []
    begin = 0
    while begin < total:
        bar = int(np.searchsorted(starts, begin, side="right")) - 1
        prefix = tuple(tokenizer.header_at(recording.ids, begin))
        limit = begin + max(length - len(prefix), 1)
        if limit >= total:
            stop = total
        else:
            fitting = [s for s in starts if begin < s <= limit]
            stop = fitting[-1] if fitting else limit
        second = seconds[min(max(bar, 0), len(seconds) - 1)] if seconds else 0.0
        result.append(Span(begin, stop, second, stop == total, prefix))
        if stop == total:
            break
        following = [s for s in starts if begin < s <= begin + max(1, int((stop - begin) * stride))]
        begin = (following[-1] if following else stop) if stride < 1.0 else stop
    return result


def gather(items: list[tuple[Recording, Span]], tokenizer: Tokenizer, length: int | None = None) -> Windows:
    """Lay windows out as one batch of `length + 1` ids each (inputs and targets overlap by one).

    `length` is that of the longest window where None.
    """
    length = max(span.tokens for _, span in items) if length is None else length
    eos, pad = tokenizer.eos, tokenizer.pad
    ids = np.full((len(items), length + 1), pad, dtype=np.int64)
    memory = np.full((len(items), MEMORY_FRAMES, BANDS), -1.0, dtype=np.float32)
    has_memory = np.zeros(len(items), dtype=np.bool_)
    for row, (recording, span) in enumerate(items):
        tokens = recording.ids[span.start : span.stop]
        begin, end = len(span.prefix), len(span.prefix) + len(tokens)
        ids[row, :begin] = span.prefix
        ids[row, begin:end] = tokens
        if span.last:
            ids[row, end] = eos
        past = memory_before(recording.mel, span.second)
        if past is not None:
            memory[row] = past
            has_memory[row] = True
    return Windows(ids, memory, has_memory)
