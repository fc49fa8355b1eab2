from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from constraints import Once, Only, Turning

from partbook.errors import GenerationError
from partbook.evaluation.language_model import Transformer
from partbook.evaluation.writing import write
from partbook.model.checkpoint import load_model
from partbook.model.generation import generate
from partbook.model.sampling import Sampling
from partbook.music.tokens import Tokenizer

SHAPED = {"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.3, "repetition_window": 20}


@pytest.fixture
def model(tiny_base: Path, tiny_tokenizer: Tokenizer) -> Transformer:
    return Transformer("tiny", load_model(tiny_base), tiny_tokenizer, Sampling(max_tokens=90, end=False, **SHAPED))


def as_the_product(model: Transformer, seed: int, tokens: int, **how: object) -> list[int]:
    sampling = Sampling(seed=seed, max_tokens=tokens, end=False, **SHAPED)
    return list(generate(copy.deepcopy(model.model).double(), model.tokenizer, sampling, **how))


def test_rows_shape_and_constrain_as_the_product_does(model, recordings) -> None:
    tokens = [int(token) for token in np.unique(recordings[0].ids)]
    model.constraint = Turning(len(model.tokenizer), tokens)
    for seed, piece in enumerate(model.sample_many(range(3), 1000.0)):
        assert set(piece.tolist()) <= set(tokens)
        assert piece.tolist() == as_the_product(model, seed, 90, constraint=model.constraint)
    assert model.constraint.told == []


def test_every_piece_has_a_constraint_of_its_own_which_reads_its_prompt(model, recordings) -> None:
    prompt, tokenizer = recordings[0].ids[:5], model.tokenizer
    one = [int(token) for token in np.unique(recordings[0].ids)]
    other = [token for token in range(100, 140) if token not in one]
    constraints = [Only(len(tokenizer), one), None, Once(len(tokenizer), [*prompt.tolist(), *other])]
    pieces = write(
        model.open_rows, tokenizer, [4, 5, 6], 1000.0, [prompt] * 3, Sampling(max_tokens=20, end=False),
        most_rows=2, constraints=constraints,
    )  # fmt: skip
    new = [piece.tolist()[5:] for piece in pieces]
    assert set(new[0]) <= set(one)
    assert not set(new[1]) <= set(one)
    assert set(new[2]) <= set(other)
    assert len(set(new[2])) == len(new[2])


def test_a_constraint_that_leaves_nothing_ends_in_an_error_and_so_do_too_few(model) -> None:
    model.constraint = Once(len(model.tokenizer), [100, 101])
    with pytest.raises(GenerationError, match="constraint"):
        model.sample(0, 1000.0)
    with pytest.raises(GenerationError, match="1 constraints for 2 seeds"):
        write(
            model.open_rows, model.tokenizer, [1, 2], 4.0, None, model.sampling,
            most_rows=2, constraints=[model.constraint],
        )  # fmt: skip


def test_windows_slide_with_the_plan_that_the_product_remembers(model) -> None:
    def prefix(ids: Sequence[int]) -> list[int]:
        return [model.tokenizer.bos, 30 + len(ids) % 7, 31]

    plain = model.sample(3, 1000.0)
    model.prefix = prefix
    planned = model.sample(3, 1000.0)
    context = model.model.config.context
    assert len(planned) > context
    assert np.array_equal(planned[: context - 1], plain[: context - 1])
    assert not np.array_equal(planned, plain)
    again = as_the_product(model, 3, len(planned), prefix=prefix, constraint=model.constraint)
    assert planned.tolist() == again
