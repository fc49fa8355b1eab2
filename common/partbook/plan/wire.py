"""The only messages there are: what may cross between a party and the coordinator, and nothing else.

Every content is the same two records: `signed`, one or more signed messages, and `blobs`, the bytes that they vouch
for by their SHA-256. Unpacking refuses anything beside them, and a wrong number of either.

| kind (Flower message type) | to the node                        | back                                              |
|----------------------------|------------------------------------|---------------------------------------------------|
| `query.hello`              | `hello`                            | `here`                                            |
| `train`                    | `plan`; masked: the adapter        | `ready`                                           |
| `query.advertise`          | `begin`                            | `advertise`                                       |
| `query.share`              | `keys`                             | `shares`                                          |
| `query.contribute`         | `inbox`                            | `contribution`; the first chunk, masked or sealed |
| `query.proceed`            | `proceed`                          | `contribution`; that chunk                        |
| `query.confirm`            | `survivors`                        | `confirmed`                                       |
| `query.reveal`             | `reveal`                           | `revealed`                                        |
| `query.apply` (sealed)     | `plan`, `opened`; its chunk        | `held`; after the last chunk `applied`            |
| `query.endorse` (sealed)   | `plan`, `endorse`                  | `endorsed`                                        |
| `query.publish` (sealed)   | `plan`, `publish`                  | `published`; that stretch of the adapter          |
| `query.open` (custodian)   | `plan`, `open`; the sealed sum     | `opened`; the sum, encrypted to the labels        |

Any answer may instead be a refusal: an error's name and one sentence. No loss, no count, no time, no token, no mel
and no audio has a field here (`partbook.secagg.messages`, `partbook.plan.exchanges` and `partbook.plan.greeting` list
every field).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from partbook.errors import CorruptMessage, NodeFailed

HELLO: Final = "query.hello"
TRAIN: Final = "train"
ADVERTISE: Final = "query.advertise"
SHARE: Final = "query.share"
CONTRIBUTE: Final = "query.contribute"
PROCEED: Final = "query.proceed"
CONFIRM: Final = "query.confirm"
REVEAL: Final = "query.reveal"
APPLY: Final = "query.apply"
ENDORSE: Final = "query.endorse"
PUBLISH: Final = "query.publish"
OPEN: Final = "query.open"
KINDS: Final = (HELLO, TRAIN, ADVERTISE, SHARE, CONTRIBUTE, PROCEED, CONFIRM, REVEAL, OPEN, APPLY, ENDORSE, PUBLISH)
TO_LABELS: Final = frozenset(KINDS) - {OPEN}  # all that a label's node takes
TO_CUSTODIANS: Final = frozenset({HELLO, OPEN})

REFUSAL_LIMIT: Final = 500  # characters of a refusal's reason


def pack(signed: Sequence[bytes], blobs: Sequence[bytes] = ()) -> RecordDict:
    """Signed messages, and the bytes they vouch for."""
    content = RecordDict({"signed": ConfigRecord({"messages": list(signed)})})
    if blobs:
        arrays = {str(index): Array(np.frombuffer(blob, dtype=np.uint8)) for index, blob in enumerate(blobs)}
        content["blobs"] = ArrayRecord(arrays)
    return content


def unpack(content: RecordDict, signed: int | None = 1, blobs: int | None = 0) -> tuple[list[bytes], list[bytes]]:
    """What `pack` packed.

    Args:
        content: a message's.
        signed, blobs: how many of each there must be; None for any number.

    Raises:
        CorruptMessage: there is something else, or another number.
    """
    _only(content, {"signed", "blobs"})
    record = content.config_records.get("signed")
    messages = None if record is None or set(record) != {"messages"} else record["messages"]
    if not isinstance(messages, list) or not messages or not all(isinstance(m, bytes) for m in messages):
        raise CorruptMessage("The message holds nothing that is signed; its sender must send it again.")
    arrays = content.array_records.get("blobs", ArrayRecord())
    if set(arrays) != {str(index) for index in range(len(arrays))}:
        raise CorruptMessage("The message's blobs are not numbered from 0.")
    found = []
    for index in range(len(arrays)):
        try:
            array = arrays[str(index)].numpy()
        except Exception as error:  # NumPy's reader names no end to what it raises over foreign bytes
            raise CorruptMessage(f"The message's blob {index} cannot be read ({type(error).__name__}).") from error
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 1:
            raise CorruptMessage(f"The message's blob {index} is not plain bytes.")
        found.append(array.tobytes())
    if signed not in (None, len(messages)) or blobs not in (None, len(found)):
        raise CorruptMessage(
            f"The message holds {len(messages)} signed parts and {len(found)} blobs; {signed} and {blobs} belong in it."
        )
    return [bytes(message) for message in messages if isinstance(message, bytes)], found


def pack_refusal(error: Exception) -> RecordDict:
    """Party → coordinator: no, and why, in one sentence of our own making (never a traceback)."""
    return RecordDict({"refusal": ConfigRecord({"error": type(error).__name__, "reason": str(error)[:REFUSAL_LIMIT]})})


def raise_refusal(content: RecordDict, member: str) -> None:
    """Turn a refusal into `NodeFailed`; anything else passes."""
    record = content.config_records.get("refusal")
    if record is not None:
        name = str(record.get("error"))[:100]
        raise NodeFailed(f"{member} declined with {name}: {str(record.get('reason'))[:REFUSAL_LIMIT]}", declined=name)


def _only(content: RecordDict, names: set[str]) -> None:
    extra = set(content) - names
    if extra:
        raise CorruptMessage(f"The message holds {sorted(extra)}, which this protocol does not know.")
