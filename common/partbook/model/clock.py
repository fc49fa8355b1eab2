"""Musical time of tokens: where in the piece each was written, where in its bar, and how far from the end.

Three of a decoder's clues are musical, not textual: where in the bar it is, what happened exactly so many beats ago,
and how many bars are left where the header says how many there shall be. The clock reads them off the ids alone. It
counts in positions, twelfths of a quarter note (`partbook.music.vocabulary`), from a window's beginning. What tokens do
to time is kept in six small tables, which travel with the weights; a model without a tokeniser's tables stands still
at 0.

Rotary angles by musical time: as rotary positions (Su et al. 2021, arXiv 2104.09864 v5, §3.2.2) with time in the place
of the index; attention over several musical attributes at once: Guo et al. 2025, "Moonbeam" (arXiv 2505.15559, §3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor, nn

from partbook.music.vocabulary import MOST_GAPS, SYMBOLS, bar_positions

if TYPE_CHECKING:
    from partbook.music.tokens import Tokenizer

DEFAULT_BAR: Final = 48  # positions, before any metre is said


class Moments(NamedTuple):
    """Where a piece is after each token, (b, t) each.

    Attributes:
        time: positions since the window's beginning.
        place: positions since the bar's beginning.
        left: bars left, the present one included, as the header has it: 1 in the last one and beyond it, one more
            than it says in the header itself, 0 where it does not say and where a gap is filled in.
    """

    time: Tensor
    place: Tensor
    left: Tensor


@dataclass(slots=True)
class ClockState:
    """Where each row of a batch stands, (b,) each but `gaps`.

    Attributes:
        end: where the present bar ends.
        start: where it began.
        place: positions since then.
        length: a bar's, by the metre in force.
        gaps: where each gap began, (b, MOST_GAPS + 1), from 1.
        opened, filled: gaps so far, and those that have been returned to.
        left: bars left, as in `Moments`.
    """

    end: Tensor
    start: Tensor
    place: Tensor
    length: Tensor
    gaps: Tensor
    opened: Tensor
    filled: Tensor
    left: Tensor

    @classmethod
    def beginning(cls, rows: int, device: torch.device) -> ClockState:
        """Of rows that have read nothing."""

        def filled_with(value: int) -> Tensor:
            return torch.full((rows,), value, dtype=torch.long, device=device)

        gaps = torch.zeros(rows, MOST_GAPS + 1, dtype=torch.long, device=device)
        zeros = [filled_with(0) for _ in range(6)]
        return cls(zeros[0], zeros[1], zeros[2], filled_with(DEFAULT_BAR), gaps, zeros[3], zeros[4], zeros[5])

    @property
    def time(self) -> Tensor:
        """Now, (b,)."""
        return self.start + self.place

    @property
    def moment(self) -> Moments:
        """Now, (b,) each."""
        return Moments(self.time, self.place, self.left)

    def fields(self) -> tuple[Tensor, ...]:
        """All of it, in order."""
        return self.end, self.start, self.place, self.length, self.gaps, self.opened, self.filled, self.left

    def put(self, rows: Tensor | slice | int, other: ClockState) -> None:
        """Let some rows stand where those of `other` do."""
        for mine, theirs in zip(self.fields(), other.fields(), strict=True):
            mine[rows] = theirs

    def where(self, chosen: Tensor, other: ClockState) -> ClockState:
        """This in the chosen rows (b,), `other` in the rest."""
        mixed = [
            torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)
            for mine, theirs in zip(self.fields(), other.fields(), strict=True)
        ]
        return ClockState(*mixed)


class Clock(nn.Module):
    """Reads musical time off ids. Nothing in it is trained."""

    step: Tensor
    bar: Tensor
    metre: Tensor
    gap: Tensor
    fill: Tensor
    bars: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        for name in ("step", "bar", "metre", "gap", "fill", "bars"):
            self.register_buffer(name, torch.zeros(vocabulary, dtype=torch.int16))

    def set(self, tokenizer: Tokenizer) -> None:
        """Take a tokeniser's tables; it must have as many tokens as the model."""
        for token in range(len(tokenizer)):
            for symbol in tokenizer.expand([token]):
                kind, _, value = SYMBOLS[symbol].partition("_")
                if kind == "Step":
                    self.step[token] += int(value)
                elif kind == "Bar":
                    self.bar[token] = 1
                elif kind == "Metre":
                    numerator, _, denominator = value.partition("/")
                    self.metre[token] = bar_positions(int(numerator), int(denominator))
                elif kind == "Gap":
                    self.gap[token] = int(value)
                elif kind == "Fill":
                    self.fill[token] = 1
                elif kind == "Bars":
                    self.bars[token] = int(value)

    @torch.no_grad()
    def read(self, ids: Tensor) -> tuple[Moments, ClockState]:
        """The moments after each of ids (b, t), which begin a window; and where the rows then stand."""
        rows, length = ids.shape
        order = torch.arange(length, device=ids.device).expand(rows, -1)
        metre, bar, gap, fill = (table[ids].long() for table in (self.metre, self.bar, self.gap, self.fill))
        steps = self.step[ids].long().cumsum(1)
        said = torch.where(metre > 0, order, -1).cummax(1).values
        bar_length = torch.where(said >= 0, metre.gather(1, said.clamp(min=0)), DEFAULT_BAR)
        moved = bar_length * (bar + gap)
        end = moved.cumsum(1)
        is_gap = (gap > 0).long()
        opened, filled = is_gap.cumsum(1), fill.cumsum(1)
        gaps = end.new_zeros(rows, MOST_GAPS + 1)
        gaps.scatter_add_(1, (opened * is_gap).clamp(max=MOST_GAPS), (end - moved) * is_gap)
        came_from = end.new_zeros(rows, MOST_GAPS + 1)
        came_from.scatter_add_(1, (filled * fill).clamp(max=MOST_GAPS), end * fill)
        which = filled.clamp(max=MOST_GAPS)
        end = end + torch.where(filled > 0, gaps.gather(1, which) - came_from.gather(1, which), 0)
        mark = torch.where((bar > 0) | (gap > 0) | (fill > 0), order, -1).cummax(1).values
        anywhere, at = mark >= 0, mark.clamp(min=0)
        start = torch.where(anywhere, torch.where(bar > 0, end - bar_length, end).gather(1, at), 0)
        before = torch.where(anywhere, (steps - self.step[ids].long()).gather(1, at), 0)
        place = steps - before
        left = self._left(ids, (bar + gap).cumsum(1), filled)
        state = ClockState(
            end[:, -1], start[:, -1], place[:, -1], bar_length[:, -1], gaps, opened[:, -1], filled[:, -1], left[:, -1]
        )
        return Moments(start + place, place, left), state

    def _left(self, ids: Tensor, begun: Tensor, filled: Tensor) -> Tensor:
        """Bars left after each of ids (b, t), with as many bars begun and gaps filled in by then."""
        said = self.bars[ids].long()
        order = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        last = torch.where(said > 0, order, -1).cummax(1).values
        at = last.clamp(min=0)
        left = (said.gather(1, at) - (begun - begun.gather(1, at))).clamp(min=0) + 1
        return torch.where((last >= 0) & (filled == 0), left, 0)

    @torch.no_grad()
    def advance(self, state: ClockState, ids: Tensor) -> ClockState:
        """Where rows stand after one more token each, (b,)."""
        metre, bar, gap, fill = (table[ids].long() for table in (self.metre, self.bar, self.gap, self.fill))
        length = torch.where(metre > 0, metre, state.length)
        opened = state.opened + (gap > 0)
        gaps = state.gaps.clone()
        row = torch.arange(len(ids), device=ids.device)
        slot = opened.clamp(max=MOST_GAPS)
        gaps[row, slot] = torch.where(gap > 0, state.end, gaps[row, slot])
        filled = state.filled + fill
        back = gaps.gather(1, filled.clamp(max=MOST_GAPS)[:, None])[:, 0]
        begin = torch.where(fill > 0, back, state.end + gap * length)
        marked = (bar > 0) | (gap > 0) | (fill > 0)
        place = torch.where(marked, 0, state.place) + self.step[ids].long()
        said = self.bars[ids].long()
        left = torch.where(state.left > 0, (state.left - bar - gap).clamp(min=1), 0)
        left = torch.where(filled > 0, 0, torch.where(said > 0, said + 1, left))
        return ClockState(
            torch.where(marked, begin + bar * length, state.end),
            torch.where(marked, begin, state.start),
            place,
            length,
            gaps,
            opened,
            filled,
            left,
        )
