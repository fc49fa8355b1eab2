from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from constraints import Once, Only, Turning

from partbook.errors import GenerationError
from partbook.model.beam import Continuation, beam_search, settled_tokens
from partbook.model.checkpoint import load_model
from partbook.model.generation import Prefix, Writer, hear
from partbook.model.sampling import standing
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES
from partbook.music.tokens import Tokenizer


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PartbookModel:
    """The tiny base with larger weights: its logits differ, and hang on what came before."""
    sharp = load_model(tiny_base).double()
    with torch.no_grad():
        sharp.embedding.weight.mul_(5.0)
        for weight in sharp.blocks.parameters():
            if weight.ndim == 2:
                weight.mul_(10.0)
    return sharp


@pytest.fixture(scope="module")
def few(tiny_tokenizer: Tokenizer, recordings) -> list[int]:
    """A vocabulary of five tokens, of which one begins a bar, and EOS."""
    ids = list(dict.fromkeys(recordings[0].ids[recordings[0].bar_starts[0] :].tolist()))
    bars = tiny_tokenizer.bar_starts(np.array(ids, np.int16)).tolist()
    others = [token for place, token in enumerate(ids) if place > bars[0]]
    return [ids[bars[0]], *others[:4], tiny_tokenizer.eos]


def nats(model: PartbookModel, tokenizer: Tokenizer, new: list[int], prefix: Prefix) -> float:
    """Log-probability of a piece's tokens as a writer reads them, one by one."""
    total = 0.0
    with torch.inference_mode():
        writer = Writer(model, tokenizer, None, np.zeros(0, np.int16), prefix)
        for token in new:
            total += float(writer.logits().log_softmax(-1)[token])
            writer.append(token)
    return total


def spelt(found: Continuation, tokenizer: Tokenizer) -> list[int]:
    return [*found.ids, *([tokenizer.eos] if found.ended else [])]


def every_continuation(
    model: PartbookModel, tokenizer: Tokenizer, prompt: list[int], grammar: Only, most: int
) -> dict[tuple[int, ...], float]:
    """All that may be written, each with its log-probability, by reading each from its beginning."""
    eos, legal = tokenizer.eos, []
    for length in range(1, most + 1):
        for new in itertools.product(sorted(grammar.tokens), repeat=length):
            whole = eos not in new[:-1] and (new[-1] == eos or length == most)
            if whole and all(standing(grammar, [*prompt, *new[:n]]).allowed()[new[n]] for n in range(length)):
                legal.append(new)
    rows = [[tokenizer.bos, *prompt, *new, *[tokenizer.pad] * (most - len(new))] for new in legal]
    with torch.inference_mode():
        memory, audible = hear(model, None)
        logits = model.decode(torch.tensor(rows), memory.expand(len(rows), -1, -1), audible)
        losses = logits.log_softmax(-1)
    begun = len(prompt)
    return {
        new: sum(float(losses[row, begun + n, token]) for n, token in enumerate(new)) for row, new in enumerate(legal)
    }


@pytest.mark.parametrize("kind", [Only, Once])
@pytest.mark.parametrize("prompt", [[], [20, 21, 40]])
def test_wide_enough_it_finds_the_best_of_all_that_may_be_written(model, tiny_tokenizer, few, kind, prompt) -> None:
    grammar = kind(len(tiny_tokenizer), few)
    known = every_continuation(model, tiny_tokenizer, prompt, grammar, 3)
    scores = {new: known[new] / ((5 + len(new)) / 6) ** 0.6 for new in known}
    found = beam_search(
        model, tiny_tokenizer, np.array(prompt, np.int16), width=len(scores), max_tokens=3, constraint=grammar
    )
    ordered = [tuple(spelt(continuation, tiny_tokenizer)) for continuation in found]
    assert ordered[0] == max(scores, key=scores.__getitem__)
    assert [continuation.log_probability for continuation in found] == pytest.approx([known[new] for new in ordered])
    assert ordered == sorted(ordered, key=lambda new: -scores[new])
    assert grammar.told == []


def test_without_a_length_penalty_the_likeliest_is_best(model, tiny_tokenizer, few) -> None:
    grammar = Only(len(tiny_tokenizer), few)
    known = every_continuation(model, tiny_tokenizer, [], grammar, 3)
    best, *_ = beam_search(model, tiny_tokenizer, width=400, max_tokens=3, length_penalty=0.0, constraint=grammar)
    assert tuple(spelt(best, tiny_tokenizer)) == max(known, key=known.__getitem__)
    assert best.log_probability == pytest.approx(max(known.values()))


def test_one_beam_is_greedy_past_the_context_too(model, tiny_tokenizer) -> None:
    greedy: list[int] = []
    with torch.inference_mode():
        writer = Writer(model, tiny_tokenizer, None, np.zeros(0, np.int16))
        for _ in range(3 * model.config.context):
            logits = writer.logits().clone()
            logits[[tiny_tokenizer.pad, tiny_tokenizer.bos, tiny_tokenizer.eos]] = -torch.inf
            greedy.append(int(logits.argmax()))
            writer.append(greedy[-1])
    found = beam_search(model, tiny_tokenizer, width=1, max_tokens=len(greedy), end=False)
    assert [list(continuation.ids) for continuation in found] == [greedy]


def test_one_beam_ends_where_greedy_ends(model, tiny_tokenizer, few) -> None:
    eager = copy.deepcopy(model)
    with torch.no_grad():
        eager.embedding.weight[tiny_tokenizer.eos] *= 3.0
    greedy: list[int] = []
    with torch.inference_mode():
        writer = Writer(eager, tiny_tokenizer, None, np.zeros(0, np.int16))
        while len(greedy) < 50:
            logits = writer.logits().clone()
            logits[[tiny_tokenizer.pad, tiny_tokenizer.bos]] = -torch.inf
            if (token := int(logits.argmax())) == tiny_tokenizer.eos:
                break
            greedy.append(token)
            writer.append(token)
    (found,) = beam_search(eager, tiny_tokenizer, width=1, max_tokens=50)
    assert list(found.ids) == greedy
    assert found.ended == (len(greedy) < 50)


@pytest.mark.parametrize("length", [1, 3])
def test_beams_slide_as_a_writer_does_each_at_its_own_bars(model, tiny_tokenizer, few, length) -> None:
    context, begins = model.config.context, []

    def prefix(ids: Sequence[int]) -> list[int]:
        begins.append(len(ids))
        return [tiny_tokenizer.bos, 30, 31][:length]

    model = copy.deepcopy(model)
    with torch.no_grad():
        model.embedding.weight.mul_(0.1)  # all is about as likely, so that beams part early
    grammar = Turning(len(tiny_tokenizer), few)
    how = {"width": 24, "max_tokens": 2 * context, "end": False, "constraint": grammar, "prefix": prefix}
    found = beam_search(model, tiny_tokenizer, **how)
    first = {begin for begin in begins if begin < context}
    assert len(first) > 1  # windows of several lengths
    assert max(begins) > context  # which slide again
    assert len({continuation.ids for continuation in found}) == 24
    for continuation in (found[0], found[-1]):
        again = nats(model, tiny_tokenizer, list(continuation.ids), prefix)
        assert continuation.log_probability == pytest.approx(again, rel=1e-9)


def test_more_beams_find_what_is_at_least_as_likely_and_the_same_every_time(model, tiny_tokenizer, few) -> None:
    how = {"max_tokens": 30, "end": False, "constraint": Turning(len(tiny_tokenizer), few)}
    one, five, many = (beam_search(model, tiny_tokenizer, width=width, **how) for width in (1, 5, 40))
    assert many[0].log_probability > one[0].log_probability
    assert five == beam_search(model, tiny_tokenizer, **how)


@pytest.mark.parametrize("end", [True, False])
def test_tokens_are_settled_early_and_are_those_of_the_best(model, tiny_tokenizer, few, end) -> None:
    steps, first = 0, 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    how = {"max_tokens": 100, "end": end, "constraint": Turning(len(tiny_tokenizer), few)}
    settled = []
    for token in settled_tokens(model, tiny_tokenizer, cancelled=count, **how):
        first = first or steps
        settled.append(token)
    assert tuple(settled) == beam_search(model, tiny_tokenizer, **how)[0].ids
    assert end or first < steps == 100


def test_a_cancelled_search_stops_before_its_next_step(model, tiny_tokenizer) -> None:
    asked = iter([False, False, True])
    assert len(list(settled_tokens(model, tiny_tokenizer, end=False, cancelled=lambda: next(asked)))) <= 2


def test_memory_changes_what_is_found(model, tiny_tokenizer) -> None:
    memory = np.random.default_rng(0).uniform(-1, 1, (MEMORY_FRAMES, BANDS)).astype(np.float32)
    heard, silent = (beam_search(model, tiny_tokenizer, None, m, max_tokens=10) for m in (memory, None))
    assert heard != silent
    with pytest.raises(GenerationError, match="8 s"):
        beam_search(model, tiny_tokenizer, None, memory[:-1])


def test_a_grammar_that_ends_in_nothing_is_an_error_unless_something_ended_before(model, tiny_tokenizer, few) -> None:
    with pytest.raises(GenerationError, match="constraint"):
        beam_search(model, tiny_tokenizer, max_tokens=9, end=False, constraint=Once(len(tiny_tokenizer), few[:3]))
    found = beam_search(model, tiny_tokenizer, max_tokens=9, width=50, constraint=Once(len(tiny_tokenizer), few))
    assert all(continuation.ended for continuation in found)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 5000}, {"max_tokens": 0}, {"length_penalty": -1.0}])
def test_a_search_out_of_range_is_refused_by_name(model, tiny_tokenizer, wrong: dict[str, float]) -> None:
    with pytest.raises(GenerationError, match=next(iter(wrong))):
        beam_search(model, tiny_tokenizer, **wrong)
