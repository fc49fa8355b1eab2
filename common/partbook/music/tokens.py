"""Scores ↔ tokens: miditok's REMI with byte-pair merges inside bars.

A thin wrapper that fixes the federation's one configuration, keeps bars findable (merges never cross a bar), and
turns miditok's failures into `ScoreError`. The tokeniser is trained on public music only.

REMI: Huang & Yang 2020, "Pop Music Transformer" (arXiv 2002.00212). BPE on symbolic music: Fradet et al. 2023
(arXiv 2301.11975).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from miditok import REMI, TokenizerConfig, TokSequence
from numpy.typing import NDArray
from symusic.core import NoteTick, ScoreSecond, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.notes import Notes

TICKS_PER_QUARTER: Final = 480
LOWEST_PITCH: Final = 21  # A0, the piano's lowest key
HIGHEST_PITCH: Final = 108  # C8, its highest
POSITIONS_PER_BEAT: Final = 12  # sixteenths and triplets both fall on it
assert TICKS_PER_QUARTER % POSITIONS_PER_BEAT == 0


def _configuration() -> TokenizerConfig:
    return TokenizerConfig(
        pitch_range=(LOWEST_PITCH, HIGHEST_PITCH + 1),
        beat_res={(0, 4): POSITIONS_PER_BEAT, (4, 12): 6},
        num_velocities=8,  # transcription hears loudness no finer
        special_tokens=["PAD", "BOS", "EOS"],
        use_chords=False,
        use_rests=False,
        use_tempos=True,
        num_tempos=24,
        tempo_range=(40, 240),
        use_time_signatures=True,
        time_signature_range={2: [2, 3, 4], 4: [1, 2, 3, 4, 5, 6], 8: [3, 6, 9, 12]},
        use_programs=True,
        one_token_stream_for_programs=True,
        program_changes=True,  # one instrument throughout is said once, and merges do not depend on it
        encode_ids_split="bar",
    )


class Tokenizer:
    """Encodes one-stream scores to ids and back. Immutable once loaded; safe to share between threads."""

    def __init__(self, remi: REMI) -> None:
        self._remi = remi
        vocabulary = remi.vocab
        self.pad: int = vocabulary["PAD_None"]
        self.bos: int = vocabulary["BOS_None"]
        self.eos: int = vocabulary["EOS_None"]
        bar = remi.vocab["Bar_None"]
        starts = np.zeros(len(remi), dtype=bool)
        for token in range(len(remi)):
            base = self.expand([token])
            starts[token] = bool(base) and base[0] == bar
        self._starts_bar = starts

    @classmethod
    def train(cls, scores: Sequence[Path], vocabulary_size: int) -> Tokenizer:
        """A tokeniser whose merges are learnt from public MIDI files; deterministic in the order of `scores`."""
        remi = REMI(_configuration())
        remi.train(vocab_size=vocabulary_size, files_paths=list(scores))
        return cls(remi)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """The tokeniser saved at `path`.

        Raises:
            ScoreError: the file is missing or is not a tokeniser.
        """
        try:
            if json.loads(path.read_text(encoding="utf-8"))["tokenization"] != "REMI":
                raise ValueError("not a REMI tokeniser")
            return cls(REMI(params=path))
        except Exception as error:
            raise ScoreError(f"{path} is not a Partbook tokeniser ({error}); restore it from the release.") from error

    def save(self, path: Path) -> None:
        """Write the tokeniser as JSON."""
        self._remi.save(path)

    def __len__(self) -> int:
        return len(self._remi)

    def encode(self, score: ScoreTick) -> NDArray[np.int16]:
        """Token ids of a score, with neither BOS nor EOS.

        Notes off the piano's range are dropped, as are drums.

        Raises:
            ScoreError: the score holds no note that can be written.
        """
        score = score.copy()
        for track in score.tracks:
            kept = [note for note in track.notes if LOWEST_PITCH <= note.pitch <= HIGHEST_PITCH]
            track.notes = type(track.notes)(kept)
        score.tracks = type(score.tracks)([t for t in score.tracks if len(t.notes) and not t.is_drum])
        if not score.tracks:
            raise ScoreError("The score has no pitched notes between A0 and C8; there is nothing to write down.")
        sequence = self._remi.encode(score)
        return np.asarray(sequence.ids, dtype=np.int16)

    def decode(self, ids: Iterable[int]) -> ScoreTick:
        """The score that ids spell, at 480 ticks a quarter. Ill-formed stretches are skipped, as miditok does."""
        special = {self.pad, self.bos, self.eos}
        sequence = TokSequence(
            ids=[int(i) for i in ids if int(i) not in special], are_ids_encoded=self._remi.is_trained
        )
        try:
            score = self._remi.decode(sequence)
        except Exception as error:
            raise ScoreError(f"These tokens do not spell a score ({error}).") from error
        resampled: ScoreTick = score.resample(TICKS_PER_QUARTER, min_dur=1)
        return resampled

    def expand(self, ids: Sequence[int]) -> list[int]:
        """Base-vocabulary ids behind merged ids."""
        sequence = TokSequence(ids=[int(i) for i in ids], are_ids_encoded=self._remi.is_trained)
        if self._remi.is_trained:
            self._remi.decode_token_ids(sequence)
        return list(sequence.ids)

    def names(self, ids: Sequence[int]) -> list[str]:
        """Readable base tokens behind merged ids, such as `Pitch_60`."""
        return [str(self._remi[i]) for i in self.expand(ids)]

    def bar_starts(self, ids: NDArray[np.int16]) -> NDArray[np.int64]:
        """Indices into `ids` at which a bar begins."""
        return np.flatnonzero(self._starts_bar[ids])


def score_of(
    notes: Notes,
    beat_seconds: NDArray[np.float64],
    program: int,
    *,
    beats_per_minute: float,
    time_signature: tuple[int, int] = (4, 4),
) -> ScoreTick:
    """Write performed notes down on a grid of beats.

    Args:
        notes: in seconds.
        beat_seconds: the time of beat 0, 1, 2 …, increasing, at least two; beyond both ends the first and last
            beat lengths go on.
        program: General MIDI program, 0–127.
        beats_per_minute: the one tempo mark to write.
        time_signature: the one metre to write.

    Returns:
        A one-track score at 480 ticks a quarter; no note starts before tick 0 or is shorter than a position.
    """
    if len(beat_seconds) < 2:
        raise ScoreError("At least two beats are needed to place notes in time; give the beat times in seconds.")
    step = TICKS_PER_QUARTER // POSITIONS_PER_BEAT

    def ticks(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        first, last = beat_seconds[1] - beat_seconds[0], beat_seconds[-1] - beat_seconds[-2]
        beats = np.interp(seconds, beat_seconds, np.arange(len(beat_seconds)))
        beats = np.where(seconds < beat_seconds[0], (seconds - beat_seconds[0]) / first, beats)
        after = len(beat_seconds) - 1 + (seconds - beat_seconds[-1]) / last
        beats = np.where(seconds > beat_seconds[-1], after, beats)
        return np.maximum(np.round(beats * POSITIONS_PER_BEAT).astype(np.int64), 0) * step

    start = ticks(notes.onset)
    end = np.maximum(ticks(notes.onset + notes.duration), start + step)
    score = ScoreTick(TICKS_PER_QUARTER)
    track = TrackTick(program=program, is_drum=False, name="")
    for time, stop, pitch, velocity in zip(start, end, notes.pitch, notes.velocity, strict=True):
        track.notes.append(NoteTick(int(time), int(stop - time), int(pitch), int(velocity)))
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, beats_per_minute))
    score.time_signatures.append(TimeSignatureTick(0, *time_signature))
    return score


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
