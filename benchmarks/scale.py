"""What a masked round of a million parameters costs a member and the coordinator, from ten members to ten thousand.

Whole rounds are played to the exact sum, one member after another on one core. For larger cohorts, and for the
complete graph that the k-regular one replaces, one member is measured among the peers it really has
(`benchmarks.cohort`): its cost depends on their number, and on no others but through the list of survivors and the
signatures it is shown.

python -m benchmarks.scale [--nodes N …] [--sampled N …] [--complete N …] [--parameters N] [--picture FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, report
from benchmarks.cohort import EXCHANGES, Cohort, Cost, OneNode, WholeRound, play, vector
from partbook.secagg import graph
from partbook.secagg import messages as m
from partbook.secagg.rings import CHUNK
from partbook.simulation.palette import INK, LABEL_COLOURS, RULE, SOFT_INK

DROPPED = 0.05  # of the cohort, at least one
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "scale.svg"
TURNS = 3

_SHADES = ("#9CC5E3", "#C9DFF0", "#E6DFD0")
_SECONDS: Mapping[str, Callable[[Cost], float]] = {
    "masks": lambda cost: cost.seconds[m.CONTRIBUTION],
    "keys and shares": lambda cost: cost.seconds[m.ADVERTISE] + cost.seconds[m.SHARES],
    "survivors' signatures": lambda cost: cost.seconds[m.CONFIRMED] + cost.seconds[m.REVEALED],
}
_MEGABYTES: Mapping[str, Callable[[Cost], float]] = {
    "the masked vector": lambda cost: cost.sent[m.CONTRIBUTION] / 1e6,
    "keys and shares": lambda cost: (
        _both(cost, m.ADVERTISE) + _both(cost, m.SHARES) + cost.received[m.CONTRIBUTION] / 1e6
    ),
    "survivors' signatures": lambda cost: _both(cost, m.CONFIRMED) + _both(cost, m.REVEALED),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What a round cost one member.

    Attributes:
        members, degree: of the cohort, and how many of them the member masks with.
        cost: the member's.
    """

    members: int
    degree: int
    cost: Cost


def _both(cost: Cost, exchange: str) -> float:
    return (cost.received[exchange] + cost.sent[exchange]) / 1e6


def dropouts(members: int) -> int:
    """How many of them give their shares and never contribute."""
    return max(1, round(DROPPED * members))


def sampled(members: int, parameters: int, *, complete: bool = False, turns: int = TURNS) -> Sample:
    """One member of so many, with the neighbours it has, or with everybody for one; the cheapest of a few rounds."""
    costs = []
    with _complete_up_to(members if complete else graph.COMPLETE):
        cohort = Cohort(members)
        for _ in range(turns):
            one = OneNode(cohort)
            for _ in one.contribute(vector(one.name, parameters)):
                pass
            one.finish(cohort.lost(dropouts(members)))
            costs.append(one.cost)
        return Sample(members, cohort.session.graph.degree, min(costs, key=lambda cost: cost.total))


@contextmanager
def _complete_up_to(members: int) -> Iterator[None]:
    """The cohort from which on the graph is k-regular, moved: to measure what is not done, and why."""
    usual = graph.COMPLETE
    graph.COMPLETE = members  # type: ignore[misc]  # a Final, moved for one measurement
    try:
        yield
    finally:
        graph.COMPLETE = usual  # type: ignore[misc]  # and put back


def show_head() -> None:
    """The heading of the table of nodes."""
    kinds = "".join(f"{kind:>14}" for kind in EXCHANGES)
    print(f"{'one node of':>12}{'k':>6}{'CPU s':>9} ={kinds}{'received':>11}{'sent':>10}  graph, how measured")


def show_node(members: int, degree: int, cost: Cost, how: str) -> None:
    """One row of the table of nodes: CPU seconds by exchange, bytes of the whole round."""
    seconds = "".join(f"{cost.seconds[kind]:14.4f}" for kind in EXCHANGES)
    received, sent = (f"{sum(sizes.values()) / 1e6:.3f} MB" for sizes in (cost.received, cost.sent))
    print(f"{members:12,}{degree:6}{cost.total:9.3f}  {seconds}{received:>11}{sent:>10}  {how}")


def show_round(done: WholeRound) -> None:
    """What the coordinator had to do in a whole round, and whether it was right."""
    total, times = (
        done.coordinator.total,
        ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in done.coordinator.seconds.items()),
    )
    print(
        f"{done.members:,} members, {done.dropped} dropped at contribution: the sum is "
        f"{'exact' if done.exact else 'WRONG'}; the coordinator took {total:.2f} s of CPU time ({times}); "
        f"everybody, one after another, {done.wall_seconds:.0f} s"
    )


def draw(path: Path, rounds: Sequence[WholeRound], samples: Sequence[Sample], complete: Sequence[Sample]) -> None:
    """Draw what a round costs a node over the size of its cohort: CPU time at the left, bytes at the right."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.3))
    FigureCanvasSVG(figure)
    axes_of_time, axes_of_bytes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.04, right=0.965, top=0.735, bottom=0.12, wspace=0.14)
    whole = [Sample(done.members, done.degree, done.node) for done in rounds]
    everybody = sorted([*(s for s in samples if s.members <= graph.COMPLETE), *complete], key=lambda s: s.members)
    for axes, heading, layers in (
        (axes_of_time, "CPU seconds of one node in a round", _SECONDS),
        (axes_of_bytes, "MB that one node receives and sends in a round", _MEGABYTES),
    ):
        _panel(axes, heading, layers, samples, everybody, whole)
    bold: dict[str, Any] = {"fontfamily": "serif", "fontweight": "bold", "fontsize": 14, "color": INK}
    figure.text(0.018, 0.965, "What a larger cohort costs each of its members", va="top", **bold)
    for height, text in (
        (0.895, "A masked round of a million parameters on one core. Areas: one node, measured among the "
                "neighbours it really has;"),
        (0.853, "dots: the mean of whole rounds that were played to the exact sum; dashed: if everybody masked with "
                "everybody."),
    ):  # fmt: skip
        figure.text(0.018, height, text, va="top", fontsize=9, color=SOFT_INK)
    with mpl.rc_context({"svg.hashsalt": "scale", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _panel(
    axes: Any,
    heading: str,
    layers: Mapping[str, Callable[[Cost], float]],
    samples: Sequence[Sample],
    everybody: Sequence[Sample],
    whole: Sequence[Sample],
) -> None:
    def all_of(sample: Sample) -> float:
        return sum(value(sample.cost) for value in layers.values())

    members = [sample.members for sample in samples]
    most, top = members[-1], all_of(samples[-1])
    heights = [[value(sample.cost) for sample in samples] for value in layers.values()]
    axes.stackplot(members, *heights, colors=_SHADES, linewidth=0)
    axes.plot(
        [s.members for s in everybody], [all_of(s) for s in everybody], color=LABEL_COLOURS[1], linewidth=1.6,
        linestyle=(0, (4, 2)),
    )  # fmt: skip
    axes.plot(
        [s.members for s in whole], [all_of(s) for s in whole], "o", color=INK, markersize=4.5, clip_on=False, zorder=5
    )
    base = 0.0
    for name, column in zip(layers, heights, strict=True):
        if column[-1] > 0.05 * top:  # else the name would not fit into its layer
            axes.annotate(
                name, (0.985 * most, base + 0.5 * column[-1]), ha="right", va="center", fontsize=8.5, color=INK
            )
        base += column[-1]
    axes.annotate(
        f"{top:.1f}", (most, top), xytext=(0, 4), textcoords="offset points", ha="right", va="bottom", fontsize=9,
        fontweight="bold", color=INK,
    )  # fmt: skip
    axes.set_ylim(0, 1.35 * top)
    axes.set_xlim(0, most)
    if everybody:
        last = everybody[-1]
        axes.annotate(
            f"everybody with everybody: {all_of(last):.1f} at {last.members:,}", (0.2, 0.97), xycoords="axes fraction",
            va="top", fontsize=8.5, color=LABEL_COLOURS[1],
        )  # fmt: skip
    axes.set_title(heading, fontsize=10, color=INK, loc="left", fontweight="bold", pad=8)
    axes.set_xlabel("members of the cohort", fontsize=8.5, color=SOFT_INK)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=SOFT_INK)


def main(arguments: list[str]) -> int:
    """Measure, print, draw, and close with the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000], help="whole rounds of so many")
    parser.add_argument(
        "--sampled", type=int, nargs="*", default=[10, 30, 100, 200, 500, 1000, 2000, 3000, 5000, 10000]
    )
    parser.add_argument("--complete", type=int, nargs="*", default=[200, 500, 1000, 3000])
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    chosen = parser.parse_args(arguments)
    assert chosen.parameters <= CHUNK, "whole rounds are of one chunk"

    samples, complete, rounds = [], [], []
    show_head()
    for members in sorted(chosen.sampled):
        samples.append(sample := sampled(members, chosen.parameters))
        show_node(members, sample.degree, sample.cost, "k neighbours, one sampled")
    for members in sorted(chosen.complete):
        complete.append(sample := sampled(members, chosen.parameters, complete=True))
        show_node(members, sample.degree, sample.cost, "everybody with everybody, one sampled")
    for members in sorted(chosen.nodes):
        rounds.append(done := play(Cohort(members), chosen.parameters, dropouts(members)))
        show_node(members, done.degree, done.node, "k neighbours, mean of a whole round")
    for done in rounds:
        show_round(done)
    draw(chosen.picture, rounds, samples, complete)
    return 0 if report("scale", list(_claims(rounds, samples, complete))) else 1


def _claims(rounds: Sequence[WholeRound], samples: Sequence[Sample], complete: Sequence[Sample]) -> Iterator[Claim]:
    for done in rounds:
        yield Claim(
            f"sum of {done.members} members exact, {done.dropped} dropped", "sums", float(done.exact), 1.0, "limit", 1.0
        )
    known, dense = {sample.members: sample for sample in samples}, {sample.members: sample for sample in complete}
    for members in sorted(known.keys() & dense.keys()):
        yield Claim(
            f"CPU time of a node among {members}", "s", known[members].cost.total, dense[members].cost.total,
            "complete graph", 1.0, at_least=False,
        )  # fmt: skip
    most = max(known)
    yield Claim(
        f"neighbours of a node among {most}", "nodes", float(known[most].degree), 600.0, "limit", 1.0, at_least=False
    )
    tenth = known.get(most // 10)
    if tenth is not None:
        peer, here, there = f"among {most // 10}", known[most].cost, tenth.cost
        for what, ours, others in (
            ("CPU time of a node's masking", here.seconds[m.CONTRIBUTION], there.seconds[m.CONTRIBUTION]),
            ("CPU time of a node", here.total, there.total),
        ):
            yield Claim(f"{what} among {most}", "s", ours, others, peer, 2.0, at_least=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
