import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)  # a process for every write there is


def test_a_label_killed_at_any_write_of_a_round_pays_once_and_sends_the_same_bytes(
    memory: Path, tiny_base: Path, script: Callable[..., str]
) -> None:
    ends = json.loads(script("round_life.py", tiny_base, memory))
    assert ends["pwrite64"] >= 6, "reserving and committing"
    assert ends["os.replace"] >= 8, "the vector, the exchange after every answer, and the ledger's head"
    assert sum(ends.values()) > 40, ends


@pytest.mark.long
def test_a_label_whose_writes_are_torn_anywhere_in_a_round_pays_once_and_sends_the_same_bytes(
    memory: Path, tiny_base: Path, script: Callable[..., str]
) -> None:
    ends = json.loads(script("round_life.py", tiny_base, memory, "everything"))
    assert ends["pwrite64"] == ends["pwrite64 torn"] >= 6, "reserving and committing"
    assert ends["os.fsync of a file"] == ends["os.fsync of a file torn"] >= 8, ends
