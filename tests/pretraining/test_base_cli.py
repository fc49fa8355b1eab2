"""`partbook base`, on a few tunes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from few_works import FewWorks
from typer.testing import CliRunner

from partbook.corpus.library import Library
from partbook.model.checkpoint import base_manifest, load_model
from partbook.pretraining.cli import base
from partbook.pretraining.watching import Watching


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(cls: Any, data: Any = (), cache: Any = None, watch: Any = None) -> FewWorks:
        return FewWorks()

    monkeypatch.setattr(Library, "open", classmethod(opened))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(base, [str(argument) for argument in arguments], catch_exceptions=False)


def asked(folder: Path) -> list[object]:
    return [
        "train", "--out", folder / "base", "--cache", folder / "cache", "--tokens", 800, "--step-tokens", 400,
        "--vocabulary", 620, "--works", 2, "--heldout", 2, "--json",
    ]  # fmt: skip


def test_one_command_makes_a_base_goes_on_and_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Watching, "step", lambda self, step: signal.raise_signal(signal.SIGINT))
        ended = run(*asked(tmp_path))
    assert ended.exit_code == 130
    found = json.loads(ended.stdout)
    assert (found["steps"], found["signal"], found["out"], found["about"]) == (1, 2, None, None)
    assert not (tmp_path / "base").exists()
    assert Path(found["state"]) == tmp_path / "cache" / "base" / "small"

    done = run(*asked(tmp_path))
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["tokens"] >= 800
    assert found["about"] == base_manifest(tmp_path / "base")["about"]
    assert load_model(tmp_path / "base").config.vocabulary == 620

    again = run(*asked(tmp_path))
    assert json.loads(again.stdout)["steps"] == found["steps"], "it is done, and exports again"


def test_a_training_is_exported_while_it_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Watching, "step", lambda self, step: signal.raise_signal(signal.SIGTERM))
        assert run(*asked(tmp_path)).exit_code == 143
    state, cache = tmp_path / "cache" / "base" / "small", tmp_path / "cache"
    call = ["export", "--state", state, "--out", tmp_path / "interim", "--cache", cache, "--heldout", 1]
    shown = run(*call)
    assert shown.exit_code == 0
    assert "Base model written to" in shown.stdout
    about = base_manifest(tmp_path / "interim")["about"]
    assert about["steps"] == 1
    assert set(about["heldout_pieces"].values()) == {1}
    bare = json.loads(run(*call[:-1], 0, "--json").stdout)
    assert bare["about"]["heldout_nats_per_note"] == {}
