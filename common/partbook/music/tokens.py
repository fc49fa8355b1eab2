"""Scores ↔ token ids: the symbols of `partbook.music.vocabulary`, byte-pair merges inside bars.

Merges join steps, pitches and lengths, never across a bar, and are learnt from public music only. They are learnt and
applied by Hugging Face's `tokenizers`. BPE on symbolic music: Fradet et al. 2023 (arXiv 2301.11975).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreSecond, ScoreTick
from tokenizers import Tokenizer as Merger
from tokenizers import models, pre_tokenizers, trainers

from partbook.errors import ScoreError
from partbook.music.notes import Notes
from partbook.music.quantised import TICKS_PER_QUARTER, Quantised, quantised, scored
from partbook.music.vocabulary import (
    BARS_LEFT,
    FIRST_MERGEABLE,
    HIGHEST_PITCH,
    KINDS,
    LEVELS,
    LONGEST_BAR,
    LOWEST_PITCH,
    NUMBER,
    POSITIONS_PER_BEAT,
    SYMBOLS,
    TEMPI,
    VERSION,
    Hand,
    bar_positions,
    bars_left_number,
    metre_number,
    nearest_length,
    steps_of,
    tempo_number,
)

__all__ = ["HIGHEST_PITCH", "LOWEST_PITCH", "POSITIONS_PER_BEAT", "TICKS_PER_QUARTER", "Header", "Tokenizer"]

FORMAT: Final = "partbook/v1/tokenizer"
_FIRST_LETTER: Final = 0x4E00  # symbols are letters to the merger: a block of 20,992, none of them white space
_BAR = NUMBER["Bar"]


@dataclass(frozen=True, slots=True)
class Header:
    """What is said before a window's first bar, beside its metre and tempo.

    Attributes:
        hand: how the notes came to be; heard music has its dynamics written, once a bar.
        genre: as in `vocabulary.GENRES`.
        style: a label's number, 0–15.
        key: as in `vocabulary.KEYS`.
        density, polyphony: classes of the vocabulary's scales.
        bars: about how many bars are left of the piece.
    """

    hand: Hand = "score"
    genre: str | None = None
    style: int | None = None
    key: str | None = None
    density: int | None = None
    polyphony: int | None = None
    bars: int | None = None

    def symbols(self, metre: tuple[int, int], tempo: float, programs: Sequence[int]) -> list[int]:
        """Its symbols, in the grammar's order."""
        said: list[int | None] = [
            NUMBER[f"Hand_{self.hand}"],
            None if self.genre is None else NUMBER[f"Genre_{self.genre}"],
            None if self.style is None else NUMBER[f"Style_{self.style}"],
            None if self.key is None else NUMBER[f"Key_{self.key}"],
            metre_number(*metre),
            tempo_number(tempo),
            None if self.density is None else NUMBER[f"Density_{self.density}"],
            None if self.polyphony is None else NUMBER[f"Polyphony_{self.polyphony}"],
            None if self.bars is None else bars_left_number(self.bars),
            *(NUMBER[f"Program_{program}"] for program in programs),
        ]
        return [symbol for symbol in said if symbol is not None]


class Tokenizer:
    """Encodes one-stream scores to ids and back. Immutable once made; safe to share between threads."""

    pad: int = NUMBER["Pad"]
    bos: int = NUMBER["Begin"]
    cut: int = NUMBER["Cut"]
    eos: int = NUMBER["End"]

    def __init__(self, merges: Sequence[tuple[str, str]] = ()) -> None:
        """With merges of words of letters; `train` and `load` make them."""
        self._merges = tuple(merges)
        numbers = {chr(_FIRST_LETTER + symbol): symbol for symbol in range(len(SYMBOLS))}
        spelt: list[tuple[int, ...]] = [(symbol,) for symbol in range(len(SYMBOLS))]
        for left, right in self._merges:
            if left + right in numbers:
                continue  # another way to the same word
            numbers[left + right] = len(spelt)
            spelt.append((*spelt[numbers[left]], *spelt[numbers[right]]))
        self._spelt = spelt
        self._merger = Merger(models.BPE(vocab=numbers, merges=list(self._merges), cache_capacity=100_000))
        self._starts_bar = np.array([symbols[0] == _BAR for symbols in spelt])

    @classmethod
    def train(cls, bodies: Iterable[Sequence[int]], vocabulary_size: int) -> Tokenizer:
        """A tokeniser whose merges are learnt from pieces of symbols, as `symbols_of` writes them; deterministic."""
        wanted = vocabulary_size - len(SYMBOLS)
        if wanted <= 0:
            return cls()
        merger = Merger(models.BPE())
        merger.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        letters = [chr(_FIRST_LETTER + symbol) for symbol in range(FIRST_MERGEABLE, len(SYMBOLS))]
        trainer = trainers.BpeTrainer(
            vocab_size=len(letters) + wanted, initial_alphabet=letters, show_progress=False, special_tokens=[]
        )
        merger.train_from_iterator((" ".join(_words(body)) for body in bodies), trainer)
        learnt = json.loads(merger.to_str())["model"]["merges"]
        return cls([(str(left), str(right)) for left, right in learnt[:wanted]])

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """The tokeniser saved at `path`.

        Raises:
            ScoreError: the file is missing, is not a tokeniser, or is of another version of the vocabulary.
        """
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']!r}")
            if about["symbols_sha256"] != symbols_hash():
                raise ValueError(f"its vocabulary is version {about['version']}, this Partbook's is {VERSION}")
            return cls([(str(left), str(right)) for left, right in about["merges"]])
        except Exception as error:
            raise ScoreError(f"{path} is not a Partbook tokeniser ({error}); restore it from the release.") from error

    def save(self, path: Path) -> None:
        """Write the tokeniser as JSON."""
        about = {"format": FORMAT, "version": VERSION, "symbols_sha256": symbols_hash(), "merges": self._merges}
        path.write_text(json.dumps(about, ensure_ascii=True) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self._spelt)

    # ------------------------------------------------------------------ writing

    def encode(self, score: ScoreTick, *, hand: Hand = "score", style: int | None = None) -> NDArray[np.int16]:
        """Token ids of a score, header included, with neither BOS nor EOS.

        Notes off the piano's range are dropped, as are drums.

        Raises:
            ScoreError: the score holds no note that can be written.
        """
        return self.write(quantised(score), Header(hand, style=style))

    def write(self, music: Quantised, header: Header) -> NDArray[np.int16]:
        """Token ids of music on the grid, header included, with neither BOS nor EOS."""
        return self.merged(symbols_of(music, header))

    def merged(self, symbols: Sequence[int]) -> NDArray[np.int16]:
        """Symbols as ids: merges inside bars."""
        result: list[int] = []
        run: list[int] = []
        waiting: list[str] = []
        places: list[int] = []
        for symbol in symbols:
            if symbol >= FIRST_MERGEABLE:
                run.append(symbol)
                continue
            if run:
                places.append(len(result))
                waiting.append(_spelling(run))
                run = []
            result.append(symbol)
        if run:
            places.append(len(result))
            waiting.append(_spelling(run))
        if waiting:
            pieces = self._merger.encode_batch_fast(waiting)
            whole: list[int] = []
            begin = 0
            for place, piece in zip(places, pieces, strict=True):
                whole += result[begin:place]
                whole += piece.ids
                begin = place
            result = whole + result[begin:]
        return np.asarray(result, dtype=np.int16)

    def header_at(self, ids: NDArray[np.int16], index: int) -> list[int]:
        """What stands in front of a window of a piece's ids that begins at `index`, a bar: CUT, then the header.

        Metre and tempo are those in force there; bars left are fewer by those gone by, and not said where the
        vocabulary has no such number, since a model counts them down. At 0: nothing but BOS, since a piece's ids have
        their own header.
        """
        if index == 0:
            return [self.bos]
        starts = np.flatnonzero(self._starts_bar[ids[: index + 1]])
        first = int(starts[0]) if len(starts) else index
        said = {}
        for kind, (low, high) in _CHANGING.items():
            places = np.flatnonzero((ids[:index] >= low) & (ids[:index] < high))
            if len(places):
                said[kind] = int(ids[places[-1]])
        result = [self.cut]
        for symbol in (int(i) for i in ids[:first]):
            kind = KINDS[symbol] if symbol < len(SYMBOLS) else ""
            if kind not in _HEADER:
                break  # nothing else stands before a piece's first bar
            if kind in said:
                result.append(said[kind])
            elif kind == "Bars":
                left = max(int(SYMBOLS[symbol].partition("_")[2]) - int((starts < index).sum()), 1)
                if left in BARS_LEFT:
                    result.append(bars_left_number(left))
            elif symbol not in result:
                result.append(symbol)
        return result

    def styled(self, ids: NDArray[np.int16], style: int) -> NDArray[np.int16]:
        """A piece's ids with a label's style, 0–15, in their header; in place of another that is there."""
        kept = [int(i) for i in ids if not (i < len(KINDS) and KINDS[i] == "Style")]
        before = [place for place, i in enumerate(kept) if i < len(KINDS) and KINDS[i] in ("Hand", "Genre")]
        place = before[-1] + 1 if before else 0
        return np.array([*kept[:place], NUMBER[f"Style_{style}"], *kept[place:]], dtype=np.int16)

    # ------------------------------------------------------------------ reading

    def decode(self, ids: Iterable[int], *, tempi: Sequence[float] | None = None) -> ScoreTick:
        """The score that ids spell, at 480 ticks a quarter. Ill-formed stretches are skipped.

        Args:
            ids: with or without BOS, CUT, header and EOS.
            tempi: exact quarter notes a minute of each bar, as `exact_tempi` gives; the nearest step where None.
        """
        return scored(_Reader(tempi).read(self.expand(list(ids))))

    def expand(self, ids: Sequence[int]) -> list[int]:
        """Symbols behind merged ids."""
        return [symbol for i in ids for symbol in self._spelt[int(i)]]

    def names(self, ids: Sequence[int]) -> list[str]:
        """Readable symbols behind merged ids, such as `Pitch_60`."""
        return [SYMBOLS[symbol] for symbol in self.expand(ids)]

    def bar_starts(self, ids: NDArray[np.int16]) -> NDArray[np.int64]:
        """Indices into `ids` at which a bar begins."""
        return np.flatnonzero(self._starts_bar[ids])


_HEADER: Final = frozenset(
    {"Hand", "Genre", "Style", "Key", "Metre", "Tempo", "Density", "Polyphony", "Bars", "Program"}
)

_CHANGING: Final = {
    kind: (KINDS.index(kind), KINDS.index(kind) + KINDS.count(kind)) for kind in ("Metre", "Tempo")
}  # numbers of what may change inside a piece


def symbols_hash() -> str:
    """SHA-256 of the vocabulary: version and symbols in order."""
    return hashlib.sha256("\n".join([str(VERSION), *SYMBOLS]).encode()).hexdigest()


def exact_tempi(score: ScoreTick) -> tuple[float, ...]:
    """Quarter notes a minute at the beginning of each bar of a score: what stands beside its tokens."""
    return quantised(score).tempi


def symbols_of(music: Quantised, header: Header, *, chords: Mapping[int, int] | None = None) -> list[int]:
    """Symbols of music on the grid, header included, unmerged; with chords, if given, by the position of each."""
    programs = list(dict.fromkeys(music.program.tolist()))
    result = header.symbols(music.metres[0], music.tempi[0], programs or [0])
    result += bars_of(music, programs[0] if programs else 0, dynamics=header.hand == "heard", chords=chords)
    return result


def bars_of(music: Quantised, program: int, *, dynamics: bool, chords: Mapping[int, int] | None = None) -> list[int]:
    """Symbols of the bars alone. `program` is the header's first, with which every bar begins."""
    coming = sorted((chords or {}).items())[::-1]
    metre, tempo = music.metres[0], tempo_number(music.tempi[0])
    edges = np.searchsorted(music.onset, music.bars)
    onset, length, pitch, programs = (a.tolist() for a in (music.onset, music.length, music.pitch, music.program))
    result: list[int] = []
    for bar, begin in enumerate(music.bars[:-1].tolist()):
        if music.metres[bar] != metre:
            metre = music.metres[bar]
            result.append(metre_number(*metre))
        if (now := tempo_number(music.tempi[bar])) != tempo:
            tempo = now
            result.append(tempo)
        result.append(_BAR)
        first, last = int(edges[bar]), int(edges[bar + 1])
        if first == last and not (coming and coming[-1][0] < music.bars[bar + 1]):
            continue
        if dynamics and first < last:
            loudness = float(music.velocity[first:last].mean())
            level = min(range(len(LEVELS)), key=lambda k: (abs(LEVELS[k] - loudness), k))
            result.append(NUMBER[f"Level_{level}"])
        at, playing, i = begin, program, first
        while i < last or (coming and coming[-1][0] < music.bars[bar + 1]):
            if coming and (i == last or coming[-1][0] <= onset[i]) and coming[-1][0] < music.bars[bar + 1]:
                position, chord = coming.pop()
                result += _STEPS[position - at]
                at = position
                result.append(chord)
                continue
            if onset[i] != at:
                result += _STEPS[onset[i] - at]
                at = onset[i]
            if programs[i] != playing:
                playing = programs[i]
                result.append(NUMBER[f"Program_{playing}"])
            j = i + 1
            while j < last and onset[j] == at and programs[j] == playing:
                j += 1
            if j == i + 1:
                result += (_PITCH + pitch[i], _length_number(length[i]))
            else:
                together: dict[int, list[int]] = {}
                for k in range(i, j):
                    together.setdefault(_length_number(length[k]), []).append(_PITCH + pitch[k])
                for said, pitches in together.items():
                    result += pitches
                    result.append(said)
            i = j
    return result


_PITCH: Final = NUMBER[f"Pitch_{LOWEST_PITCH}"] - LOWEST_PITCH
_STEPS: Final = [steps_of(k) for k in range(LONGEST_BAR + 1)]
_LENGTHS: Final = [NUMBER[f"Length_{nearest_length(k)}"] for k in range(512)]


def _length_number(positions: int) -> int:
    return _LENGTHS[min(positions, len(_LENGTHS) - 1)]


def _spelling(symbols: Iterable[int]) -> str:
    return "".join(chr(_FIRST_LETTER + symbol) for symbol in symbols)


def _words(symbols: Iterable[int]) -> Iterator[str]:
    run: list[int] = []
    for symbol in symbols:
        if symbol >= FIRST_MERGEABLE:
            run.append(symbol)
        elif run:
            yield _spelling(run)
            run = []
    if run:
        yield _spelling(run)


class _Reader:
    """Symbols → music on the grid."""

    def __init__(self, tempi: Sequence[float] | None) -> None:
        self._exact = tempi
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._bars: list[int] = []
        self._metres: list[tuple[int, int]] = []
        self._tempi: list[float] = []
        self._metre, self._tempo = (4, 4), 120.0
        self._end = 0

    def read(self, symbols: Sequence[int]) -> Quantised:
        """Everything that the symbols spell."""
        at, home, program, velocity = 0, None, 0, 72
        pending: list[int] = []
        gaps: list[tuple[int, int]] = []  # where each gap begins, and its bars
        filling = 0
        for symbol in symbols:
            kind, _, value = SYMBOLS[symbol].partition("_")
            if kind == "Length":
                self._rows += [(at, int(value), pitch, program, velocity) for pitch in pending]
                pending = []
                continue
            if kind == "Pitch":
                if self._bars:
                    pending.append(int(value))
                continue
            pending = []  # pitches without a length
            if kind == "Step":
                at = min(at + int(value), self._end - 1) if self._bars else at
            elif kind == "Bar":
                at = self._open_bar()
                program = home if home is not None else program
            elif kind == "Metre":
                numerator, _, denominator = value.partition("/")
                self._metre = int(numerator), int(denominator)
            elif kind == "Tempo":
                self._tempo = TEMPI[int(value)]
            elif kind == "Program":
                program = int(value)
                if home is None:
                    home = program
            elif kind == "Level":
                velocity = LEVELS[int(value)]
            elif kind == "Gap":
                gaps.append((self._end, int(value)))
                for _ in range(int(value)):
                    self._open_bar()
            elif kind == "Fill" and filling < len(gaps):
                self._end = gaps[filling][0]
                filling += 1
        return self._found()

    def _open_bar(self) -> int:
        begin = self._end
        self._end = begin + bar_positions(*self._metre)
        if begin in self._bars[-1:] or (self._bars and begin <= self._bars[-1]):
            return begin  # a gap's bar is filled: it is there already
        self._bars.append(begin)
        self._metres.append(self._metre)
        index = len(self._bars) - 1
        exact = self._exact is not None and index < len(self._exact)
        self._tempi.append(self._exact[index] if exact and self._exact is not None else self._tempo)
        return begin

    def _found(self) -> Quantised:
        if not self._bars:
            self._open_bar()
        rows = np.array(sorted(self._rows), dtype=np.int64).reshape(-1, 5)
        onset, length, pitch, program, velocity = rows.T
        last = self._bars[-1] + bar_positions(*self._metres[-1])
        return Quantised(
            onset, length, pitch, program, velocity, np.array([*self._bars, last], dtype=np.int64),
            tuple(self._metres), tuple(self._tempi),
        )  # fmt: skip


def bar_seconds(score: ScoreTick, bars: int) -> NDArray[np.float32]:
    """The second at which each of the first `bars` bars of a score begins, by its metres and tempi: (bars,)."""
    beats_per_tick = 1.0 / score.ticks_per_quarter
    tick, starts = 0.0, []
    metres = list(score.time_signatures)
    for _ in range(bars):
        starts.append(tick)
        metre = next((m for m in reversed(metres) if m.time <= tick), None)
        quarters = 4.0 * metre.numerator / metre.denominator if metre else 4.0
        tick += quarters / beats_per_tick
    return seconds_at(score, np.asarray(starts))


def seconds_at(score: ScoreTick, ticks: NDArray[np.float64]) -> NDArray[np.float32]:
    """The second at which each tick sounds, by the score's tempo marks (120 where there is none)."""
    marks = [(float(t.time), 60.0 / t.qpm / score.ticks_per_quarter) for t in score.tempos] or [
        (0.0, 0.5 / score.ticks_per_quarter)
    ]
    if marks[0][0] > 0:
        marks.insert(0, (0.0, marks[0][1]))
    times = np.array([m[0] for m in marks])
    pace = np.array([m[1] for m in marks])  # seconds per tick
    base = np.concatenate([[0.0], np.cumsum(np.diff(times) * pace[:-1])])
    index = np.maximum(np.searchsorted(times, ticks, side="right") - 1, 0)
    result: NDArray[np.float32] = (base[index] + (ticks - times[index]) * pace[index]).astype(np.float32)
    return result


def in_seconds(score: ScoreTick) -> ScoreSecond:
    """The score with its times in seconds, by its tempo marks.

    Raises:
        ScoreError: its tempo map is broken.
    """
    try:
        converted: ScoreSecond = score.to("second")  # type: ignore[assignment]  # symusic's stub says object
    except Exception as error:
        raise ScoreError("The score's times cannot be read in seconds; its tempo map is broken.") from error
    return converted


def notes_of(score: ScoreTick) -> Notes:
    """The pitched notes of a score, in seconds, by its tempo marks."""
    seconds = in_seconds(score)
    return Notes.from_rows(
        [
            (float(n.time), max(float(n.duration), 1e-3), int(n.pitch), max(1, int(n.velocity)))
            for track in seconds.tracks
            if not track.is_drum
            for n in track.notes
        ]
    )
