"""The picture of a plan's cost: ε over rounds, against colluders and against outsiders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partbook.errors import ConfigError

if TYPE_CHECKING:
    from partbook.privacy.planning import PrivacyPlan

DPI: Final = 200
_POINTS: Final = 200
# Okabe & Ito 2008, darkened to a contrast of 4.5:1 on white.
_COLLUDERS, _OUTSIDERS, _TARGET = "#0072B2", "#00805D", "#7A1F2B"
_INK, _SOFT_INK, _RULE = "#1D2433", "#5B6475", "#D9D3C7"


def draw_cost(plan: PrivacyPlan, path: Path) -> None:
    """Write a PNG of ε over the plan's rounds.

    Raises:
        ConfigError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wish = plan.wish
    rounds = sorted({1, *(max(1, round(wish.rounds * i / _POINTS)) for i in range(1, _POINTS + 1))})
    figure = Figure(figsize=(7.2, 4.2), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.125, 0.695, 0.68))
    lines = [("colluders", _COLLUDERS, f"against {wish.colluders}\ncolluding")]
    if wish.kind == "local":
        lines = [("colluders", _COLLUDERS, "against everybody")]
    elif wish.colluders:
        lines.append(("outsiders", _OUTSIDERS, "against outsiders"))
    else:
        lines = [("colluders", _COLLUDERS, "against all who\nread sums")]
    ends = []
    for against, colour, label in lines:
        curve = plan.curve("colluders" if against == "colluders" else "outsiders", rounds)
        axes.plot(rounds, curve, color=colour, linewidth=2.0, solid_capstyle="round", zorder=3)
        ends.append((curve[-1], f"ε = {curve[-1]:.2f}\n{label}", colour))
    axes.axhline(wish.epsilon, color=_TARGET, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    axes.annotate(
        f"target ε = {wish.epsilon:g}", (0, wish.epsilon), xycoords=("axes fraction", "data"), xytext=(4, 4),
        textcoords="offset points", fontsize=8.5, style="italic", color=_TARGET,
    )  # fmt: skip
    for value, text, colour in ends:
        axes.annotate(
            text, (wish.rounds, value), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=9, color=colour, annotation_clip=False, linespacing=1.3,
        )  # fmt: skip
    axes.set_xlim(0, wish.rounds)
    axes.set_ylim(0, wish.epsilon * 1.12)
    axes.set_xlabel("rounds", fontsize=9.5, color=_SOFT_INK)
    axes.set_ylabel(f"ε at δ = {wish.delta:g}", fontsize=9.5, color=_SOFT_INK)
    axes.tick_params(length=0, labelsize=9, labelcolor=_SOFT_INK)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    heading: dict[str, Any] = {"fontfamily": "serif", "fontweight": "bold", "fontsize": 14, "color": _INK}
    figure.text(0.025, 0.955, "What the noise lets through", va="top", **heading)
    detail = (
        f"each of {wish.recordings:,} recordings, {wish.kind} noise σ = {plan.noise_multiplier:g}, "
        f"q = {wish.sampling:.4g}, expected batch {wish.batch:g}"
    )
    figure.text(0.025, 0.885, detail, va="top", fontsize=9.5, color=_SOFT_INK)
    try:
        figure.savefig(path, dpi=DPI, format="png")
    except OSError as error:
        raise ConfigError(f"--plot: {path} cannot be written: {error.strerror}.") from error
