from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunes import recording_of, tune
from typer.testing import CliRunner, Result

from partbook.errors import ConfigError, InputError
from partbook.identity.keys import IdentityKey
from partbook.music.tokens import Tokenizer
from partbook.node.cli import app
from partbook.node.own_adapter import OwnAdapter
from partbook.training.adaptation import Adaptation, Epoch, Fitting
from partbook.training.examples import STYLES
from partbook.vault.store import Vault


@pytest.fixture
def vault(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    with Vault.create(tmp_path / "vault") as opened:
        for index in range(5):
            opened.add(recording_of(tune(index), tiny_tokenizer, index), f"{index:064x}")
    return tmp_path / "vault"


@pytest.fixture
def run(vault: Path, tiny_base: Path):
    """Runs the command on the vault, with steps that the tiny model feels."""

    def called(*arguments: object) -> Result:
        options = ["--vault", vault, "--base", tiny_base, "--rate", 0.05, "--epochs", 2, *arguments]
        return CliRunner().invoke(app, ["adapt", *map(str, options)], catch_exceptions=False)

    return called


def test_it_says_what_became_of_it_and_that_nothing_left(run, vault: Path) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    assert "2 epochs on 4 recordings, 1 held out (all epochs that were allowed)." in done.stdout
    assert "is the best: held out " in done.stdout
    assert str(vault / "adapters" / "own.sealed") in done.stdout
    assert done.stdout.endswith("Nothing left this machine.\n")


def test_json_says_the_same_in_one_object(run, vault: Path) -> None:
    said = json.loads(run("--json", "--style", 3, "--share", 0.4, "--seed", 5).stdout)
    assert said["recordings"] == {"trained": 3, "held_out": 2}
    assert said["held_out_nats_after"] < said["held_out_nats_before"]
    assert (said["epochs"], said["ended"], said["left_the_machine"]) == (2, "epochs", [])
    assert said["kept"] == str(vault / "adapters" / "own.sealed")


def test_ctrl_c_ends_with_130_and_the_best_so_far(run, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Adaptation._measured

    def interrupted(self: Adaptation, number: int, loss: float) -> Epoch:
        if number == 2:
            raise KeyboardInterrupt
        return measured(self, number, loss)

    monkeypatch.setattr(Adaptation, "_measured", interrupted)
    done = run()
    assert done.exit_code == 130
    assert "1 epochs on 4 recordings, 1 held out (interrupted)." in done.stdout
    found = OwnAdapter(vault, None).read()
    assert found is not None
    assert found[0].epoch == 1


def test_where_nothing_is_better_it_ends_with_1(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Adaptation, "_measured", lambda self, number, loss: Epoch(number, loss, 5.0 + number, {}))
    done = run()
    assert done.exit_code == 1
    assert "nothing was kept. Try a lower --rate" in done.stdout
    assert json.loads(run("--json").stdout)["kept"] is None


def test_it_is_written_out_only_when_asked_and_with_a_warning(run, vault: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    with pytest.raises(InputError, match="train one first"):
        run("--export", out)
    run()
    assert not list(tmp_path.glob("**/*.safetensors"))
    done = run("--export", out)
    assert out.exists()
    assert f"{out} is not private: it was trained on 5 recordings without noise" in done.stderr
    assert "partbook release pack --adapter" in done.stdout
    said = json.loads(run("--json", "--export", tmp_path / "again").stdout)
    assert said["private"] is False
    assert (tmp_path / "again").read_bytes() == out.read_bytes()


def test_options_out_of_range_are_named(run) -> None:
    with pytest.raises(ConfigError, match="share is 1"):
        run("--share", 1)
    assert run("--style", STYLES).exit_code == 2
    assert run("--style", STYLES - 1).exit_code == 0


def test_what_the_command_begins_with_is_what_is_documented(vault: Path, tiny_base: Path) -> None:
    help_text = CliRunner().invoke(app, ["adapt", "--help"], env={"COLUMNS": "200"}).stdout
    for name in ("epochs", "patience", "share", "rate", "batch", "seed"):
        (line,) = [line for line in help_text.splitlines() if f"--{name} " in line]
        assert f"[default: {getattr(Fitting(), name)}]" in line


def test_withdrawing_a_recording_takes_the_adapter_with_it(run, vault: Path, tmp_path: Path) -> None:
    run()
    IdentityKey.generate().save(tmp_path / "alto.pem")
    with Vault.open(vault) as opened:
        first = opened.ids()[0]
    call = ["withdraw", first, "--vault", vault, "--identity", tmp_path / "alto.pem", "--member", "Alto"]
    done = CliRunner().invoke(app, list(map(str, call)), catch_exceptions=False)
    assert "own adapter had learnt from it and is destroyed" in done.stdout
    assert OwnAdapter(vault, None).read() is None
    assert "own adapter" not in CliRunner().invoke(app, list(map(str, call)), catch_exceptions=False).stdout
