"""On works by people: each measure orders them over noise, and what measures structure, over shuffled bars too.

Held-out works of music21's corpus, the dance tunes from ABC, which is read in milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pieces import scattered, shuffled

from partbook.evaluation import comparison, styles, two_sample
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
    """Of works and what was made of them: the mean difference in standard errors, where both have a value."""
    difference = (high - low)[~np.isnan(high - low)]
    assert len(difference) >= 5
    return float(difference.mean() / max(difference.std(ddof=1) / np.sqrt(len(difference)), 1e-12))


_JUDGES = [each for each in MEASURES if each.sense]


@pytest.mark.parametrize("each", _JUDGES, ids=[each.name for each in _JUDGES])
def test_people_write_otherwise_than_dice(sets: Mapping[str, MeasuredSet], each) -> None:
    human, random = (each.sense * sets[kind].column(each.name) for kind in ("human", "random"))
    assert _lead(human, random) > 2.0


_STRUCTURAL = [each for each in MEASURES if each.structural]


@pytest.mark.parametrize("each", _STRUCTURAL, ids=[each.name for each in _STRUCTURAL])
def test_what_measures_structure_puts_shuffled_bars_between(sets: Mapping[str, MeasuredSet], each) -> None:
    human, bars, random = (each.sense * sets[kind].column(each.name) for kind in _KINDS)
    assert _lead(human, bars) > 2.0
    assert _lead(bars, random) > 2.0


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
    monkeypatch.setattr(two_sample, "_TREES", 50)
    found = (features(sets, kind).auc, two_sample.by_tokens(sets["human"].openings, sets[kind].openings).auc)
    assert found[0].value >= 0.95
    assert found[1].value >= 0.8


def test_works_are_not_told_from_works(sets: Mapping[str, MeasuredSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "_TREES", 50)
    human = sets["human"]
    found = []
    for seed in range(3):
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(human))
        halves = [human.chosen(order[part::2].tolist()) for part in (0, 1)]
        works = [piece.work for half in halves for piece in half.pieces]
        found.append(two_sample.by_features(*(half.rows[:, _COMPARED] for half in halves), works, seed=seed).auc.value)
    assert 0.35 < np.mean(found) < 0.65  # single splits of 24 against 24 lie between .3 and .75


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_another_process_with_another_hash_seed_finds_the_same_to_the_last_digit() -> None:
    path = os.pathsep.join(sys.path)
    started = [
        subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) > len(NAMES)


def _all_digits() -> None:
    two_sample._TREES = styles._TREES = 10  # type: ignore[misc]
    comparison.bootstrap = partial(comparison.bootstrap, resamples=20)  # type: ignore[attr-defined]
    works = [work for name in ("oneills1850", "ryansMammoth") for work in split(name)["heldout"][:6]]
    readings = [read(work.score(), work.title, work.key) for work in works]
    human = MeasuredSet.of("human", readings)
    random = np.random.Generator(np.random.Philox(14))
    noise = MeasuredSet.of("random", [scattered(work, random) for work in readings])
    print(human.rows.tolist(), noise.rows.tolist())
    found = comparison.Reference(human, readings[:3]).compare(noise, seed=5)
    for name, spread in found.measures.items():
        print(name, spread)
    print(replace(found, measures={}))
    heard = styles.Styles(human.rows, [work.collection for work in works], [work.key for work in works])
    print(heard.human, heard.heard_as(noise.rows))


if __name__ == "__main__":
    _all_digits()
