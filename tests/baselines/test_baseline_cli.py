import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from works import TuneLibrary

from partbook.baselines.cli import app
from partbook.corpus.library import Library
from partbook.errors import ConfigError


@pytest.fixture
def library(monkeypatch) -> None:
    monkeypatch.setattr(Library, "open", classmethod(lambda cls, data=(), cache=None: TuneLibrary()))


def run(*arguments: str | int | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_train_and_score_say_in_json_what_they_found(library, tmp_path: Path) -> None:
    out = tmp_path / "counted"
    manifest = json.loads(
        run("train", "kneser-ney", "--out", out, "--takes", 0, "--cache", tmp_path / "cache", "--json")
    )
    assert manifest == json.loads((out / "manifest.json").read_text())
    found = json.loads(run("score", out, "base", "--collections", "monteverdi", "--json"))
    assert found["works"] == "scores"
    counted, base = found["models"]
    assert (counted["model"], base["model"]) == ("5-gram", "base")
    for model in (counted, base):
        at = model["collections"]["monteverdi"]
        assert at["works"] == 3
        assert 0 < at["nats_per_note"]["low"] <= at["nats_per_note"]["value"] <= at["nats_per_note"]["high"]
    assert counted["collections"]["monteverdi"]["nats_per_note"]["value"] < 12  # it has counted these tunes


def test_score_shows_a_table_for_each_collection(library) -> None:
    shown = run("score", "base")
    for name in TuneLibrary.collections:
        assert f"{name}: 3 held-out works as scores" in shown
    assert "Nats a note" in shown


def test_what_is_no_model_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no model"):
        CliRunner().invoke(app, ["score", str(tmp_path)], catch_exceptions=False)


def test_a_model_that_knows_a_held_out_work_is_not_scored_on_it(library, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "counted"
    run("train", "kneser-ney", "--out", out, "--takes", 0, "--cache", tmp_path / "cache")
    pool = TuneLibrary.pool
    monkeypatch.setattr(TuneLibrary, "pool", lambda self, name, _: pool(self, name, "base"))
    with pytest.raises(ConfigError, match="learnt from 12 of these"):
        CliRunner().invoke(app, ["score", str(out)], catch_exceptions=False)
