"""A run that is ended, killed or prolonged leads where one that was not leads; another's folder is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
import torch.nn.functional as F
from tiny_run import PAD, batch, model, recipe
from torch import Tensor

from partbook.errors import AlreadyRunning, AlteredFile, ConfigError, TrainingDiverged
from partbook.model.likelihood import to_tensors
from partbook.music.windows import Windows
from partbook.training.run import Run, Step
from partbook.training.saved_state import PREVIOUS, STATE


def trained(folder: Path, steps: int = 12) -> Run:
    with Run.open(folder, model(), recipe(steps)) as run:
        run.go(batch, PAD)
    return run


def assert_same(one: Run, other: Run) -> None:
    assert (one.step, one.tokens) == (other.step, other.tokens)
    for mine, its in (
        (one.model.state_dict(), other.model.state_dict()),
        (one.averaged_weights(), other.averaged_weights()),
    ):
        assert all(torch.equal(mine[name], its[name]) for name in mine)


def test_it_learns_what_can_be_learnt(tmp_path: Path) -> None:
    losses: list[float] = []
    asked = recipe(80, dropout=0.0)
    with Run.open(tmp_path, model(), asked) as run:
        ending = run.go(lambda number: batch(0), PAD, on_step=lambda step: losses.append(step.loss))
    assert losses[0] == pytest.approx(np.log(tiny_run.CONFIG.vocabulary), rel=0.05)
    assert losses[-1] < 0.7 * losses[0]
    assert (ending.exit_code, ending.signal, run.done) == (0, None, True)
    assert "step 80" in ending.message


def test_a_step_says_what_it_did(tmp_path: Path) -> None:
    steps: list[Step] = []
    with Run.open(tmp_path, model(), recipe(4)) as run:
        run.go(batch, PAD, on_step=steps.append)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert [step.tokens for step in steps] == [64, 128, 192, 256]
    assert [step.rate for step in steps] == pytest.approx([0.02 / 3, 0.04 / 3, 0.02, 0.02])
    assert all(step.norm > 0 and step.seconds > 0 and step.tokens_per_second > 0 for step in steps)
    assert all(step.auxiliary is None for step in steps)


def test_the_gradient_is_that_of_the_mean_over_all_tokens_of_the_step(tmp_path: Path) -> None:
    run = Run(tmp_path, model(), recipe(dropout=0.0, clip=1e9))
    reference = model().train()
    sums, count = torch.zeros(()), 0
    for one in batch(0):
        ids, mel, has_memory = to_tensors(one, torch.device("cpu"))
        logits = reference(ids[:, :-1], mel, has_memory).transpose(1, 2)
        sums = sums + F.cross_entropy(logits, ids[:, 1:], ignore_index=PAD, reduction="sum")
        count += int((ids[:, 1:] != PAD).sum())
    (sums / count).backward()
    found: list[Step] = []
    seen: dict[str, Tensor] = {}

    def keep(share: float) -> None:
        seen.update({name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None})
        run.model.zero_grad()

    run._optimiser.step = keep  # type: ignore[method-assign]
    run.recipe = replace(run.recipe, tokens=1)
    run.go(batch, PAD, on_step=found.append)
    assert found[0].loss == pytest.approx(float(sums.detach()) / count, rel=1e-6)
    for name, parameter in reference.named_parameters():
        if name.startswith("encoder.classes"):
            continue  # asked by the auxiliary loss alone
        torch.testing.assert_close(seen[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_a_run_stopped_by_a_signal_ends_after_its_step_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    for number, ends, seed in ((signal.SIGTERM, 5, 5), (signal.SIGINT, 8, 77)):

        def end(step: Step, number: int = number, ends: int = ends) -> None:
            if step.number == ends:
                os.kill(os.getpid(), number)

        with Run.open(tmp_path / "cut", model(seed=seed), recipe()) as run:
            ending = run.go(batch, PAD, on_step=end)
        assert (ending.step, ending.signal, ending.exit_code) == (ends, number, 128 + number)
        assert number.name in ending.message
    assert_same(trained(tmp_path / "cut"), whole)


def bfloat16_of(run: Run) -> list[str]:
    return [name for name, tensor in run.averaged_weights().items() if tensor.dtype == torch.bfloat16]


def test_a_run_in_bfloat16_learns_the_same_and_may_go_on_in_float32(tmp_path: Path) -> None:
    losses: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for precision, own in losses.items():
        with Run.open(tmp_path / str(precision), model(), recipe(12), precision=precision) as run:
            run.go(batch, PAD, on_step=lambda step, own=own: own.append(step.loss))  # type: ignore[misc]
            assert all(
                tensor.dtype == torch.float32
                for tensor in run.averaged_weights().values()
                if tensor.is_floating_point()
            )
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.01)
    assert losses[torch.bfloat16] != losses[torch.float32]
    with Run.open(tmp_path / str(torch.bfloat16), model(), recipe(14), prolong=True) as run:
        assert run.go(batch, PAD).step == 14


def test_what_a_watcher_does_between_steps_moves_nothing(tmp_path: Path) -> None:
    with Run.open(tmp_path / "watched", model(), recipe()) as run:

        def look(step: Step) -> None:
            torch.manual_seed(0)
            with run.averaged() as averaged, torch.inference_mode():
                averaged.eval()
                averaged(
                    torch.ones((1, 4), dtype=torch.int64), torch.zeros((1, 688, 128)), torch.ones(1, dtype=torch.bool)
                )

        run.go(batch, PAD, on_step=look)
    assert_same(run, trained(tmp_path / "alone"))


def test_a_killed_process_loses_no_more_than_the_steps_since_its_last_save(tmp_path: Path) -> None:
    steps = 40
    command = [sys.executable, tiny_run.__file__, str(tmp_path / "killed"), str(steps), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line.split()[-1])
        if last == 11:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    with Run.open(tmp_path / "killed", model(), recipe(steps)) as run:
        assert run.step >= last - 1, "saved after each step"
        run.go(batch, PAD)
    assert_same(run, trained(tmp_path / "whole", steps))


def test_another_recipe_is_refused_by_what_differs(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"muon_rate 0\.02, asked for 0\.01.*another folder"):
        Run.open(tmp_path, model(), recipe(2, muon_rate=0.01))


def test_another_number_of_tokens_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"tokens 128, asked for 256.*prolonged"):
        Run.open(tmp_path, model(), recipe(4))
    with Run.open(tmp_path, model(), recipe(4), prolong=True) as run:
        assert not run.done
        assert run.go(batch, PAD).step == 4
    with pytest.raises(ConfigError, match="seed"):
        Run.open(tmp_path, model(), recipe(8, seed=2), prolong=True)


def test_another_model_is_refused_by_what_differs(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    with pytest.raises(ConfigError, match="layers 2, asked for 3"):
        Run.open(tmp_path, model(replace(tiny_run.CONFIG, layers=3)), recipe(2))
    grown = model()
    grown.chroma = torch.nn.Linear(16, 12)
    with pytest.raises(ConfigError, match=r"chroma\.bias None, asked for \[12\]"):
        Run.open(tmp_path, grown, recipe(2))


def test_a_finished_run_is_finished_when_opened_again(tmp_path: Path) -> None:
    first = trained(tmp_path, 3)
    with Run.open(tmp_path, model(seed=9), recipe(3)) as run:
        assert run.done
        ending = run.go(batch, PAD, on_step=lambda step: pytest.fail("nothing is left"))
    assert ending.exit_code == 0
    assert_same(run, first)


def test_an_altered_state_is_refused_and_the_save_before_it_still_leads_there(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 6)
    with Run.open(tmp_path / "torn", model(), recipe(6)) as run:
        run.go(batch, PAD, save_every=0)
    path = tmp_path / "torn" / STATE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AlteredFile, match=PREVIOUS):
        Run.open(tmp_path / "torn", model(), recipe(6))
    path.unlink()
    assert_same(trained(tmp_path / "torn", 6), whole)


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    with Run.open(tmp_path, model(), recipe()), pytest.raises(AlreadyRunning, match=str(os.getpid())):
        Run.open(tmp_path, model(), recipe())
    Run.open(tmp_path, model(), recipe()).close()


def test_a_loss_that_is_no_number_ends_the_run_with_the_weights_of_the_step_before(tmp_path: Path) -> None:
    def poisoned(number: int) -> list[Windows]:
        one, other = batch(number)
        return [replace(one, memory=one.memory * np.float32(np.nan if number == 2 else 1)), other]

    with Run.open(tmp_path, model(), recipe()) as run, pytest.raises(TrainingDiverged, match=r"Step 3 .*number 2"):
        run.go(poisoned, PAD)
    assert run.step == 2
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_a_further_loss_trains_parameters_of_its_own(tmp_path: Path) -> None:
    whole = model()
    whole.chroma = torch.nn.Linear(16, 12)
    before = whole.chroma.weight.detach().clone()
    seen: list[tuple[int, tuple[int, ...]]] = []
    steps: list[Step] = []

    def chroma(windows: Windows, memory: Tensor) -> Tensor:
        seen.append((len(windows), tuple(memory.shape)))
        return (whole.chroma(memory) - 1).square().mean((1, 2))

    with Run.open(tmp_path, whole, recipe(2)) as run:
        run.go(batch, PAD, on_step=steps.append, auxiliary=chroma)
    assert seen[:2] == [(2, (2, 44, 16)), (3, (3, 44, 16))]
    assert not torch.equal(whole.chroma.weight, before)
    assert steps[0].auxiliary is not None
    assert 0 < steps[1].auxiliary < steps[0].auxiliary
    assert "chroma.weight" in run.averaged_weights()


def test_the_average_follows_the_weights_and_is_lent_for_a_while(tmp_path: Path) -> None:
    run = trained(tmp_path, 3)
    own = run.model.embedding.weight.detach().clone()
    with run.averaged() as averaged:
        lent = averaged.embedding.weight.detach().clone()
    assert torch.equal(run.model.embedding.weight, own)
    assert torch.equal(lent, run.averaged_weights()["embedding.weight"])
    assert not torch.equal(lent, own)
    assert torch.equal(run._average[0], lent)


def test_a_batch_without_a_token_is_refused(tmp_path: Path) -> None:
    nothing = Windows(np.zeros((1, 5), np.int64), np.zeros((1, 688, 128), np.float32), np.ones(1, np.bool_))
    with Run.open(tmp_path, model(), recipe()) as run, pytest.raises(ValueError, match="no token"):
        run.go(lambda number: [nothing], PAD)
