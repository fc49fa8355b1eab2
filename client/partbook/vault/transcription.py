"""Notes from sound: Basic Pitch's network and its note creation, on onnxruntime and numpy alone.

The network is the ONNX file of basic-pitch 0.4.0 (Bittner et al. 2022, "A Lightweight Instrument-Agnostic
Model for Polyphonic Note Transcription and Multipitch Estimation", ICASSP; arXiv 2203.09893), kept in
`basic_pitch/` with its licence and notice. `notes_from_activations` is a port of its
`output_to_notes_polyphonic` and returns the same notes; where the original searches the whole matrix for its
maximum once a note, this sorts once.

Two things differ from the original's surroundings on purpose. Frames carry the exact second they were
computed at (the original approximates it with a correction that jumps by 10 ms every 2 s), and the last 0.7 %
of a recording, which the original cuts off by counting 86 frames a second where there are 86.6, is
transcribed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.music.mel import SAMPLE_RATE
from partbook.music.notes import Notes

NETWORK: Final = Path(__file__).parent / "basic_pitch" / "nmp.onnx"

NETWORK_RATE: Final = 22_050  # Hz
HOP: Final = 256  # samples between frames
WINDOW: Final = 2 * NETWORK_RATE - HOP  # samples the network takes at once
WINDOW_FRAMES: Final = 172  # frames it answers with
OVERLAP: Final = 30  # frames that neighbouring windows share; half of it is dropped at each side
KEPT_FRAMES: Final = WINDOW_FRAMES - OVERLAP
STRIDE: Final = WINDOW - OVERLAP * HOP  # samples from one window to the next
SEMITONES: Final = 88
LOWEST_PITCH: Final = 21  # MIDI number of the network's first bin, A0

ONSET_THRESHOLD: Final = 0.5
FRAME_THRESHOLD: Final = 0.3
MIN_NOTE_FRAMES: Final = 11  # 127.7 ms
PATIENCE: Final = 11  # frames below the threshold after which a note is over


@dataclass(frozen=True, slots=True)
class FrameNote:
    """A note in network frames: [start, stop), MIDI pitch, mean activation in (0, 1]."""

    start: int
    stop: int
    pitch: int
    amplitude: float


class Transcriber:
    """Transcribes on one thread; ingest runs one of these per process. The network is loaded at first use."""

    def __init__(self) -> None:
        self._session: Any = None

    def transcribe(self, mono44k: NDArray[np.float32]) -> Notes:
        """The notes heard in mono audio at 44.1 kHz, (samples,); pitch bends are not kept.

        Velocity is the mean activation on a scale of 127. A recording without notes gives zero of them.
        """
        import soxr

        audio = soxr.resample(mono44k, SAMPLE_RATE, NETWORK_RATE)
        frames, onsets = self.activations(audio)
        seconds = frame_seconds(len(frames) + 1)
        rows = []
        for note in notes_from_activations(frames, onsets):
            velocity = int(np.clip(np.round(127 * note.amplitude), 1, 127))
            start, stop = float(seconds[note.start]), float(seconds[note.stop])
            rows.append((start, stop - start, note.pitch, velocity))
        return Notes.from_rows(rows)

    def activations(self, audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Note and onset activations in [0, 1] of audio at 22.05 kHz: two arrays (frames, 88)."""
        session = self._loaded()
        padded = np.concatenate([np.zeros(OVERLAP // 2 * HOP, dtype=np.float32), audio])
        frames, onsets = [], []
        inner = slice(OVERLAP // 2, WINDOW_FRAMES - OVERLAP // 2)
        # One window at a time: batches are slower on one thread (measured: 34x real time against 27x with 8).
        for begin in range(0, len(padded), STRIDE):
            window = padded[begin : begin + WINDOW]
            window = np.pad(window, (0, WINDOW - len(window)))[None, :, None]  # (1, samples, 1)
            note, onset = session.run(
                ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"],
                {"serving_default_input_2:0": window},
            )
            frames.append(note[0, inner])
            onsets.append(onset[0, inner])
        if not frames:
            return np.zeros((0, SEMITONES), dtype=np.float32), np.zeros((0, SEMITONES), dtype=np.float32)
        heard = int(np.searchsorted(frame_seconds(len(frames) * KEPT_FRAMES), len(audio) / NETWORK_RATE))
        return np.concatenate(frames)[:heard], np.concatenate(onsets)[:heard]

    def _loaded(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(str(NETWORK), options, providers=["CPUExecutionProvider"])
        return self._session


def frame_seconds(frames: int) -> NDArray[np.float64]:
    """The second each kept frame was computed at: windows are 36,164 samples apart, frames inside one 256."""
    index = np.arange(frames)
    return (index // KEPT_FRAMES * STRIDE + index % KEPT_FRAMES * HOP) / NETWORK_RATE


def notes_from_activations(
    frames: NDArray[np.float32],
    onsets: NDArray[np.float32],
    *,
    onset_threshold: float = ONSET_THRESHOLD,
    frame_threshold: float = FRAME_THRESHOLD,
    min_note_frames: int = MIN_NOTE_FRAMES,
) -> list[FrameNote]:
    """Basic Pitch's note creation with inferred onsets and the "melodia trick", note for note.

    First, from the last onset to the first, a note is taken at every onset peak and lasts until its
    activation has stayed below the threshold for 11 frames. Then, from the strongest remaining activation
    down, notes that began without an onset are grown in both directions.

    Args:
        frames: note activations (frames, 88).
        onsets: onset activations (frames, 88).
        onset_threshold: least onset peak that starts a note.
        frame_threshold: least activation that keeps a note on.
        min_note_frames: notes this long or shorter are dropped.
    """
    count = len(frames)
    if count < 3:
        return []
    energy = np.ascontiguousarray(frames.T, dtype=np.float64)  # (88, frames): a note is walked along a row
    notes: list[FrameNote] = []

    def take(start: int, stop: int, bin_: int) -> None:
        notes.append(FrameNote(start, stop, bin_ + LOWEST_PITCH, float(np.mean(frames[start:stop, bin_]))))

    peaks = _peaks(_with_inferred_onsets(frames, onsets))
    for start, bin_ in np.argwhere(peaks >= onset_threshold)[::-1].tolist():
        if start >= count - 1:
            continue
        steps, quiet = _walk(energy[bin_, start + 1 : count - 1], frame_threshold)
        stop = start + 1 + steps - quiet
        if stop - start <= min_note_frames:
            continue
        energy[max(bin_ - 1, 0) : bin_ + 2, start:stop] = 0.0
        take(start, stop, bin_)

    # Cells only ever fall to zero, so the running maximum is the next cell of one sort that has not fallen
    # yet. Ties are broken as argmax does: earlier frame, then lower bin.
    at_frame, at_bin = np.nonzero(energy.T > frame_threshold)  # noqa: SIM300
    strongest = np.argsort(-energy[at_bin, at_frame], kind="stable")
    for middle, bin_ in zip(at_frame[strongest].tolist(), at_bin[strongest].tolist(), strict=True):
        if energy[bin_, middle] == 0.0:
            continue
        energy[bin_, middle] = 0.0
        rows = slice(max(bin_ - 1, 0), bin_ + 2)
        steps, quiet = _walk(energy[bin_, middle + 1 : count - 1], frame_threshold)
        energy[rows, middle + 1 : middle + 1 + steps] = 0.0
        stop = middle + steps - quiet
        steps, quiet = _walk(energy[bin_, 1:middle][::-1], frame_threshold)
        energy[rows, middle - steps : middle] = 0.0
        start = middle - steps + quiet
        if stop - start > min_note_frames:
            take(start, stop, bin_)
    return notes


def _walk(activation: NDArray[np.float64], threshold: float) -> tuple[int, int]:
    """Steps along an activation until it has been below the threshold for `PATIENCE` frames, or to its end.

    Returns the steps walked, and how many of the last ones were below. Looks ahead in growing stretches,
    because most notes end soon and a recording is long.
    """
    reach = 128
    while True:
        sounding = np.flatnonzero(activation[:reach] >= threshold)
        seen = min(reach, len(activation))
        marks = np.concatenate([[-1], sounding, [seen]])
        long_gaps = np.flatnonzero(np.diff(marks) > PATIENCE)
        if len(long_gaps):
            return int(marks[long_gaps[0]]) + 1 + PATIENCE, PATIENCE
        if seen == len(activation):
            return seen, seen - 1 - int(marks[-2])
        reach *= 4


def _with_inferred_onsets(frames: NDArray[np.float32], onsets: NDArray[np.float32]) -> NDArray[np.float64]:
    """Onset activations, or the rise of the note activation over one and two frames where that is larger."""
    wide = frames.astype(np.float64)
    rise = np.zeros_like(wide)
    rise[2:] = np.maximum(np.minimum(wide[2:] - wide[1:-1], wide[2:] - wide[:-2]), 0.0)
    steepest = rise.max()
    if steepest == 0.0:
        return onsets.astype(np.float64)
    result: NDArray[np.float64] = np.maximum(onsets, np.max(onsets) * rise / steepest)
    return result


def _peaks(activation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The activation where it is strictly above both neighbours in time, zero elsewhere."""
    result = np.zeros_like(activation)
    inner = activation[1:-1]
    above = (inner > activation[:-2]) & (inner > activation[2:])
    result[1:-1][above] = inner[above]
    return result
