from __future__ import annotations

import json

import pytest
from benchmarks import training_loop


def test_bench_training_runs_to_its_closing_line(capsys: pytest.CaptureFixture[str]) -> None:
    """At a tiny size: that both loops train and are measured, never how fast."""
    asked = "--turns 2 --steps 2 --layers 1 --width 8 --heads 2 --hidden 16 --context 12 --batch 2 --vocabulary 30"
    assert training_loop.main(asked.split()) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert sum("ours" in line and line.startswith("turn") for line in lines) == 3
    closing = json.loads(lines[-1])
    assert closing["bench"] == "training"
    assert all(claim["ours"] > 0 and claim["peer"] > 0 and claim["target"] == 0.9 for claim in closing["claims"])
