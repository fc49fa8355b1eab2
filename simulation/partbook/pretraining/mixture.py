"""The base's training windows: public scores in every key, and such music as a node hears it.

Batch n of a seed is always the same, so that an interrupted run goes on where it was. A window begins at a bar, half of
them at a piece's first; its header says hand, metre, tempo and instrument, and now and then what else can be asked for
(key, density, polyphony, bars left), so that all of it stays optional. Windows of like length share a micro-batch, so
that little is padding.

Three kinds are mixed: scores; heard music; and heard music that follows on from its own sound, with nothing but the
sound before it: its header says what it must (hand, metre, tempo, instrument), so that the key, for one, has to be
heard. All of them in any key: the bands of the sound's mel move with the notes, lest a few hundred works in
their own keys teach that a key means a work. In some windows of scores a few bars are left out, to be filled in at the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from partbook.evaluation.tonality import key_of
from partbook.model.layers import MEMORY_STEPS, MEMORY_STRIDE, PITCH_CLASSES
from partbook.model.transformer import PartbookModel
from partbook.music.chords import chords_of
from partbook.music.mel import BANDS, FRAMES_PER_SECOND, MEMORY_FRAMES, memory_before
from partbook.music.quantised import Quantised
from partbook.music.tokens import Header, Tokenizer, bars_of, symbols_of
from partbook.music.vocabulary import (
    BARS_LEFT,
    DENSITIES,
    LONGEST_GAP,
    NOTE_NAMES,
    NUMBER,
    POLYPHONIES,
    POSITIONS_PER_BEAT,
    Hand,
    class_of,
)
from partbook.music.windows import Windows
from partbook.pretraining.mel_key import transposed

KEYS: Final = range(-5, 7)  # semitones: every key once
HEARD: Final = 0.3  # share of windows that are heard music
SOUNDING: Final = 0.75  # share of those that follow on from their sound
GAPPED: Final = 0.06  # share of windows of scores with a gap
CHARTED: Final = 0.08  # share of windows of scores with their chords
WHOLE: Final = 0.5  # share of windows that begin with the piece
OTHER_INSTRUMENT: Final = 0.3  # share of windows of scores on a random instrument
IN_PARTS: Final = 0.3  # share of windows of music for several instruments that keep them apart
INSTRUMENTS: Final = (0, 6, 11, 12, 24, 25, 40, 46, 73, 74, 105)  # General MIDI
SAID: Final = {
    "genre": 0.5,
    "key": 0.25,
    "density": 0.15,
    "polyphony": 0.15,
    "bars": 0.8,  # where the vocabulary has the very number, so that it may be counted down
}  # how often a header says what
HEARING: Final = 1.0  # weight of a window's hearing loss beside a token's nats
SHORT: Final = (128, 128, 384)  # positions of windows that follow on from sound: later ones know the music by its notes
MICRO: Final = 2048  # positions of a micro-batch, padding included, if more than one window: what a core's cache holds
HALF: Final = 0.7  # share of windows of at most half the context, which cost less a token
_TOKENS_A_NOTE: Final = 1.0  # at least: how many notes are written down before a window is cut to its length


@dataclass(frozen=True, slots=True)
class Piece:
    """One public work on the grid, as written or as heard.

    Attributes:
        collection: what it is of; windows are drawn by the root of collections' sizes.
        genre: as in `vocabulary.GENRES`; None where it is not known.
        music: notes and bars, on one instrument.
        parts: the same on its own instruments, if they are several.
        hand: how the notes came to be.
        bar_seconds: when each bar begins, (bars,); heard music only.
        mel: its sound, (frames, 128); heard music only.
    """

    collection: str
    music: Quantised
    hand: Hand = "score"
    genre: str | None = None
    bar_seconds: NDArray[np.float32] | None = None
    mel: NDArray[np.float16] | None = None
    parts: Quantised | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One window.

    Attributes:
        ids: BOS or CUT first.
        memory: the sound before it, (688, 128), if there is any.
        classes: pitch classes that sound in each step of memory, bool (43, 12), if there is any.
    """

    ids: NDArray[np.int16]
    memory: NDArray[np.float16] | None = None
    classes: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class SoundingWindows(Windows):
    """Windows, with what the sound before them is made of.

    Attributes:
        classes: pitch classes that sound in each step of memory, float32 (batch, 43, 12).
    """

    classes: NDArray[np.float32]


class Mixture:
    """Windows of pieces, by the number of their batch."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        tokenizer: Tokenizer,
        *,
        context: int,
        tokens: int,
        seed: int,
        heard: float = HEARD,
        micro: int = MICRO,
    ) -> None:
        """Of pieces of both hands.

        Args:
            pieces: what to draw from.
            tokenizer: the model's.
            context: positions of a window at most.
            tokens: about how many a batch has.
            seed: of everything that is drawn.
            heard: share of windows that are heard music.
            micro: positions of a micro-batch, padding included, if more than one window.
        """
        self._tokenizer, self._context, self._tokens, self._seed = tokenizer, context, tokens, seed
        self._micro = micro
        self._written = Drawer([p for p in pieces if p.hand == "score"])
        self._heard = Drawer([p for p in pieces if p.hand == "heard"])
        self._share = heard if len(self._heard) else 0.0

    def batch(self, number: int) -> list[Windows]:
        """Micro-batches of batch `number`, from 0."""
        random = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        rows: list[Row] = []
        filled = 0
        while filled < self._tokens:
            rows.append(self._row(random))
            filled += len(rows[-1].ids) - 1
        rows.sort(key=lambda row: len(row.ids))
        result: list[Windows] = []
        begin = 0
        for end in range(1, len(rows) + 1):
            longer = len(rows[end].ids) if end < len(rows) else 0
            if end == len(rows) or (end + 1 - begin) * longer > self._micro:
                result.append(_laid_out(rows[begin:end], self._tokenizer.pad))
                begin = end
        return result

    def _row(self, random: np.random.Generator) -> Row:
        if random.random() >= self._share:
            piece = self._written.draw(random)
            in_parts = piece.parts is not None and random.random() < IN_PARTS
            music = (piece.parts if in_parts and piece.parts else piece.music).transposed(int(random.choice(KEYS)))
            if not in_parts and random.random() < OTHER_INSTRUMENT:
                music = music.on(int(random.choice(INSTRUMENTS)))
            length = self._length(random)
            return Row(self._window(piece, music, random, length, gap=random.random() < GAPPED))
        piece = self._heard.draw(random)
        if random.random() < SOUNDING:
            assert piece.bar_seconds is not None
            assert piece.mel is not None
            late = np.flatnonzero(piece.bar_seconds[: len(piece.music)] > 1.0)
            if len(late):
                bar = int(random.choice(late))
                second = float(piece.bar_seconds[bar])
                key = int(random.choice(KEYS))
                music, sound = piece.music.transposed(key), memory_before(piece.mel, second)
                length = min(int(random.choice(SHORT)), self._context)
                ids = self._window(piece, music, random, length, first=bar, says=False)
                assert sound is not None
                return Row(ids, transposed(sound, key), sounding(music, piece.bar_seconds, second))
        music = piece.music.transposed(int(random.choice(KEYS)))
        return Row(self._window(piece, music, random, self._length(random)))

    def _length(self, random: np.random.Generator) -> int:
        return self._context // 2 if random.random() < HALF else self._context

    def _window(
        self,
        piece: Piece,
        music: Quantised,
        random: np.random.Generator,
        length: int,
        *,
        first: int | None = None,
        gap: bool = False,
        says: bool = True,
    ) -> NDArray[np.int16]:
        """One window's ids, at most `length` + 1 of them, in whole bars but for a bar that is longer than a window.

        From bar `first`, or one that is drawn; with a gap or without; `says`: whether its header may say what it need
        not.
        """
        tokenizer, bars = self._tokenizer, len(music)
        if first is None:
            first = 0 if random.random() < WHOLE else int(random.integers(bars))
        edges = np.searchsorted(music.onset, music.bars)
        # As many bars as notes may fill the window, at most one window's worth of rests.
        fitting = np.searchsorted(edges, edges[first] + length / _TOKENS_A_NOTE, side="right") - 1
        last = int(min(max(fitting, first + 1), first + length, bars))
        part = music.cut(first, last)
        header = header_of(part, piece.hand, piece.genre, bars - first, random) if says else Header(piece.hand)
        start = tokenizer.bos if first == 0 else tokenizer.cut
        steady = len(set(part.metres)) == 1 and len(set(part.tempi)) == 1  # else a gap might swallow a change
        if gap and len(part) >= 4 and steady:
            ids = np.concatenate([[start], tokenizer.merged(gapped(part, header, random)), [tokenizer.eos]])
            if len(ids) <= length + 1:
                return ids.astype(np.int16)
        chords = chords_of(part) if piece.hand == "score" and random.random() < CHARTED else None
        ids = np.concatenate([[start], tokenizer.merged(symbols_of(part, header, chords=chords))])
        if len(ids) <= length:
            return np.append(ids, tokenizer.eos).astype(np.int16) if last == bars else ids.astype(np.int16)
        begins = tokenizer.bar_starts(ids[: length + 2].astype(np.int16))
        whole = int(begins[-1]) if len(begins) > 1 else length + 1
        return ids[: min(whole, length + 1)].astype(np.int16)


class Drawer:
    """Pieces by the root of their collection's size, so that few but long works do not drown."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Of any pieces; of none, nothing may be drawn."""
        self._pieces = pieces
        notes: dict[str, int] = {}
        for piece in pieces:
            notes[piece.collection] = notes.get(piece.collection, 0) + len(piece.music.onset)
        # A collection is drawn by the root of its notes, a piece in it by the root of its own.
        own = np.array([len(p.music.onset) ** 0.5 for p in pieces])
        within = {name: sum(own[i] for i, p in enumerate(pieces) if p.collection == name) for name in notes}
        weight = np.array([own[i] / within[p.collection] * notes[p.collection] ** 0.5 for i, p in enumerate(pieces)])
        self._cumulative = np.cumsum(weight / weight.sum()) if len(pieces) else np.zeros(0)

    def __len__(self) -> int:
        return len(self._pieces)

    def draw(self, random: np.random.Generator) -> Piece:
        """One of them."""
        at = int(np.searchsorted(self._cumulative, random.random()))
        return self._pieces[min(at, len(self._pieces) - 1)]


def header_of(music: Quantised, hand: Hand, genre: str | None, bars_left: int, random: np.random.Generator) -> Header:
    """What a window's header says, each thing as often as `SAID` has it."""
    says = {what: random.random() < share for what, share in SAID.items()}
    return Header(
        hand,
        genre=genre if says["genre"] else None,
        key=key_name(music) if says["key"] and len(music.pitch) else None,
        density=density(music) if says["density"] else None,
        polyphony=polyphony(music) if says["polyphony"] and len(music.pitch) else None,
        bars=bars_left if says["bars"] and bars_left in BARS_LEFT else None,
    )


def key_name(music: Quantised) -> str:
    """The key, as in `vocabulary.KEYS`."""
    found = key_of(np.bincount(music.pitch % 12, weights=music.length, minlength=12).astype(np.float64))
    return f"{NOTE_NAMES[found.tonic]}{'m' if found.minor else ''}"


def density(music: Quantised) -> int:
    """Class of notes a quarter note."""
    return class_of(len(music.onset) * POSITIONS_PER_BEAT / max(int(music.bars[-1]), 1), DENSITIES)


def polyphony(music: Quantised) -> int:
    """Class of notes that sound at once, where any does."""
    end = music.onset + music.length
    moments = np.unique(music.onset)
    sounding = np.searchsorted(np.sort(music.onset), moments, side="right") - np.searchsorted(
        np.sort(end), moments, side="right"
    )
    return class_of(float(sounding.mean()), POLYPHONIES)


def gapped(music: Quantised, header: Header, random: np.random.Generator) -> list[int]:
    """Symbols of music with some of its bars left out and written at the end: header, bars, GAP, bars, FILL, bars.

    Of one metre and one tempo throughout.
    """
    bars = len(music)
    size = int(random.integers(1, min(LONGEST_GAP, bars // 2) + 1))
    first = int(random.integers(1, bars - size)) if bars - size > 1 else 1
    home = int(music.program[0]) if len(music.program) else 0
    whole = symbols_of(music, header)
    body = bars_of(music, home, dynamics=header.hand == "heard")
    head = whole[: len(whole) - len(body)]
    edges = [i for i, symbol in enumerate(body) if symbol == NUMBER["Bar"]] + [len(body)]
    left_out = body[edges[first] : edges[first + size]]
    return [
        *head,
        *body[: edges[first]],
        NUMBER[f"Gap_{size}"],
        *body[edges[first + size] :],
        NUMBER["Fill"],
        *left_out,
    ]


def _laid_out(rows: Sequence[Row], pad: int) -> Windows:
    ids = np.full((len(rows), max(len(row.ids) for row in rows)), pad, dtype=np.int64)
    memory = np.full((len(rows), MEMORY_FRAMES, BANDS), -1.0, dtype=np.float32)
    has_memory = np.zeros(len(rows), dtype=np.bool_)
    classes = np.zeros((len(rows), MEMORY_STEPS, PITCH_CLASSES), dtype=np.float32)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        if row.memory is not None:
            memory[number], has_memory[number], classes[number] = row.memory, True, row.classes
    return SoundingWindows(ids, memory, has_memory, classes)


def sounding(music: Quantised, bar_seconds: NDArray[np.float32], second: float) -> NDArray[np.bool_]:
    """Pitch classes that sound in each step of the memory that ends at a second, (43, 12)."""
    edges = np.append(bar_seconds, 2 * bar_seconds[-1] - bar_seconds[-2] if len(bar_seconds) > 1 else second)

    def seconds(positions: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.interp(positions, music.bars[: len(edges)], edges[: len(music.bars)])
        return found

    step = MEMORY_STRIDE / FRAMES_PER_SECOND
    begin = second - MEMORY_STEPS * step
    first = np.floor((seconds(music.onset) - begin) / step)
    last = np.floor((seconds(music.onset + music.length) - begin) / step)
    steps = np.arange(MEMORY_STEPS)
    heard = (first[:, None] <= steps) & (steps <= np.maximum(last, first)[:, None])  # (notes, 43)
    of = (music.pitch % PITCH_CLASSES)[:, None] == np.arange(PITCH_CLASSES)  # (notes, 12)
    return np.asarray((heard.T.astype(np.int64) @ of.astype(np.int64)) > 0)


def hearing_loss(model: PartbookModel) -> Callable[[Windows, Tensor], Tensor]:
    """The auxiliary loss of windows that follow on from sound: which pitch classes sound in each step of it.

    Binary cross-entropy, the mean over steps and classes, times `HEARING`; 0 for windows without sound: (b,).
    """

    def loss(windows: Windows, memory: Tensor) -> Tensor:
        if not isinstance(windows, SoundingWindows) or not windows.has_memory.any():
            return memory.new_zeros(len(windows))
        target = torch.from_numpy(windows.classes).to(memory.device)
        logits = model.encoder.sounding(memory).float()
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2))
        return HEARING * each * torch.from_numpy(windows.has_memory).to(memory.device)

    return loss
