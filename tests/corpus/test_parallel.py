import os

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
