import multiprocessing
import os
import time

import pytest

from partbook.corpus.parallel import FEW, over


def here(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_few_works_start_no_process() -> None:
    assert list(over(range(FEW), here)) == [(number, os.getpid()) for number in range(FEW)]


@pytest.mark.slow
def test_many_works_come_back_in_order_from_other_processes() -> None:
    found = list(over(range(FEW + 9), here))
    assert [number for number, _ in found] == list(range(FEW + 9))
    assert os.getpid() not in {process for _, process in found}


def slowly(number: int) -> int:
    time.sleep(number)
    return number


@pytest.mark.slow
def test_processes_end_where_the_caller_leaves_off() -> None:
    """Ctrl-C, or an error, in the midst of works that would take an hour."""
    before = set(multiprocessing.active_children())
    found = over([0] * 8 + [3600] * FEW, slowly)
    assert next(found) == 0
    started = set(multiprocessing.active_children()) - before
    assert started
    found.close()  # type: ignore[attr-defined]
    assert not any(process.is_alive() for process in started)
