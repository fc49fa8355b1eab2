"""Real rounds, watched: what status, metrics and curves say of them is what happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from trio import MEMBERS, Trio

from partbook.coordinator.checkpoints import Checkpoints
from partbook.coordinator.grid import GridTransport
from partbook.coordinator.metrics import samples
from partbook.coordinator.privacy import statement
from partbook.coordinator.rounds import Coordinator
from partbook.coordinator.status import StatusWriter, read_status, table
from partbook.coordinator.validation import write_validation
from partbook.custodian.app import app as custodian_app
from partbook.custodian.app import close_custodians
from partbook.custodian.app import flower_config as custodian_config
from partbook.errors import CohortTooSmall
from partbook.model.checkpoint import base_manifest
from partbook.music.recording import Recording
from partbook.node import pausing
from partbook.node.app import app, close_nodes, flower_config
from partbook.plan.federation import FederationConfig
from partbook.plan.training import DistributedDp
from partbook.simulation.grid import InProcessGrid

pytestmark = pytest.mark.timeout(300)  # whole federations

CUSTODIAN = 20


def config(trio: Trio, folder: Path, mode: str, recordings: list[Recording]) -> FederationConfig:
    for member, recording in zip(MEMBERS, recordings, strict=False):
        write_validation(folder / "validation", member, [recording])
    return FederationConfig(
        roster=trio.parties.roster,
        key=trio.parties.coordinator,
        seal_key=trio.parties.seal_key,
        mode=mode,
        rounds=2,
        base=trio.base,
        state=folder / "state",
        validation=folder / "validation",
        training=DistributedDp(noise_multiplier=1.0, sampling=0.5, batch=2.0),
        timeout=60,
    )


def run(trio: Trio, folder: Path, settings: FederationConfig) -> None:
    from dataclasses import replace

    nodes = {10 + i: flower_config(trio.config(member, folder / "kept")) for i, member in enumerate(MEMBERS)}
    office = replace(trio.parties.custodian, record=folder / "opened.json")
    others = {CUSTODIAN: custodian_app} if settings.mode == "sealed" else {}
    if others:
        nodes[CUSTODIAN] = custodian_config(office)
    try:
        with InProcessGrid(app, nodes, others=others) as grid, StatusWriter.of(settings) as watch:
            coordinator = Coordinator(settings, watch.progress)
            coordinator.run(GridTransport(grid, coordinator.parties, coordinator.greeter, patience=20, watch=watch))
    finally:
        close_nodes()
        close_custodians()


@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_what_is_said_of_a_run_is_what_happened(
    trio: Trio, tmp_path: Path, recordings: list[Recording], mode: str
) -> None:
    settings = config(trio, tmp_path, mode, recordings)
    run(trio, tmp_path, settings)
    status = read_status(settings.state)
    base_hash = base_manifest(trio.base)["files"]["model.safetensors"]
    checkpoints = Checkpoints(settings.state, "trio", base_hash)
    kept = checkpoints.load()
    assert kept is not None
    assert (status.federation, status.mode, status.finished, status.complete) == ("trio", mode, 2, True)
    assert not status.stale
    expected = {*MEMBERS, "Custodian"} if mode == "sealed" else set(MEMBERS)
    assert {name for name, party in status.parties.items() if party.here} == expected
    assert status.validation == kept.history[-1].validation
    assert status.validation_round == 2
    assert status.privacy is not None
    assert status.privacy.colluders == statement(kept.history, checkpoints.lost(), 1e-6).colluders
    # The share of the sum that each party got is rounded down in every exchange.
    assert 0 <= status.sent - sum(party.sent for party in status.parties.values()) < 4 * 40
    assert status.received == sum(party.received for party in status.parties.values()) > 0
    exchanges = {"train", "query.advertise", "query.share", "query.contribute", "query.confirm", "query.reveal"}
    assert set(status.recent) >= exchanges | ({"query.open", "query.apply"} if mode == "sealed" else set())
    assert status.refusals == 0
    drawn = b"".join(path.read_bytes() for path in (settings.state / "board").glob("events.out.tfevents.*"))
    # Sealed rounds are scored before the first and after the last alone; others after each.
    assert drawn.count(b"validation/Alto") == (2 if mode == "sealed" else 3)
    assert {s.exposed: s.values for s in samples(status, status.written)}["partbook_rounds_finished"] == {(): 2.0}


def test_a_refusal_that_ended_a_run_can_still_be_read(trio: Trio, tmp_path: Path, recordings: list[Recording]) -> None:
    settings = config(trio, tmp_path, "masked", recordings)
    paused = trio.config("Bass", tmp_path / "kept").kept
    pausing.pause(paused, "a secret wedding")
    with pytest.raises(CohortTooSmall):
        run(trio, tmp_path, settings)
    status = read_status(settings.state)
    assert "NodePaused" in (status.parties["Bass"].refusal or "")
    console = Console(width=80, record=True)
    console.print(table(status))
    text = console.export_text()
    assert "declined" in text
    assert "wedding" not in text, "why is for the label's own eyes"
