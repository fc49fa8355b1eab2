"""The public held-out recordings, on which the coordinator scores the global model. Nothing here is private."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from partbook.errors import ConfigError
from partbook.model.likelihood import Likelihood, evaluate
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer

SUFFIX = ".recording"


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Recordings by the label whose style they are in."""

    by_label: dict[str, tuple[Recording, ...]]

    @classmethod
    def read(cls, folder: Path) -> ValidationSet:
        """Read `folder/<label>/*.recording`, which `write_validation` wrote.

        Raises:
            ConfigError: the folder is missing or holds no recording.
            CorruptMessage: a file is not a recording.
        """
        found = {
            sub.name: tuple(Recording.from_bytes(path.read_bytes()) for path in sorted(sub.glob(f"*{SUFFIX}")))
            for sub in (sorted(folder.iterdir()) if folder.is_dir() else [])
            if sub.is_dir()
        }
        kept = {label: recordings for label, recordings in found.items() if recordings}
        if not kept:
            raise ConfigError(f"{folder} holds no validation recordings; leave `validation` out or make the set.")
        return cls(kept)

    def score(self, model: PartbookModel, tokenizer: Tokenizer) -> dict[str, Likelihood]:
        """The likelihood of each label's recordings."""
        return {label: evaluate(model, tokenizer, recordings) for label, recordings in self.by_label.items()}


def write_validation(folder: Path, label: str, recordings: Sequence[Recording]) -> None:
    """Replace a label's validation recordings."""
    home = folder / label
    home.mkdir(parents=True, exist_ok=True)
    for old in home.glob(f"*{SUFFIX}"):
        old.unlink()
    for index, recording in enumerate(recordings):
        (home / f"{index:03d}{SUFFIX}").write_bytes(recording.to_bytes())
