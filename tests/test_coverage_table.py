"""What is kept of the suite's coverage, and when it counts as less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coverage_table import ALL, Reached, by_package, less, main


def run_of(**covered: int) -> dict:
    """A report of `coverage json`: modules of a hundred lines and fifty branches, by the lines that were reached."""
    return {
        "files": {
            f"client/partbook/node/{name}.py": {
                "summary": {"num_statements": 100, "covered_lines": n, "num_branches": 50, "covered_branches": n // 2}
            }
            for name, n in covered.items()
        }
        | {
            "common/partbook/cli.py": {
                "summary": {"num_statements": 10, "covered_lines": 10, "num_branches": 0, "covered_branches": 0}
            }
        }
    }


def test_modules_are_added_up_by_package_whosever_machine_they_are_for() -> None:
    found = by_package(run_of(ledger=90, chain=80))
    assert list(found) == ["partbook", "partbook.node", ALL]
    assert found["partbook.node"] == Reached(200, 170, 100, 85)
    assert found[ALL] == Reached(210, 180, 100, 85)
    assert (found["partbook"].line, found["partbook"].branch) == (100.0, 100.0)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (90, 90, []),
        (90, 95, []),
        (90, 89, ["partbook.node: 89.0 % of the lines", "partbook.node: 88.0 % of the branches", "all", "all"]),
    ],
)
def test_what_was_kept_is_the_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: int, now: int, said: list[str]
) -> None:
    run, kept = tmp_path / "run.json", ["--kept", str(tmp_path / "kept")]
    run.write_text(json.dumps(run_of(ledger=before)))
    assert main(["--keep", "--run", str(run), *kept]) == 0
    assert "| `partbook.node` | 100 | 90.0 % | 50 | 90.0 % |" in (tmp_path / "kept" / "coverage.md").read_text()
    capsys.readouterr()
    run.write_text(json.dumps(run_of(ledger=now)))
    assert main(["--run", str(run), *kept]) == (1 if said else 0)
    lines = capsys.readouterr().out.splitlines()
    assert not said or [line.startswith(start) for line, start in zip(lines, said, strict=True)] == [True] * len(said)


def test_half_a_point_less_is_chance_and_a_package_that_moved_no_loss() -> None:
    kept = {"partbook.node": Reached(1000, 905, 0, 0), "partbook.old": Reached(10, 10, 0, 0)}
    assert not list(less({"partbook.node": Reached(1000, 900, 0, 0)}, kept))
    assert list(less({"partbook.node": Reached(1000, 899, 0, 0)}, kept))
