"""Nats a note, against a model that knows nothing and one sum by hand."""

from __future__ import annotations

import math

import pytest
import torch
from few_works import tiny

from partbook.model.likelihood import token_losses
from partbook.model.transformer import PartbookModel
from partbook.music.tokens import Header, Tokenizer
from partbook.pretraining.making import Corpus
from partbook.pretraining.measuring import held, mean, nats_a_note


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture
def model(tokenizer: Tokenizer) -> PartbookModel:
    torch.manual_seed(3)
    made = PartbookModel(tiny(len(tokenizer)))
    made.clock.set(tokenizer)
    return made


def test_a_model_that_knows_nothing_pays_alike_for_every_token(
    corpus: Corpus, tokenizer: Tokenizer, model: PartbookModel
) -> None:
    with torch.no_grad():
        model.embedding.weight.zero_()
    works = held(corpus.held_written.pieces, tokenizer)
    assert {work.name for work in works} == {"bach/score", "walks/score"}
    for name, value in nats_a_note(model, tokenizer, works).items():
        own = [work for work in works if work.name == name]
        tokens = sum(len(work.recording.ids) + 1 for work in own)
        assert value == pytest.approx(math.log(len(tokenizer)) * tokens / sum(work.notes for work in own), rel=1e-5)


def test_an_opening_is_the_first_bars_without_an_end(
    corpus: Corpus, tokenizer: Tokenizer, model: PartbookModel
) -> None:
    piece = corpus.held_written.pieces[0]
    (opening,) = held([piece], tokenizer, bars=2)
    music = piece.music.cut(0, 2)
    ids = [tokenizer.bos, *tokenizer.write(music, Header()).tolist()]
    assert not opening.whole
    assert opening.notes == len(music.onset)
    assert len(ids) <= model.config.context
    silence = torch.full((1, 688, 128), -1.0), torch.zeros(1, dtype=torch.bool)
    with torch.inference_mode():
        nats = float(token_losses(model.eval(), torch.tensor([ids]), *silence, tokenizer.pad).sum())
    found = nats_a_note(model, tokenizer, [opening])
    assert found == {"bach/score": pytest.approx(nats / len(music.onset), rel=1e-4)}


def test_heard_pieces_are_told_apart_and_have_their_sound(
    corpus: Corpus, tokenizer: Tokenizer, model: PartbookModel
) -> None:
    works = held(corpus.held_heard.pieces, tokenizer)
    assert {work.name for work in works} == {"bach/heard", "walks/heard"}
    assert all(len(work.recording.mel) for work in works)
    found = nats_a_note(model, tokenizer, works)
    assert all(math.isfinite(value) for value in found.values())
    assert mean(found, "heard") == pytest.approx(sum(found.values()) / 2)
    assert math.isnan(mean(found, "score"))
