"""What is said, drawn and measured of a training while it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from few_works import Onlooking, tiny

from partbook.model.transformer import PartbookModel
from partbook.music.tokens import Tokenizer
from partbook.pretraining.making import Corpus, Order, train
from partbook.pretraining.watching import CURVE, sampled
from partbook.training import board as module
from partbook.training.run import kept


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


def test_a_board_has_curves_held_out_works_and_a_piece(
    order: Order, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, int]] = []

    class Remembering(module.Board):
        def step(self, step: Any) -> None:
            drawn.append(("step", step.number))

        def heldout(self, nats: Any, number: int) -> None:
            drawn.append(("heldout", number))

        def piece(self, score: Any, number: int, name: str = "piece") -> None:
            drawn.append(("piece", number))

    monkeypatch.setattr(module, "Board", Remembering)
    ending = train(order, corpus, Onlooking(), board=tmp_path / "board", curve_every=2)
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
