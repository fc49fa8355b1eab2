from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.baselines.kneser_ney import KneserNey
from partbook.errors import AlteredFile, ConfigError

PAD, BOS, EOS = 0, 1, 2


def trained(pieces: list[list[int]], vocabulary: int = 7, order: int = 3) -> KneserNey:
    arrays = [np.array(piece, dtype=np.int16) for piece in pieces]
    return KneserNey.train(arrays, vocabulary=vocabulary, bos=BOS, eos=EOS, never={PAD}, order=order)


def by_hand(pieces: list[list[int]], past: list[int], token: int, vocabulary: int, order: int) -> float:
    """The recursion as the paper writes it, with dictionaries."""
    padded = [[BOS] * (order - 1) + piece + [EOS] for piece in pieces]
    counts: dict[int, Counter[tuple[int, ...]]] = {
        order: Counter(tuple(p[i - order + 1 : i + 1]) for p in padded for i in range(order - 1, len(p)))
    }
    for n in range(order - 1, 0, -1):
        counts[n] = Counter(gram[1:] for gram in counts[n + 1])

    def discounts(n: int) -> list[float]:
        n1, n2, n3, n4 = (sum(c == i for c in counts[n].values()) for i in (1, 2, 3, 4))
        if not (n1 and n2 and n3):
            return [0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return found if all(0 < d <= i for i, d in enumerate(found, 1)) else [0.5, 1.0, 1.5]

    def probability(history: tuple[int, ...]) -> float:
        n = len(history) + 1
        lower = probability(history[1:]) if history else (0.0 if token in (PAD, BOS) else 1 / (vocabulary - 2))
        following = [c for gram, c in counts[n].items() if gram[:-1] == history]
        if not following:
            return lower
        d = discounts(n)
        own = counts[n][(*history, token)]
        taken = own - d[min(own, 3) - 1] if own else 0.0
        return (taken + sum(d[min(c, 3) - 1] for c in following) * lower) / sum(following)

    return probability(tuple(([BOS] * (order - 1) + past)[-(order - 1) :] if order > 1 else ()))


PIECES = [[3, 4, 5, 3, 4, 6, 3, 4, 5], [3, 4, 5, 5, 4, 3], [6, 6, 3, 4, 5, 3], [4, 3, 4, 5, 6], [3, 5, 3, 4]]


def test_a_unigram_model_is_the_hand_computed_one() -> None:
    # Counts 3 once and 4 twice, each piece's end once; too few for discounts, so 0.5, 1 and 1.5.
    model = trained([[3, 4, 4]], order=1)
    # c(3) = c(EOS) = 1, c(4) = 2, in all 4; freed: 0.5 + 0.5 + 1 = 2, over five tokens that can be written.
    expected = np.array([0, 0, 0.5, 0.5, 1, 0, 0]) / 4 + np.array([0, 0, 1, 1, 1, 1, 1]) * (2 / 4) / 5
    np.testing.assert_allclose(model.distribution([]), expected, atol=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_are_the_papers_recursion(order: int) -> None:
    model = trained(PIECES, order=order)
    for past in ([], [3], [3, 4], [3, 4, 5], [6, 5, 4, 3], [3, 3, 3]):
        expected = [by_hand(PIECES, past, token, 7, order) for token in range(7)]
        np.testing.assert_allclose(model.distribution(past), expected, atol=1e-14)


def test_discounts_come_from_counts_of_counts() -> None:
    model = trained([[3] * 1, [4] * 2, [5] * 2, [6] * 3, [7] * 4, [8], [9]], vocabulary=10, order=1)
    # Counts: 3, 8, 9 once; 4, 5 twice; 6 three times; 7 four times; ends seven times.
    y = 3 / (3 + 2 * 2)
    expected = (1 - 2 * y * 2 / 3, 2 - 3 * y * 1 / 2, 3 - 4 * y * 1 / 1)
    np.testing.assert_allclose(model.discounts[0], expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(3, 8), max_size=12), min_size=1, max_size=6),
    st.lists(st.integers(3, 8), max_size=6),
    st.integers(1, 5),
)
def test_probabilities_sum_to_one_after_any_past(pieces, past, order) -> None:
    model = trained(pieces, vocabulary=9, order=order)
    distribution = model.distribution(past)
    assert distribution.sum() == pytest.approx(1.0, abs=1e-12)
    assert distribution[PAD] == distribution[BOS] == 0.0
    assert (distribution[2:] > 0).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(3, 6), max_size=15), st.integers(1, 5))
def test_scoring_a_piece_is_looking_each_token_up(piece, order) -> None:
    model = trained(PIECES, order=order)
    found = model.nats(np.array(piece, dtype=np.int16), EOS)
    expected = [-np.log(model.distribution(piece[:i])[token]) for i, token in enumerate([*piece, EOS])]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_saved_model_says_the_same(tmp_path: Path) -> None:
    model = trained(PIECES, order=4)
    model.save(tmp_path / "model.npz")
    again = KneserNey.load(tmp_path / "model.npz")
    piece = np.array([3, 4, 6, 5], dtype=np.int16)
    assert np.array_equal(again.nats(piece, EOS), model.nats(piece, EOS))
    assert again.sizes == model.sizes
    (tmp_path / "model.npz").write_bytes(b"nothing")
    with pytest.raises(AlteredFile, match="train it again"):
        KneserNey.load(tmp_path / "model.npz")


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        trained([])
    with pytest.raises(ConfigError, match="63 bits"):
        trained(PIECES, vocabulary=10_000, order=5)
