"""The adapter that a label has fitted to its own recordings, for itself: sealed in its vault, and in no message.

    <vault>/adapters/own.sealed   AES-256-GCM under a key of the vault's: a note, as a line of JSON, and the adapter
    <vault>/adapters/lock         held by the one process that fits it

It was trained without noise, so nothing bounds what it tells of a recording. No code that answers a coordinator reads
this folder; `export` writes it out for the label's engineer, who asks for it by name. The note lists which recordings
it has learnt from, so that it goes when one of them does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partbook.errors import InputError, VaultError, WithdrawnRecording
from partbook.node.keeping import Keeping
from partbook.vault.store import Vault

if TYPE_CHECKING:
    from torch import Tensor

FOLDER: Final = "adapters"
_NAME: Final = "own"


@dataclass(frozen=True, slots=True)
class Note:
    """What an adapter was fitted to, and how far.

    Attributes:
        base: SHA-256 of the base model's weights that it is for.
        start: "base", or the hash of the adapter that it began from (`partbook.model.adapter.state_hash`).
        epoch: the one it is the state after.
        before: nats a token of the recordings held out, before the first epoch.
        after: the same after `epoch`.
        recordings: ids of those trained on and of those held out, which chose the epoch.
    """

    base: str
    start: str
    epoch: int
    before: float
    after: float
    recordings: tuple[str, ...]


class OwnAdapter:
    """Where a label's own adapter is kept."""

    def __init__(self, vault: Path, key: Path | None) -> None:
        """Use the vault in the folder `vault`, whose key file is `key`, or inside it where None.

        Raises:
            VaultError: the vault cannot be opened.
        """
        self._vault, self._key = vault, key
        with Vault.open(vault, key) as opened:
            self._secret = opened.adapters_key
        self.folder = vault / FOLDER

    @property
    def path(self) -> Path:
        """The sealed file."""
        return self.folder / f"{_NAME}.sealed"

    def must_have_room(self, state: Mapping[str, Tensor]) -> None:
        """Return if an adapter of this size can be kept beside the one that is there.

        Raises:
            VaultError: the disk is too full.
        """
        needed = 4 * sum(tensor.numel() for tensor in state.values()) + 2**16
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise VaultError(
                f"{self.folder} has {free / 1e6:.1f} MB of disk left, and the adapter takes {needed / 1e6:.1f} MB; "
                "free some space. Nothing was trained."
            )

    def keep(self, state: Mapping[str, Tensor], note: Note) -> None:
        """Seal an adapter in place of the one that was there.

        Raises:
            WithdrawnRecording: one of its recordings is no longer in the vault.
            VaultError: the disk refuses; what was there before is still there.
        """
        from partbook.model.adapter import adapter_bytes

        self._refuse_gone(note)
        about = {"base": note.base, "start": note.start, "kind": "one label's own, without noise"}
        head = json.dumps(asdict(note)).encode() + b"\n"
        try:
            self._kept().put(_NAME, head, adapter_bytes(state, about))
        except VaultError as error:
            if error.__cause__ is None:
                raise
            raise VaultError(
                f"{self.path} cannot be written ({getattr(error.__cause__, 'strerror', error.__cause__)}); what was "
                "there before is still there. Free some space, and run `partbook node adapt` again."
            ) from error
        try:
            self._refuse_gone(note)  # whoever withdraws one from now on finds what was kept
        except WithdrawnRecording:
            self._kept().remove(_NAME)
            raise

    def read(self) -> tuple[Note, bytes] | None:
        """The note, and the adapter as safetensors; None where there is none.

        Raises:
            WrongVaultKey: the file was altered, or belongs to another vault.
            VaultError: it cannot be read.
        """
        kept = self._kept().get(_NAME) if self.path.exists() else None
        if kept is None:
            return None
        head, _, adapter = bytes(kept).partition(b"\n")
        fields = json.loads(head)
        return Note(**{**fields, "recordings": tuple(fields["recordings"])}), adapter

    def forget(self, recording: str) -> bool:
        """Destroy the adapter if it has learnt from a recording; returns whether it did."""
        found = self.read()
        if found is None or recording not in found[0].recordings:
            return False
        self._kept().remove(_NAME)
        return True

    def export(self, path: Path) -> Note:
        """Write the adapter to a new file, for its owner to read; it is what `partbook release pack --adapter` takes.

        Raises:
            InputError: there is no adapter, something is at `path`, or it cannot be written.
        """
        found = self.read()
        if found is None:
            raise InputError(
                f"The vault {self._vault} keeps no adapter of its own; train one first: `partbook node adapt --vault "
                f"{self._vault}`."
            )
        note, adapter = found
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise InputError(f"{path} exists already and is not overwritten; name another file.") from error
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); name another file.") from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(adapter)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise InputError(f"{path} cannot be written ({error.strerror}); free some space.") from error
        return note

    def _kept(self) -> Keeping:
        return Keeping(self.folder, self._secret)

    def _refuse_gone(self, note: Note) -> None:
        with Vault.open(self._vault, self._key) as opened:
            gone = [each for each in note.recordings if each not in opened]
        if gone:
            raise WithdrawnRecording(
                f"Recording {gone[0]} left the vault while the adapter was trained on it; nothing is kept of this "
                "training. Run `partbook node adapt` again."
            )
