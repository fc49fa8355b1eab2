"""What free pieces are asked for: kinds and lengths as works have them, and no note of these."""

from __future__ import annotations

import pytest
from hypothesis import given
from music_pieces import music

from partbook.corpus.library import Library
from partbook.music.quantised import Quantised
from partbook.music.vocabulary import BARS_LEFT, KINDS, POSITIONS_PER_BEAT, SYMBOLS
from partbook.study.plans import header, openings


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library.open(cache=tmp_path_factory.mktemp("cache"))


def test_pieces_are_asked_for_like_works_of_the_collections_that_they_are_held_against(library: Library) -> None:
    found = openings(library, ["oneills1850", "oneills1850", "bach"], 6, seed=1)
    again = openings(library, ["oneills1850", "oneills1850", "bach"], 6, seed=1)
    assert [one.tolist() for one in found] == [one.tolist() for one in again]
    assert len({tuple(one.tolist()) for one in found}) > 3
    for one in found:
        kinds = [KINDS[symbol] for symbol in one.tolist()]
        assert kinds == ["Hand", "Genre", "Key", "Metre", "Tempo", "Density", "Polyphony", "Bars", "Program"]


def test_of_a_collection_without_a_base_pool_the_hand_alone_is_asked_for(library: Library) -> None:
    assert [[KINDS[s] for s in one.tolist()] for one in openings(library, ["trecento", "mine"], 3, seed=1)] == [
        ["Hand"]
    ] * 3


@given(q=music())
def test_a_header_asks_for_no_more_bars_than_the_work_has_and_64_quarters_hold(q: Quantised) -> None:
    (bars,) = [int(SYMBOLS[s].partition("_")[2]) for s in header(q, None) if KINDS[s] == "Bars"]
    assert bars in BARS_LEFT
    assert bars <= len(q)
    assert bars == 1 or q.bars[bars] <= 64 * POSITIONS_PER_BEAT
