"""From a training's state to the files that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from few_works import Onlooking

from partbook.errors import ConfigError
from partbook.model.checkpoint import base_manifest, load_model
from partbook.pretraining import exporting
from partbook.pretraining.account import CARD
from partbook.pretraining.exporting import TOKENIZER, export
from partbook.pretraining.making import Corpus, Order, train
from partbook.training.run import kept


def test_a_base_is_the_average_in_half_precision_with_figures_and_card(
    order: Order, corpus: Corpus, tmp_path: Path
) -> None:
    train(order, corpus, Onlooking())
    out = tmp_path / "base"
    watch = Onlooking()
    about = export(order.state, out, corpus.heldout, watch)
    assert watch.stages == ["Measuring the base"]
    found = kept(order.state)
    assert found is not None
    shipped = load_model(out).state_dict()
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(shipped[name].float(), (tensor.half() if tensor.is_floating_point() else tensor).float())
    assert base_manifest(out)["about"] == json.loads(json.dumps(about))
    assert about["heldout_pieces"] == {"bach/heard": 3, "bach/score": 3, "walks/heard": 3, "walks/score": 3}
    assert all(0 < value < 60 for value in about["heldout_nats_per_note"].values())
    assert about["tokens_seen"] == found.tokens
    assert (out / TOKENIZER).read_bytes() == (order.state / TOKENIZER).read_bytes()
    assert order.command() in (out / CARD).read_text()


def test_a_folder_without_a_training_is_named(order: Order, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no training of a base"):
        export(order.state, tmp_path / "base", [], Onlooking())
    assert not (tmp_path / "base").exists()


def test_a_small_base_that_is_too_large_for_the_repository_is_refused(
    order: Order, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(order, corpus, Onlooking())
    monkeypatch.setattr(exporting, "LARGEST", 1000)
    with pytest.raises(ConfigError, match="smaller vocabulary"):
        export(order.state, tmp_path / "base", [], Onlooking())
