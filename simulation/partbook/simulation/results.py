"""From a finished run to the figures of its report: what each label had, gained and sent, and what was released."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from safetensors import safe_open

from partbook.coordinator.checkpoints import RoundRecord
from partbook.coordinator.privacy import PrivacyStatement, statement
from partbook.generator.release import Release
from partbook.node.budget import Budget
from partbook.plan import wire
from partbook.plan.training import DistributedDp, PlainTraining, Training
from partbook.simulation.collections import Collection
from partbook.simulation.control import ControlReport, Gain, Size
from partbook.simulation.federation import Flow, Traffic
from partbook.simulation.labels import Take
from partbook.simulation.pictures import LabelCurve
from partbook.simulation.report import (
    DropReport,
    ExchangeReport,
    LabelReport,
    Locks,
    MessageKind,
    ModelFacts,
    RoundReport,
)
from partbook.vault.ingest import IngestReport

EXCHANGES: Final = {
    wire.HELLO: "Who is there",
    wire.TRAIN: "Training",
    wire.ADVERTISE: "Fresh keys",
    wire.SHARE: "Shares of secrets",
    wire.CONTRIBUTE: "Masked update",
    wire.PROCEED: "Further parts of it",
    wire.CONFIRM: "List of survivors",
    wire.REVEAL: "Taking masks off",
    wire.OPEN: "Opening the sum",
    wire.APPLY: "Taking the step",
    wire.ENDORSE: "Agreeing to release",
    wire.PUBLISH: "Handing it over",
}


def doing(stage: str) -> str:
    """A stage of `partbook.coordinator.rounds.Progress`, for a person who waits."""
    return EXCHANGES.get(stage, "Scoring").lower()


# What a message of each kind holds, by (kind, whether it goes to the coordinator). All but `query.hello` are signed.
MEANINGS: Final = {
    (wire.HELLO, False): "The question who is there; empty",
    (wire.HELLO, True): "The party's name",
    (wire.TRAIN, False): "The round's plan: who takes part, from which model, how to train. Where sums are not sealed, "
    "also the model itself",
    (wire.TRAIN, True): "That training is done; nothing else",
    (wire.ADVERTISE, False): "The request for keys",
    (wire.ADVERTISE, True): "Two public keys, made for this round only",
    (wire.SHARE, False): "Every label's two public keys",
    (wire.SHARE, True): "For each other label: shares of two secrets behind this label's masks, encrypted to that "
    "label",
    (wire.CONTRIBUTE, False): "The shares that the other labels encrypted to this one",
    (wire.CONTRIBUTE, True): "The label's update, clipped and rounded, under its masks; sealed rounds: then encrypted",
    (wire.PROCEED, False): "The request for the next part of a long update",
    (wire.PROCEED, True): "That part, masked and sealed like the first",
    (wire.CONFIRM, False): "The list of labels whose updates arrived",
    (wire.CONFIRM, True): "The label's signature under that list",
    (wire.REVEAL, False): "The list again, with enough labels' signatures under it",
    (wire.REVEAL, True): "One share of each secret that takes masks off the sum",
    (wire.OPEN, False): "The encrypted sum, and the labels' signatures under the list of those in it",
    (wire.OPEN, True): "The opened sum, encrypted to the labels; the coordinator cannot read it",
    (wire.APPLY, False): "The opened sum, encrypted to the labels",
    (wire.APPLY, True): "The hash of the model that the sum led to",
    (wire.ENDORSE, False): "The question whether the model with this hash may be released",
    (wire.ENDORSE, True): "The label's signature that it may",
    (wire.PUBLISH, False): "Enough labels' signatures that it may",
    (wire.PUBLISH, True): "The trained part of the model",
}
_NOISED: Final = {
    (wire.CONTRIBUTE, True): "The label's update, clipped, rounded and noised, under its masks; sealed rounds: then "
    "encrypted",
    (wire.PROCEED, True): "That part, noised, masked and sealed like the first",
}


@dataclass(slots=True)
class DemoLabel:
    """A label of the demo, as it fills up.

    Attributes:
        collection: what it plays.
        labels: where all labels' folders lie.
        takes, heldout_takes: its recordings, and the public ones in its style.
        ingested: what came of ingesting.
        recordings, seconds, tokens: what its vault holds.
    """

    collection: Collection
    labels: Path
    takes: list[Take] = field(default_factory=list)
    heldout_takes: list[Take] = field(default_factory=list)
    ingested: IngestReport = field(default_factory=IngestReport)
    recordings: int = 0
    seconds: float = 0.0
    tokens: int = 0

    @property
    def name(self) -> str:
        """The label's name in the federation."""
        return self.collection.label

    @property
    def folder(self) -> str:
        """What its folders are called."""
        return self.name.lower().replace(" ", "-")

    @property
    def home(self) -> Path:
        """Everything that belongs to it."""
        return self.labels / self.folder

    @property
    def vault(self) -> Path:
        """Folder of its vault."""
        return self.home / "vault"

    @property
    def journal(self) -> Path:
        """Its node's own record of losses."""
        return self.home / "journal.jsonl"


def label_report(
    label: DemoLabel,
    held: Size,
    traffic: Traffic,
    history: Sequence[RoundRecord],
    account: Budget,
    noiseless: float | None,
    control: ControlReport,
) -> LabelReport:
    """One label's part of the report.

    Args:
        label: as it is after the run.
        held: size of the public held-out recordings in its style.
        traffic: of the run.
        history: with scores.
        account: what its ledger says.
        noiseless: its held-out loss had there been no noise; None where there was none.
        control: what changed for music of no label.
    """
    before, after = (record.validation[label.name] for record in (history[0], history[-1]))
    without = None
    if noiseless is not None and control.note_without_noise is not None:
        shared = control.note_before - control.note_without_noise
        without = Gain.of(held.per_note(before), held.per_note(noiseless), shared)
    sent, received = traffic.of(label.name, inbound=True), traffic.of(label.name, inbound=False)
    return LabelReport(
        name=label.name,
        collection=label.collection.about,
        instrument=label.collection.instrument,
        recordings=label.recordings,
        seconds=label.seconds,
        tokens=label.tokens,
        refused=tuple((r.path.name, r.reason) for r in label.ingested.refused),
        heldout_recordings=held.recordings,
        heldout_tokens=held.tokens,
        heldout_notes=held.notes,
        nll_before=before,
        nll_after=after,
        per_token=Gain.of(before, after, control.nll_before - control.nll_after),
        per_note=Gain.of(held.per_note(before), held.per_note(after), control.note_before - control.note_after),
        curve=LabelCurve(
            label.name,
            tuple((r.round, r.validation[label.name]) for r in history if r.validation),
            tuple(_journal(label.journal)),
        ),
        messages=sent.messages + received.messages,
        bytes_sent=sent.total_bytes,
        bytes_received=received.total_bytes,
        nll_without_noise=noiseless,
        per_note_without_noise=without,
        epsilon_spent=_finite(account.total.committed),
        epsilon_left=_finite(account.total.left),
        rounds_paid=account.total.rounds,
    )


def locks(
    training: Training,
    history: Sequence[RoundRecord],
    stated: PrivacyStatement,
    *,
    custodian: str | None,
    threshold: int,
    bits: int,
    recordings: int,
    dimension: int,
) -> Locks:
    """Which locks were on.

    Args:
        training: the plan's.
        history: every round.
        stated: what they cost each recording.
        custodian: who opened the sums; None in masked rounds.
        threshold, bits: the plan's.
        recordings: behind the guarantee, of all labels.
        dimension: trained numbers.
    """
    common = Locks(
        seal=custodian is not None,
        noise=stated.bounded,
        threshold=threshold,
        custodian=custodian,
        bits=bits,
        clip_norm=training.clip,
        recordings=recordings,
        dimension=dimension,
    )
    if isinstance(training, PlainTraining):
        return common
    return dataclasses.replace(
        common,
        noise_kind=training.kind,
        noise_multiplier=training.noise_multiplier,
        sampling=training.sampling,
        colluders=training.colluders if isinstance(training, DistributedDp) else None,
        delta=stated.delta,
        epsilon_colluders=stated.colluders,
        epsilon_outsiders=stated.outsiders,
        epsilon_curve=tuple(
            (one.rounds, one.colluders, one.outsiders)
            for one in (statement(history[:stop], (), stated.delta) for stop in range(1, len(history) + 1))
        ),
    )


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def model_facts(release: Release, base: Path) -> ModelFacts:
    """What was released, and how large it is."""
    # Sizes are read from the headers of the files. An adapter's norms take the place of the base model's, by name.
    whole, trained = _sizes(base / "model.safetensors"), _sizes(release.path / "adapter.safetensors")
    return ModelFacts(
        release=release.id,
        base_sha256=release.about["base"]["sha256"],
        adapter_sha256=release.about["adapter"]["sha256"],
        signer=release.signer.fingerprint,
        parameters=sum((whole | trained).values()),
        adapter_parameters=sum(trained.values()),
    )


def _sizes(path: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file has."""
    with safe_open(path, framework="numpy") as file:
        return {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)


def message_kinds(traffic: Traffic, custodian: str, *, noise: bool = False) -> tuple[MessageKind, ...]:
    """Every kind of message that was sent, with how many crossed and how large they were.

    Args:
        traffic: the run's.
        custodian: that party's name.
        noise: whether labels added some.
    """
    meanings = MEANINGS | (_NOISED if noise else {})
    found = []
    for kind in wire.KINDS:
        for inbound in (False, True):
            flows = {who: f for (who, way, name), f in traffic.flows.items() if (name, way) == (kind, inbound)}
            if not flows:
                continue
            ends = ("node",) * bool(set(flows) - {custodian}) + ("custodian",) * (custodian in flows)
            found.append(
                MessageKind(
                    kind,
                    inbound,
                    ", ".join(ends),
                    meanings[kind, inbound],
                    sum(f.messages for f in flows.values()),
                    sum(f.total_bytes for f in flows.values()),
                    max(f.largest_bytes for f in flows.values()),
                )
            )
    return tuple(found)


def exchange_reports(traffic: Traffic, parties: Sequence[str]) -> tuple[ExchangeReport, ...]:
    """Each party's part in each exchange after `query.hello`, in the protocol's order and then the parties'."""
    found = []
    for kind in wire.KINDS[1:]:
        for party in parties:
            received, sent = (traffic.flows.get((party, inbound, kind), Flow()) for inbound in (False, True))
            if received.messages:
                found.append(
                    ExchangeReport(
                        kind,
                        EXCHANGES[kind],
                        party,
                        sent.messages,
                        sent.total_bytes,
                        received.total_bytes,
                        sent.seconds,
                    )
                )
    return tuple(found)


def round_reports(history: Sequence[RoundRecord]) -> tuple[RoundReport, ...]:
    """Every round after the state before any."""
    return tuple(
        RoundReport(
            record.round,
            record.members,
            tuple(_drop(member, kind, member in record.members) for member, kind in sorted(record.dropped.items())),
            record.seconds,
            record.adapter_hash,
            record.exchanges,
        )
        for record in history
        if record.round
    )


def _drop(member: str, kind: str, in_sum: bool) -> DropReport:
    if in_sum and kind == wire.APPLY:
        left = "Its update is in the sum. The step that it did not take, it takes before the next round."
    elif in_sum:
        left = (
            "Its update had arrived and counts. Its own mask was rebuilt from shares that the others held, and taken "
            "off the sum."
        )
    elif kind in (wire.CONTRIBUTE, wire.PROCEED):
        left = (
            "Its update is not in the sum, but the others had already masked theirs against it. Those masks were "
            "rebuilt from shares of its mask key that the others held, and taken off the sum."
        )
    else:
        left = "Its update is not in the sum. It left nothing behind: no other label had masked anything against it."
    return DropReport(member, kind, in_sum, left)


def machine_facts() -> tuple[tuple[str, str], ...]:
    """What this ran on, as (what, value)."""
    import flwr
    import psutil
    import torch

    memory = psutil.virtual_memory().total / 2**30
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return (
        ("Processor", f"{os.cpu_count()} cores, {platform.machine()}"),
        ("Memory", f"{memory:.0f} GiB"),
        ("GPU", device),
        ("System", platform.platform(terse=True)),
        ("Python", platform.python_version()),
        ("PyTorch", str(torch.__version__)),
        ("Flower", str(flwr.__version__)),
    )


def _journal(path: Path) -> Iterator[tuple[int, float]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if math.isfinite(loss := float(entry["loss"])):  # it is no number where no recording was drawn
            yield int(entry["round"]), loss
