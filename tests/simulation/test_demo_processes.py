"""The demo of processes, small: real audio files, really ingested; real processes, real TLS; a model of a few thousand
parameters."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import soundfile
from rich.console import Console
from symusic import Score

from partbook.coordinator.running import rounds_done
from partbook.custodian.settings import CustodianSettings
from partbook.errors import ConfigError, InputError
from partbook.generator.release import open_release
from partbook.identity.keys import IdentityKey
from partbook.music.rendering import synthesise
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.plan.rounds import ServerStep
from partbook.plan.training import PlainTraining
from partbook.simulation.demo_processes import (
    Process,
    ProcessesDemo,
    ProcessesOptions,
    ProcessesResult,
)
from partbook.simulation.demo_processes_view import ProcessesWatcher, about, report
from partbook.simulation.demo_rounds import Course
from partbook.simulation.noise import Asked
from partbook.vault.ingest import Workers, ingest
from partbook.vault.store import Vault

# A fixture here is minutes of other processes' work on a machine that does something else as well.
pytestmark = pytest.mark.timeout(1800)

RATE, ROUNDS, EPSILON = 44_100, 5, 8.0
LABELS = ("Alto", "Bass", "Tenor Voice")
PLAIN = PlainTraining(steps=1, batch=2, clip=0.5)


@dataclass
class Told:
    """A watcher that keeps what it is told."""

    stages: list[str] = field(default_factory=list)
    seen: dict[str, set[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def now(self, state: Path, processes: list[Process]) -> None:
        del state
        for process in processes:
            if process.pid is not None:
                assert process.peak >= process.resident > 0
                self.seen.setdefault(process.name, set()).add(process.pid)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory, tunes: list[Path], tiny_base: Path) -> Mapping[str, Path]:
    """Two recordings of a few seconds for each label, played, written and heard."""
    folder, found = tmp_path_factory.mktemp("labels"), {}
    with Workers(1) as workers:
        for index, label in enumerate(LABELS):
            score = Score(tunes[index])
            for track in score.tracks:
                track.program = 24
            sound = synthesise(score)
            recordings = folder / label / "recordings"
            recordings.mkdir(parents=True)
            for number in range(2):
                soundfile.write(recordings / f"{number}.flac", sound[number * RATE :][: 6 * RATE], RATE)
            found[label] = folder / label / "vault"
            with Vault.create(found[label]) as vault:
                report = ingest(recordings, vault, tiny_base / "tokenizer.json", program=24, workers=workers)
            assert len(report.added) == 2, report.refused
    return found


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, vaults: Mapping[str, Path], tiny_base: Path) -> ProcessesOptions:
    step = ServerStep(rule="adam", learning_rate=0.05, momentum=0.9, second=0.99)
    return ProcessesOptions(
        out=tmp_path_factory.mktemp("demo") / "run",
        vaults=vaults,
        noised=Course(Asked("distributed", EPSILON, 1e-3, clip=0.15), ROUNDS, "norms", step, PLAIN),
        check=Course(Asked("none", delta=1e-3), ROUNDS, "all", ServerStep(momentum=0.5), PLAIN),
        rounds=ROUNDS,
        seed=7,
        base=tiny_base,
        sources=("tunes written for the tests",),
    )


@dataclass
class Impatient(Told):
    """Presses Ctrl-C as soon as two rounds are done."""

    def now(self, state: Path, processes: list[Process]) -> None:
        super().now(state, processes)
        if rounds_done(state) >= 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def broken_off(options: ProcessesOptions) -> Impatient:
    """A run that was ended in the middle of a federation's rounds."""
    impatient = Impatient()
    with pytest.raises(KeyboardInterrupt):
        ProcessesDemo(options, impatient).run()
    return impatient


@pytest.fixture(scope="module")
def ran(options: ProcessesOptions, broken_off: Impatient) -> tuple[ProcessesResult, Told]:
    """The same run, gone on with."""
    assert not _left(broken_off, options.out)
    told = Told()
    return ProcessesDemo(options, told).run(), told


def test_ctrl_c_ends_every_process(broken_off: Impatient, options: ProcessesOptions) -> None:
    assert {"superlink", "serverapp", "Custodian", *LABELS} <= broken_off.seen.keys()
    assert not _left(broken_off, options.out)
    assert 2 <= rounds_done(options.out / "noised" / "coordinator" / "state") < ROUNDS


def test_every_party_had_a_process_of_its_own_and_none_is_left(
    ran: tuple[ProcessesResult, Told], options: ProcessesOptions
) -> None:
    result, told = ran
    parties = {"coordinator", "superlink", "superexec", "front", "serverapp", "Custodian", *LABELS}
    assert parties <= told.seen.keys()
    pids = [pid for name in parties for pid in told.seen[name]]
    assert len(pids) == len(set(pids))
    assert not told.notes, "nobody had to be started again"
    assert all(result.noised.memory[name] > 1_000_000 for name in parties)
    assert not _left(told, options.out)


def test_five_sealed_rounds_with_distributed_noise_led_to_a_signed_release(
    ran: tuple[ProcessesResult, Told], options: ProcessesOptions
) -> None:
    result, _ = ran
    signer = IdentityKey.load(options.out / "noised" / "office" / "coordinator.pem").public
    release = open_release(options.out / "release", signer=signer)
    assert release.id == result.noised.release.id
    assert release.about["locks"] == {"masks": True, "seal": True, "noise": True}
    assert release.about["training"]["rounds"] == ROUNDS
    assert [record.members for record in result.noised.history] == [LABELS] * ROUNDS
    assert {"query.open", "query.apply", "query.contribute"} <= result.noised.history[-1].exchanges.keys()


def test_the_release_without_noise_is_what_one_process_comes_to_bit_for_bit(
    ran: tuple[ProcessesResult, Told],
) -> None:
    result, _ = ran
    assert result.equal
    assert result.good
    assert result.check.release.about["locks"] == {"masks": True, "seal": True, "noise": False}
    assert result.check.release.about["adapter"] != result.noised.release.about["adapter"]


def test_every_ledger_has_paid_what_the_coordinator_states_and_the_check_has_ledgers_of_its_own(
    ran: tuple[ProcessesResult, Told], options: ProcessesOptions
) -> None:
    result, _ = ran
    assert 0.9 * EPSILON < result.stated <= EPSILON * 1.001
    assert result.spent == dict.fromkeys(LABELS, result.stated)
    assert result.covered
    for label, vault in options.vaults.items():
        assert not (vault / "ledger.sqlite").exists(), "a demo's rounds are not what a label's recordings pay for"
        for part, bounded in (("noised", True), ("check", False)):
            folder = options.out / part / label
            policy = Policy.read(folder / "policy.toml")
            assert (policy.epsilon_recording <= EPSILON * 1.001) is bounded
            assert policy.modes == ("sealed",)
            with Vault.open(vault) as opened, Ledger.open(folder / "ledger.sqlite", opened.ledger_key) as ledger:
                assert len({debit.federation for debit in ledger.debits()}) == 1
                assert [debit.round for debit in ledger.debits() if debit.state == "committed"] == [1, 2, 3, 4, 5]


def test_nodes_spoke_to_the_front_alone_and_with_a_certificate_of_the_roster(
    ran: tuple[ProcessesResult, Told], options: ProcessesOptions
) -> None:
    folder = options.out / "noised"
    settings = CustodianSettings.read(folder / "Custodian" / "custodian.toml")
    assert settings.coordinator.startswith("localhost:")
    for party in (*LABELS, "Custodian"):
        assert list((folder / party / "tls").glob("*cert*")), party


def test_running_it_again_finds_everything_done_and_another_question_is_refused(
    ran: tuple[ProcessesResult, Told], options: ProcessesOptions, tmp_path: Path
) -> None:
    result, _ = ran
    told = Told()
    again = ProcessesDemo(options, told).run()
    assert not told.seen, "no process was started"
    assert (again.noised.release.id, again.equal, again.spent) == (result.noised.release.id, True, result.spent)
    with pytest.raises(ConfigError, match="another rounds"):
        ProcessesDemo(replace(options, rounds=6), Told())
    (tmp_path / "mine.txt").write_text("not a demo's")
    with pytest.raises(InputError, match="holds something else"):
        ProcessesDemo(replace(options, out=tmp_path), Told())


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_fits_a_terminal_and_says_what_matters(ran: tuple[ProcessesResult, Told], width: int) -> None:
    result, _ = ran
    result = replace(result, out=Path("runs/processes"))
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(report(result))
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    assert result.noised.release.id in text
    assert "equal bit for bit: yes" in text
    assert "Opening the sum" in text
    assert "SuperLink" in text
    values = json.loads(json.dumps(about(result), allow_nan=False))
    assert values["equal_bit_for_bit"] is True
    assert values["epsilon"]["covered"] is True
    assert values["noised"]["bytes_per_round"]["Alto"]["received"] > 10_000
    assert len(values["noised"]["rounds"]) == ROUNDS


def test_a_log_gets_a_line_a_stage_and_a_run_broken_off_is_marked(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    watcher = ProcessesWatcher(console)
    watcher.__enter__()
    watcher.stage("Starting")
    watcher.stage("Rounds")
    watcher.now(tmp_path, [Process("superlink", 1, 1, 1)])
    watcher.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("✓ Starting")
    assert second.startswith("✗ Rounds")


def _left(told: Told, folder: Path) -> list[int]:
    return [pid for pids in told.seen.values() for pid in pids if _is_of(pid, folder)]


def _is_of(pid: int, folder: Path) -> bool:
    """Whether a process is still there, and is none that got the same number later."""
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
