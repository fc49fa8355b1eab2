import numpy as np
import pytest
from tunes import tune

from partbook.baselines.token_corpus import in_keys, keys_of
from partbook.errors import ConfigError
from partbook.music.quantised import quantised
from partbook.music.tokens import Tokenizer
from partbook.pretraining.mixture import Piece

PIECES = [
    Piece("a", quantised(tune(0))),
    Piece("b", quantised(tune(1))),
    Piece("b", quantised(tune(2))),
    Piece("b", quantised(tune(1)), "heard", bar_seconds=np.zeros(4, np.float32), mel=np.zeros((9, 128), np.float16)),
]


def lowest(ids: np.ndarray, tokenizer: Tokenizer) -> int:
    return min(n.pitch for track in tokenizer.decode(ids).tracks for n in track.notes)


def test_small_collections_are_written_in_every_key_and_the_largest_in_fewer() -> None:
    assert keys_of({"a": 1000, "b": 10}, 10**6) == {"a": 12, "b": 12}
    assert keys_of({"a": 1000, "b": 10}, 6_200) == {"a": 4, "b": 12}
    assert keys_of({"a": 1000, "b": 999}, 1) == {"a": 1, "b": 1}


def test_a_piece_is_written_once_in_each_key_by_its_hand(tiny_tokenizer: Tokenizer) -> None:
    told: list[str] = []
    found = in_keys(PIECES, tiny_tokenizer, 3, on_piece=told.append)
    assert told == ["a", "b", "b", "b"]
    assert len(found) == 48
    for first in range(0, 48, 12):
        pitches = [lowest(ids, tiny_tokenizer) for ids in found[first : first + 12]]
        assert pitches == list(range(pitches[0], pitches[0] + 12))
    assert {tiny_tokenizer.names([int(ids[0])])[0] for ids in found[:36]} == {"Hand_score"}
    assert {tiny_tokenizer.names([int(ids[0])])[0] for ids in found[36:]} == {"Hand_heard"}


def test_where_not_all_fit_a_seed_says_which_keys_and_heard_music_keeps_all(tiny_tokenizer: Tokenizer) -> None:
    few = in_keys(PIECES, tiny_tokenizer, 3, most_tokens=1)
    assert len(few) == 3 + 12
    again = in_keys(PIECES, tiny_tokenizer, 3, most_tokens=1)
    assert all(np.array_equal(a, b) for a, b in zip(few, again, strict=True))
    others = [in_keys(PIECES, tiny_tokenizer, seed, most_tokens=1) for seed in range(4, 8)]
    assert any(not np.array_equal(few[0], other[0]) for other in others)


def test_nothing_is_refused(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="choose other collections"):
        in_keys([], tiny_tokenizer, 1)
