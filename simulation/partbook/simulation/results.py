"""From a finished run to the figures of its report: what each label had, gained and sent, and what was released."""

from __future__ import annotations

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
from partbook.generator.release import Release
from partbook.music.metrics import figures, typical
from partbook.music.recording import Recording
from partbook.simulation.collections import Collection
from partbook.simulation.federation import Traffic
from partbook.simulation.labels import Take
from partbook.simulation.pictures import LabelCurve
from partbook.simulation.report import LabelReport, MessageKind, ModelFacts
from partbook.vault.ingest import IngestReport

MEANINGS: Final = {
    ("query.hello", False): "The question who the node is; empty",
    ("query.hello", True): "The label's name",
    ("train", False): "The round's plan, and the global adapter every label starts from",
    ("train", True): "That training is done: the plan's hash",
    ("query.contribute", False): "The plan's hash",
    ("query.contribute", True): "The label's clipped update: one vector of numbers, and the plan's hash",
}


@dataclass(slots=True)
class DemoLabel:
    """A label of the demo, as it fills up.

    Attributes:
        collection: what it plays.
        home: everything that belongs to it.
        takes, heldout_takes: its recordings, and the public ones in its style.
        ingested: what came of ingesting.
        recordings, seconds, tokens: what its vault holds.
    """

    collection: Collection
    home: Path
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
    def vault(self) -> Path:
        """Folder of its vault."""
        return self.home / "vault"

    @property
    def journal(self) -> Path:
        """Its node's own record of losses."""
        return self.home / "journal.jsonl"


def label_report(
    label: DemoLabel, held: Sequence[Recording], traffic: Traffic, history: Sequence[RoundRecord]
) -> LabelReport:
    """One label's part of the report; `held` are the public held-out recordings in its style."""
    sent, received = traffic.of(label.name, inbound=True), traffic.of(label.name, inbound=False)
    return LabelReport(
        name=label.name,
        collection=label.collection.about,
        instrument=label.collection.instrument,
        recordings=label.recordings,
        seconds=label.seconds,
        tokens=label.tokens,
        refused=tuple((r.path.name, r.reason) for r in label.ingested.refused),
        heldout_recordings=len(held),
        heldout_tokens=sum(len(r.ids) + 1 for r in held),
        nll_before=history[0].validation[label.name],
        nll_after=history[-1].validation[label.name],
        curve=LabelCurve(
            label.name,
            tuple((r.round, r.validation[label.name]) for r in history),
            tuple(_journal(label.journal)),
        ),
        messages=sent.messages + received.messages,
        bytes_sent=sent.total_bytes,
        bytes_received=received.total_bytes,
        heldout_figures=typical([figures(recording.notes) for recording in held]),
    )


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


def message_kinds(traffic: Traffic) -> tuple[MessageKind, ...]:
    """Every kind of message there is, with how many crossed and how large they were."""
    found = []
    for (kind, from_node), meaning in MEANINGS.items():
        flows = [flow for (_, way, name), flow in traffic.flows.items() if (name, way) == (kind, from_node)]
        found.append(
            MessageKind(
                kind,
                from_node,
                meaning,
                sum(f.messages for f in flows),
                sum(f.total_bytes for f in flows),
                max((f.largest_bytes for f in flows), default=0),
            )
        )
    return tuple(found)


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
        yield int(entry["round"]), float(entry["loss"])
