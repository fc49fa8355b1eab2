"""The benchmark of a large update with small ones, in processes of their own: that it runs, never how much it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from multiprocessing import forkserver, set_forkserver_preload
from pathlib import Path

import numpy as np
import pytest
from benchmarks import large_update
from benchmarks.claims import Claim

pytestmark = pytest.mark.timeout(300)  # processes that seal and open a large vector


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that begin with what a party imports, seconds of a core for each; no figure of theirs is looked at."""
    monkeypatch.setattr(large_update, "START", "forkserver")
    roles = ("node.app", "node.opened_sum", "custodian.app", "coordinator.control", "coordinator.serverapp")
    set_forkserver_preload(["benchmarks.large_update", "switchboard", *(f"partbook.{role}" for role in roles)])
    yield
    forkserver._forkserver._stop()  # it would stay, with all that it has imported, for as long as this process does


@pytest.mark.usefixtures("forked")
def test_bench_large_update_runs_to_its_closing_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ["--parameters", "3000", "--rounds", "1", "--folder", str(tmp_path)]
    assert large_update.main(asked) in (0, 1)
    closing = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert closing["bench"] == "large_update"
    assert all(set(claim) == {*Claim.__slots__, "ratio", "met"} for claim in closing["claims"])
    (exact,) = [claim for claim in closing["claims"] if "exact" in claim["what"]]
    assert exact["met"]
    assert not list(tmp_path.iterdir())


def test_a_sum_that_is_off_by_one_anywhere_is_not_exact(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).integers(0, 65535, (3, 50), dtype=np.uint32)
    labels = large_update.names(3)
    for member, vector in zip(labels, vectors, strict=True):
        vector.tofile(tmp_path / f"{member}.numbers")
    total = vectors.sum(axis=0).astype("<u4")
    total.tofile(tmp_path / "opened.numbers")
    assert large_update.is_exact(tmp_path, labels, 50)
    assert not large_update.is_exact(tmp_path, labels, 49)
    total[-1] += 1
    total.tofile(tmp_path / "opened.numbers")
    assert not large_update.is_exact(tmp_path, labels, 50)
