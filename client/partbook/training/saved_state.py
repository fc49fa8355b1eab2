"""The state of a long training in one file that is whole or refused, and the one before it.

    state.pt      magic, SHA-256 of the rest in hexadecimal, then what `torch.save` wrote
    previous.pt   the save before, of the same form
    lock          held by the process that trains

A save moves `state.pt` to `previous.pt`, then writes beside and renames. Killed at any moment, the folder holds the
last finished save under one name or the other.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Final

import torch

from partbook.errors import AlteredFile, ConfigError
from partbook.node.keeping import write_parts

STATE: Final = "state.pt"
PREVIOUS: Final = "previous.pt"
_MAGIC: Final = b"partbook/v1/training-state\n"
_HEADER: Final = len(_MAGIC) + 64 + 1


def save(folder: Path, state: dict[str, Any]) -> None:
    """Keep a state of tensors and plain values; the one before stays as `previous.pt`.

    Raises:
        ConfigError: the folder cannot be written in; the last save is still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    header = _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    path = folder / STATE
    try:
        if path.exists():
            path.replace(folder / PREVIOUS)
        write_parts(path, (header, bytes(payload)))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); make room, or let this user write there, and start again: "
            "the run goes on from its last save."
        ) from error


def load(folder: Path) -> dict[str, Any] | None:
    """The last state that was kept, on the CPU; None where there is none.

    Raises:
        AlteredFile: it is torn or was altered.
        ConfigError: it cannot be read.
    """
    for path in (folder / STATE, folder / PREVIOUS):
        if path.exists():
            found = _read(path)
            if found is None:
                raise AlteredFile(f"{path} is torn or was altered: its hash is another. {_remedy(folder, path)}")
            return found
    return None


def _read(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where it is not what was written."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); let this user read it.") from error
    header, payload = blob[:_HEADER], memoryview(blob)[_HEADER:]
    if header != _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return None
    # Tensors and plain values only: a file may come from another machine.
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def _remedy(folder: Path, path: Path) -> str:
    previous = folder / PREVIOUS
    if path != previous and previous.exists() and _read(previous) is not None:
        return f"Delete it, and the run goes on from the save before, {previous}."
    return "Restore it from a backup, or delete it and start anew."
