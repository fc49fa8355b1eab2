"""Works as a training has them, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from few_works import FewWorks, Onlooking, heard_falsely, tiny

from partbook.corpus.library import Library
from partbook.model.config import SIZES
from partbook.pretraining import pieces as module
from partbook.pretraining.making import Corpus, Order, read


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small size is tiny, and takes are made up."""
    monkeypatch.setitem(cast(dict[str, Any], SIZES), "small", tiny)
    monkeypatch.setattr(module, "hear", heard_falsely)


@pytest.fixture
def library() -> Library:
    return cast(Library, FewWorks())


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(
        tmp_path / "state", tmp_path / "cache", tokens=1200, step_tokens=400, vocabulary=620, heldout=3, heard_works=3
    )


@pytest.fixture
def corpus(order: Order, library: Library) -> Corpus:
    return read(order, library, Onlooking())
