"""An opened sum as a label is handed it: chunk by chunk, each signed by the custodian and encrypted to every label.

Chunks that come one to a message wait on the disk for the others, encrypted as they came. Each is verified when it
comes, and again when it is read: what lies on a disk for a while is not trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AlteredCiphertext, CorruptMessage, PartbookError, VaultError
from partbook.identity.message import Message
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Custodian
from partbook.node.keeping import write_parts
from partbook.plan import exchanges as e
from partbook.plan.rounds import RoundPlan

_SUFFIX: Final = ".chunk"


class OpenedSum:
    """The chunks of one plan's opened sum that one label has."""

    def __init__(
        self, folder: Path, plan: RoundPlan, member: str, key: ReceivingKey, custodian: Custodian, slots: int
    ) -> None:
        """Go on with what `folder` holds of this sum.

        Args:
            folder: made when a chunk is kept.
            plan: the round's.
            member: this label's name.
            key: its receiving key, to which each chunk's key is wrapped.
            custodian: whose signature counts.
            slots: of a chunk, but for the last.
        """
        self._folder, self._plan, self._member, self._slots = folder, plan, member, slots
        self._key, self._custodian = key, custodian
        self._prefix = plan.hash()[:32]
        self._here: dict[int, tuple[bytes, bytes]] = {}

    def take(self, opened: Sequence[bytes], blobs: Sequence[bytes]) -> None:
        """Verify chunks that came: signed messages, and the encrypted bytes that each vouches for.

        Raises:
            CorruptMessage, BadSignature, AlteredCiphertext: they are not what the custodian opened for this label.
        """
        if not 1 <= len(opened) == len(blobs) <= self._plan.chunks:
            raise CorruptMessage(
                f"{len(opened)} chunks of an opened sum came with {len(blobs)} blobs; round {self._plan.round} has "
                f"{self._plan.chunks}."
            )
        for data, blob in zip(opened, blobs, strict=True):
            body = self._checked(data, blob)
            self._here[body.chunk] = data, blob

    @property
    def whole(self) -> bool:
        """Whether every chunk is here."""
        return all(index in self._here or self._path(index).exists() for index in range(self._plan.chunks))

    def keep(self) -> None:
        """Put what came on the disk, and forget chunks of other sums.

        Raises:
            VaultError: the disk refuses.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._folder.glob(f"*{_SUFFIX}"):
                if not path.name.startswith(self._prefix):
                    path.unlink(missing_ok=True)
            for index, (data, blob) in self._here.items():
                write_parts(self._path(index), (len(data).to_bytes(4, "big"), data, blob))
        except OSError as error:
            raise VaultError(
                f"{self._folder} takes no chunk of an opened sum ({error.strerror}); the step was not taken. Free some "
                "space, and the next round takes it."
            ) from error

    def remove(self) -> None:
        """Forget every sum in the folder."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                path.unlink(missing_ok=True)
            self._folder.rmdir()

    def contributions(self) -> int:
        """How many were added up, which every chunk says alike.

        Raises:
            CorruptMessage: they differ, or the plan does not allow so many.
        """
        counts = {self._read(index)[0].contributions for index in range(self._plan.chunks)}
        (count,) = counts if len(counts) == 1 else (0,)
        if not self._plan.threshold <= count <= len(self._plan.cohort):
            raise CorruptMessage("The custodian names a number of contributions that the plan does not allow.")
        return count

    def numbers(self) -> Iterator[NDArray[np.uint64]]:
        """The integer sums, (d,) in all, a chunk at a time.

        Raises:
            CorruptMessage: a chunk is not encrypted to this label, or is of another length.
            ValueOutOfRange: its slots are not the sum of so many packed vectors.
        """
        plan, count = self._plan, self.contributions()
        fields, left = plan.packing.fields, plan.parameters
        for index in range(plan.chunks):
            body, blob = self._read(index)
            try:
                wrapped = base64.b64decode(body.keys[self._member], validate=True)
            except binascii.Error as error:
                raise CorruptMessage("The wrapped key of the opened sum is not base64.") from error
            key = self._key.open(wrapped, e.opened_info(plan.context(), index, self._member))
            plain = e.decrypt_sum(key, plan.context(), index, blob)
            slots = plan.ring.from_bytes(plain, min(self._slots, plan.elements - index * self._slots))
            # A slot's fields are neighbours, so a chunk's slots are a stretch of the numbers.
            length = min(left, len(slots) * fields)
            left -= length
            yield plan.packing.unpack(slots, length, count)

    def _read(self, index: int) -> tuple[e.Opened, bytes]:
        if index in self._here:
            data, blob = self._here[index]
            return self._checked(data, blob), blob
        path = self._path(index)
        try:
            kept = path.read_bytes()
            size = int.from_bytes(kept[:4], "big")
            data, blob = kept[4 : 4 + size], kept[4 + size :]
            body = self._checked(data, blob)
            if body.chunk != index:
                raise CorruptMessage(f"{path} is another chunk's.")
        except OSError as error:
            raise VaultError(f"{path} cannot be read ({error.strerror}); the step was not taken.") from error
        except PartbookError:
            path.unlink(missing_ok=True)  # the coordinator sends it again
            raise
        return body, blob

    def _checked(self, data: bytes, blob: bytes) -> e.Opened:
        message = Message.decode(data)
        message.check(self._custodian.identity, e.OPENED, self._plan.context(), self._custodian.name)
        body = e.Opened.of(message)
        if body.chunk >= self._plan.chunks or hashlib.sha256(blob).hexdigest() != body.sha256:
            raise AlteredCiphertext(f"Chunk {body.chunk} of the opened sum is not what the custodian signed.")
        if self._member not in body.keys:
            raise CorruptMessage(f"The custodian wrapped no key to {self._member}; is it in the roster's version?")
        return body

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._prefix}-{index:05d}{_SUFFIX}"
