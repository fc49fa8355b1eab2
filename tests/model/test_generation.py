from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import GenerationError
from partbook.model.checkpoint import load_model
from partbook.model.generation import Sampling, Writer, draw, generate
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES
from partbook.music.tokens import Tokenizer

NOTHING = np.zeros(0, np.int16)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PartbookModel:
    return load_model(tiny_base)


def test_the_same_seed_writes_the_same_piece_and_another_does_not(model, tiny_tokenizer: Tokenizer) -> None:
    def write(seed: int) -> list[int]:
        return list(generate(model, tiny_tokenizer, Sampling(seed=seed, max_tokens=30, end=False)))

    assert write(4) == write(4)
    assert write(4) != write(5)


def test_pieces_go_on_past_the_context(model, tiny_tokenizer: Tokenizer) -> None:
    wanted = 3 * model.config.context
    ids = list(generate(model, tiny_tokenizer, Sampling(max_tokens=wanted, end=False)))
    assert len(ids) == wanted
    assert not {tiny_tokenizer.pad, tiny_tokenizer.bos, tiny_tokenizer.eos} & set(ids)


def test_the_writer_predicts_what_the_model_does_on_the_same_window(model, tiny_tokenizer: Tokenizer) -> None:
    context = model.config.context
    prompt = np.asarray(list(generate(model, tiny_tokenizer, Sampling(max_tokens=3 * context, end=False))), np.int16)
    silent = torch.zeros(1, MEMORY_FRAMES, BANDS), torch.zeros(1, dtype=torch.bool)
    with torch.inference_mode():
        writer = Writer(model, tiny_tokenizer, None, prompt[:20])
        for length in range(20, len(prompt)):
            window = torch.tensor([[tiny_tokenizer.bos, *writer.ids[length - (writer._cache.length - 1) :]]])
            assert 2 <= window.shape[1] <= context
            assert (model(window, *silent)[0, -1] - writer.logits()).abs().max() < 1e-4
            writer.append(int(prompt[length]))


def test_memory_changes_what_is_written(model, tiny_tokenizer: Tokenizer) -> None:
    memory = np.random.default_rng(0).uniform(-1, 1, (MEMORY_FRAMES, BANDS)).astype(np.float32)
    with torch.inference_mode():
        heard = Writer(model, tiny_tokenizer, memory, NOTHING).logits()
        silent = Writer(model, tiny_tokenizer, None, NOTHING).logits()
    assert not torch.equal(heard, silent)
    with pytest.raises(GenerationError, match="8 s"):
        Writer(model, tiny_tokenizer, memory[:-1], NOTHING)


@settings(max_examples=50, deadline=None)
@given(top_p=st.floats(0.05, 1.0), temperature=st.floats(0.2, 2.0), seed=st.integers(0, 1000))
def test_draws_stay_inside_the_nucleus(top_p: float, temperature: float, seed: int) -> None:
    logits = torch.linspace(-3, 3, 30)[torch.randperm(30, generator=torch.Generator().manual_seed(seed))]
    probabilities, order = torch.softmax(logits / temperature, -1).sort(descending=True)
    size = int((probabilities.cumsum(-1) < top_p - 1e-6).sum()) + 1
    token = draw(logits, temperature, top_p, torch.Generator().manual_seed(seed))
    assert token in order[: size + 1].tolist()


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw(logits, 1.0, 1.0, generator) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - torch.softmax(logits, -1).numpy()).max() < 0.03


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_tokens": 0}, {"seed": -1}]
)
def test_sampling_out_of_range_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(GenerationError, match=next(iter(wrong))):
        Sampling(**wrong)
