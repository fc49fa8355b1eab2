"""A model handed from one label to another, in a file: how a label that was not there yet joins a sealed federation.

In sealed rounds the labels hold the model and the coordinator does not. What a label lacks that joined later, or lost
its disk, or was away over a change of the custodian's key, only another label has: adapter, the server step's memory,
and the round that they are the state after.

    8 bytes     the length of the message
    message     signed by the giver, kind `hand-over`; in the place of a plan's hash, that of the roster in force
    blocks      velocity, second moment, adapter: float32, encrypted to the receiver alone

The message names federation, roster, round, giver and receiver, and the SHA-256 of round, steps and arrays, so nothing
of it can be put together anew; a key for this file alone is sealed by HPKE (RFC 9180) to the receiving key that the
pinned roster lists. Blocks are AES-256-GCM under that key, each nonce its block's number and whether it is the last, so
that none can be left out or moved (STREAM: Hoang, Reyhanitabar, Rogaway and Vizár 2015, eprint 2015/189, section 7).

A giver's signature says who is to blame, not that it is right. Two things say that: a third label reads out the digits
of the model that it holds itself (`spoken_model`: they cover the step's memory as well); and the next plan names the
adapter's hash, where a label with another one sends nothing. A wrong memory alone would be seen one step later, as
another hash than the others reach.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from partbook.errors import (
    AlteredFile,
    ConfigError,
    CorruptMessage,
    ForgedMember,
    ReplayedMessage,
    StalePlan,
    UnknownModel,
)
from partbook.identity.canonical import canonical
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Context, Message
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Roster
from partbook.identity.spoken import spoken
from partbook.node.shared_model import SharedModel
from partbook.plan.step import Motion
from partbook.secagg.messages import Body, Count, Name, Sha256

if TYPE_CHECKING:
    from torch import Tensor

HAND_OVER: Final = "hand-over"

_MODEL_DOMAIN: Final = "partbook/v1/model"
_BLOCK: Final = 2**20  # bytes encrypted at a time
_TAG: Final = 16
_LONGEST: Final = 2**16  # bytes of a message

Numbers = NDArray[np.float32]


class Handed(Body):
    """What the giver signs, beside federation, roster, round and its own name.

    Attributes:
        receiver: who may open it.
        base: SHA-256 of the base model's weights that the adapter is for.
        model: `partbook.model.adapter.state_hash` of the adapter.
        numbers: of each array.
        steps: that the step's memory has seen.
        sha256: of round, steps and arrays, as `digest_of`.
        key: the blocks', wrapped to the receiver (base64).
    """

    receiver: Name
    base: Sha256
    model: Sha256
    numbers: Annotated[Count, Field(ge=1)]
    steps: Count
    sha256: Sha256
    key: Annotated[str, StringConstraints(max_length=200)]


@dataclass(frozen=True, slots=True)
class Offer:
    """A hand-over whose signature was checked, as its receiver sees it before it takes it.

    Attributes:
        federation: its name.
        giver: who signed.
        round: after which the model is.
        handed: the rest.
    """

    federation: str
    giver: str
    round: int
    handed: Handed

    @property
    def digits(self) -> str:
        """60 digits that another label with the same model reads out."""
        return spoken_model(self.federation, self.round, self.handed.sha256)

    @classmethod
    def read(cls, file: BinaryIO, roster: Roster, member: str) -> Self:
        """The offer at the beginning of a file, for `member`, who has pinned `roster`.

        Raises:
            CorruptMessage: it is no hand-over, or was cut.
            ReplayedMessage: it is of another federation, or for another label.
            ForgedMember: it was made with another roster, or by nobody in it, or by the receiver itself.
            BadSignature: the giver did not sign it.
        """
        size = int.from_bytes(file.read(8), "big")
        if not 0 < size <= _LONGEST:
            raise CorruptMessage("This is not a file that `partbook node hand-over` wrote; ask for the right one.")
        message = Message.decode(file.read(size))
        context = message.context
        if context.federation == roster.federation and context.plan != roster.hash:
            raise ForgedMember(
                f"This model was handed over under roster {context.plan[:12]}…; the one pinned at {member} is "
                f"{roster.hash[:12]}… (version {roster.version}). Both install the newer one, then hand it over anew."
            )
        expected = Context(roster.federation, context.round, roster.hash)
        message.check(roster.member(message.sender).identity, HAND_OVER, expected, message.sender)
        handed = Handed.of(message)
        if handed.receiver != member:
            raise ReplayedMessage(
                f"{message.sender} handed this model to {handed.receiver}, and {member} cannot open it; ask for one "
                f'made with --to "{member}".'
            )
        if message.sender == member:
            raise ForgedMember(f"{member} handed this model to itself; another label has to.")
        return cls(context.federation, message.sender, context.round, handed)

    def must_lead_on(self, held: SharedModel, base: str) -> None:
        """Return if this is a later model than the one held, for the same base model.

        Raises:
            StalePlan: the round is not a later one.
            UnknownModel: it is for another base model, or has another count of numbers.
        """
        if self.handed.base != base:
            raise UnknownModel(
                f"{self.giver}'s model is for base model {self.handed.base[:12]}…, and installed here is {base[:12]}…; "
                "install the same Partbook release everywhere."
            )
        count = sum(tensor.numel() for tensor in held.like.values())
        if self.handed.numbers != count:
            raise UnknownModel(
                f"{self.giver}'s model has {self.handed.numbers} numbers, and the adapter of that base has {count}."
            )
        if self.round <= held.round:
            raise StalePlan(
                f"{self.giver}'s model is the one after round {self.round}, and the one held here is after round "
                f"{held.round}; there is nothing to take over. If the one held here is the wrong one, move the file "
                "model.safetensors out of the state folder first."
            )

    def take(self, file: BinaryIO, key: ReceivingKey, into: BinaryIO) -> None:
        """Write the arrays, decrypted, into `into`; `file` stands behind the message.

        Raises:
            CorruptMessage: it was altered or cut on its way, or is not sealed to this key.
        """
        try:
            wrapped = base64.b64decode(self.handed.key, validate=True)
        except ValueError as error:
            raise CorruptMessage("The wrapped key of the hand-over is not base64; ask for the file again.") from error
        cipher = AESGCM(key.open(wrapped, _info(self.federation, self.giver, self.round, self.handed)))
        left, index = 3 * 4 * self.handed.numbers, 0
        while left:
            length = min(_BLOCK, left)
            left -= length
            try:
                into.write(cipher.decrypt(_nonce(index, last=not left), file.read(length + _TAG), None))
            except InvalidTag:
                raise CorruptMessage(
                    f"{self.giver}'s model was altered or cut on its way; nothing was taken over. Ask for it again."
                ) from None
            index += 1
        if file.read(1):
            raise CorruptMessage(f"Something was put behind {self.giver}'s model; ask for it again.")

    def model(self, arrays: NDArray[np.float32], like: dict[str, Tensor]) -> SharedModel:
        """What `take` wrote, (3, d), as the model that was signed.

        Raises:
            AlteredFile: it is another one.
        """
        velocity, second, adapter = arrays
        found = SharedModel(self.round, np.array(adapter), Motion(velocity, second, self.handed.steps), like)
        if digest_of(found) != self.handed.sha256 or found.hash != self.handed.model:
            raise AlteredFile(
                f"{self.giver} signed for another model than it handed over; nothing was taken. Ask another label."
            )
        return found


def hand_over(
    model: SharedModel, base: str, roster: Roster, giver: str, identity: IdentityKey, receiver: str
) -> tuple[Offer, Iterator[bytes]]:
    """A model for another label, and the file's parts.

    Args:
        model: after a round.
        base: SHA-256 of the base model's weights.
        roster: pinned, which lists both.
        giver: the label whose model it is.
        identity: the giver's key.
        receiver: who may open it.

    Raises:
        ConfigError: no round has led to a model, or it would be handed to the giver itself.
        ForgedMember: the roster lists no such receiver, or the giver with another key.
    """
    if not model.round:
        raise ConfigError(
            f"{giver} holds no model that a sealed round led to, and there is nothing to hand over; in masked rounds "
            "the coordinator sends the model."
        )
    if receiver == giver:
        raise ConfigError(f"--to: {giver} holds this model already; name another label.")
    if roster.member(giver).identity != identity.public:
        raise ForgedMember(f"The roster lists {giver} with another identity key than this one; use that one.")
    key = AESGCM.generate_key(256)
    handed = Handed(
        receiver=receiver,
        base=base,
        model=model.hash,
        numbers=len(model.adapter),
        steps=model.motion.steps,
        sha256=digest_of(model),
        key="",
    )
    wrapped = roster.member(receiver).receiving.seal_to(key, _info(roster.federation, giver, model.round, handed))
    handed = handed.model_copy(update={"key": base64.b64encode(wrapped).decode()})
    context = Context(roster.federation, model.round, roster.hash)
    message = Message.write(identity, HAND_OVER, context, giver, handed.json_body()).encode()
    return Offer(roster.federation, giver, model.round, handed), _parts(message, AESGCM(key), model)


def spoken_model(federation: str, round_number: int, sha256: str) -> str:
    """60 digits for labels that hold the same model after the same round: they are the same, whoever reads them."""
    return spoken(_MODEL_DOMAIN, {"federation": federation, "round": round_number, "sha256": sha256})


def digest_of(model: SharedModel) -> str:
    """SHA-256 of round, steps (8 bytes each, big-endian), adapter, velocity and second moment."""
    digest = hashlib.sha256(model.round.to_bytes(8, "big") + model.motion.steps.to_bytes(8, "big"))
    for array in (model.adapter, model.motion.velocity, model.motion.second):
        for stretch in _stretches(array):
            digest.update(stretch)
    return digest.hexdigest()


def _parts(message: bytes, cipher: AESGCM, model: SharedModel) -> Iterator[bytes]:
    yield len(message).to_bytes(8, "big")
    yield message
    left, index, waiting = 3 * 4 * len(model.adapter), 0, b""
    for array in (model.motion.velocity, model.motion.second, model.adapter):
        for stretch in _stretches(array):
            waiting += stretch
            while len(waiting) >= min(_BLOCK, left) and left:
                block, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
                left -= len(block)
                yield cipher.encrypt(_nonce(index, last=not left), block, None)
                index += 1


def _stretches(array: Numbers) -> Iterator[bytes]:
    step = _BLOCK // 4
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step], "<f4").tobytes()


def _nonce(index: int, *, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])


def _info(federation: str, giver: str, round_number: int, handed: Handed) -> bytes:
    """What the wrapped key is bound to (HPKE's `info`): who gives what to whom."""
    return b"partbook/v1/hand-over" + canonical(
        {
            "federation": federation,
            "giver": giver,
            "receiver": handed.receiver,
            "round": round_number,
            "sha256": handed.sha256,
        }
    )
