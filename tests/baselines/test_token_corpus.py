from pathlib import Path

import numpy as np
import pytest
from tunes import tune

from partbook.baselines.token_corpus import TokenCorpus, TokenWindows, keys_of
from partbook.errors import AlteredFile
from partbook.music.tokens import Tokenizer
from partbook.simulation.base import PublicScore


@pytest.fixture(scope="module")
def corpus(tiny_base: Path) -> TokenCorpus:
    scores = [PublicScore("a", tune(0)), PublicScore("b", tune(1)), PublicScore("b", tune(2))]
    return TokenCorpus.write(scores, tiny_base / "tokenizer.json", 3)


def test_small_collections_are_written_in_every_key_and_the_largest_in_fewer() -> None:
    assert keys_of({"a": 1000, "b": 10}, 10**6) == {"a": 12, "b": 12}
    assert keys_of({"a": 1000, "b": 10}, 10_300) == {"a": 4, "b": 12}
    assert keys_of({"a": 1000, "b": 999}, 1) == {"a": 1, "b": 1}


def test_a_work_is_written_once_in_each_key(corpus: TokenCorpus, tiny_tokenizer: Tokenizer) -> None:
    assert len(corpus) == 36
    assert corpus.collections == ("a", "b")
    assert corpus.collection.tolist() == [0] * 12 + [1] * 24
    first = [min(n.pitch for t in tiny_tokenizer.decode(corpus.piece(i)).tracks for n in t.notes) for i in range(12)]
    assert sorted(first) == list(range(min(first), min(first) + 12))


def test_a_seed_says_what_is_written(corpus: TokenCorpus, tiny_base: Path, tmp_path: Path) -> None:
    scores = [PublicScore("a", tune(0)), PublicScore("b", tune(1)), PublicScore("b", tune(2))]
    again = TokenCorpus.write(scores, tiny_base / "tokenizer.json", 3)
    assert again.sha256 == corpus.sha256
    assert TokenCorpus.write(scores, tiny_base / "tokenizer.json", 4).sha256 != corpus.sha256
    corpus.save(tmp_path / "corpus.npz")
    assert TokenCorpus.load(tmp_path / "corpus.npz").sha256 == corpus.sha256
    (tmp_path / "corpus.npz").write_bytes(b"no")
    with pytest.raises(AlteredFile, match="delete it"):
        TokenCorpus.load(tmp_path / "corpus.npz")


def test_windows_begin_on_bars_and_a_batch_is_its_numbers(corpus: TokenCorpus, tiny_tokenizer: Tokenizer) -> None:
    windows = TokenWindows(corpus, tiny_tokenizer, 48, 4, seed=2)
    batches = [windows.batch(number).ids for number in range(6)]
    for ids in batches:
        assert ids.shape == (4, 49)
        assert (ids[:, 0] == tiny_tokenizer.bos).all()
        assert all(len(tiny_tokenizer.bar_starts(row[1:2].astype(np.int16))) for row in ids)
    assert np.array_equal(TokenWindows(corpus, tiny_tokenizer, 48, 4, seed=2).batch(5).ids, batches[5])
    assert not np.array_equal(batches[4], batches[5])


def test_collections_are_drawn_by_the_root_of_their_size(corpus: TokenCorpus, tiny_tokenizer: Tokenizer) -> None:
    windows = TokenWindows(corpus, tiny_tokenizer, 48, 1, seed=2)
    of_b = {row.tobytes() for piece in range(12, 36) for row in [corpus.piece(piece)[:3]]}
    drawn = [windows.batch(number).ids[0, 1:4].astype(np.int16).tobytes() for number in range(400)]
    begins = sum(d in of_b for d in drawn) / sum(
        d in of_b or d in {corpus.piece(p)[:3].tobytes() for p in range(12)} for d in drawn
    )
    assert begins == pytest.approx(2**0.5 / (1 + 2**0.5), abs=0.15)
