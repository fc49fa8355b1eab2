"""Pictures as PNG: the piano roll of a piece, and how each label's loss fell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from partbook.errors import ScoreError
from partbook.music.notes import Notes
from partbook.simulation.palette import INK, RULE, SOFT_INK, label_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI: Final = 200
PROMPT_MAP: Final = ("#C9CFDA", "#3D4A63")  # soft to loud
PIECE_MAP: Final = ("#F4C9A4", "#B3261E", "#4A0D18")
_BLACK_KEYS: Final = (1, 3, 6, 8, 10)
_NAMES: Final = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


@dataclass(frozen=True, slots=True)
class LabelCurve:
    """How one label's loss went.

    Attributes:
        label: the label's name.
        held_out: (round, nats per token) on public held-out recordings of its kind; round 0 is the base.
        local: (round, nats per token) on its own recordings, known to its node alone; empty where not shown.
    """

    label: str
    held_out: tuple[tuple[int, float], ...]
    local: tuple[tuple[int, float], ...] = ()


def note_name(pitch: int) -> str:
    """A MIDI note number as players say it: 60 is C4."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def piano_roll(notes: Notes, path: Path, *, title: str, subtitle: str = "", split_at: float | None = None) -> None:
    """Draw a piece, pitch over time, harder strokes darker.

    Args:
        notes: what sounds, in seconds.
        path: where the PNG goes.
        title, subtitle: above the picture.
        split_at: second at which the prompt ends and the generator goes on; a dashed line marks it, and the
            prompt is drawn in grey. None where all is the generator's.

    Raises:
        ScoreError: there are no notes to draw.
    """
    if not len(notes):
        raise ScoreError(f"There are no notes to draw in {title!r}; generate or load another piece.")
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import FancyBboxPatch

    figure = _figure(10.0, 3.9)
    axes = figure.add_axes((0.055, 0.135, 0.93, 0.665))
    end = float((notes.onset + notes.duration).max())
    low, high = int(notes.pitch.min()) - 3, int(notes.pitch.max()) + 3
    for pitch in range(low, high + 1):
        if pitch % 12 in _BLACK_KEYS:
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#F6F4EF", linewidth=0, zorder=0)
        if pitch % 12 == 0:
            axes.axhline(pitch - 0.5, color="#CFC8BA", linewidth=0.7, zorder=1)
    prompt = LinearSegmentedColormap.from_list("prompt", PROMPT_MAP)
    piece = LinearSegmentedColormap.from_list("piece", PIECE_MAP)
    loudness = _loudness(notes)
    corner = min(0.06, end / 400)
    patches, colours = [], []
    for onset, duration, pitch, level in zip(notes.onset, notes.duration, notes.pitch, loudness, strict=True):
        width = max(float(duration) - end / 1500, end / 900)  # a hair's breadth between repeated notes
        box = f"round,pad=0,rounding_size={min(corner, width / 2)}"
        patches.append(FancyBboxPatch((float(onset), float(pitch) - 0.4), width, 0.8, boxstyle=box))
        colours.append((prompt if split_at is not None and onset < split_at - 1e-6 else piece)(level))
    axes.add_collection(PatchCollection(patches, facecolors=colours, edgecolors="none", zorder=3))
    axes.set_xlim(-end * 0.004, end * 1.004)
    axes.set_ylim(low - 0.5, high + 0.5)
    octaves = [p for p in range(low, high + 1) if p % 12 == 0]
    if len(octaves) < 2:
        octaves = sorted({*octaves, int(notes.pitch.min()), int(notes.pitch.max())})
    axes.set_yticks(octaves, [note_name(p) for p in octaves])
    axes.set_xlabel("seconds", fontsize=9, color=SOFT_INK)
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    if split_at is not None:
        axes.axvline(split_at, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=4)
        for x, align, text in (
            (split_at - end * 0.006, "right", "given"),
            (split_at + end * 0.006, "left", "generated"),
        ):
            axes.annotate(
                text, (x, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                ha=align, va="bottom", fontsize=9, style="italic", color=SOFT_INK,
            )  # fmt: skip
    _title(figure, title, subtitle)
    _velocity_key(figure, piece)
    figure.savefig(path, dpi=DPI, facecolor="white")


def loss_curves(path: Path, curves: Sequence[LabelCurve]) -> None:
    """Draw one panel a label: held-out loss over rounds, and the node's own local loss where it is known.

    Raises:
        ScoreError: there is no curve to draw.
    """
    if not curves or not any(curve.held_out for curve in curves):
        raise ScoreError("There are no losses to draw; evaluate at least one label in at least one round.")
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = _figure(0.6 + 2.55 * columns, 1.25 + 2.15 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    figure.subplots_adjust(
        left=0.62 / figure.get_figwidth(), right=0.985, top=1 - 0.98 / figure.get_figheight(),
        bottom=0.62 / figure.get_figheight(), wspace=0.24, hspace=0.38,
    )  # fmt: skip
    for index, axes in enumerate(grid.flat):
        if index >= len(curves):
            axes.set_axis_off()
            continue
        _panel(axes, curves[index], label_colour(index))
        if index % columns == 0:
            axes.set_ylabel("nats per token", fontsize=8.5, color=SOFT_INK)
        if index + columns >= len(curves):
            axes.set_xlabel("round", fontsize=8.5, color=SOFT_INK)
    known = any(curve.local for curve in curves)
    dotted = "; dotted: each node's own training loss, which never left the node" if known else ""
    _title(figure, "What the rounds did", f"Solid: loss on public held-out recordings, lower is better{dotted}")
    figure.savefig(path, dpi=DPI, facecolor="white")


def _panel(axes: Any, curve: LabelCurve, colour: str) -> None:
    rounds, losses = zip(*curve.held_out, strict=True) if curve.held_out else ((), ())
    axes.set_title(curve.label, fontsize=10, color=INK, loc="left", fontweight="bold", pad=6)
    if curve.local:
        axes.plot(*zip(*curve.local, strict=True), color=colour, linewidth=1.3, linestyle=(0, (1, 1.6)), alpha=0.85)
    if losses:
        axes.axhline(losses[0], color=RULE, linewidth=0.9, zorder=0)
        axes.plot(rounds, losses, color=colour, linewidth=2.0, solid_capstyle="round")
        axes.plot(rounds[-1:], losses[-1:], "o", color=colour, markersize=4.5)
        everything = [*losses, *(loss for _, loss in curve.local)]
        spread = max(max(everything) - min(everything), 0.05)
        axes.set_ylim(min(everything) - 0.16 * spread, max(everything) + 0.16 * spread)
        last = max(rounds[-1], 1)
        axes.set_xlim(-0.03 * last, 1.05 * last)
        for x, loss, align in ((rounds[0], losses[0], "left"), (rounds[-1], losses[-1], "right")):
            rise, side = (5, "bottom") if loss >= np.mean(losses) else (-6, "top")
            axes.annotate(
                f"{loss:.3f}", (x, loss), xytext=(0, rise), textcoords="offset points", ha=align, va=side,
                fontsize=8.5, color=INK,
            )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(length=0, labelsize=8, labelcolor=SOFT_INK)
    axes.locator_params(axis="y", nbins=4)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)


def _figure(width: float, height: float) -> Figure:
    """A figure with no window behind it and no state shared with other threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, title: str, subtitle: str) -> None:
    left, height = 0.18 / figure.get_figwidth(), figure.get_figheight()
    heading: dict[str, Any] = {"fontfamily": "serif", "fontweight": "bold", "fontsize": 14, "color": INK}
    figure.text(left, 1 - 0.16 / height, _plain(title), va="top", **heading)
    figure.text(left, 1 - 0.44 / height, _plain(subtitle), va="top", fontsize=9.5, color=SOFT_INK)


def _plain(text: str) -> str:
    """Text with matplotlib's formula sign escaped: a title is not mathematics."""
    return text.replace("$", r"\$")


def _loudness(notes: Notes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Velocity as 0 to 1 over the range that music uses."""
    return np.clip((notes.velocity.astype(np.float64) - 24.0) / (116.0 - 24.0), 0.0, 1.0)


def _velocity_key(figure: Figure, colours: Any) -> None:
    axes = figure.add_axes((0.885, 0.915, 0.1, 0.026))
    axes.imshow(np.linspace(0, 1, 128)[None, :], aspect="auto", cmap=colours)
    axes.set_xticks([0, 127], ["soft", "loud"], fontsize=8, color=SOFT_INK)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2)
    soft, loud = axes.get_xticklabels()
    soft.set_horizontalalignment("left")
    loud.set_horizontalalignment("right")
    axes.spines[:].set_visible(False)
