"""`partbook audit`: a page that stands alone, its figures, and an exit code that a machine can act on."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from partbook.errors import ConfigError
from partbook.privacy.mechanism import NoisyGrid
from partbook.simulation.audit.cli import ATTACKS, app
from partbook.simulation.audit.drawing import new_figure, save
from partbook.simulation.audit.report import FIGURES, REPORT, write_audit
from partbook.simulation.audit.results import AuditResult

pytestmark = pytest.mark.timeout(300)  # whole audits

ASKED = ("--quick", "--epsilon", "2", "--only", "one-run")


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    path = tmp_path / "dot.png"
    save(new_figure("A dot", "and nothing else", 2.0), path)
    return path


def test_an_audit_within_its_claim_exits_with_0_and_prints_its_figures(tiny_base: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*ASKED, "--base", str(tiny_base), "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures == json.loads((tmp_path / FIGURES).read_text())
    assert figures["within"] is True
    assert set(figures["attacks"]) == {"one-run"}
    assert (tmp_path / figures["attacks"]["one-run"]["plot"]).exists()


def test_an_audit_of_noise_that_is_not_there_exits_with_1(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoisyGrid, "noisy", lambda grid, total, words=None: total)
    done = CliRunner().invoke(app, [*ASKED, "--base", str(tiny_base), "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    assert "beyond the claim" in done.stdout
    assert "beyond the claim" in (tmp_path / REPORT).read_text()


def test_an_unknown_attack_is_refused_by_name(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--only", "one-run,guessing", "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert "guessing" in str(done.exception)
    assert all(name in str(done.exception) for name in ATTACKS)


def test_the_page_stands_alone_and_escapes_what_it_is_told(plot: Path, tmp_path: Path) -> None:
    wild = "<script>alert('ε')</script>"
    results = {
        "one-run": AuditResult(wild, wild, {"nested": {"runs_above": [1, 2]}, "sure": True, "none": None}, plot),
        "copying": AuditResult("Two", "Found.", {}, plot, within=False, facts=((wild, wild),)),
    }
    page = write_audit(tmp_path, results, {"runs": 1, "quick": True}, {"one-run": 1.0}).read_text()
    assert "<script" not in page
    assert page.count(escape(wild)) >= 4
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "Two attacks, one beyond the claim" in page
    assert "nested: runs above" in page
    assert "1, 2" in page
    figures = json.loads((tmp_path / FIGURES).read_text())
    assert figures["within"] is False
    assert figures["attacks"]["copying"]["plot"] == plot.name


def test_figures_are_numbers_that_json_has(plot: Path, tmp_path: Path) -> None:
    result = AuditResult("One", "Found.", {"share": float(np.float64(0.25))}, plot)
    write_audit(tmp_path, {"one-run": result}, {}, {})
    assert json.loads((tmp_path / FIGURES).read_text())["attacks"]["one-run"]["figures"] == {"share": 0.25}
