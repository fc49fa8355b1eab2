"""The ablations at a tiny size: that they run to their closing line and keep what they found, never who wins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks import ablation
from few_works import FewWorks


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[str], list[dict[str, Any]]]:
    library: Any = FewWorks()
    assert ablation.main([str(argument) for argument in arguments], library) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    closing = json.loads(lines[-1])
    assert closing["bench"] == "ablation"
    return lines[:-1], closing["claims"]


def test_it_runs_to_its_closing_line_and_is_not_trained_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--tokens", 400, "--step-tokens", 200, "--works", 2, "--heldout", 2, "--cache", tmp_path)
    lines, claims = run(capsys, *asked)
    assert {claim["peer_name"] for claim in claims} == {called for called, _ in ablation.ALTERNATIVES.values()}
    assert {claim["what"] for claim in claims} == {"held-out works as written", "held-out works as heard"}
    assert all(math.isfinite(claim["ratio"]) and claim["ratio"] > 0 for claim in claims)
    assert any("the recipe" in line for line in lines)
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "trained", None)
        assert run(capsys, *asked)[1] == claims


def test_a_budget_of_seconds_ends(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ("--seconds", 0.5, "--step-tokens", 200, "--works", 2, "--heldout", 2, "--cache", tmp_path)
    _, claims = run(capsys, *asked, "--only", "adamw")
    assert {claim["peer_name"] for claim in claims} == {"AdamW"}


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    shares = [ablation.rate(done / 100) for done in range(101)]
    assert max(shares) == 1.0
    assert shares[-1] == 0.0
    assert shares[5:61] == [1.0] * 56
    assert shares[0] > 0
