"""The base's training from works to a state: it goes on, and refuses what is not its own."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from few_works import FewWorks, Onlooking

from partbook.errors import ConfigError
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.music.tokens import Tokenizer
from partbook.pretraining.account import ACCOUNT, Account
from partbook.pretraining.exporting import TOKENIZER, export
from partbook.pretraining.making import Corpus, Order, read, train
from partbook.pretraining.watching import Watching
from partbook.training.run import Ending, kept


def trained(order: Order, corpus: Corpus, **asked: Any) -> Ending:
    return train(order, corpus, Onlooking(), **asked)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = kept(folder)
    assert found is not None
    return found.model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_was_ended_leads_where_another_does(
    order: Order, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(order, state=tmp_path / "whole")
    assert trained(whole, corpus).signal is None
    with monkeypatch.context() as patch:
        patch.setattr(Watching, "step", lambda self, step: signal.raise_signal(signal.SIGTERM))
        ending = trained(order, corpus)
    assert (ending.step, ending.exit_code) == (1, 143)
    assert trained(order, corpus).step > 1
    assert same(weights(order.state), weights(whole.state))
    assert (order.state / TOKENIZER).read_bytes() == (whole.state / TOKENIZER).read_bytes()


def test_reading_says_what_it_does_and_leaves_withheld_styles_out(order: Order) -> None:
    watch = Onlooking()
    found = read(order, cast(Any, FewWorks()), watch)
    assert found.names == ("bach", "walks")
    assert {"Reading scores", "Hearing works", "Finding their beats"} <= set(watch.stages)
    assert set(found.heard.counted) == {"bach", "walks"}
    assert {piece.hand for piece in found.heldout} == {"score", "heard"}
    assert read(order, cast(Any, FewWorks()), watch).sha256 == found.sha256
    only = read(order, cast(Any, FewWorks()), watch, heldout_only=True)
    assert not only.pieces
    assert len(only.heldout) == len(found.heldout)
    with pytest.raises(ConfigError, match="base pool"):
        read(replace(order, collections=("airdsAirs",)), cast(Any, FewWorks()), watch)


def test_other_works_another_vocabulary_and_other_numbers_are_refused_unless_prolonged(
    order: Order, corpus: Corpus, tmp_path: Path
) -> None:
    trained(order, corpus)
    fewer = read(replace(order, takes=0), corpus.library, Onlooking())
    with pytest.raises(ConfigError, match="learns from other works"):
        trained(replace(order, takes=0), fewer)
    with pytest.raises(ConfigError, match="vocabulary of 620, asked for 700"):
        trained(replace(order, vocabulary=700), corpus)
    with pytest.raises(ConfigError, match="tokens 1200, asked for 1600"):
        trained(replace(order, tokens=1600), corpus)
    longer = replace(order, tokens=1600, takes=0, prolong=True)
    ending = trained(longer, fewer)
    assert ending.tokens >= 1600
    account = Account.load(order.state)
    assert account is not None
    assert account.corpus == fewer.sha256


def test_a_base_is_gone_on_from_with_its_weights_and_tokens(order: Order, corpus: Corpus, tmp_path: Path) -> None:
    trained(order, corpus)
    about = export(order.state, tmp_path / "base", corpus.heldout, Onlooking())
    further = replace(order, state=tmp_path / "further", start=tmp_path / "base", tokens=1)
    before = load_model(tmp_path / "base").state_dict()
    ending = trained(further, corpus)
    assert ending.step == 1
    account = Account.load(further.state)
    assert account is not None
    assert account.started_from is not None
    assert account.tokens_before == about["tokens_seen"]
    after = weights(further.state)
    moved = max(float((after[name] - before[name]).abs().max()) for name in before if before[name].is_floating_point())
    assert 0 < moved < 0.05, "one step of a warm-up away"
    tokens = load_tokenizer(tmp_path / "base")
    assert len(Tokenizer.load(further.state / TOKENIZER)) == len(tokens)
    other = tmp_path / "other.json"
    Tokenizer().save(other)
    with pytest.raises(ConfigError, match="different tokenisers"):
        trained(replace(further, state=tmp_path / "third", tokenizer=other), corpus)
    with pytest.raises(ConfigError, match="no base of the size full"):
        trained(replace(further, state=tmp_path / "fourth", size="full"), corpus)


def test_a_run_that_says_nothing_of_its_works_needs_its_tokeniser(order: Order, corpus: Corpus, tmp_path: Path) -> None:
    trained(order, corpus)
    named = tmp_path / "named.json"
    named.write_bytes((order.state / TOKENIZER).read_bytes())
    (order.state / ACCOUNT).unlink()
    (order.state / TOKENIZER).unlink()
    with pytest.raises(ConfigError, match="--prolong"):
        trained(order, corpus)
    with pytest.raises(ConfigError, match="--tokenizer"):
        trained(replace(order, prolong=True), corpus)
    assert trained(replace(order, prolong=True, tokenizer=named, tokens=1600), corpus).tokens >= 1600
    assert trained(replace(order, tokens=1600), corpus).signal is None, "from now on it says so"
