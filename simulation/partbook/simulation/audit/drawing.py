"""The frame that the audit's pictures share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partbook.simulation.palette import ACCENT, INK, RULE, SOFT_INK, label_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DPI", "INK", "QUIET", "SOFT", "label_colour", "new_figure", "plain", "save"]

DPI: Final = 180
SOFT: Final = SOFT_INK
QUIET: Final = ACCENT


def new_figure(title: str, detail: str, height: float, width: float = 9.0) -> Figure:
    """A white figure with a heading; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    heading: dict[str, Any] = {"fontfamily": "serif", "fontweight": "bold", "fontsize": 14, "color": INK}
    figure.text(0.02, 1 - 0.16 / height, title, va="top", **heading)
    figure.text(0.02, 1 - 0.48 / height, detail, va="top", fontsize=9.5, color=SOFT_INK)
    return figure


def plain(axes: Axes) -> None:
    """No ticks, no box, a quiet grid."""
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT_INK)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png")
