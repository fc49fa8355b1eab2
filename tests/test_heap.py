"""That freed arrays stay with the process where glibc is the C library."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from partbook.heap import keep_freed_memory
if "kept" in sys.argv and not keep_freed_memory():
    raise SystemExit("no glibc")
import numpy as np
np.ones(1 << 23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(1 << 23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    if "no glibc" in ran.stderr:
        pytest.skip("glibc alone can be told so")
    return int(ran.stdout)


def test_an_array_as_large_as_one_that_was_freed_needs_no_new_pages() -> None:
    assert faults("kept") < faults() / 5
