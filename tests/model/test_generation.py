from pathlib import Path

import numpy as np
import pytest
import torch
from constraints import Once, Only

from partbook.errors import GenerationError
from partbook.model.checkpoint import load_model
from partbook.model.generation import Writer, generate, recent_pitches, window
from partbook.model.sampling import Sampling
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS, MEMORY_FRAMES
from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import NUMBER

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
        writer, start, front = Writer(model, tiny_tokenizer, None, prompt[:20]), 0, [tiny_tokenizer.bos]
        for length in range(20, len(prompt)):
            read = torch.tensor([[*front, *writer.ids[start:]]])
            assert read.shape[1] == writer._cache.length <= context
            assert (model(read, *silent)[0, -1] - writer.logits()).abs().max() < 1e-4
            writer.append(int(prompt[length]))
            if read.shape[1] == context:
                front, tail = window(writer.ids, context, tiny_tokenizer)
                start = len(writer.ids) - len(tail)
    assert start > context


def test_memory_changes_what_is_written(model, tiny_tokenizer: Tokenizer) -> None:
    memory = np.random.default_rng(0).uniform(-1, 1, (MEMORY_FRAMES, BANDS)).astype(np.float32)
    with torch.inference_mode():
        heard = Writer(model, tiny_tokenizer, memory, NOTHING).logits()
        silent = Writer(model, tiny_tokenizer, None, NOTHING).logits()
    assert not torch.equal(heard, silent)
    with pytest.raises(GenerationError, match="8 s"):
        Writer(model, tiny_tokenizer, memory[:-1], NOTHING)


def test_nothing_outside_the_constraint_is_drawn_and_it_reads_prompt_and_piece(model, tiny_tokenizer) -> None:
    allowed = [*range(20, 26), tiny_tokenizer.bos, tiny_tokenizer.eos]
    grammar = Only(len(tiny_tokenizer), allowed)
    copies: list[Only] = []
    grammar.copy = lambda: copies.append(Only(len(tiny_tokenizer), allowed)) or copies[-1]
    how = Sampling(max_tokens=100, end=False)
    ids = list(generate(model, tiny_tokenizer, how, prompt=np.array([30, 31], np.int16), constraint=grammar))
    assert set(ids) == set(range(20, 26))
    assert [copy.told for copy in copies] == [[30, 31, *ids]]
    assert grammar.told == []


def test_a_constraint_that_leaves_no_token_ends_in_an_error(model, tiny_tokenizer: Tokenizer) -> None:
    written = generate(model, tiny_tokenizer, Sampling(end=False), constraint=Once(len(tiny_tokenizer), [20, 21]))
    assert {next(written), next(written)} == {20, 21}
    with pytest.raises(GenerationError, match="constraint"):
        next(written)
    only_end = Only(len(tiny_tokenizer), [tiny_tokenizer.eos])
    assert list(generate(model, tiny_tokenizer, Sampling(), constraint=only_end)) == []


def test_top_k_of_one_is_greedy_whatever_the_seed(model, tiny_tokenizer: Tokenizer) -> None:
    pieces = {tuple(generate(model, tiny_tokenizer, Sampling(seed=s, max_tokens=20, top_k=1))) for s in range(3)}
    assert len(pieces) == 1


def test_the_repetition_penalty_lowers_recent_pitches_and_nothing_else(tiny_tokenizer, recordings) -> None:
    ids = recordings[0].ids.tolist()
    how = Sampling(repetition_penalty=1.5, repetition_window=10)
    lowered = recent_pitches(ids, how, tiny_tokenizer)
    assert lowered
    for token in ids[-10:]:
        pitched = any(name.startswith("Pitch_") for name in tiny_tokenizer.names([token]))
        assert (token in lowered) == pitched
    assert recent_pitches(ids, Sampling(), tiny_tokenizer) == []


def test_a_strong_penalty_makes_a_piece_repeat_its_pitches_less(model, tiny_tokenizer, recordings) -> None:
    pitches = recent_pitches(recordings[0].ids.tolist(), Sampling(repetition_penalty=2.0), tiny_tokenizer)

    def variety(penalty: float) -> int:
        sharp = Sampling(max_tokens=60, end=False, temperature=0.01, repetition_penalty=penalty)
        return len(set(generate(model, tiny_tokenizer, sharp, constraint=Only(len(tiny_tokenizer), pitches))))

    assert variety(10.0) > variety(1.0)


def test_a_window_that_slides_begins_with_what_the_prefix_says_of_the_tokens_before_it(
    model, tiny_tokenizer, recordings
) -> None:
    context, front = model.config.context, [tiny_tokenizer.bos, 30, 31]
    seen: list[list[int]] = []

    def prefix(ids: list[int]) -> list[int]:
        seen.append(list(ids))
        return front

    silent = torch.zeros(1, MEMORY_FRAMES, BANDS), torch.zeros(1, dtype=torch.bool)
    piece = np.concatenate([recordings[0].ids] * 4).tolist()
    with torch.inference_mode():
        writer = Writer(model, tiny_tokenizer, None, NOTHING, prefix)
        for token in piece[: context - 1]:
            writer.append(token)
        assert not seen
        for token in piece[context - 1 : 2 * context]:
            writer.append(token)
            if seen:
                read = [*front, *writer.ids[len(seen[-1]) :]]
                assert (model(torch.tensor([read]), *silent)[0, -1] - writer.logits()).abs().max() < 1e-4
    assert seen
    for before in seen:
        assert before == piece[: len(before)]
        assert len(tiny_tokenizer.bar_starts(np.array(piece[len(before) :][:1], np.int16)))


def test_without_a_prefix_the_header_of_the_place_stands_in_front(tiny_tokenizer, recordings) -> None:
    ids = recordings[0].ids
    piece = np.concatenate([ids, ids[recordings[0].bar_starts[0] :]]).tolist()
    front, tail = window(piece, 64, tiny_tokenizer)
    at = len(piece) - len(tail)
    assert piece[at:] == tail
    assert front == tiny_tokenizer.header_at(np.array(piece, np.int16), at)
    assert front[0] == tiny_tokenizer.cut
    assert window(piece[:62], 64, tiny_tokenizer) == ([tiny_tokenizer.bos], piece[:62])
    endless = piece[:1] * 100
    front, tail = window(endless, 64, tiny_tokenizer)
    assert front[0] == tiny_tokenizer.cut
    assert tail == endless[-32:]
    assert len(front) + len(tail) < 64


def test_a_prefix_without_a_place_for_the_music_is_refused(model, tiny_tokenizer, recordings) -> None:
    prompt = np.concatenate([recordings[0].ids] * 4)
    for front in ([], [tiny_tokenizer.bos] * model.config.context):
        with pytest.raises(GenerationError, match="prefix"):
            Writer(model, tiny_tokenizer, None, prompt, lambda _, front=front: front)


def test_a_window_inside_a_planned_piece_begins_where_its_header_can_say_how_many_bars_are_left() -> None:
    tokenizer = Tokenizer()
    header = [NUMBER[name] for name in ("Hand_score", "Metre_4/4", "Tempo_20", "Bars_64", "Program_0")]
    bar = [NUMBER[name] for name in ("Bar", "Pitch_60", "Length_12", "Step_12", "Pitch_62", "Length_12")]
    left = set()
    for bars in range(44, 64):
        front, tail = window([*header, *bar * bars], 256, tokenizer)
        (said,) = [name for name in tokenizer.names(front) if name.startswith("Bars_")]
        assert said == f"Bars_{64 - bars + len(tail) // len(bar)}"
        left.add(said)
    assert len(left) > 3
