"""The tokeniser that a base is trained in."""

from __future__ import annotations

import numpy as np

from partbook.music.tokens import Header
from partbook.music.vocabulary import SYMBOLS
from partbook.pretraining.making import Corpus
from partbook.pretraining.merges import excerpts, learnt
from partbook.pretraining.mixture import Piece


def test_the_same_pieces_give_the_same_tokens(corpus: Corpus) -> None:
    one, other = (learnt(corpus.pieces, 620, written=60, heard=20) for _ in range(2))
    assert len(one) == 620 > len(SYMBOLS)
    assert [one.expand([i]) for i in range(620)] == [other.expand([i]) for i in range(620)]


def test_merges_make_music_shorter(corpus: Corpus) -> None:
    few, many = (learnt(corpus.pieces, size, written=60, heard=20) for size in (len(SYMBOLS), 700))
    music = corpus.held_written.pieces[0].music
    short, long = (len(tokens.write(music, Header())) for tokens in (many, few))
    assert short < 0.9 * long
    assert many.expand(many.write(music, Header()).tolist()) == few.write(music, Header()).tolist()


def test_excerpts_are_of_both_hands_and_in_many_keys(corpus: Corpus) -> None:
    found = excerpts(corpus.pieces, written=30, heard=10)
    assert len(found) == 40
    hands = [SYMBOLS[symbols[0]] for symbols in found]
    assert (hands.count("Hand_score"), hands.count("Hand_heard")) == (30, 10)
    lowest = {min(int(SYMBOLS[s][6:]) for s in symbols if SYMBOLS[s].startswith("Pitch_")) for symbols in found}
    assert len(lowest) > 6


def test_one_hand_alone_will_do(corpus: Corpus) -> None:
    scores: list[Piece] = list(corpus.written.pieces)
    assert len(excerpts(scores, written=5, heard=5)) == 5
    assert np.array_equal(excerpts(scores, written=1)[0], excerpts(scores, written=2)[0])
