from __future__ import annotations

import numpy as np
import pytest

from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.training.examples import STYLES, Examples


def test_a_pass_takes_half_of_each_recordings_overlapping_windows_none_twice(
    tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    examples = Examples(recordings, tiny_tokenizer, 32)
    batches = list(examples.once(4, np.random.default_rng(0)))
    drawn = np.concatenate(batches)
    assert len(drawn) == len(set(drawn)) == examples.pass_size
    assert sorted(len(batch) for batch in batches)[-1] == 4
    assert sum(len(batch) < 4 for batch in batches) <= 1
    for rows in examples._rows:
        assert np.isin(drawn, rows).sum() == -(-len(rows) // 2)
    tokens = sum(len(recording.ids) + 1 for recording in recordings)
    random = np.random.default_rng(0)
    met = [sum(examples.tokens(batch).sum() for batch in examples.once(4, random)) for _ in range(20)]
    assert 0.6 * tokens < np.mean(met) < 1.3 * tokens, "about every token once"


def test_passes_differ_unless_their_randomness_is_the_same(
    tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    examples, random = Examples(recordings, tiny_tokenizer, 32), np.random.default_rng(0)
    first, second = (np.concatenate(list(examples.once(4, random))) for _ in range(2))
    again = np.concatenate(list(examples.once(4, np.random.default_rng(0))))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert set(first) != set(second)


def test_a_style_is_one_of_sixteen_or_none(tiny_tokenizer: Tokenizer, recordings: list[Recording]) -> None:
    assert Examples(recordings, tiny_tokenizer, 32).style is None
    for style in (0, STYLES - 1):
        assert Examples(recordings, tiny_tokenizer, 32, style=style).style == style
    for style in (-1, STYLES):
        with pytest.raises(ValueError, match="between 0 and 15"):
            Examples(recordings, tiny_tokenizer, 32, style=style)
