"""`partbook simulate`: vaults in, a table of rounds and an adapter out, and an error that can be gone on from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from tunes import recording_of, tune

from partbook.cli import main
from partbook.errors import ConfigError, InputError
from partbook.model.adapter import load_adapter, state_hash
from partbook.music.tokens import Tokenizer
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import from_json
from partbook.simulation.noise import Asked, server_step
from partbook.simulation.trial import Trial, TrialOptions, labels_of
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(900)  # whole simulations as processes

MEMBERS = ("alto", "bass", "cantus", "tenor")


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> list[Path]:
    """Four labels: two in a folder named after them, two called `vault` in such a folder."""
    home = tmp_path_factory.mktemp("labels")
    paths = [home / "alto", home / "bass", home / "cantus" / "vault", home / "tenor" / "vault"]
    for index, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        with Vault.create(path) as vault:
            vault.add(recording_of(tune(index), tiny_tokenizer, index), f"{index:064x}")
    return paths


@dataclass(frozen=True)
class Done:
    """How the command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Simulate(Protocol):
    """The command, on these vaults."""

    def __call__(self, base: Path, vaults: list[Path], out: Path, *more: str) -> Done: ...


def words(base: Path, vaults: list[Path], out: Path, *more: str) -> list[str]:
    return ["simulate", *map(str, vaults), "--out", str(out), "--base", str(base), *more]


def in_a_process(base: Path, vaults: list[Path], out: Path, *more: str) -> Done:
    command = [sys.executable, "-m", "partbook.cli", *words(base, vaults, out, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def simulate(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Simulate:
    """The command line in this process, from its arguments to its exit code; one test below starts a real one."""

    def run(base: Path, vaults: list[Path], out: Path, *more: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["partbook", *words(base, vaults, out, *more)])
        monkeypatch.setenv("COLUMNS", "120")
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said, errors = capfd.readouterr()
        return Done(int(ended.value.code or 0), said, errors)

    return run


PLAIN = ("--noise", "none", "--steps", "2", "--batch", "2", "--rounds", "2", "--seed", "3")


def test_a_sealed_trial_survives_a_drop_and_leaves_the_adapter_that_its_last_round_names(
    tiny_base: Path, vaults: list[Path], tmp_path: Path, simulate: Simulate
) -> None:
    done = simulate(tiny_base, vaults, tmp_path / "out", *PLAIN, "--drop", "cantus@contribute:1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["labels"] == list(MEMBERS)
    assert found["error"] is None
    first, second = found["rounds"]
    assert first["members"] == ["alto", "bass", "tenor"]
    assert first["dropped"] == {"cantus": "query.contribute"}
    assert second["members"] == list(MEMBERS)
    assert second["dropped"] == {}
    for record in (first, second):
        assert record["bytes_per_node"]["sent"] > 1000
        assert record["exchanges"]["query.open"] > 0
        assert record["epsilon"] is None
    assert found["privacy"]["epsilon_colluders"] is None
    assert found["privacy"]["recordings"] == 4
    assert state_hash(load_adapter(Path(found["adapter"]))) == second["model"]
    # Every party's keys are its own, in a folder of its own.
    keys = [*(tmp_path / "out").rglob("*.pem"), *(tmp_path / "out").rglob("seal.secret")]
    assert len(keys) == 2 * len(MEMBERS) + 3
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)


def test_a_round_below_the_threshold_ends_with_code_2_and_the_same_command_goes_on(
    tiny_base: Path, vaults: list[Path], tmp_path: Path, simulate: Simulate
) -> None:
    out = tmp_path / "out"
    drops = ("--drop", "bass@share:2", "--drop", "tenor@share:2")
    stopped = in_a_process(tiny_base, vaults, out, *PLAIN, "--locks", "masked", *drops)
    assert stopped.returncode == 2
    assert "CohortTooSmall: Round 2" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "2, cut short" in stopped.stdout
    assert "the same command goes on" in stopped.stdout
    assert "Adapter" not in stopped.stdout
    assert "There was no noise: ε is infinite" in stopped.stdout
    assert "ε so far" not in stopped.stdout
    finished = simulate(tiny_base, vaults, out, *PLAIN, "--locks", "masked")
    assert finished.returncode == 0, finished.stderr
    lines = [line for line in finished.stdout.splitlines() if "4 of 4" in line]
    assert len(lines) == 2
    assert "earlier" in lines[0]
    assert "kB" in lines[1]
    assert str(out / "coordinator" / "adapter.safetensors") in finished.stdout


@pytest.mark.parametrize("kind", ["distributed", "local"])
def test_a_noisy_trial_states_both_epsilons_of_every_round_as_the_ledgers_have_them_and_gets_no_fresh_budget(
    tiny_base: Path, vaults: list[Path], tmp_path: Path, kind: str, simulate: Simulate
) -> None:
    noise = ("--noise", kind, "--epsilon", "5", "--delta", "1e-4", "--sampling", "0.5", "--rounds", "2")
    done = simulate(tiny_base, vaults, tmp_path, *noise, "--locks", "masked", "--scope", "norms", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, second = (record["epsilon"] for record in found["rounds"])
    assert 0 < first["colluders"] < second["colluders"] <= 5
    assert (first["outsiders"] < first["colluders"]) == (kind == "distributed")
    cost = found["privacy"]
    assert (cost["epsilon_colluders"], cost["epsilon_outsiders"]) == (second["colluders"], second["outsiders"])
    assert (cost["delta"], cost["recordings"], cost["rounds"]) == (1e-4, 4, 2)
    assert cost["spent_by_ledger"] == dict.fromkeys(MEMBERS, second["colluders"])
    state = json.loads((tmp_path / "coordinator" / "state.json").read_text())["history"]
    events = [event for record in state if record["round"] for event in from_json(record["spent"]["colluders"])]
    assert epsilon(events, 1e-4) == second["colluders"]
    more = simulate(tiny_base, vaults, tmp_path, *noise, "--rounds", "3", "--locks", "masked", "--scope", "norms")
    assert more.returncode == 2
    for member in MEMBERS:
        assert f"{member} declined with BudgetExhausted" in " ".join(more.stderr.split())
    assert "ε so far" in more.stdout
    assert f"ε = {second['colluders']:.3f} against" in more.stdout


def test_noise_that_cannot_be_measured_out_is_refused_before_anything_is_made(
    tiny_base: Path, vaults: list[Path], tmp_path: Path
) -> None:
    for asked, words in (
        (Asked(delta=0.4), "`delta` is 0.4"),
        (Asked(sampling=0.0), "`sampling` is 0.0"),
        (Asked(colluders=3), "`colluders` is 3"),
        (Asked(epsilon=0.0001), "noise multiplier"),
    ):
        with pytest.raises(ConfigError, match=words):
            Trial(TrialOptions(tuple(vaults), tmp_path / "out", rounds=1000, base=tiny_base, asked=asked))
    assert not (tmp_path / "out").exists()


def test_an_infinite_epsilon_is_plain_training_that_the_labels_allow(
    tiny_base: Path, vaults: list[Path], tmp_path: Path
) -> None:
    asked = Asked(epsilon=float("inf"))
    trial = Trial(
        TrialOptions(tuple(vaults), tmp_path / "out", 1, base=tiny_base, asked=asked, step=server_step(asked))
    )
    trial.run()
    result = trial.result()
    assert not result.cost.bounded
    assert result.adapter is not None
    assert server_step(asked).rule == "momentum"
    assert server_step(Asked(), momentum=0.5).model_dump(include={"rule", "momentum"}) == {
        "rule": "adam",
        "momentum": 0.5,
    }


def test_a_trial_is_not_gone_on_with_under_another_question(
    tiny_base: Path, vaults: list[Path], tmp_path: Path
) -> None:
    def asked(**changes: object) -> TrialOptions:
        options: dict[str, object] = {"vaults": tuple(vaults), "out": tmp_path / "out", "base": tiny_base, "seed": 1}
        return TrialOptions(**{**options, **changes})  # type: ignore[arg-type]

    Trial(asked(rounds=1))
    Trial(asked(rounds=5))
    for changes, name in (
        ({"mode": "masked"}, "locks"),
        ({"seed": 2}, "seed"),
        ({"vaults": tuple(vaults[:3])}, "vaults"),
        ({"threshold": 4}, "threshold"),
        ({"asked": Asked(epsilon=9.0)}, "noise"),
        ({"asked": Asked(clip=0.5)}, "noise"),
        ({"scope": "norms"}, "scope"),
    ):
        with pytest.raises(ConfigError, match=rf"another {name}.*--out"):
            Trial(asked(**changes))


def test_vaults_that_make_no_federation_are_named(vaults: list[Path], tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(ConfigError, match="2 vaults were given; at least 3"):
        labels_of(vaults[:2])
    with pytest.raises(InputError, match="holds no vault"):
        labels_of([*vaults, tmp_path])
    with pytest.raises(ConfigError, match="both belong to a label 'alto'"):
        labels_of([*vaults, vaults[0]])
    notary = tmp_path / "Custodian" / "vault"
    notary.parent.mkdir()
    with Vault.create(notary):
        pass
    with pytest.raises(ConfigError, match="another party's name"):
        labels_of([*vaults, notary])
    for changes, words in (
        ({"threshold": 2}, "threshold 2 must be above half of 4"),
        ({"drops": ("nobody@share",)}, "no member is called 'nobody'"),
        ({"drops": ("alto@lunch",)}, "no exchange is called 'lunch'"),
    ):
        with pytest.raises(ConfigError, match=words):
            Trial(TrialOptions(tuple(vaults), tmp_path / "out", base=tiny_base, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
