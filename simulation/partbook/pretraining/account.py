"""What a base was made of, and by which recipe: kept beside its training, stated in its manifest and on its card.

The card is written from the manifest alone, so both say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from partbook.corpus.library import Library
from partbook.corpus.parsed import write_whole
from partbook.errors import ConfigError
from partbook.pretraining.pieces import Pieces

ACCOUNT: Final = "account.json"
CARD: Final = "README.md"
FORMAT: Final = "partbook/v1/base-account"


@dataclass(frozen=True, slots=True)
class Source:
    """One collection that is learnt from.

    Attributes:
        collection: its name.
        works, notes: as written.
        takes, heard_notes: as heard.
        rights: in a line.
    """

    collection: str
    works: int
    notes: int
    takes: int
    heard_notes: int
    rights: str


@dataclass(frozen=True, slots=True)
class Account:
    """Of one training.

    Attributes:
        command: that makes the same base elsewhere.
        size: as in `partbook.model.config.SIZES`.
        vocabulary: tokens that were asked for.
        corpus: hash of all pieces.
        sources: by collection.
        data: folders that further works are read from.
        heard_works: that takes are of, a collection, at most.
        takes: of each.
        started_from: SHA-256 of the weights that it began with; None where it began anew.
        tokens_before: that those weights had seen.
    """

    command: str
    size: str
    vocabulary: int
    corpus: str
    sources: tuple[Source, ...]
    data: tuple[str, ...] = ()
    heard_works: int = 0
    takes: int = 0
    started_from: str | None = None
    tokens_before: int = 0

    def save(self, folder: Path) -> None:
        """Write it into a training's folder."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True)
        write_whole(folder / ACCOUNT, text.encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Account | None:
        """That of a training's folder; None where there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        path = folder / ACCOUNT
        if not path.exists():
            return None
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said.pop("format") != FORMAT:
                raise ValueError("it is of another format")
            said["sources"] = tuple(Source(**source) for source in said["sources"])
            return replace(cls(**said), data=tuple(said["data"]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} is no account of a training ({error}); restore it, or choose another folder."
            ) from error

    def manifest(
        self,
        *,
        recipe: Mapping[str, Any],
        step: int,
        tokens: int,
        parameters: int,
        figures: Mapping[str, float],
        works: Mapping[str, int],
    ) -> dict[str, Any]:
        """What a base's manifest says about it.

        Args:
            recipe: the training's, as plain values.
            step: how many.
            tokens: seen in this training.
            parameters: of the model.
            figures: nats a note on held-out works, by collection and hand.
            works: how many of them, by the same.
        """
        return {
            "command": self.command,
            "corpus_sha256": self.corpus,
            "heldout_nats_per_note": {name: round(value, 4) for name, value in sorted(figures.items())},
            "heldout_pieces": dict(sorted(works.items())),
            "parameters": parameters,
            "recipe": dict(recipe),
            "size": self.size,
            "sources": [asdict(source) for source in self.sources],
            "started_from": self.started_from,
            "steps": step,
            "takes": sum(source.takes for source in self.sources),
            "tokens_seen": self.tokens_before + tokens,
            "works": sum(source.works for source in self.sources),
        }


def sources(library: Library, names: Sequence[str], written: Pieces, heard: Pieces) -> tuple[Source, ...]:
    """What is learnt from, by collection, in the library's order."""
    works, notes, takes, heard_notes = written.counted, written.notes, heard.counted, heard.notes
    return tuple(
        Source(
            name, works.get(name, 0), notes.get(name, 0), takes.get(name, 0), heard_notes.get(name, 0),
            library.rights(name),
        )
        for name in names
        if works.get(name, 0) or takes.get(name, 0)
    )  # fmt: skip


def card(manifest: Mapping[str, Any], vocabulary: int, context: int) -> str:
    """The model card of a base, as Markdown.

    Args:
        manifest: what `save_base` wrote.
        vocabulary: tokens of its tokeniser.
        context: positions that it sees at once.
    """
    about, recipe = manifest["about"], manifest["about"]["recipe"]
    figures, pieces = about["heldout_nats_per_note"], about["heldout_pieces"]
    rows = [
        f"| {s['collection']} | {s['works']:,} | {s['notes']:,} | {s['takes']:,} | {s['rights']} |"
        for s in about["sources"]
    ]
    collections = sorted({name.rpartition("/")[0] for name in figures})
    measured = [
        f"| {name} | " + " | ".join(_figure(figures, pieces, f"{name}/{hand}") for hand in ("score", "heard")) + " |"
        for name in collections
    ]
    began = (
        "It began with random weights."
        if about["started_from"] is None
        else f"It went on from the base whose weights have the SHA-256 `{about['started_from']}`."
    )
    text = f"""# Partbook's base model, {about["size"]}

An encoder–decoder that writes music as tokens: {about["parameters"]:,} parameters, {vocabulary:,} tokens, a context of
{context:,} positions. It reads the bars so far and, where there is one, the sound of the eight seconds before them. A
federation's labels train small adapters on it; by itself it knows public music alone, and no label's.

Weights are kept in half precision. `model.safetensors` has the SHA-256
`{manifest["files"]["model.safetensors"]}`.

## What it has learnt from

{about["works"]:,} public works as written, and {about["takes"]:,} takes of some of them: played by a SoundFont, in many
ways, and transcribed by a node's own ears. No recording of anybody's is among them.

| Collection | Works | Notes | Takes | Rights |
|---|---|---|---|---|
{chr(10).join(rows)}

Works are dealt out by tune families: none of the held-out works, and none that a demo's label plays, shares a tune with
what is learnt from; four styles are withheld whole (`partbook corpus show`).

## How it was made

    {about["command"]}

{about["tokens_seen"]:,} tokens in all, {about["steps"]:,} steps of about {recipe["step_tokens"]:,} in its last
training. {began} Muon at {recipe["muon_rate"]:g} for matrices and AdamW at {recipe["adamw_rate"]:g} for the rest;
{recipe["warmup"]:,} tokens of warm-up, then the peak, and down to zero over the last {recipe["decay"]:.0%} of the
tokens; gradients clipped at {recipe["clip"]:g}, dropout {recipe["dropout"]:g}. What is kept is the weights' moving
average ({recipe["average"]:g} a step).

## What it is worth

Nats a note on held-out works, the piece's end included; less is better. In brackets: pieces.

| Collection | As written | As heard |
|---|---|---|
{chr(10).join(measured)}

## Limits

- It knows the styles above and writes others badly.
- What it heard was played by SoundFonts: rooms, crowds and singers are new to it, and so is what its
  ears mishear in them.
- Heard music is written in 4/4 from its first note on.
- It is no judge of quality: a piece that it finds likely may be dull.
"""
    return text


def _figure(figures: Mapping[str, float], pieces: Mapping[str, int], name: str) -> str:
    return f"{figures[name]:.2f} ({pieces[name]:,})" if name in figures else "–"
