from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import RISE, in_bars, line, piece
from sklearn.metrics import roc_auc_score

from partbook.errors import InputError
from partbook.evaluation import two_sample
from partbook.evaluation.two_sample import area, by_features, by_tokens, like_lengths, words


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "_TREES", 30)


_FEW = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=15).map(np.array)


@given(_FEW, _FEW)
@settings(max_examples=60)
def test_the_area_is_that_under_the_roc_curve(low: np.ndarray, high: np.ndarray) -> None:
    truth = np.r_[np.zeros(len(low)), np.ones(len(high))]
    assert area(low, high) == pytest.approx(roc_auc_score(truth, np.r_[low, high]))
    assert area(low, high) + area(high, low) == pytest.approx(1.0)


def test_the_area_on_paper() -> None:
    # Of four pairs two are won, one is tied and one is lost.
    assert area(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert area(np.zeros(3), np.ones(2)) == 1.0
    assert area(np.ones(3), np.ones(9)) == 0.5


def _draw(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(shift, size=(count, 4))


def _names(count: int) -> list[str]:
    return [f"work {index}" for index in range(count)]


def test_sets_that_differ_in_one_number_are_told_apart_and_suspected() -> None:
    second = _draw(2, 30)
    second[:, 2] += 5
    found = by_features(_draw(1, 40), second, _names(70))
    assert found.auc.value > 0.97
    assert found.auc.low <= found.auc.value <= found.auc.high
    assert found.pieces == (40, 30)
    assert found.suspicion.shape == (30,)
    assert np.median(found.suspicion) > 0.65


def test_sets_of_one_distribution_are_not_told_apart() -> None:
    found = [by_features(_draw(2 * s, 40), _draw(2 * s + 1, 40), _names(80), seed=s).auc.value for s in range(2)]
    assert 0.38 < np.mean(found) < 0.6


def test_a_gap_may_be_what_tells() -> None:
    first, second = _draw(1, 25), _draw(2, 25)
    second[:, 1] = np.nan
    first[:3, 0] = np.nan
    assert by_features(first, second, _names(50)).auc.value > 0.97


def test_a_number_that_nothing_has_does_no_harm() -> None:
    first, second = _draw(1, 20), _draw(2, 20, 3.0)
    first[:, 1] = second[:, 1] = np.nan
    assert by_features(first, second, _names(40)).auc.value > 0.97


def test_pieces_of_one_work_are_never_on_both_sides() -> None:
    """Twelve works a side, each there four times: who has seen one copy knows the others."""
    copies = np.repeat(_draw(6, 24), 4, axis=0)
    names = [f"work {i}" for i in np.repeat(np.arange(24), 4)]
    told = by_features(copies[:48], copies[48:], names).auc.value
    leaked = by_features(copies[:48], copies[48:], _names(96)).auc.value
    assert told < 0.75
    assert leaked > 0.95


def test_pieces_without_a_name_are_works_of_their_own() -> None:
    found = by_features(_draw(1, 12), _draw(2, 12, 4.0), [""] * 24)
    assert found.auc.value > 0.97


def test_too_few_pieces_or_works_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"10 pieces a side; there are 9 and 12. Give more"):
        by_features(_draw(1, 9), _draw(2, 12), _names(21))
    with pytest.raises(InputError, match=r"5 works a side.*a side has 1"):
        by_features(_draw(1, 12), _draw(2, 12), [*_names(12), *["one"] * 12])


def test_one_seed_gives_one_result_to_the_last_digit() -> None:
    a, b = (by_features(_draw(1, 15), _draw(2, 15, 0.7), _names(30), seed=9) for _ in range(2))
    assert a.auc == b.auc
    assert a.suspicion.tolist() == b.suspicion.tolist()


def test_tokens_tell_bars_in_their_order_from_others() -> None:
    random = np.random.Generator(np.random.Philox(3))
    rising = [line(np.cumsum(random.integers(1, 3, 24)) + 50, work=f"up {i}") for i in range(15)]
    falling = [line(90 - np.cumsum(random.integers(1, 3, 24)), work=f"down {i}") for i in range(15)]
    assert by_tokens(rising, falling).auc.value > 0.97
    with pytest.raises(InputError, match="10 pieces"):
        by_tokens(rising[:9], falling)


def test_words_are_bars_places_steps_and_pitches_over_the_tonic() -> None:
    # C major: E (4), then G with C below (7 and 0), then, in the next bar, C, held longer than a bar.
    read = piece((0, 1, 64), (1, 1, 60), (1, 1, 67), (4, 9, 60))
    assert words(read) == ["|", "@0", "4:12", "@12", "^3", "0:12", "7:12", "|", "@0", "^-7", "0:48"]


@pytest.mark.parametrize("shift", [-5, 4, 12])
def test_words_are_the_same_in_every_key(shift: int) -> None:
    assert words(line([p + shift for p in RISE])) == words(line(RISE))


def test_pieces_are_cut_to_lengths_of_examples_drawn_from_all() -> None:
    long = in_bars("A" * 16, A=RISE)
    examples = [in_bars("A" * bars, A=RISE) for bars in (2, 3, 5, 7, 9)]
    cut = like_lengths([long] * 10, examples, seed=1)
    assert sorted(len(piece.bars) - 1 for piece in cut) == [2, 2, 3, 3, 5, 5, 7, 7, 9, 9]
    few = [len(like_lengths([long], examples, seed)[0].bars) - 1 for seed in range(40)]
    assert set(few) == {2, 3, 5, 7, 9}
    assert like_lengths([examples[0]], [long], 1) == [examples[0]]
