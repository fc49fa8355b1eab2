"""A piece on disk: NAME.mid, NAME.wav, and NAME.json, which says where the two came from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partbook.errors import ConfigError, InputError

if TYPE_CHECKING:
    from partbook.generator.asking import PieceRequest
    from partbook.generator.composing import Piece

_ENDINGS: Final = (".mid", ".wav", ".json")


def refuse_taken(folder: Path, name: str) -> None:
    """Return if a piece of this name can be written to `folder` without replacing anything.

    Raises:
        ConfigError: the name is no file name, or is taken.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f"{name!r} is not a file name; give one without folders or a leading dot.")
    for ending in _ENDINGS:
        if (folder / (name + ending)).exists():
            raise ConfigError(f"{folder / (name + ending)} exists already; choose another --name or --out.")


def write_piece(folder: Path, name: str, piece: Piece, origin: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    """Render a piece and write all three files; each appears whole, the JSON last.

    Args:
        folder: made if missing.
        name: without ending.
        piece: what to write.
        origin: what more to record, such as the signer and the hash of a prompt.

    Returns:
        The paths of the MIDI, WAV and JSON files.

    Raises:
        ConfigError: the name is taken.
        InputError: the folder cannot be written to.
    """
    from partbook.music.rendering import render, write_wav

    refuse_taken(folder, name)
    midi, wav, described = (folder / (name + ending) for ending in _ENDINGS)
    sound = render(piece.score)
    request = piece.request
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partbook-", dir=folder) as unfinished:
            draft_midi, draft_wav, draft_json = (Path(unfinished) / path.name for path in (midi, wav, described))
            draft_midi.write_bytes(piece.midi)
            write_wav(draft_wav, sound)
            provenance = {
                "release": piece.release_id,
                "seed": request.seed,
                "sampling": {
                    "temperature": request.temperature,
                    "top_p": request.top_p,
                    "max_tokens": request.max_tokens,
                    "seconds": request.seconds,
                    **_switched_on(request),
                },
                **_asked(request),
                "seconds": round(piece.seconds, 3),
                "tokens": piece.tokens,
                "continues_at": None if piece.continues_at is None else round(piece.continues_at, 3),
                **origin,
                "sha256": {path.name: _sha256(path) for path in (draft_midi, draft_wav)},
            }
            draft_json.write_text(json.dumps(provenance, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            for draft, final in ((draft_midi, midi), (draft_wav, wav), (draft_json, described)):
                os.replace(draft, final)
    except OSError as error:
        raise InputError(f"The piece cannot be written to {folder}: {error.strerror}; choose another --out.") from error
    return midi, wav, described


def _switched_on(request: PieceRequest) -> dict[str, float]:
    """The controls that are off unless asked for, of those that were."""
    controls: dict[str, float] = {}
    if request.top_k:
        controls["top_k"] = request.top_k
    if request.min_p:
        controls["min_p"] = request.min_p
    if request.repetition_penalty != 1.0:
        controls["repetition_penalty"] = request.repetition_penalty
        controls["repetition_window"] = request.repetition_window
    if request.beam_width:
        controls["beam_width"] = request.beam_width
    return controls


def _asked(request: PieceRequest) -> dict[str, Any]:
    from partbook.generator.asking import controls_of

    controls = controls_of(request) | ({} if request.hand == "score" else {"hand": request.hand})
    return {"asked": controls} if controls else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
