"""Opened sums that come chunk by chunk, with other things between."""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trio import MEMBERS, Trio

from partbook.errors import AlteredCiphertext, CorruptMessage, PartbookError, UnknownModel
from partbook.identity.message import Message
from partbook.model.adapter import state_hash, unflatten
from partbook.node import held_model, label
from partbook.node.label import LabelNode
from partbook.plan import exchanges as e
from partbook.plan import rounds
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import Motion, mean_update, step
from partbook.simulation.parties import CUSTODIAN

ALTO = MEMBERS[0]
ADAM = ServerStep(rule="adam", momentum=0.9, learning_rate=0.01)


@pytest.fixture(autouse=True)
def chunks(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> int:
    elements = trio.plan("sealed").elements
    for module in (rounds, label, held_model):
        monkeypatch.setattr(module, "CHUNK", -(-elements // 3))
    return 3


@pytest.fixture
def plan(trio: Trio) -> RoundPlan:
    return trio.plan("sealed", step=ADAM)


@pytest.fixture
def alto(trio: Trio, tmp_path: Path) -> LabelNode:
    return trio.node(ALTO, tmp_path)


def total_of(plan: RoundPlan, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3 * plan.grid.span + 1, plan.parameters, dtype=np.uint32)


def opened(trio: Trio, plan: RoundPlan, total: np.ndarray, counts: tuple[int, ...] = ()) -> list[tuple[bytes, bytes]]:
    """A sum as the custodian would open it: by chunk, what it signs and the bytes that this vouches for."""
    packing, said = plan.packing, []
    digits = np.zeros((packing.slots(len(total)), packing.fields), np.uint64)
    digits.reshape(-1)[: len(total)] = total
    slots = sum(digits[:, f] * np.uint64(packing.radix**f) for f in range(packing.fields))
    for chunk, start in enumerate(range(0, len(slots), rounds.CHUNK)):
        once, context = os.urandom(32), plan.context()
        blob = e.encrypt_sum(once, context, chunk, slots[start : start + rounds.CHUNK].astype("<u8").tobytes())
        keys = {
            member.name: e.text(member.receiving.seal_to(once, e.opened_info(context, chunk, member.name)))
            for member in trio.roster.members
        }
        count = counts[chunk] if counts else 3
        body = e.Opened(contributions=count, chunk=chunk, sha256=hashlib.sha256(blob).hexdigest(), keys=keys)
        said.append((e.write(trio.member_key(CUSTODIAN), e.OPENED, context, CUSTODIAN, body), blob))
    return said


def hand(trio: Trio, node: LabelNode, plan: RoundPlan, *parts: tuple[bytes, bytes]) -> Message:
    """Some chunks in one message; the node's signed answer."""
    answer = node.apply(trio.signed(plan), [data for data, _ in parts], [blob for _, blob in parts])
    message = Message.decode(answer)
    message.check(trio.roster.member(ALTO).identity, message.kind, plan.context(), ALTO)
    return message


def stepped(trio: Trio, plan: RoundPlan, total: np.ndarray, node: LabelNode) -> str:
    """The hash of the model that a step in one piece leads to."""
    mean = mean_update(total.astype(np.uint64), 3, plan)
    moved, _ = step(trio.start, mean, Motion.none(len(trio.start)), plan.step)
    return state_hash(unflatten(moved, node._trainer.like))


def waiting(folder: Path) -> list[Path]:
    return sorted((folder / ALTO / "opened").glob("*"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_step_is_that_of_the_whole_sum_in_whatever_order_chunks_come(trio, alto, plan, tmp_path, order) -> None:
    total = total_of(plan)
    parts = opened(trio, plan, total)
    for index in order[:-1]:
        assert hand(trio, alto, plan, parts[index]).kind == e.HELD
        assert alto._held.shared.round == 0
    assert [path.stat().st_mode & 0o077 for path in waiting(tmp_path)] == [0, 0]
    applied = hand(trio, alto, plan, parts[order[-1]])
    assert applied.kind == e.APPLIED
    assert e.ModelHash.of(applied).model == alto._held.shared.hash == stepped(trio, plan, total, alto)
    assert not (tmp_path / ALTO / "opened").exists()
    assert hand(trio, alto, plan, parts[0]).body == applied.body


def test_several_chunks_may_come_in_one_message(trio, alto, plan) -> None:
    total = total_of(plan)
    first, *others = opened(trio, plan, total)
    assert hand(trio, alto, plan, first).kind == e.HELD
    assert hand(trio, alto, plan, *others).kind == e.APPLIED
    assert alto._held.shared.hash == stepped(trio, plan, total, alto)


def test_a_node_that_restarts_between_two_chunks_goes_on(trio, alto, plan, tmp_path) -> None:
    total = total_of(plan)
    parts = opened(trio, plan, total)
    for part in parts[:-1]:
        hand(trio, alto, plan, part)
        hand(trio, alto, plan, part)
        alto = trio.node(ALTO, tmp_path)
    assert hand(trio, alto, plan, parts[-1]).kind == e.APPLIED
    assert trio.node(ALTO, tmp_path)._held.shared.hash == stepped(trio, plan, total, alto)


def test_what_waits_on_the_disk_is_encrypted(trio, alto, plan, tmp_path) -> None:
    total = np.full(plan.parameters, 7, np.uint32)
    first = opened(trio, plan, total)[0]
    hand(trio, alto, plan, first)
    (path,) = waiting(tmp_path)
    radix = plan.packing.radix
    slot = sum(7 * radix**field for field in range(plan.packing.fields))
    assert np.full(4, slot, "<u8").tobytes() not in path.read_bytes()


def test_a_chunk_altered_on_the_disk_is_named_and_taken_again(trio, alto, plan, tmp_path) -> None:
    total = total_of(plan)
    parts = opened(trio, plan, total)
    for part in parts[:-1]:
        hand(trio, alto, plan, part)
    spoilt = bytearray(waiting(tmp_path)[0].read_bytes())
    spoilt[-1] ^= 1
    waiting(tmp_path)[0].write_bytes(bytes(spoilt))
    with pytest.raises(AlteredCiphertext):
        hand(trio, alto, plan, parts[-1])
    assert alto._held.shared.round == 0
    assert hand(trio, alto, plan, parts[1]).kind == e.HELD
    assert [hand(trio, alto, plan, part).kind for part in parts][-1] == e.APPLIED
    assert alto._held.shared.hash == stepped(trio, plan, total, alto)


def test_a_chunk_put_in_anothers_place_is_refused(trio, alto, plan, tmp_path) -> None:
    parts = opened(trio, plan, total_of(plan))
    for part in parts[:-1]:
        hand(trio, alto, plan, part)
    one, other = waiting(tmp_path)
    one.write_bytes(other.read_bytes())
    with pytest.raises(CorruptMessage):
        hand(trio, alto, plan, parts[-1])
    assert alto._held.shared.round == 0


def test_chunks_of_another_attempt_are_forgotten_and_never_mixed_in(trio, alto, plan, tmp_path) -> None:
    again, total = plan.model_copy(update={"nonce": "1" * 32}), total_of(plan, 1)
    for part in opened(trio, plan, total_of(plan))[:2]:
        hand(trio, alto, plan, part)
    parts = opened(trio, again, total)
    assert hand(trio, alto, again, parts[0]).kind == e.HELD
    assert len(waiting(tmp_path)) == 1
    hand(trio, alto, again, parts[1])
    assert hand(trio, alto, again, parts[2]).kind == e.APPLIED
    assert alto._held.shared.hash == stepped(trio, again, total, alto)


def test_nothing_is_kept_of_a_sum_that_is_not_the_next_or_not_the_custodians(trio, alto, plan, tmp_path) -> None:
    parts = opened(trio, plan, total_of(plan))
    elsewhere = plan.model_copy(update={"model_hash": "0" * 64})
    flipped = parts[0][1][:-1] + bytes([parts[0][1][-1] ^ 1])
    wrong: list[tuple[type[PartbookError], RoundPlan, list[tuple[bytes, bytes]]]] = [
        (UnknownModel, elsewhere, opened(trio, elsewhere, total_of(plan))[:1]),
        (AlteredCiphertext, plan, [(parts[0][0], flipped)]),
        (AlteredCiphertext, plan, [(parts[0][0], parts[1][1])]),
        (CorruptMessage, plan, parts + parts[:1]),
    ]
    for error, about, given in wrong:
        with pytest.raises(error):
            hand(trio, alto, about, *given)
        assert not waiting(tmp_path)


def test_chunks_that_count_the_contributions_differently_lead_nowhere(trio, alto, plan) -> None:
    parts = opened(trio, replace_threshold(plan), total_of(plan), (3, 2, 3))
    plan = replace_threshold(plan)
    hand(trio, alto, plan, parts[0])
    hand(trio, alto, plan, parts[1])
    with pytest.raises(CorruptMessage, match="number of contributions"):
        hand(trio, alto, plan, parts[2])
    assert alto._held.shared.round == 0


def replace_threshold(plan: RoundPlan) -> RoundPlan:
    return plan.model_copy(update={"threshold": 2})


def test_a_sum_that_nobodys_updates_give_moves_nothing_wherever_it_goes_wrong(trio, alto, plan, tmp_path) -> None:
    total = total_of(plan)
    total[-1] = 3 * plan.grid.span + 1
    parts = opened(trio, plan, total)
    before = alto._held.shared
    for part in parts[:-1]:
        hand(trio, alto, plan, part)
    with pytest.raises(PartbookError):
        hand(trio, alto, plan, parts[-1])
    assert alto._held.shared is before
    assert not (tmp_path / ALTO / "model.safetensors").exists()
    assert not list((tmp_path / ALTO).glob("*.part"))
    assert replace(before, round=1).hash == before.hash
