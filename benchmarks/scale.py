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
from collections.abc import Iterator, Sequence
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

DROPPED = 0.05  # of the cohort
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "scale.svg"
TURNS = 3


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
    graph.COMPLETE = members  # type: ignore[misc]
    try:
        yield
    finally:
        graph.COMPLETE = usual  # type: ignore[misc]


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
    """Draw cost of a node over the size of the cohort: CPU time at the left, bytes at the right."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.1))
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.065, right=0.985, top=0.74, bottom=0.125, wspace=0.2)
    whole = [Sample(done.members, done.degree, done.node) for done in rounds]
    everybody = sorted([*(s for s in samples if s.members <= graph.COMPLETE), *complete], key=lambda s: s.members)
    for axes, heading, value in (
        (left, "CPU seconds of one node in a round", lambda sample: sample.cost.total),
        (right, "MB that one node sends and receives", _megabytes),
    ):
        _panel(axes, heading, [(s.members, value(s)) for s in samples], [(s.members, value(s)) for s in everybody])
        axes.plot([s.members for s in whole], [value(s) for s in whole], "o", color=LABEL_COLOURS[0], markersize=5.5)
    masking = [(s.members, s.cost.seconds[m.CONTRIBUTION]) for s in samples]
    left.plot(*zip(*masking, strict=True), color=LABEL_COLOURS[0], linewidth=1.2, linestyle=(0, (1, 1.6)))
    _name(left, *masking[-1], "masking alone", LABEL_COLOURS[0], above=False)
    figure.text(0.018, 0.965, "What a label pays for a larger choir", va="top", fontfamily="serif", fontweight="bold",
                fontsize=14, color=INK)  # fmt: skip
    figure.text(
        0.018, 0.895,
        "A masked round of a million parameters. Dots: whole rounds, played to the exact sum; lines: one node among "
        "its real neighbours.",
        va="top", fontsize=9.5, color=SOFT_INK,
    )  # fmt: skip
    with mpl.rc_context({"svg.hashsalt": "scale", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _panel(axes: Any, heading: str, ours: list[tuple[int, float]], complete: list[tuple[int, float]]) -> None:
    axes.set_title(heading, fontsize=10, color=INK, loc="left", fontweight="bold", pad=8)
    axes.set_xscale("log")
    axes.plot(*zip(*complete, strict=True), color=LABEL_COLOURS[1], linewidth=1.6, linestyle=(0, (4, 2)), zorder=1)
    axes.plot(*zip(*ours, strict=True), color=LABEL_COLOURS[0], linewidth=2.2, solid_capstyle="round")
    roof = 2.2 * max(value for _, value in ours)
    axes.set_ylim(0, roof)
    axes.set_xlim(ours[0][0] * 0.85, ours[-1][0] * 1.25)
    axes.annotate(
        f"everybody with everybody:\n{complete[-1][1]:.0f} at {complete[-1][0]:,}", (0.47, 0.93),
        xycoords="axes fraction", ha="right", va="top", fontsize=8.5, color=LABEL_COLOURS[1],
    )  # fmt: skip
    _name(axes, *ours[-1], f"k neighbours: {ours[-1][1]:.1f}", LABEL_COLOURS[0], above=True)
    axes.set_xlabel("members of the cohort", fontsize=8.5, color=SOFT_INK)
    axes.set_xticks([10, 100, 1000, 10000], ["10", "100", "1,000", "10,000"])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=SOFT_INK)


def _name(axes: Any, x: float, y: float, text: str, colour: str, *, above: bool) -> None:
    axes.annotate(
        text, (x, y), xytext=(0, 7 if above else -7), textcoords="offset points", ha="right",
        va="bottom" if above else "top", fontsize=8.5, color=colour,
    )  # fmt: skip


def _megabytes(sample: Sample) -> float:
    return (sum(sample.cost.sent.values()) + sum(sample.cost.received.values())) / 1e6


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
