"""Whole federations whose vectors take several messages each: no test's model is as large as a real chunk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from trio import TRAINING, Trio

from partbook.coordinator import totals
from partbook.coordinator.checkpoints import Checkpoints, FederationState
from partbook.custodian import opening
from partbook.node import held_model, label
from partbook.plan import rounds, wire
from partbook.plan.federation import FederationConfig
from partbook.simulation.drops import Drop
from partbook.simulation.federation import simulate
from partbook.simulation.grid import Crossing


@pytest.fixture(params=["masked", "sealed"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


def run(trio: Trio, folder: Path, mode: str, drops: list[Drop]) -> tuple[FederationState, Counter[tuple[str, bool]]]:
    config = FederationConfig(
        roster=trio.parties.roster,
        key=trio.parties.coordinator,
        seal_key=trio.parties.seal_key,
        mode=mode,
        threshold=2,
        rounds=2,
        base=trio.base,
        state=folder / "state",
        training=TRAINING,
        timeout=60,
    )
    seen: Counter[tuple[str, bool]] = Counter()

    def observe(crossing: Crossing) -> None:
        seen[crossing.kind, crossing.inbound] += 1

    nodes = {member: trio.config(member, folder) for member in trio.parties.folders}
    custodian = trio.custodian(folder)._config
    simulate(config, nodes, custodian, drops=drops, on_crossing=observe)
    state = Checkpoints(config.state, "trio", trio.plan().base_hash).load()
    assert state is not None
    return state, seen


@pytest.mark.parametrize("drops", [[], [Drop("Bass", wire.PROCEED, 1)]], ids=["all", "one lost between chunks"])
def test_a_federation_learns_the_same_whether_vectors_take_one_message_or_several(
    trio: Trio, tmp_path: Path, mode: str, drops: list[Drop], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = run(trio, tmp_path / "whole", mode, [Drop("Bass", wire.CONTRIBUTE, drop.round) for drop in drops])
    assert not seen[wire.PROCEED, False]
    chunk = -(-trio.plan(mode).elements // 3)
    for module in (rounds, totals, label, held_model, opening):
        monkeypatch.setattr(module, "CHUNK", chunk)
    cut, seen = run(trio, tmp_path / "cut", mode, drops)
    assert np.array_equal(cut.adapter, whole.adapter)
    assert cut.history[-1].adapter_hash == whole.history[-1].adapter_hash
    assert [record.members for record in cut.history] == [record.members for record in whole.history]
    # Two further chunks from each of three members in two rounds, less what the lost one was not there for.
    assert seen[wire.PROCEED, True] == 12 - 2 * len(drops)
    assert seen[wire.OPEN, True] == (6 if mode == "sealed" else 0)
