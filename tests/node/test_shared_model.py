import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save
from trio import Trio

from partbook.errors import AlteredFile, StalePlan, UnknownModel, ValueOutOfRange, VaultError
from partbook.model.adapter import state_hash
from partbook.node.shared_model import SharedModel
from partbook.plan.rounds import RoundPlan, ServerStep

LIKE = {"x.b": torch.arange(4, dtype=torch.float32).reshape(2, 2), "norm.weight": torch.ones(3)}


def plan_from(trio: Trio, model: SharedModel, number: int, **fields: object) -> RoundPlan:
    return trio.plan("sealed", round=number, model_hash=model.hash, parameters=7, **fields)


def total_of(plan: RoundPlan, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3 * plan.grid.span + 1, 7, dtype=np.uint64)


def test_a_fresh_model_is_the_base_models_adapter() -> None:
    fresh = SharedModel.fresh(LIKE)
    assert fresh.round == 0
    assert fresh.hash == state_hash(LIKE)
    assert not fresh.motion.velocity.any()


@given(rule=st.builds(ServerStep, learning_rate=st.floats(0.01, 10), momentum=st.floats(0, 0.99)), seed=st.integers(0))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
def test_labels_that_take_the_same_steps_hold_the_same_bits_whatever_restarts(trio, tmp_path, rule, seed) -> None:
    (tmp_path / "model").unlink(missing_ok=True)
    steady = SharedModel.fresh(LIKE)
    for number in (1, 2, 3):
        plan = plan_from(trio, steady, number, step=rule)
        total = total_of(plan, seed % 2**32 + number)
        restarted = SharedModel.load(tmp_path / "model", LIKE).after(plan, total, 3)
        restarted.save(tmp_path / "model")
        steady = steady.after(plan, total, 3)
        assert restarted.hash == steady.hash
        assert np.array_equal(restarted.motion.velocity, steady.motion.velocity)
    assert SharedModel.load(tmp_path / "model", LIKE).round == 3


def test_a_step_is_taken_only_from_the_model_it_started_from_and_never_backwards(trio) -> None:
    fresh = SharedModel.fresh(LIKE)
    first = plan_from(trio, fresh, 1)
    moved = fresh.after(first, total_of(first, 1), 3)
    with pytest.raises(StalePlan):
        moved.after(first, total_of(first, 1), 3)
    with pytest.raises(UnknownModel):
        moved.after(plan_from(trio, fresh, 2), total_of(first, 1), 3)
    # A number may be left out, where a round was given up.
    assert moved.after(plan_from(trio, moved, 5), total_of(first, 1), 3).round == 5


def test_a_sum_that_no_updates_give_moves_nothing(trio) -> None:
    fresh = SharedModel.fresh(LIKE)
    plan = plan_from(trio, fresh, 1)
    with pytest.raises(ValueOutOfRange):
        fresh.after(plan, np.full(7, 3 * plan.grid.span + 1, np.uint64), 3)


def test_a_broken_or_altered_file_is_named(trio, tmp_path) -> None:
    path = tmp_path / "model"
    SharedModel.fresh(LIKE).save(path)
    whole = path.read_bytes()
    for blob in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b'"0"', b'"1"'), b"{" * 100):
        path.write_bytes(blob)
        with pytest.raises(AlteredFile, match="model"):
            SharedModel.load(path, LIKE)


def test_a_full_disk_leaves_the_model_before(trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fresh = tmp_path / "model", SharedModel.fresh(LIKE)
    fresh.save(path)
    plan = plan_from(trio, fresh, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VaultError, match="No space left"):
        fresh.after(plan, total_of(plan, 1), 3).save(path)
    assert SharedModel.load(path, LIKE).round == 0
    assert [found.name for found in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("scope", ["all", "norms"])
@pytest.mark.parametrize("rule", ["momentum", "adam"])
@given(cuts=st.lists(st.integers(0, 7), max_size=4), seed=st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
def test_a_step_by_way_of_the_file_gives_the_bits_of_one_in_memory_however_it_is_cut(
    trio, tmp_path: Path, scope: str, rule: str, cuts: list[int], seed: int
) -> None:
    path = tmp_path / "model"
    path.unlink(missing_ok=True)
    count = 7 if scope == "all" else 3
    here = there = SharedModel.fresh(LIKE)
    for number in (1, 2, 3):
        plan = plan_from(trio, here, number, step=ServerStep(rule=rule, momentum=0.9, learning_rate=0.1))
        plan = plan.model_copy(update={"scope": scope, "parameters": count})
        total = np.random.default_rng(seed + number).integers(0, 3 * plan.grid.span + 1, count, dtype=np.uint64)
        ends = sorted(min(cut, count) for cut in cuts)
        here = here.after(plan, total, 3)
        there = there.step_into(path, plan, np.split(total, ends), 3)
        assert there.hash == here.hash
        assert there.motion.steps == here.motion.steps
        for array in ("velocity", "second"):
            assert getattr(there.motion, array).tobytes() == getattr(here.motion, array).tobytes()
        assert SharedModel.load(path, LIKE).hash == here.hash


def test_the_file_is_one_that_safetensors_reads_and_writes(trio, tmp_path: Path) -> None:
    path = tmp_path / "model"
    fresh = SharedModel.fresh(LIKE)
    plan = plan_from(trio, fresh, 1)
    moved = fresh.step_into(path, plan, [total_of(plan, 1)], 3)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in ("adapter", "velocity", "second")}
        about = file.metadata()
    assert np.array_equal(arrays["adapter"], moved.adapter)
    assert np.array_equal(arrays["velocity"], moved.motion.velocity)
    path.write_bytes(save(arrays, metadata=about))
    assert SharedModel.load(path, LIKE).hash == moved.hash


def test_a_step_whose_sums_end_early_or_are_another_adapters_is_not_taken(trio, tmp_path: Path) -> None:
    path, fresh = tmp_path / "model", SharedModel.fresh(LIKE)
    plan = plan_from(trio, fresh, 1)
    with pytest.raises(ValueError, match="were due"):
        fresh.step_into(path, plan, [total_of(plan, 1)[:5]], 3)
    with pytest.raises(UnknownModel, match="another count"):
        fresh.step_into(path, plan.model_copy(update={"parameters": 6}), [total_of(plan, 1)[:6]], 3)
    assert list(tmp_path.iterdir()) == []
