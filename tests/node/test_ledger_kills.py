import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)  # a process for every write there is


def test_a_ledger_killed_at_any_write_loses_no_debit_and_keeps_none_twice(
    memory: Path, script: Callable[..., str]
) -> None:
    ends = json.loads(script("ledger_life.py", "kill", memory))
    assert ends["pwrite64"] == ends["pwrite64 torn"] > 50, ends
    assert ends["os.replace"] >= 11, "the head is written after every fact"
    assert ends["os.rename"] == 1, "a ledger gets its name once"
    assert sum(ends.values()) > 150, ends


@pytest.mark.long
def test_a_ledger_whose_files_are_torn_at_any_write_loses_no_debit_either(
    memory: Path, script: Callable[..., str]
) -> None:
    ends = json.loads(script("ledger_life.py", "kill", memory, "everything"))
    assert ends["pwrite64"] == ends["pwrite64 torn"] > 50, ends
    assert ends["os.fsync of a file torn"] == ends["os.fsync of a file"] >= 11, "the head, after every fact"


def test_two_processes_cannot_both_have_the_last_of_a_budget(memory: Path, script: Callable[..., str]) -> None:
    script("ledger_life.py", "race", memory)
