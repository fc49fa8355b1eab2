"""How well and how fast a node hears: note F1 and real-time factor per instrument of the demo, on one core.

F1 counts a note as found if its pitch is right and its onset within 50 ms (mir_eval, offsets ignored). The limit it
is held against is what `FACTS` of the design records for the same network on the same kind of render.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import mir_eval
import numpy as np
import torch

from benchmarks.claims import Claim, report
from partbook.model.checkpoint import load_tokenizer
from partbook.music.mastering import Sound
from partbook.music.notes import Notes
from partbook.music.rendering import SAMPLE_RATE, synthesise, write_flac
from partbook.music.tokens import notes_of
from partbook.simulation.collections import COLLECTIONS
from partbook.simulation.labels import choose, excerpt
from partbook.simulation.performance import perform
from partbook.vault.analysis import analyse
from partbook.vault.transcription import Transcriber

WORKS, SECONDS = 3, 30.0
EXPECTED_F1 = 0.73  # the design's lowest figure for the piano
REAL_TIME = 12.0  # seconds of audio a second of one core


def found(reference: Notes, heard: Notes) -> float:
    """Note F1, onsets within 50 ms."""

    def intervals(notes: Notes) -> np.ndarray:
        return np.stack([notes.onset, notes.onset + np.maximum(notes.duration, 0.01)], axis=1)

    def hertz(notes: Notes) -> np.ndarray:
        return 440.0 * 2.0 ** ((notes.pitch.astype(np.float64) - 69) / 12)

    _, _, f1, _ = mir_eval.transcription.precision_recall_f1_overlap(
        intervals(reference), hertz(reference), intervals(heard), hertz(heard), offset_ratio=None
    )
    return float(f1)


def main() -> int:
    """Play, write to FLAC, ingest, compare with what was played."""
    torch.set_num_threads(1)
    transcriber, tokenizer = Transcriber(), load_tokenizer()
    claims, audio, spent = [], 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for collection in COLLECTIONS:
            scores = []
            for index, work in enumerate(choose(collection, "heldout", WORKS, 0)):
                score = perform(
                    excerpt(work.score(collection.program), SECONDS), np.random.Generator(np.random.Philox(index))
                )
                sound = synthesise(score)
                path = Path(folder) / f"{collection.name}-{index}.flac"
                write_flac(path, Sound(sound * np.float32(0.7 / np.abs(sound).max()), SAMPLE_RATE))
                began = time.process_time()
                heard = analyse(path, tokenizer, transcriber, program=collection.program).recording
                spent += time.process_time() - began
                audio += heard.seconds
                scores.append(found(notes_of(score), heard.notes))
            print(f"{collection.about} on {collection.instrument}: note F1 {np.mean(scores):.2f}", flush=True)
            claims.append(
                Claim(
                    f"note F1, {collection.instrument}",
                    "F1",
                    float(np.mean(scores)),
                    EXPECTED_F1,
                    "design's piano",
                    1.0,
                )
            )
    print(f"{audio:.0f} s of audio in {spent:.1f} s of one core: {audio / spent:.1f} times real time")
    claims.append(Claim("ingest", "s of audio per CPU second", audio / spent, REAL_TIME, "limit", 1.0))
    return 0 if report("ingest", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
