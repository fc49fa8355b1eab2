"""What a base says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from partbook.errors import ConfigError
from partbook.pretraining.account import ACCOUNT, Account, card, sources
from partbook.pretraining.making import Corpus, Order


@pytest.fixture
def account(corpus: Corpus, order: Order) -> Account:
    own = sources(corpus.library, corpus.names, corpus.written, corpus.heard)
    return Account(order.command(), "small", 520, corpus.sha256, own, ("/somewhere/data",), 3, 1, "ab" * 32, 500)


def test_an_account_comes_back_as_it_was(account: Account, tmp_path: Path) -> None:
    assert Account.load(tmp_path) is None
    account.save(tmp_path)
    assert Account.load(tmp_path) == account
    (tmp_path / ACCOUNT).write_text("{}")
    with pytest.raises(ConfigError, match=ACCOUNT):
        Account.load(tmp_path)


def test_the_manifest_adds_up_and_says_nothing_of_this_machine(account: Account, order: Order) -> None:
    said = account.manifest(
        recipe=order.recipe().as_state(), step=3, tokens=1200, parameters=7, figures={"bach/score": 4.25}, works={}
    )
    assert (said["works"], said["takes"], said["tokens_seen"], said["steps"]) == (11, 5, 1700, 3)
    assert {s["collection"]: s["rights"] for s in said["sources"]} == {
        "bach": "public domain",
        "walks": "CC0 1.0 Universal",
    }
    assert "/somewhere" not in str(said)


def test_the_card_says_what_the_manifest_does(account: Account, order: Order) -> None:
    about = account.manifest(
        recipe=order.recipe().as_state(),
        step=3,
        tokens=1200,
        parameters=4_321_000,
        figures={"bach/score": 4.254, "bach/heard": 6.1, "walks/score": 9.0},
        works={"bach/score": 30, "bach/heard": 4, "walks/score": 3},
    )
    manifest = {"about": about, "files": {"model.safetensors": "cd" * 32}}
    text = card(manifest, 520, 96)
    for words in (
        "4,321,000 parameters, 520 tokens",
        "| walks | 6 | ",
        "CC0 1.0 Universal",
        "| bach | 4.25 (30) | 6.10 (4) |",
        "| walks | 9.00 (3) | – |",
        order.command(),
        "cd" * 32,
        "ab" * 32,
        "## Limits",
    ):
        assert words in text
    anew = {"about": about | {"started_from": None}, "files": manifest["files"]}
    assert "It began with random weights." in card(anew, 520, 96)


def test_the_command_names_what_matters_and_nothing_else(order: Order, tmp_path: Path) -> None:
    asked = replace(order, data=(tmp_path / "data",), vocabulary=2000, start=tmp_path / "older base", workers=2)
    assert asked.command() == (
        "partbook base train --data data --size small --tokens 1200 --takes 1 --works 3 --from 'older base' "
        "--step-tokens 400"
    )
