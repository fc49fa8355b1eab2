"""Is it music? The base, a release at ε = 8 and without noise, all baselines, human works and noise, in one table.

What is missing is made first: the baselines (an hour of two cores), and two runs of the demo (three minutes each).
Prints what the figures of `docs/figures/yardstick.md` must show and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.claims import Claim, report
from partbook.evaluation.comparison import Comparison
from partbook.evaluation.measures import MEASURES, NAMES, Measure
from partbook.evaluation.results import Evaluation, Subject

BASELINES: Final = ("kneser-ney", "lstm", "vae")
DATA: Final = Path("../shared/data")
TOLD: Final = 0.95  # AUC from which noise counts as named
LIKE: Final = 0.05  # how far from 0.5 the AUC of human works and others may lie
INSIDE: Final = 0.75  # share of human works that lie in the band of eight in ten of others, on the mean


@dataclass(frozen=True, slots=True)
class Paths:
    """Where what is evaluated lies."""

    baselines: Path
    release: Path
    noiseless: Path


def main() -> int:
    """Make what is missing, evaluate, write the figures, and say whether they show what they must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baselines", type=Path, default=Path("build/baselines"), help="trained where missing")
    parser.add_argument(
        "--release", type=Path, default=Path("build/yardstick/noised"), help="the demo's, run if missing"
    )
    parser.add_argument("--noiseless", type=Path, default=Path("build/yardstick/noiseless"), help="likewise")
    parser.add_argument("--out", type=Path, help="folder of the page; build/yardstick/<date> by default")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="where the tables go")
    parser.add_argument("--pieces", type=int, default=64, help="that each model writes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    paths = Paths(given.baselines, given.release, given.noiseless)
    _make(paths)
    out = given.out or Path("build/yardstick") / time.strftime("%Y-%m-%d-%H%M%S")
    evaluation = _evaluate(paths, out, given.pieces, given.seed)
    _write(evaluation, given.figures)
    return 0 if report("yardstick", _claims(evaluation)) else 1


def _make(paths: Paths) -> None:
    for kind in BASELINES:
        folder = paths.baselines / kind
        if not (folder / "manifest.json").exists():
            _partbook("baseline", "train", kind, "--out", str(folder))
    for folder, noise in ((paths.release, "distributed"), (paths.noiseless, "none")):
        if not (folder / "release").exists():
            _partbook("demo", "--out", str(folder), "--noise", noise)


def _partbook(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "partbook.cli", *arguments], check=True)


def _evaluate(paths: Paths, out: Path, pieces: int, seed: int) -> Evaluation:
    from rich.console import Console

    from partbook.evaluation.page import write_page
    from partbook.simulation.watching import RichWatcher
    from partbook.study.study import Options, Study
    from partbook.study.subjects import BASE_MODEL, SCALE
    from partbook.threads import one_thread

    one_thread()
    names = (
        BASE_MODEL,
        str(paths.release / "release"),
        str(paths.noiseless / "release"),
        *(str(paths.baselines / kind) for kind in BASELINES),
        *SCALE,
    )
    options = Options(names, out, pieces=pieces, seed=seed, heard=True, command="make bench-yardstick")
    with RichWatcher(Console(stderr=True)) as watcher:
        found = Study(options, watcher).run()
    # Both releases are called what the demo calls its federation.
    titles = {str(paths.release / "release"): "Release, ε = 8", str(paths.noiseless / "release"): "Release, no noise"}
    subjects = tuple(replace(one, title=titles.get(one.name, one.title)) for one in found.subjects)
    evaluation = replace(found, subjects=subjects)
    print(write_page(evaluation, out))
    return evaluation


def _write(evaluation: Evaluation, folder: Path) -> None:
    from partbook.evaluation.table import as_markdown

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "yardstick.md").write_text(as_markdown(evaluation), encoding="utf-8")


def _claims(evaluation: Evaluation) -> list[Claim]:
    by_name = {subject.name: subject for subject in evaluation.subjects}
    human, shuffled, random = by_name["human"], by_name["shuffled"], by_name["random"]
    claims = []
    for subject in (shuffled, random):
        found = _compared(subject)
        auc = max(found.features.value, found.tokens.value)
        what = f"two-sample AUC, {subject.title.lower()} and human works"
        claims.append(Claim(what, "AUC", auc, 1.0, "always told", TOLD))
    found = _compared(human)
    for what, auc in (("measures", found.features.value), ("tokens", found.tokens.value)):
        name = f"two-sample AUC by {what}, human works and others: distance from 0.5"
        claims.append(Claim(name, "AUC", abs(auc - 0.5), LIKE, "0.45 to 0.55", 1.0, at_least=False))
    inside = [found.measures[name].inside.value for name in NAMES]
    name = "human works inside the 10–90 % band of others, mean over measures"
    claims.append(Claim(name, "share", sum(inside) / len(inside), 0.8, "by definition of the band", INSIDE / 0.8))
    judged = [measure for measure in MEASURES if measure.sense]
    ordered = sum(_ordered(human, shuffled, random, measure) for measure in judged)
    name = "measures that order human works, shuffled bars and random notes as they claim"
    claims.append(Claim(name, "measures", ordered, len(judged), "all that claim to", 1.0))
    return claims


def _ordered(human: Subject, shuffled: Subject, random: Subject, measure: Measure) -> bool:
    means = [measure.sense * _mean(subject.values[measure.name]) for subject in (human, shuffled, random)]
    return means[0] > means[1] > means[2] if measure.structural else means[0] > means[2]


def _mean(values: tuple[float, ...]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined)


def _compared(subject: Subject) -> Comparison:
    assert subject.comparison is not None, "human works and noise are pieces, and pieces are compared"
    return subject.comparison


if __name__ == "__main__":
    sys.exit(main())
