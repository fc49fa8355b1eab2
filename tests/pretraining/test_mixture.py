"""Training windows: the same for a number, whole, and of both hands."""

from __future__ import annotations

import numpy as np
import pytest

from partbook.music.tokens import Header, Tokenizer
from partbook.pretraining.making import Corpus
from partbook.pretraining.merges import learnt
from partbook.pretraining.mixture import Drawer, Mixture, SoundingWindows


@pytest.fixture
def tokenizer(corpus: Corpus) -> Tokenizer:
    return learnt(corpus.pieces, 620, written=40, heard=10)


def mixture(corpus: Corpus, tokenizer: Tokenizer, **asked: float) -> Mixture:
    return Mixture(corpus.pieces, tokenizer, context=128, tokens=2000, seed=1, **asked)  # type: ignore[arg-type]


def test_a_batch_is_a_function_of_its_number(corpus: Corpus, tokenizer: Tokenizer) -> None:
    one, other = (mixture(corpus, tokenizer) for _ in range(2))
    for number in (3, 0):
        for mine, its in zip(one.batch(number), other.batch(number), strict=True):
            assert np.array_equal(mine.ids, its.ids)
            assert np.array_equal(mine.memory, its.memory)
    assert not np.array_equal(one.batch(0)[0].ids, one.batch(1)[0].ids)


def test_windows_fit_the_context_begin_with_a_header_and_fill_the_batch(corpus: Corpus, tokenizer: Tokenizer) -> None:
    filled = 0
    for windows in mixture(corpus, tokenizer).batch(0):
        assert windows.ids.shape[1] <= 129
        assert set(windows.ids[:, 0].tolist()) <= {tokenizer.bos, tokenizer.cut}
        assert all(tokenizer.names([row[1]])[0].startswith("Hand_") for row in windows.ids)
        filled += int((windows.ids[:, 1:] != tokenizer.pad).sum())
    assert 2000 <= filled < 2000 + 128


def test_heard_windows_that_follow_on_from_sound_say_what_sounds_in_it(corpus: Corpus, tokenizer: Tokenizer) -> None:
    windows = [w for n in range(3) for w in mixture(corpus, tokenizer, heard=1.0).batch(n)]
    sounding = [w for w in windows if w.has_memory.any()]
    assert sounding
    for one in windows:
        assert isinstance(one, SoundingWindows)
        assert not one.classes[~one.has_memory].any()
        assert (one.memory[~one.has_memory] == -1.0).all()
        assert all(tokenizer.names([row[1]]) == ["Hand_heard"] for row in one.ids)
    assert any(one.classes[one.has_memory].any() for one in sounding if isinstance(one, SoundingWindows))


def test_a_window_that_holds_a_whole_piece_ends_it(corpus: Corpus, tokenizer: Tokenizer) -> None:
    whole = Mixture(corpus.pieces, tokenizer, context=1024, tokens=4000, seed=1, heard=0.0)
    ends = sum(int((w.ids == tokenizer.eos).any(1).sum()) for w in whole.batch(0))
    assert ends
    longest = max(len(tokenizer.write(p.music, Header())) for p in corpus.written.pieces)
    assert longest < 1024


def test_large_collections_do_not_drown_small_ones(corpus: Corpus) -> None:
    pieces = [*corpus.written.pieces[:1], *corpus.written.pieces[5:] * 8]
    drawer, random = Drawer(pieces), np.random.default_rng(1)
    drawn = [drawer.draw(random).collection for _ in range(2000)]
    notes = {name: sum(len(p.music.onset) for p in pieces if p.collection == name) for name in ("bach", "walks")}
    share = notes["bach"] ** 0.5 / (notes["bach"] ** 0.5 + notes["walks"] ** 0.5)
    assert drawn.count("bach") / 2000 == pytest.approx(share, abs=0.03)
