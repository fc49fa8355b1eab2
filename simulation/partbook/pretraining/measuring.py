"""Nats a note on held-out works, by collection and hand: what curves of a training show, and what a manifest states.

A piece's nats are those of all its tokens, its header and end included, over its notes; what repeats the header in
front of a later window is given (`partbook.model.likelihood.token_nats`). Nothing but what a node would say is in the
header. An opening is the piece's first bars and has no end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from partbook.model.likelihood import token_losses, token_nats
from partbook.model.transformer import PartbookModel
from partbook.music.mel import BANDS
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import Header, Tokenizer
from partbook.pretraining.mixture import Piece

OPENING: Final = 40  # bars: a window's worth and no more


@dataclass(frozen=True, slots=True)
class Held:
    """One piece that is not learnt from.

    Attributes:
        name: its collection and hand, such as `bach/score`.
        recording: in tokens.
        notes: how many it has.
        whole: whether its end is its end.
    """

    name: str
    recording: Recording
    notes: int
    whole: bool


def held(pieces: Iterable[Piece], tokenizer: Tokenizer, *, bars: int | None = None) -> list[Held]:
    """Pieces in a tokeniser's tokens: whole, or their first `bars` bars."""
    found = []
    for piece in pieces:
        whole = bars is None or len(piece.music) <= bars
        music = piece.music if whole else piece.music.cut(0, bars or 0)
        if not len(music.onset):
            continue
        ids = tokenizer.write(music, Header(piece.hand))
        starts = tokenizer.bar_starts(ids)
        seconds = np.zeros(len(starts), np.float32) if piece.bar_seconds is None else piece.bar_seconds[: len(starts)]
        mel = np.zeros((0, BANDS), np.float16) if piece.mel is None else piece.mel
        # Its notes in seconds are nothing to a likelihood.
        recording = Recording("", 0.0, Notes.from_rows([]), ids, starts, seconds, mel)
        found.append(Held(f"{piece.collection}/{piece.hand}", recording, len(music.onset), whole))
    return found


def nats_a_note(model: PartbookModel, tokenizer: Tokenizer, works: Sequence[Held]) -> dict[str, float]:
    """Nats a note of each collection and hand. Leaves the model in evaluation mode."""
    device = model.embedding.weight.device
    model.eval()

    def losses(ids: Tensor, mel: Tensor, has_memory: Tensor) -> Tensor:
        return token_losses(model, ids, mel, has_memory, tokenizer.pad)

    nats: dict[str, float] = {}
    notes: dict[str, int] = {}
    for work in works:
        each = token_nats(losses, tokenizer, work.recording, model.config.context, device, batch=4)
        nats[work.name] = nats.get(work.name, 0.0) + float((each if work.whole else each[:-1]).sum())
        notes[work.name] = notes.get(work.name, 0) + work.notes
    return {name: nats[name] / notes[name] for name in nats}


def mean(figures: Mapping[str, float], hand: str) -> float:
    """The mean over collections of one hand; not a number where there is none."""
    found = [value for name, value in figures.items() if name.endswith(f"/{hand}")]
    return float(np.mean(found)) if found else float("nan")
