"""Batches come in order, each made once, ahead of time; what making one raises reaches who takes it."""

from __future__ import annotations

import threading

import pytest
import tiny_run

from partbook.training.prefetch import Prefetch


def test_batches_come_in_order_while_the_next_are_made() -> None:
    made: list[int] = []
    third = threading.Event()

    def batch(number: int) -> list[tiny_run.Windows]:
        made.append(number)
        if number == 9:
            third.set()
        return tiny_run.batch(number)

    with Prefetch(batch, 7, tiny_run.PAD, pinned=False) as prefetch:
        first = prefetch.take()
        assert third.wait(10), "two are made ahead"
        assert (first.windows[0].ids == tiny_run.batch(7)[0].ids).all()
        assert (prefetch.take().windows[1].ids == tiny_run.batch(8)[1].ids).all()
    assert made == sorted(set(made))
    assert first.tokens == tiny_run.TOKENS
    assert [tensors[0].shape[0] for tensors in first.tensors] == [2, 3]


def test_what_a_batch_raises_is_raised_where_it_is_taken() -> None:
    def batch(number: int) -> list[tiny_run.Windows]:
        if number == 1:
            raise LookupError("no work left")
        return tiny_run.batch(number)

    with Prefetch(batch, 0, tiny_run.PAD, pinned=False) as prefetch:
        prefetch.take()
        with pytest.raises(LookupError, match="no work left"):
            prefetch.take()
