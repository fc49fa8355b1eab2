import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # a process that measures

ROOT = Path(__file__).parent.parent.parent


def test_bench_dp_runs_to_its_closing_line() -> None:
    """At a tiny size: that all ways agree and are measured, never how fast."""
    command = [sys.executable, "-m", "benchmarks.dp", "--recordings", "2", "--turns", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    apart = [float(line.split()[-2]) for line in lines if line.endswith(" apart")]
    assert len(apart) >= 2
    assert all(gap < 1e-3 for gap in apart)
    claims = json.loads(lines[-1])["claims"]
    assert len(claims) >= 4
    assert all(claim["ours"] > 0 and claim["peer"] > 0 for claim in claims)
