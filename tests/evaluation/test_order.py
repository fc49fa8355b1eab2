"""On works by people: each measure orders them over noise, and what measures structure, over shuffled bars too.

Held-out works of music21's corpus, the dance tunes from ABC, which is read in milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pieces import scattered, shuffled

from partbook.evaluation import two_sample
from partbook.evaluation.comparison import MeasuredSet
from partbook.evaluation.measures import MEASURES, NAMES
from partbook.evaluation.reading import Reading, read
from partbook.simulation.collections import split

_WORKS = (("oneills1850", 20), ("ryansMammoth", 20), ("bach", 8))
_KINDS = ("human", "shuffled", "random")
_COMPARED = [index for index, name in enumerate(NAMES) if name not in two_sample.NOT_COMPARED]


def human_works() -> list[Reading]:
    """Forty dance tunes and eight chorales that nothing has learnt from."""
    works = [work for name, count in _WORKS for work in split(name)["heldout"][:count]]
    return [read(work.score(), work.title, work.key) for work in works]


def measured(works: list[Reading]) -> dict[str, MeasuredSet]:
    """The works, their bars shuffled, and their notes scattered."""
    random = np.random.Generator(np.random.Philox(14))
    return {
        "human": MeasuredSet.of("human", works),
        "shuffled": MeasuredSet.of("shuffled", [shuffled(work, random) for work in works]),
        "random": MeasuredSet.of("random", [scattered(work, random) for work in works]),
    }


@pytest.fixture(scope="module")
def sets() -> Mapping[str, MeasuredSet]:
    return measured(human_works())


def _lead(high: np.ndarray, low: np.ndarray) -> float:
    """How many standard errors one mean lies above another."""
    high, low = high[~np.isnan(high)], low[~np.isnan(low)]
    error = np.sqrt(high.var(ddof=1) / len(high) + low.var(ddof=1) / len(low))
    return float((high.mean() - low.mean()) / max(error, 1e-12))


_JUDGES = [each for each in MEASURES if each.sense]


@pytest.mark.parametrize("each", _JUDGES, ids=[each.name for each in _JUDGES])
def test_people_write_otherwise_than_dice(sets: Mapping[str, MeasuredSet], each) -> None:
    human, random = (each.sense * sets[kind].column(each.name) for kind in ("human", "random"))
    assert _lead(human, random) > 3.0


_STRUCTURAL = [each for each in MEASURES if each.structural]


@pytest.mark.parametrize("each", _STRUCTURAL, ids=[each.name for each in _STRUCTURAL])
def test_what_measures_structure_puts_shuffled_bars_between(sets: Mapping[str, MeasuredSet], each) -> None:
    human, bars, random = (each.sense * sets[kind].column(each.name) for kind in _KINDS)
    print(each.name, _lead(human, bars), _lead(bars, random))
    assert _lead(human, bars) > 1.0
    assert _lead(bars, random) > 1.0


def test_each_measure_is_there_for_most_works(sets: Mapping[str, MeasuredSet]) -> None:
    for name in NAMES:
        if name != "consonance":  # most dance tunes are one voice
            assert np.isnan(sets["human"].column(name)).mean() < 0.3, name


def features(sets: Mapping[str, MeasuredSet], kind: str) -> two_sample.TwoSample:
    human, other = sets["human"], sets[kind]
    works = [piece.work for piece in (*human.pieces, *other.pieces)]
    return two_sample.by_features(human.rows[:, _COMPARED], other.rows[:, _COMPARED], works)


@pytest.mark.parametrize("kind", ["shuffled", "random"])
def test_shuffled_bars_and_noise_are_told_from_works(sets, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "_TREES", 100)
    print(kind, features(sets, kind).auc, two_sample.by_tokens(sets["human"].openings, sets[kind].openings).auc)


def test_works_are_not_told_from_works(sets: Mapping[str, MeasuredSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "_TREES", 100)
    human = sets["human"]
    found = []
    for seed in range(3):
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(human))
        halves = [human.chosen(order[part::2].tolist()) for part in (0, 1)]
        works = [piece.work for half in halves for piece in half.pieces]
        found.append(two_sample.by_features(*(half.rows[:, _COMPARED] for half in halves), works, seed=seed).auc.value)
    print(found)


def test_another_process_with_another_hash_seed_finds_the_same_to_the_last_digit() -> None:
    outputs = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd()
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) > 20


def _all_digits() -> None:
    from partbook.evaluation.comparison import Reference
    from partbook.evaluation.styles import Styles

    two_sample._TREES = 20  # type: ignore[misc]
    works = [
        work for name, count in (("oneills1850", 12), ("ryansMammoth", 12)) for work in split(name)["heldout"][:count]
    ]
    readings = [read(work.score(), work.title, work.key) for work in works]
    sets = measured(readings)
    print(sets["human"].rows.tolist())
    for kind in ("shuffled", "random"):
        found = Reference(sets["human"], readings[:3]).compare(sets[kind], seed=5)
        for name, spread in found.measures.items():
            print(name, spread)
        print(found.features, found.tokens, found.precision, found.heldout_run, found.training_run, found.suspicion)
    styles = Styles(sets["human"].rows, [work.collection for work in works], [work.key for work in works])
    print(styles.human(), styles.heard_as(sets["random"].rows))


if __name__ == "__main__":
    _all_digits()
