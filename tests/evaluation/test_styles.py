from __future__ import annotations

import math

import numpy as np
import pytest

from partbook.errors import InputError
from partbook.evaluation import styles as module
from partbook.evaluation.styles import Styles

STYLES = ["reel"] * 12 + ["chorale"] * 12 + ["madrigal"] * 6
WORKS = [f"work {index}" for index in range(30)]


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TREES", 30)


def _rows(apart: float, seed: int = 1) -> np.ndarray:
    rows = np.random.Generator(np.random.Philox(seed)).normal(size=(30, 3))
    rows[12:24, 0] += apart
    rows[24:, 1] += apart
    rows[::7, 2] = np.nan
    return rows


def test_styles_that_differ_are_heard() -> None:
    styles = Styles(_rows(8.0), STYLES, WORKS)
    assert styles.names == ("chorale", "madrigal", "reel")
    assert styles.human.value >= 0.95
    asked = [(0.0, 0.0, 0.0), (8.0, 0.0, 0.0), (0.0, 8.0, 0.0)]
    assert styles.heard_as(np.array(asked)) == ["reel", "chorale", "madrigal"]
    right = styles.right(np.array(asked), ["reel", "chorale", "reel"])
    assert right.value == pytest.approx(2 / 3)
    assert 0 <= right.low < right.value < right.high <= 1


def test_styles_that_do_not_differ_are_heard_by_chance() -> None:
    assert Styles(_rows(0.0), STYLES, WORKS).human.value < 0.6


def test_a_work_is_not_judged_by_one_that_has_heard_it() -> None:
    """Every work is there three times, and style by work is drawn: copies would tell."""
    rows = np.repeat(np.random.Generator(np.random.Philox(4)).normal(size=(20, 3)), 3, axis=0)
    styles = np.repeat(["a", "b"] * 10, 3).tolist()
    works = np.repeat(np.arange(20), 3).astype(str).tolist()
    assert Styles(rows, styles, works).human.value < 0.75
    assert Styles(rows, styles, np.arange(60).astype(str).tolist()).human.value > 0.9


def test_one_seed_hears_the_same_twice() -> None:
    drawn = np.random.Generator(np.random.Philox(8)).normal(2, 3, size=(40, 3))
    first, second = (Styles(_rows(2.0), STYLES, WORKS, seed=5) for _ in range(2))
    assert first.heard_as(drawn) == second.heard_as(drawn)
    assert first.human == second.human


def test_no_pieces_are_heard_in_no_style() -> None:
    styles = Styles(_rows(8.0), STYLES, WORKS)
    assert styles.heard_as(np.zeros((0, 3))) == []
    assert math.isnan(styles.right(np.zeros((0, 3)), []).value)


def test_one_style_or_few_works_are_refused() -> None:
    with pytest.raises(InputError, match=r"two styles or more with 5 works each; there are reel \(12\)"):
        Styles(_rows(1.0)[:12], STYLES[:12], WORKS[:12])
    with pytest.raises(InputError, match=r"madrigal \(2\)"):
        Styles(_rows(1.0), STYLES, [*WORKS[:24], *["x", "y"] * 3])
    with pytest.raises(InputError, match="there are none"):
        Styles(np.zeros((0, 3)), [], [])
