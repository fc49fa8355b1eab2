"""`partbook privacy plan`: the figures a federation agrees on, and the manners of the command."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from partbook.errors import ConfigError
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.accounting import epsilon
from partbook.privacy.cli import app
from partbook.privacy.events import NoisySum, Repeated
from partbook.privacy.planning import default_colluders, default_delta, milestones

ASKED = ("plan", "--epsilon", "8", "--recordings", "1000", "--rounds", "200")


def asked(*more: object) -> Result:
    result = CliRunner().invoke(app, [*ASKED, *map(str, more)])
    if isinstance(result.exception, ConfigError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def as_json(*more: object) -> dict:
    return json.loads(asked("--json", *more).stdout)


def test_a_plan_keeps_every_recording_within_the_epsilon_asked_for() -> None:
    found = as_json()
    assert found["wish"]["delta"] == 1e-5
    assert found["sampling"] == 0.064
    assert found["expected_batch"] == 64
    assert (found["wish"]["threshold"], found["wish"]["colluders"]) == (3, 1)
    near, far = found["epsilon"]["colluders"], found["epsilon"]["outsiders"]
    assert 7.9 < near <= 8
    assert far < near
    assert near == pytest.approx(epsilon([Repeated(NoisySum(found["noise_multiplier"], 0.064), 200)], 1e-5))
    outsiders = found["noise_multiplier"] * math.sqrt(3 / 2)
    assert far == pytest.approx(epsilon([Repeated(NoisySum(outsiders, 0.064), 200)], 1e-5))
    rounds = [row["round"] for row in found["curve"]]
    assert rounds[0] == 1
    assert rounds[-1] == 200
    assert len(rounds) == 8
    assert found["curve"][-1]["colluders"] == near
    assert [row["batch"] for row in found["choices"]] == [32, 64, 128, 256, 1000]
    assert all(row["noise"] == row["noise_multiplier"] / row["batch"] for row in found["choices"])
    assert "check" not in found


def test_the_tables_say_the_same_to_a_person() -> None:
    text = asked().stdout
    for part in ("0.9347", "0.064", "64 of 1000", "1e-05", "ε against 1 colluding", "ε against outsiders", "σ/batch"):
        assert part in text
    assert "[training]" not in text


def test_the_section_it_writes_is_what_a_coordinator_reads() -> None:
    text = asked("--toml", "--batch", 100, "--labels", 7, "--colluders", 1).stdout
    section = tomllib.loads(text[text.index("# ε =") :])["training"]
    training = DistributedDp.model_validate(section)
    assert (training.sampling, training.batch, training.colluders) == (0.1, 100, 1)
    assert "threshold = 5" in text


def test_local_mode_plans_the_steps_of_one_label() -> None:
    found = as_json("--mode", "local", "--steps", 2, "--batch", 25, "--toml")
    assert found["sampling"] == 0.1, "25 of the 250 recordings a label has"
    assert found["epsilon"]["colluders"] == found["epsilon"]["outsiders"] <= 8
    training = LocalDp.model_validate(tomllib.loads(found["toml"])["training"])
    assert training.steps == 2
    sums = Repeated(NoisySum(training.noise_multiplier, training.sampling), 400)
    assert epsilon([sums], 1e-5) == pytest.approx(found["epsilon"]["colluders"])


def test_a_batch_may_be_said_as_a_probability() -> None:
    assert as_json("--sampling", 0.05)["expected_batch"] == pytest.approx(50)


def test_other_accountants_are_asked_on_request() -> None:
    found = as_json("--check")
    assert 0.8 * 8 < found["check"]["dp-accounting PLD"] < found["epsilon"]["colluders"]
    assert 0.8 * 8 < found["check"]["Opacus PRV"] < found["epsilon"]["colluders"]


@pytest.mark.parametrize("more", [(), ("--colluders", 0), ("--mode", "local")], ids=str)
def test_the_picture_is_a_png(tmp_path: Path, more: tuple[object, ...]) -> None:
    path = tmp_path / "cost.png"
    asked("--plot", path, *more)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--plot"):
        asked("--plot", tmp_path / "nowhere" / "cost.png")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--delta", 0.001), "delta"),
        (("--delta", 0), "delta"),
        (("--delta", "nan"), "delta"),
        (("--epsilon", 0), "epsilon"),
        (("--epsilon", "nan"), "epsilon"),
        (("--recordings", 0), "recordings"),
        (("--rounds", 0), "rounds"),
        (("--labels", 2), "labels"),
        (("--labels", 0), "labels"),
        (("--threshold", 2), "threshold"),
        (("--threshold", 5), "threshold"),
        (("--colluders", 3), "colluders"),
        (("--colluders", -1), "colluders"),
        (("--batch", 0), "batch"),
        (("--batch", 1001), "batch"),
        (("--sampling", 1.5), "sampling"),
        (("--sampling", "nan"), "sampling"),
        (("--batch", 10, "--sampling", 0.1), "--batch"),
        (("--mode", "central"), "--mode"),
        (("--steps", 3), "steps"),
        (("--epsilon", "1e-6"), "fewer rounds"),
    ],
)
def test_an_impossible_wish_is_refused_by_the_name_of_its_option(more: tuple[object, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        asked(*more)


def test_a_refusal_ends_in_exit_code_2_and_one_line() -> None:
    command = [sys.executable, "-m", "partbook.cli", "privacy", *ASKED, "--delta", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: `delta` is 0.5")
    assert "Traceback" not in done.stderr


def test_help_loads_no_accountant() -> None:
    code = (
        "import sys\nfrom partbook.cli import main\nsys.argv = ['partbook', 'privacy', 'plan', '--help']\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert not {'numpy', 'scipy', 'dp_accounting', 'matplotlib', 'torch', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("recordings", "delta"), [(1, 1e-2), (99, 1e-3), (999, 1e-4), (1000, 1e-5), (10**6, 1e-8)])
def test_the_default_delta_is_below_a_tenth_of_one_recording(recordings: int, delta: float) -> None:
    assert default_delta(recordings) == delta
    assert delta < 1 / (10 * recordings) <= 10 * delta * (1 + 1e-12)


def test_default_colluders_are_fewer_than_a_third_and_leave_somebody() -> None:
    assert [default_colluders(n, 2 * n // 3 + 1) for n in range(3, 11)] == [0, 1, 1, 1, 2, 2, 2, 3]
    assert default_colluders(9, 1) == 0


def test_milestones_run_from_the_first_round_to_the_last() -> None:
    assert milestones(1) == (1,)
    assert milestones(3) == (1, 2, 3)
    assert milestones(200)[-1] == 200
