"""The base's training from works to a state: it goes on, and refuses what is not its own."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from few_works import FewWorks, Onlooking, tiny

from partbook.errors import ConfigError
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.model.transformer import PartbookModel
from partbook.music.tokens import Tokenizer
from partbook.pretraining.account import ACCOUNT, Account
from partbook.pretraining.exporting import TOKENIZER, export
from partbook.pretraining.making import Corpus, Order, read, train
from partbook.pretraining.watching import CURVE, Watching, sampled
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


def test_stages_and_progress_are_told_and_held_out_works_measured(order: Order, corpus: Corpus) -> None:
    watch = Onlooking()
    train(order, corpus, watch, measure_every=0.0)
    assert [stage.split(",")[0] for stage in watch.stages] == ["Learning 620 tokens", "Training"]
    assert "nats a token" in watch.steps[-1]
    rows = [json.loads(line) for line in (order.state / CURVE).read_text().splitlines()]
    found = kept(order.state)
    assert found is not None
    assert [row["step"] for row in rows] == list(range(1, found.step + 1)), "each step once"
    assert set(rows[-1]["nats_a_note"]) == {"bach/score", "walks/score", "bach/heard", "walks/heard"}
    assert "as heard" in watch.notes[0]
    assert watch.notes[-1].startswith("Done")


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


def test_a_board_has_curves_held_out_works_and_a_piece(
    order: Order, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from partbook.training import board as module

    drawn: list[tuple[str, int]] = []

    class Remembering(module.Board):
        def step(self, step: Any) -> None:
            drawn.append(("step", step.number))

        def heldout(self, nats: Any, number: int) -> None:
            drawn.append(("heldout", number))

        def piece(self, score: Any, number: int, name: str = "piece") -> None:
            drawn.append(("piece", number))

    monkeypatch.setattr(module, "Board", Remembering)
    ending = trained(order, corpus, board=tmp_path / "board", curve_every=2)
    assert ("step", 2) in drawn
    assert ("step", 1) not in drawn
    assert drawn[-2:] == [("heldout", ending.step), ("piece", ending.step)]
    assert list((tmp_path / "board").iterdir())


def test_a_sampled_piece_has_at_most_32_bars() -> None:
    tokenizer = Tokenizer()
    torch.manual_seed(1)
    model = PartbookModel(tiny(len(tokenizer)))
    model.clock.set(tokenizer)
    piece = sampled(model, tokenizer, 3, tokens=60)
    assert piece.note_num()
