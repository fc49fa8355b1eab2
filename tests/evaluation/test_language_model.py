from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from partbook.baselines.kneser_ney import KneserNey
from partbook.baselines.lstm import LstmConfig, LstmModel, LstmNetwork
from partbook.baselines.ngrams import KneserNeyModel
from partbook.baselines.vae import VaeConfig, VaeModel, VaeNetwork
from partbook.errors import GenerationError
from partbook.evaluation import language_model
from partbook.evaluation.language_model import LanguageModel, Transformer, Writing
from partbook.evaluation.writing import BarLines
from partbook.model.checkpoint import load_model
from partbook.model.generation import generate
from partbook.model.likelihood import evaluate
from partbook.model.sampling import Sampling
from partbook.music.grammar import Grammar
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import NUMBER
from partbook.music.windows import spans

CONTEXT = 64


@pytest.fixture(scope="module")
def models(tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]) -> dict[str, Writing]:
    size = len(tiny_tokenizer)
    torch.manual_seed(1)
    counted = KneserNey.train(
        [r.ids for r in recordings], vocabulary=size, bos=tiny_tokenizer.bos, eos=tiny_tokenizer.eos,
        never={tiny_tokenizer.pad},
    )  # fmt: skip
    lstm = LstmNetwork(LstmConfig(size, width=16, layers=2, context=CONTEXT))
    vae = VaeNetwork(VaeConfig(size, width=16, encoder=12, latent=8, decoder=16, layers=2, context=CONTEXT))
    short = Sampling(max_tokens=120, end=False)  # what knows nothing writes no bar lines
    found: dict[str, Writing] = {
        "transformer": Transformer("tiny", load_model(tiny_base), tiny_tokenizer, short),
        "kneser-ney": KneserNeyModel(counted, tiny_tokenizer, short),
        "lstm": LstmModel(lstm, tiny_tokenizer, short),
        "vae": VaeModel(vae, tiny_tokenizer, short),
    }
    for model in found.values():  # what knows nothing names dozens of instruments
        model.constraint = Grammar(tiny_tokenizer, said=[NUMBER["Program_0"]])
    return found


KINDS = ["transformer", "kneser-ney", "lstm", "vae"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_and_the_end_costs_something_and_the_same_each_time(models, recordings, kind: str) -> None:
    model: LanguageModel = models[kind]
    for recording in recordings:
        nats = model.nats(recording)
        assert nats.shape == (len(recording.ids) + 1,)
        assert (nats > 0).all()
        assert np.array_equal(nats, model.nats(recording))


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_is_its_seeds_whatever_is_written_beside_it(models, monkeypatch, kind: str) -> None:
    model = models[kind]
    finished: list[int] = []
    alone = [model.sample(seed, 24.0) for seed in range(5)]
    together = model.sample_many([3, 0, 4, 1, 2], 24.0, on_piece=finished.append)
    monkeypatch.setattr(language_model, "ROWS", 2)
    by_twos = model.sample_many(range(5), 24.0)
    for seed, place in enumerate([1, 3, 4, 0, 2]):
        assert np.array_equal(alone[seed], together[place])
        assert np.array_equal(alone[seed], by_twos[seed])
    assert finished == [1, 2, 3, 4, 5]
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_goes_on_from_its_prompt_and_holds_no_special_token(models, recordings, tiny_tokenizer, kind) -> None:
    prompt = np.concatenate([recordings[0].ids, recordings[0].ids])
    assert len(prompt) > CONTEXT
    piece = models[kind].sample(7, 100.0, prompt)
    assert np.array_equal(piece[: len(prompt)], prompt)
    assert len(piece) > len(prompt)
    assert not {tiny_tokenizer.pad, tiny_tokenizer.bos, tiny_tokenizer.eos} & set(piece.tolist())
    beside = models[kind].sample_many([1, 7], 100.0, [recordings[1].ids[:10], prompt])
    assert np.array_equal(beside[1], piece)


def test_a_piece_ends_at_the_first_bar_line_at_or_after_the_wanted_length(models, tiny_tokenizer) -> None:
    lines, bars = BarLines(tiny_tokenizer), []
    piece = models["kneser-ney"].sample(1, 21.0)
    coming = 4.0
    for token in piece.tolist():
        coming = lines.metre(token) or coming
        if lines.starts(token):
            bars.append(coming)
    assert sum(bars[:-1]) < 21.0 <= sum(bars)
    assert not lines.starts(int(piece[-1]))


def test_metres_are_counted_in_quarter_notes(recordings, tiny_tokenizer) -> None:
    lines = BarLines(tiny_tokenizer)
    metres = [{m for t in r.ids if (m := lines.metre(int(t))) is not None} for r in recordings]
    assert metres == [{4.0}, {3.0}, {3.0}]
    for recording in recordings:
        starts = [i for i, token in enumerate(recording.ids) if lines.starts(int(token))]
        assert starts == recording.bar_starts.tolist()


def test_the_transformer_writes_what_the_product_writes(models, tiny_tokenizer) -> None:
    model = models["transformer"]
    piece = model.sample(5, 1000.0)
    assert len(piece) > CONTEXT  # the window has slid
    sampling = Sampling(seed=5, max_tokens=len(piece), end=False)
    assert piece.tolist() == list(generate(model.model, tiny_tokenizer, sampling, constraint=model.constraint))


def test_the_transformers_nats_add_up_to_its_likelihood(models, recordings, tiny_tokenizer) -> None:
    model = models["transformer"]
    whole = evaluate(model.model, tiny_tokenizer, recordings)
    nats = [model.nats(recording) for recording in recordings]
    # Windows that begin inside a recording repeat its header, whose cost is not the recording's.
    repeated = [len(s.prefix) - 1 for r in recordings for s in spans(r, tiny_tokenizer, CONTEXT)]
    assert sum(len(n) for n in nats) + sum(repeated) == whole.tokens
    short = [replace(r, ids=r.ids[:40], bar_starts=r.bar_starts[r.bar_starts < 40]) for r in recordings]
    total = sum(model.nats(recording).sum() for recording in short)  # each one window
    assert total == pytest.approx(evaluate(model.model, tiny_tokenizer, short).nats, rel=1e-5)
    assert sum(n.sum() for n in nats) < whole.nats


def test_a_piece_that_may_end_ends_with_the_models_eos_and_never_holds_it(tiny_tokenizer, recordings) -> None:
    size = len(tiny_tokenizer)
    one_bar = recordings[0].ids[: recordings[0].bar_starts[1]]
    counted = KneserNey.train(
        [one_bar] * 20, vocabulary=size, bos=tiny_tokenizer.bos, eos=tiny_tokenizer.eos, never={tiny_tokenizer.pad}
    )
    ending = KneserNeyModel(counted, tiny_tokenizer, Sampling(max_tokens=500, end=True))
    assert np.array_equal(ending.sample(3, 100.0), one_bar)
    endless = KneserNeyModel(counted, tiny_tokenizer, Sampling(max_tokens=50, end=False))
    assert len(endless.sample(3, 1000.0)) == 50


def test_what_cannot_be_written_is_refused(models, recordings) -> None:
    model = models["kneser-ney"]
    with pytest.raises(GenerationError, match="above 0"):
        model.sample(1, 0.0)
    with pytest.raises(GenerationError, match="one each"):
        model.sample_many([1, 2], 4.0, [recordings[0].ids])
    with pytest.raises(GenerationError, match="seed"):
        model.sample(-1, 4.0)
    assert model.sample_many([], 4.0) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_that_is_asked_for_as_so_many_bars_has_no_more(models, tiny_tokenizer, kind: str) -> None:
    asked = np.array([NUMBER["Hand_score"], NUMBER["Bars_2"]], np.int16)
    for ids in models[kind].sample_many([1, 2, 3], 24.0, [asked] * 3):
        assert len(tiny_tokenizer.bar_starts(ids)) <= 2
