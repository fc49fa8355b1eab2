"""The demo's labels with their vaults filled, and nothing else of it: recordings are played and ingested once.

Folders, works and recordings are those of `partbook demo` with the same home, seed and sizes; what it left there is
used, and the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from partbook.errors import InputError
from partbook.model.checkpoint import BASE, base_manifest
from partbook.simulation.collections import COLLECTIONS, Collection
from partbook.simulation.demo_rounds import Watcher
from partbook.simulation.labels import choose, record, takes
from partbook.simulation.results import DemoLabel
from partbook.vault.ingest import Workers, ingest
from partbook.vault.store import Vault

TRIO: Final = COLLECTIONS[:3]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Which recordings.

    Attributes:
        home: where recordings and vaults are kept between runs.
        seed: picks each label's works.
        recordings: works a label plays.
        seconds: longest a recording may be.
        base: the base model, whose tokeniser vaults are written with.
    """

    home: Path
    seed: int = 1
    recordings: int = 20
    seconds: float = 45.0
    base: Path = BASE

    @property
    def folder(self) -> Path:
        """All labels' folders."""
        base: str = base_manifest(self.base)["files"]["model.safetensors"]
        return self.home / f"base-{base[:8]}" / f"seed-{self.seed}-{self.recordings}x{self.seconds:g}s"


def filled(shelf: Shelf, watch: Watcher, collections: Sequence[Collection] = TRIO) -> list[DemoLabel]:
    """Play and ingest what is missing.

    Args:
        shelf: which recordings.
        watch: told how far it is.
        collections: whose labels.

    Raises:
        InputError: a label is left with no recording at all.
        PartbookError: a recording or a vault cannot be written.
    """
    labels = [DemoLabel(collection, shelf.folder) for collection in collections]
    for label in labels:
        works = choose(label.collection, "label", shelf.recordings, shelf.seed)
        label.takes = takes(works, label.collection, shelf.seconds, label.home / "recordings")
    planned = [take for label in labels for take in label.takes]
    watch.stage("Playing scores into recordings", len(planned))
    made = {take.path for take in record(planned, lambda take: watch.step(take.work.printed))}
    watch.stage("Ingesting: each label hears its own", len(made))
    with Workers() as workers:
        for label in labels:
            label.takes = [take for take in label.takes if take.path in made]
            _ingest(label, shelf.base / "tokenizer.json", workers, watch)
    return labels


def _ingest(label: DemoLabel, tokenizer: Path, workers: Workers, watch: Watcher) -> None:
    with Vault.open(label.vault, writable=True) if label.vault.exists() else Vault.create(label.vault) as vault:
        label.ingested = ingest(
            [take.path for take in label.takes],
            vault,
            tokenizer,
            program=label.collection.program,
            workers=workers,
            on_event=lambda event: watch.step(event.path.stem),
        )
        for refusal in label.ingested.refused:
            watch.note(f"{label.name}: {refusal.path.name} left out: {refusal.reason}")
        kept = vault.summary()
    label.recordings, label.seconds, label.tokens = kept.recordings, kept.seconds, kept.tokens
    if not label.recordings:
        raise InputError(f"{label.name} is left with no recording; delete {label.home} to have them made anew.")
