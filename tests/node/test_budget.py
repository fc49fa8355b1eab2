import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from partbook.errors import ConfigError
from partbook.music.recording import Recording
from partbook.node.budget import NEWEST, Budget, asked
from partbook.node.cli import app
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import NoisySum, Repeated, Unprotected
from partbook.vault.store import Vault

EVENTS = (Repeated(NoisySum(2.0, 0.1)),)
STEPS = (Repeated(NoisySum(3.0, 0.05), 4),)
POLICY = Policy(epsilon_recording=10, epsilon_federation=6)
FINGERPRINT = "ab12 " * 15 + "ab12"


@pytest.fixture
def place(tmp_path: Path, recordings: list[Recording]) -> Path:
    """A vault of three recordings, one of them withdrawn, with 30 rounds in two federations behind it."""
    place = tmp_path / "vault"
    with Vault.create(place) as vault:
        for index, recording in enumerate(recordings):
            vault.add(recording, f"{index:064x}")
        with Ledger.open(place / "ledger.sqlite", vault.ledger_key) as ledger:
            ledger.join(vault.ids()[:2])
            for round in range(1, 31):
                federation, events = ("folk", EVENTS) if round % 3 else ("jazz", STEPS)
                question = f"q{round}"
                ledger.reserve(
                    federation, FINGERPRINT, round, question, "p", events, policy=POLICY, note="sealed, distributed"
                )
                if round % 10 == 5:
                    ledger.release(question)
                elif round < 30:
                    ledger.commit(question)
                if round == 20:
                    ledger.join(vault.ids())
            ledger.withdraw(vault.ids()[1])
    return place


@pytest.fixture
def ledger(place: Path) -> Iterator[Ledger]:
    with Vault.open(place) as vault, Ledger.open(place / "ledger.sqlite", vault.ledger_key) as opened:
        yield opened


def test_a_budget_is_what_the_dearest_recording_has_spent_against_both_limits(ledger: Ledger) -> None:
    budget = Budget.of(ledger, POLICY)
    assert (budget.recordings, budget.withdrawn) == (2, 1)
    folk, jazz = [*EVENTS] * 18, [*STEPS] * 9  # rounds 5 and 25 of folk and 15 of jazz were released
    total, first, second = budget.total, *budget.federations
    assert (total.rounds, first.name, first.rounds, second.name, second.rounds) == (27, "folk", 18, "jazz", 9)
    assert total.spent == pytest.approx(epsilon(folk + jazz, POLICY.delta))
    assert total.committed == pytest.approx(epsilon(folk + jazz[:-1], POLICY.delta))
    assert second.spent == pytest.approx(epsilon(jazz, POLICY.delta))
    assert (total.limit, second.limit) == (10, 6)
    assert total.left == pytest.approx(10 - total.spent)
    assert first.coordinators == (FINGERPRINT,)
    assert len(budget.newest) == NEWEST
    assert [debit.round for debit in budget.newest[:3]] == [30, 29, 28]


def test_what_a_question_does_is_said_in_a_few_words(ledger: Ledger) -> None:
    budget = Budget.of(ledger, POLICY)
    assert asked(budget.newest[0]) == "4 x σ = 3, q = 0.05"
    assert asked(budget.newest[1]) == "σ = 2, q = 0.1"


def test_the_command_prints_tables(place: Path) -> None:
    done = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["budget", "--vault", str(place)], catch_exceptions=False)
    assert done.exit_code == 0
    for part in (
        "2 recordings count, 1 withdrawn",
        "folk",
        "jazz",
        "all",
        "Newest rounds (20 of 30)",
        "sealed, distributed",
        "σ = 2, q = 0.1",
        "reserved",
        "released",
        "ab12 ab12",
    ):
        assert part in done.stdout, part


def test_the_command_prints_json_in_which_infinity_is_a_word(place: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text("epsilon_recording = inf\nepsilon_federation = 6\n")
    with Vault.open(place) as vault, Ledger.open(place / "ledger.sqlite", vault.ledger_key) as ledger:
        open_ = Policy(epsilon_recording=float("inf"))
        ledger.reserve("open", FINGERPRINT, 1, "o1", "p", (Repeated(Unprotected()),), policy=open_)
    arguments = ["budget", "--vault", str(place), "--policy", str(policy), "--json"]
    found = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    assert found["total"]["epsilon_limit"] == found["total"]["epsilon_left"] == found["total"]["epsilon_spent"] == "inf"
    assert [one["federation"] for one in found["federations"]] == ["folk", "jazz", "open"]
    assert found["federations"][2]["epsilon_left"] == 0
    assert found["newest"][0]["asked"] == "no noise"
    assert found["newest"][0]["epsilon_alone"] == "inf"
    assert found["newest"][1]["state"] == "reserved"


def test_the_picture_is_drawn(place: Path, tmp_path: Path, ledger: Ledger) -> None:
    path = tmp_path / "budget.png"
    arguments = ["budget", "--vault", str(place), "--plot", str(path), "--json"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="cannot be written"):
        Budget.of(ledger, POLICY).plot(tmp_path / "no folder" / "budget.png")


def test_a_vault_that_took_part_in_nothing_has_spent_nothing(tmp_path: Path) -> None:
    Vault.create(tmp_path / "vault").close()
    path = tmp_path / "budget.png"
    arguments = ["budget", "--vault", str(tmp_path / "vault"), "--plot", str(path)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "Nothing was spent" in done.stdout
    assert path.exists()


def test_the_policy_in_force_is_printed_and_the_default_is_written(tmp_path: Path) -> None:
    runner, path = CliRunner(), tmp_path / "policy.toml"
    assert runner.invoke(app, ["policy"], catch_exceptions=False).stdout == Policy.default().text
    assert "Wrote" in runner.invoke(app, ["policy", "--write", str(path)], catch_exceptions=False).stdout
    assert Policy.read(path) == Policy.default()
    path.write_text("rounds = 7\n")
    shown = runner.invoke(app, ["policy", "--vault", str(tmp_path)], catch_exceptions=False).stdout
    assert "rounds = 7\n" in shown
    assert "hours" in shown
