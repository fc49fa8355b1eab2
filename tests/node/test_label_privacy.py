"""What a node lets a coordinator take from its recordings, and what it writes down before it does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from trainers import opened
from trio import MEMBERS, STEPS, Play, Trio

from partbook.errors import (
    BudgetExhausted,
    CohortRefused,
    InputError,
    LedgerBroken,
    NoiseRefused,
    OutsideHours,
    PolicyRefusal,
    ReleaseRefused,
    RoundsRefused,
    SamplingRefused,
    StalePlan,
    UnknownCoordinator,
)
from partbook.identity.keys import IdentityKey
from partbook.music.recording import Recording
from partbook.node.label import LabelNode
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.plan.step import mean_update
from partbook.plan.training import DistributedDp, LocalDp
from partbook.vault.store import Vault

ALTO = MEMBERS[0]
NOISY = DistributedDp(noise_multiplier=1.5, sampling=1.0, batch=3.0, clip=0.5)
ALONE = LocalDp(noise_multiplier=1.5, sampling=1.0, batch=1.0, steps=2, clip=0.5, bound=2.0)
BOTH = pytest.mark.parametrize("training", [NOISY, ALONE], ids=["distributed", "local"])


def strict(trio: Trio, state: Path, **limits: object) -> LabelNode:
    """Alto with a policy of its own: both modes, and otherwise the careful defaults."""
    values = {"modes": ("masked", "sealed"), "epsilon_recording": 100.0} | limits
    return opened(trio.parties.node(trio.config(ALTO, state), Policy(**values)))


def train(trio: Trio, node: LabelNode, plan) -> bytes:
    return node.train(trio.signed(plan), trio.start.tobytes())


@BOTH
@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_noisy_contributions_add_up_exactly(trio: Trio, tmp_path: Path, training, mode: str) -> None:
    nodes, plan = trio.nodes(tmp_path), trio.plan(mode, training=training)
    played = Play(trio, nodes, plan).train()
    stored = sum(node._vector.astype(np.int64) for node in nodes.values())
    if mode == "masked":
        total = played.play().sum()
        assert np.array_equal(total, stored)
        assert np.isfinite(mean_update(total, 3, plan)).all()
    else:
        played.play()
        assert len(played.sealed()) == plan.chunks
    for node in nodes.values():
        (debit,) = node._ledger.debits()
        assert (debit.state, debit.question, debit.note) == ("committed", plan.question(), f"{mode}, {training.kind}")


def test_the_noise_of_the_sum_is_what_the_plan_says(trio: Trio, tmp_path: Path) -> None:
    plan = trio.plan(training=NOISY)
    nodes = trio.nodes(tmp_path)
    played = Play(trio, nodes, plan).train().play()
    noisy = plan.grid.decode(played.sum(), 3)
    # The recordings' own part is at most 3 · C long; what is left of the norm is noise, σC in every coordinate.
    expected = NOISY.noise_multiplier * NOISY.clip
    spread = np.sqrt(np.mean(noisy**2))
    room = 4 * expected / np.sqrt(2 * len(noisy)) + 3 * NOISY.clip / np.sqrt(len(noisy))
    assert abs(spread - expected) < room


@BOTH
def test_the_debit_is_reserved_before_training_and_final_before_a_contribution_leaves(
    trio: Trio, tmp_path: Path, training
) -> None:
    nodes, plan = trio.nodes(tmp_path), trio.plan(training=training)
    alto = nodes[ALTO]
    seen = []
    learn = alto._trainer.learn
    alto._trainer.learn = lambda *given: seen.append(alto._ledger.state(plan.question())) or learn(*given)
    chunk = alto._chunk
    alto._chunk = lambda index: seen.append(alto._ledger.state(plan.question())) or chunk(index)
    Play(trio, nodes, plan).train().play()
    assert seen == ["reserved", "committed"]


@BOTH
def test_a_retry_sends_the_stored_vector_and_costs_nothing_more(trio: Trio, tmp_path: Path, training) -> None:
    nodes, first = trio.nodes(tmp_path), trio.plan(training=training)
    Play(trio, nodes, first).train().play(STEPS[:3])
    before = {member: node._vector.tobytes() for member, node in nodes.items()}
    restarted = trio.nodes(tmp_path)
    second = Play(trio, restarted, trio.plan(training=training, nonce="1" * 32)).train()
    assert {member: node._vector.tobytes() for member, node in restarted.items()} == before
    assert second.play().sum().any()
    assert [len(node._ledger.debits()) for node in restarted.values()] == [1, 1, 1]


def test_what_was_never_sent_is_destroyed_and_given_back_when_the_next_round_comes(trio: Trio, tmp_path: Path) -> None:
    alto = strict(trio, tmp_path)
    first, second = trio.plan(training=NOISY), trio.plan(training=NOISY, round=2)
    train(trio, alto, first)
    old = alto._vector.tobytes()
    train(trio, alto, second)
    assert (alto._ledger.state(first.question()), alto._ledger.state(second.question())) == ("released", "reserved")
    assert alto._vector.tobytes() != old
    with pytest.raises(StalePlan):
        train(trio, alto, trio.plan(training=NOISY, nonce="1" * 32))


def test_a_node_killed_between_reserving_and_keeping_trains_again_and_pays_once(trio: Trio, tmp_path: Path) -> None:
    alto, plan = strict(trio, tmp_path), trio.plan(training=NOISY)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    alto._trainer.learn = killed
    with pytest.raises(KeyboardInterrupt):
        train(trio, alto, plan)
    alto.close()
    again = strict(trio, tmp_path)
    assert again._ledger.state(plan.question()) == "reserved"
    train(trio, again, trio.plan(training=NOISY, nonce="1" * 32))
    assert [debit.state for debit in again._ledger.debits()] == ["reserved"]


@pytest.mark.parametrize(
    ("limits", "plan", "error", "words"),
    [
        ({"epsilon_recording": 2.0}, {}, BudgetExhausted, ("epsilon_federation", "asks for")),
        ({"epsilon_recording": 2.0, "epsilon_federation": 50.0}, {}, BudgetExhausted, ("epsilon_recording",)),
        ({"sampling": 0.5}, {}, SamplingRefused, ("sampling",)),
        ({"noise": ("local",)}, {}, NoiseRefused, ("noise",)),
        ({"colluders": 1}, {}, NoiseRefused, ("colluders",)),
        ({"minimum_cohort": 4}, {}, CohortRefused, ("minimum_cohort",)),
        ({"coordinator": "ab" * 32}, {}, UnknownCoordinator, ("coordinator",)),
    ],
)
def test_a_plan_beyond_the_policy_is_refused_by_name_and_nothing_is_trained(
    trio: Trio, tmp_path: Path, limits: dict, plan: dict, error: type[PolicyRefusal], words: tuple[str, ...]
) -> None:
    alto = strict(trio, tmp_path, **limits)
    alto._trainer.learn = lambda *_: pytest.fail("it trained")
    with pytest.raises(error) as caught:
        train(trio, alto, trio.plan(training=NOISY, **plan))
    assert type(caught.value) is error
    assert all(word in str(caught.value) for word in words)
    assert alto._ledger.debits() == ()


def test_the_default_policy_refuses_rounds_without_noise(trio: Trio, tmp_path: Path) -> None:
    with pytest.raises(NoiseRefused, match="infinite"):
        train(trio, strict(trio, tmp_path), trio.plan())


def test_rounds_run_out_and_hours_close(trio: Trio, tmp_path: Path) -> None:
    alto = strict(trio, tmp_path / "rounds", rounds=1)
    train(trio, alto, trio.plan(training=NOISY))
    alto._ledger.commit(trio.plan(training=NOISY).question())
    with pytest.raises(RoundsRefused):
        train(trio, alto, trio.plan(training=NOISY, round=2))
    train(trio, alto, trio.plan(training=NOISY, nonce="1" * 32))  # the same round again is no further one
    from datetime import datetime, timedelta

    now = datetime.now().astimezone()
    closed = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    with pytest.raises(OutsideHours):
        train(trio, strict(trio, tmp_path / "hours", hours=closed), trio.plan(training=NOISY))


def test_a_budget_lasts_for_as_many_rounds_as_it_pays_and_the_coordinator_cannot_reset_it(
    trio: Trio, tmp_path: Path
) -> None:
    from partbook.privacy.accounting import epsilon
    from partbook.privacy.events import events_of

    cost = events_of(trio.plan(training=NOISY), "colluders")
    limit = epsilon(cost * 3, 1e-6) * 1.0001
    alto = strict(trio, tmp_path, epsilon_recording=limit)
    for number in (1, 2, 3):
        plan = trio.plan(training=NOISY, round=number)
        train(trio, alto, plan)
        alto._ledger.commit(plan.question())
    fourth = trio.plan(training=NOISY, round=4)
    for node in (alto, strict(trio, tmp_path, epsilon_recording=limit)):
        with pytest.raises(BudgetExhausted):
            train(trio, node, fourth)
    # Whatever the coordinator renumbers, renames or asks in another way, the recordings have spent what they have.
    for change in ({"round": 9, "nonce": "2" * 32}, {"round": 10, "training": replace_noise(1.0)}):
        with pytest.raises(BudgetExhausted):
            train(trio, alto, trio.plan(**{"training": NOISY, **change}))


def replace_noise(multiplier: float) -> DistributedDp:
    return NOISY.model_copy(update={"noise_multiplier": multiplier})


def test_a_ledger_older_than_what_the_node_keeps_stops_the_node(trio: Trio, tmp_path: Path) -> None:
    alto = strict(trio, tmp_path)
    train(trio, alto, trio.plan(training=NOISY))
    alto.close()
    config = alto._config
    with Vault.open(config.vault) as vault, Ledger.open(tmp_path / "other.sqlite", vault.ledger_key):
        pass
    with pytest.raises(LedgerBroken, match="older"):
        LabelNode(replace(config, ledger=tmp_path / "other.sqlite"))


def test_a_withdrawn_recording_is_trained_on_no_more(trio: Trio, tmp_path: Path) -> None:
    alto = strict(trio, tmp_path)
    (only,) = alto._trainer.recordings
    alto._ledger.withdraw(only)
    with pytest.raises(InputError, match="No recording counts"):
        train(trio, alto, trio.plan(training=NOISY))
    assert alto._ledger.debits() == ()


@pytest.mark.parametrize("paid", [False, True], ids=["before it is reserved", "after it was reserved"])
def test_a_recording_that_is_withdrawn_while_its_node_runs_is_left_out_of_what_is_trained(
    trio: Trio, tmp_path: Path, recordings: list[Recording], paid: bool
) -> None:
    config = trio.config(ALTO, tmp_path)
    vault = shutil.copytree(config.vault, tmp_path / "vault")
    with Vault.open(vault, writable=True) as inside:
        inside.add(recordings[1], "e" * 64)
    alto = LabelNode(trio.parties.node(replace(config, vault=vault), Policy(epsilon_recording=100.0)))
    first, second = alto._trainer.recordings
    ledger, trainer, plan = alto._ledger, alto._trainer, trio.plan("sealed", training=NOISY)
    reserve, learn, trained = ledger.reserve, trainer.learn, list[tuple[str, ...]]()

    def reserved(*given: object, **named: object) -> None:
        reserve(*given, **named)
        ledger.withdraw(first)

    if paid:
        ledger.reserve = reserved
    else:
        ledger.withdraw(first)
    trainer.learn = lambda *given: trained.append(trainer.recordings) or learn(*given)
    train(trio, alto, plan)
    assert trained == [(second,)]
    assert len(trainer._examples) == 1
    assert [debit.question for debit in ledger.charged(first)] == [plan.question()] * paid


def test_a_label_may_keep_its_model_to_itself(trio: Trio, tmp_path: Path) -> None:
    from partbook.plan import exchanges as e

    alto = strict(trio, tmp_path, releases="never", noise=("none",), epsilon_recording=inf)
    plan = trio.plan("sealed", round=1)
    alto._held.shared = replace(alto._held.shared, round=1)
    with pytest.raises(ReleaseRefused, match="releases"):
        alto.endorse(trio.signed(plan), trio.say(e.ENDORSE, plan, e.ModelHash(model=alto._held.shared.hash)))


def test_the_coordinators_key_of_the_policy_is_the_rosters(trio: Trio, tmp_path: Path) -> None:
    train(trio, strict(trio, tmp_path, coordinator=trio.key.public.fingerprint), trio.plan(training=NOISY))
    other = strict(trio, tmp_path / "other", coordinator=IdentityKey.generate().public.fingerprint)
    with pytest.raises(UnknownCoordinator):
        train(trio, other, trio.plan(training=NOISY))
