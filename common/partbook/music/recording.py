"""What is kept of one recording once its audio has been read: never the audio itself.

A `Recording` is the unit of privacy (PROTOCOL §3): however many windows it yields, it is one. Its bytes are a
safetensors file, so reading one runs no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from partbook.errors import CorruptMessage
from partbook.music.notes import Notes


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording, analysed.

    Attributes:
        title: what a person calls it; stays on the machine that made it.
        seconds: length of the audio.
        notes: as transcribed (or, for public scores, as written), in seconds.
        ids: token ids, int16 (tokens,), header first, without BOS and EOS.
        bar_starts: index into `ids` of each bar's first token, int64 (bars,); the header stands before the first.
        bar_seconds: the second at which each bar begins, float32 (bars,).
        mel: log-mel, float16 (frames, 128); see `partbook.music.mel`.
    """

    title: str
    seconds: float
    notes: Notes
    ids: NDArray[np.int16]
    bar_starts: NDArray[np.int64]
    bar_seconds: NDArray[np.float32]
    mel: NDArray[np.float16]

    def to_bytes(self) -> bytes:
        """A safetensors blob."""
        arrays = {
            "onset": self.notes.onset,
            "duration": self.notes.duration,
            "pitch": self.notes.pitch,
            "velocity": self.notes.velocity,
            "ids": self.ids,
            "bar_starts": self.bar_starts,
            "bar_seconds": self.bar_seconds,
            "mel": self.mel,
        }
        about = {"partbook": json.dumps({"title": self.title, "seconds": self.seconds})}
        return save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=about)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Recording:
        """Read a blob that `to_bytes` wrote.

        Raises:
            CorruptMessage: it is not one.
        """
        try:
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
            about: dict[str, Any] = json.loads(header["__metadata__"]["partbook"])
            a = load(blob)
            notes = Notes(a["onset"], a["duration"], a["pitch"], a["velocity"])
            return cls(about["title"], about["seconds"], notes, a["ids"], a["bar_starts"], a["bar_seconds"], a["mel"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CorruptMessage(f"These bytes are not a recording ({error}); ingest the audio again.") from error
