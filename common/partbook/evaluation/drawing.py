"""Drawings of an evaluation as inline SVG: piano rolls, distributions, and where a classifier stands.

Colours are CSS variables of the page, so that a drawing follows it into the dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.estimates import Estimate
from partbook.evaluation.page_style import COLOURS
from partbook.evaluation.reading import Reading
from partbook.evaluation.wording import Scale, number

AUC_AXIS: Final = (0.4, 1.0)  # a fair test lies at 0.5; below is chance
_ROLL: Final = (420.0, 150.0)
_GUTTER: Final = 20.0  # for the names of the Cs
_LEAST_RANGE: Final = 30  # semitones that a roll shows at least
_MOST_NOTES: Final = 1200  # of a roll, so that its drawing stays under 15 kB
_BINS: Final = 48
_SMOOTHING: Final = 1.3  # bins
_PANEL: Final = 300.0
_NAMES: Final = 104.0  # width of a panel's row names
_ROW: Final = 21.0
_LETTERS: Final = 15


def colour(index: int) -> str:
    """The CSS class that colours the subject at a place; after nine, colours come round again."""
    return f"c{index % len(COLOURS)}"


def roll(piece: Reading, colours: str) -> str:
    """A piano roll with bar lines; dashed lines at each C.

    Args:
        piece: what to draw, as far as the first 1,200 notes reach.
        colours: CSS class of the notes.
    """
    piece = _cut(piece)
    width, height = _ROLL
    across = width / max(piece.end, int(piece.bars[-1]), 1)
    low, high = int(piece.pitch.min()) - 2, int(piece.pitch.max()) + 2
    spare = max(0, _LEAST_RANGE - (high - low))
    low, high = low - spare // 2, high + (spare - spare // 2)
    row = height / (high - low + 1)

    def down(pitch: int) -> float:
        return (high - pitch + 0.5) * row

    bars = "".join(f"M{_short(bar * across)} 0V{height:g}" for bar in piece.bars.tolist())
    octaves = [pitch for pitch in range(low + 1, high + 1) if pitch % 12 == 0]
    lines = "".join(f"M0 {_short(down(p) + row / 2)}H{width:g}" for p in octaves)
    names = "".join(
        f'<text x="{3 - _GUTTER:g}" y="{_short(down(p) + row / 2 + 3)}" font-size="10">C{p // 12 - 1}</text>'
        for p in octaves
    )
    gap = 0.6  # so that a repeated note is two
    notes = "".join(
        f"M{_short(onset * across)} {_short(down(pitch))}h{_short(max(duration * across - gap, 0.8))}"
        for onset, duration, pitch in zip(
            piece.onset.tolist(), piece.duration.tolist(), piece.pitch.tolist(), strict=True
        )
    )
    about = f"Piano roll of {piece.title or 'the piece'}: {len(piece)} notes in {len(piece.bars) - 1} bars."
    return (
        f'<svg class="roll {colours}" viewBox="{-_GUTTER:g} 0 {width + _GUTTER:g} {height:g}" role="img" '
        f'aria-label="{escape(about)}"><path class="octave" d="{lines}"/><path class="bars" d="{bars}"/>'
        f'<path class="notes" stroke-width="{_short(max(row * 0.86, 1.6))}" d="{notes}"/>{names}</svg>'
    )


def _cut(piece: Reading) -> Reading:
    if len(piece) <= _MOST_NOTES:
        return piece
    return piece.between(0, max(int(piece.bar[_MOST_NOTES]), 1))


def gauge(features: Estimate, tokens: Estimate, colours: str, title: str) -> str:
    """Both two-sample tests on one line from 0.4 to 1: a disc for the measures, a ring for the tokens."""
    parts = [f'<line class="axisline" x1="0" x2="100%" y1="{y}" y2="{y}"/>' for y in (9, 23)]
    parts.append(f'<line class="mid" x1="{place(0.5)}" x2="{place(0.5)}" y1="0" y2="32" stroke-dasharray="2 3"/>')
    words = []
    for test, y, mark, what in ((features, 9, "mark-a", "measures"), (tokens, 23, "mark-b", "tokens")):
        if math.isnan(test.value):
            continue
        parts.append(f'<line class="reach" x1="{place(test.low)}" x2="{place(test.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{mark}" cx="{place(test.value)}" cy="{y}" r="5.5"/>')
        words.append(f"{what} {number(test.value)}, {number(test.low)} to {number(test.high)}")
    about = f"{title}: area under the curve by " + "; by ".join(words) if words else f"{title}: not tested"
    return (
        f'<svg class="{colours}" style="height:32px;overflow:visible" role="img" aria-label="{escape(about)}">'
        f"{''.join(parts)}</svg>"
    )


def place(auc: float) -> str:
    """Where on the line from 0.4 to 1 an AUC lies; what is off it lies at its end."""
    low, high = AUC_AXIS
    return f"{_short(100 * (min(max(auc, low), high) - low) / (high - low))}%"


def ridges(
    reference: Sequence[float],
    band: tuple[float, float, float],
    sets: Sequence[tuple[str, Sequence[float], str]],
    how: Scale,
    about: str,
) -> str:
    """A measure's distributions one under the other: the reference's in grey, its band through all, a tick a median.

    Args:
        reference: values of the reference works; NaN where undefined.
        band: their 10 %, 50 % and 90 % quantile.
        sets: title, values and CSS class of each subject.
        how: to write the numbers.
        about: in words, for those who cannot see it.
    """
    rows = [("Human works", np.array(reference, dtype=np.float64), "")]
    rows += [(title, np.array(values, dtype=np.float64), colours) for title, values, colours in sets]
    rows = [(title, values[np.isfinite(values)], colours) for title, values, colours in rows]
    low, high = _domain([values for _, values, _ in rows])
    left, right = _NAMES + 6, _PANEL - 8

    def across(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    bottom = 4 + _ROW * len(rows)
    parts = []
    if not math.isnan(band[0]):
        begin, end = across(band[0]), across(band[2])
        parts.append(
            f'<rect class="inband" x="{_short(begin - 0.5)}" y="0" width="{_short(max(end - begin, 1) + 1)}" '
            f'height="{bottom:g}"/>'
        )
    for index, (title, values, colours) in enumerate(rows):
        base = 2 + _ROW * (index + 1)
        parts.append(
            f'<text x="{_NAMES:g}" y="{base - 5:g}" font-size="11" text-anchor="end">{escape(_clipped(title))}</text>'
        )
        if len(values):
            shape = _outline(values, low, high, left, right, base)
            middle = _short(across(float(np.median(values))))
            kind = f'class="ridge {colours}"' if colours else 'class="human"'
            parts.append(f'<path {kind} d="{shape}"/>')
            parts.append(f'<line class="mid" x1="{middle}" x2="{middle}" y1="{base - 16:g}" y2="{base:g}"/>')
        parts.append(f'<line class="axisline" x1="{left:g}" x2="{right:g}" y1="{base:g}" y2="{base:g}"/>')
    for tick in _ticks(low, high):
        at = across(tick)
        anchor = "start" if at < left + 8 else "end" if at > right - 8 else "middle"
        text = escape(_trimmed(how.one(tick)))
        parts.append(f'<text x="{_short(at)}" y="{bottom + 12:g}" font-size="11" text-anchor="{anchor}">{text}</text>')
    return (
        f'<svg viewBox="0 0 {_PANEL:g} {bottom + 17:g}" role="img" aria-label="{escape(about)}">{"".join(parts)}</svg>'
    )


def _domain(columns: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """From the least 2 % to the greatest 98 % quantile of all: one odd piece does not squeeze the others."""
    ends = [np.quantile(values, (0.02, 0.98)) for values in columns if len(values)]
    if not ends:
        return 0.0, 1.0
    low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _outline(
    values: NDArray[np.float64], low: float, high: float, left: float, right: float, base: float
) -> str:  # fmt: skip
    from scipy.ndimage import gaussian_filter1d

    counts, _ = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
    heights = gaussian_filter1d(counts.astype(np.float64), _SMOOTHING, mode="reflect")
    heights *= (_ROW - 4) / heights.max()
    places = left + (right - left) * (np.arange(_BINS) + 0.5) / _BINS
    kept = np.flatnonzero(heights > 0.15)
    first, last = max(int(kept[0]) - 1, 0), min(int(kept[-1]) + 1, _BINS - 1)
    points = "".join(f"L{_short(places[i])} {_short(base - heights[i])}" for i in range(first, last + 1))
    begin = left if first == 0 else float(places[first])
    end = right if last == _BINS - 1 else float(places[last])
    opening = f"M{_short(begin)} {base:g}" + (f"V{_short(base - heights[0])}" if first == 0 else "")
    closing = (f"H{_short(end)}" if last == _BINS - 1 else "") + f"L{_short(end)} {base:g}Z"
    return opening + points + closing


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers."""
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough - 1e-12)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _clipped(title: str) -> str:
    return title if len(title) <= _LETTERS else title[: _LETTERS - 1].rstrip() + "…"


def _short(value: float) -> str:
    """A coordinate to a tenth, as few letters as it takes."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text
