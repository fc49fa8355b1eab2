import math

import numpy as np
import pytest
import torch
from constraints import Once, Only
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import GenerationError
from partbook.model.sampling import Sampling, draw, masked, penalised, shaped, standing


def shuffled(seed: int, size: int = 30) -> torch.Tensor:
    return torch.linspace(-3, 3, size)[torch.randperm(size, generator=torch.Generator().manual_seed(seed))]


def drawn_from(logits: torch.Tensor, sampling: Sampling) -> set[int]:
    weights, order = shaped(logits, sampling)
    return set(order[weights > 0].tolist())


@settings(max_examples=50, deadline=None)
@given(top_p=st.floats(0.05, 1.0), temperature=st.floats(0.2, 2.0), seed=st.integers(0, 1000))
def test_draws_stay_inside_the_nucleus(top_p: float, temperature: float, seed: int) -> None:
    logits = shuffled(seed)
    probabilities, order = torch.softmax(logits / temperature, -1).sort(descending=True)
    size = int((probabilities.cumsum(-1) < top_p - 1e-6).sum()) + 1
    how = Sampling(temperature=temperature, top_p=top_p)
    assert draw(logits, how, torch.Generator().manual_seed(seed)) in order[: size + 1].tolist()


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw(logits, Sampling(top_p=1.0), generator) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - torch.softmax(logits, -1).numpy()).max() < 0.03


@settings(max_examples=50, deadline=None)
@given(
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 1.0),
    temperature=st.floats(0.2, 2.0),
    seed=st.integers(0, 1000),
)
def test_shaping_keeps_what_the_papers_say_and_the_likeliest_always(top_k, top_p, min_p, temperature, seed) -> None:
    logits = shuffled(seed)
    likeliest = sorted(range(30), key=lambda token: -float(logits[token]))
    weight = {token: math.exp(float(logits[token]) / temperature) for token in likeliest}
    kept = likeliest[: top_k or None]
    total, before, nucleus = sum(weight[token] for token in kept), 0.0, []
    for token in kept:
        if abs(before / total - top_p) < 1e-5 or abs(weight[token] / weight[kept[0]] - min_p) < 1e-5:
            return  # rounding decides
        if before / total < top_p:
            nucleus.append(token)
        before += weight[token]
    expected = {token for token in nucleus if weight[token] >= min_p * weight[kept[0]]}
    found = drawn_from(logits, Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p))
    assert found == expected
    assert likeliest[0] in found


def test_what_is_off_changes_no_weight() -> None:
    logits = shuffled(1)
    plain, _ = shaped(logits, Sampling(top_p=1.0))
    assert torch.equal(plain, torch.softmax(logits, -1).sort(descending=True).values)
    assert penalised(logits, [1, 2, 3], 1.0) is logits
    assert penalised(logits, [], 2.0) is logits


def test_temperature_comes_before_min_p_and_top_k_before_top_p() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert drawn_from(logits, Sampling(top_p=1.0, min_p=0.25)) == {0, 1, 2}
    assert drawn_from(logits, Sampling(top_p=1.0, min_p=0.25, temperature=0.5)) == {0, 1}
    assert drawn_from(logits, Sampling(top_p=0.6)) == {0, 1}
    assert drawn_from(logits, Sampling(top_p=0.6, top_k=2)) == {0}  # 0.5 of the 0.8 that top-k left is 0.625


def test_the_penalty_lowers_recent_tokens_on_either_side_of_zero_and_only_once() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, -torch.inf, 0.0])
    lowered = penalised(logits, [0, 0, 1, 3, 4], 2.0)
    assert lowered.tolist() == [1.0, -4.0, 1.0, -torch.inf, 0.0]
    assert logits.tolist() == [2.0, -2.0, 1.0, -torch.inf, 0.0]


def test_the_penalty_comes_before_the_temperature() -> None:
    logits, how = torch.tensor([1.0, 0.5, 0.0]), Sampling(top_p=1.0, temperature=0.5, repetition_penalty=2.0)
    expected = torch.softmax(torch.tensor([0.5, 0.5, 0.0]) / 0.5, -1)
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw(logits, how, generator, [0]) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - expected.numpy()).max() < 0.03


def test_what_is_masked_is_never_drawn_whatever_its_logit() -> None:
    logits = torch.tensor([50.0, -40.0, 60.0, -41.0, 70.0])
    kept = masked(logits, [2], Only(5, [1, 2, 3]))
    generator = torch.Generator().manual_seed(0)
    assert {draw(kept, Sampling(top_p=1.0), generator) for _ in range(200)} == {1, 3}
    assert logits.tolist() == [50.0, -40.0, 60.0, -41.0, 70.0]


def test_a_mask_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(GenerationError, match="constraint"):
        masked(torch.zeros(4), [2], Only(4, [2]))
    with pytest.raises(GenerationError, match="weights"):
        masked(torch.full((4,), torch.nan), [0])


def test_a_constraint_that_is_put_somewhere_stays_where_it_was_itself() -> None:
    grammar = Once(6, [3, 4])
    moved = standing(grammar, [4])
    assert moved is not None
    assert moved.allowed().nonzero().flatten().tolist() == [3]
    assert grammar.allowed().nonzero().flatten().tolist() == [3, 4]
    assert standing(None, [4]) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"seed": -1},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": math.nan},
        {"repetition_penalty": 0.9},
        {"repetition_penalty": 11.0},
        {"repetition_window": 0},
    ],
)
def test_sampling_out_of_range_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(GenerationError, match=next(iter(wrong))):
        Sampling(**wrong)
