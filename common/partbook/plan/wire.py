"""The only messages there are, exactly: what may cross between a label and the coordinator, and nothing else.

| kind (Flower message type) | to the node                           | back                                  |
|----------------------------|---------------------------------------|---------------------------------------|
| `query.hello`              | nothing                               | the member's name                     |
| `train`                    | the plan; the global adapter (float32)| `ready`: the plan's hash              |
| `query.contribute`         | the plan's hash                       | the clipped update (float32); the hash|

Any answer may instead be a refusal: an error's name and one sentence. No loss, no count, no time, no token, no mel
and no audio has a field here, and unpacking refuses fields that are not listed. Masks and seal add their exchanges
between `train` and `query.contribute` and change what the update is, not who may say what.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from partbook.errors import CorruptMessage, NodeFailed
from partbook.plan.rounds import RoundPlan

HELLO: Final = "query.hello"
TRAIN: Final = "train"
CONTRIBUTE: Final = "query.contribute"
REFUSAL_LIMIT: Final = 500  # characters of a refusal's reason


def pack_hello() -> RecordDict:
    """Coordinator → node: who are you?"""
    return RecordDict()


def pack_member(name: str) -> RecordDict:
    """Node → coordinator: the name under which it is enrolled."""
    return RecordDict({"member": ConfigRecord({"name": name})})


def unpack_member(content: RecordDict) -> str:
    """The name in an answer to `query.hello`."""
    return _text(content, "member", "name")


def pack_train(plan: RoundPlan, adapter: NDArray[np.float32]) -> RecordDict:
    """Coordinator → node: the plan and the adapter it starts from, (d,)."""
    return RecordDict({"plan": ConfigRecord({"json": plan.encode()}), "model": _vector("adapter", adapter)})


def unpack_train(content: RecordDict) -> tuple[RoundPlan, NDArray[np.float32]]:
    """The plan and adapter of a `train` message."""
    _only(content, {"plan", "model"})
    record = content.config_records.get("plan")
    if record is None or set(record) != {"json"} or not isinstance(record["json"], bytes):
        raise CorruptMessage("The train message holds no plan; the coordinator must re-send it.")
    return RoundPlan.decode(record["json"]), _read_vector(content, "model", "adapter")


def pack_ready(plan_hash: str) -> RecordDict:
    """Node → coordinator: trained for this plan."""
    return RecordDict({"ready": ConfigRecord({"plan_hash": plan_hash})})


def unpack_ready(content: RecordDict) -> str:
    """The plan hash of a `ready` answer."""
    return _text(content, "ready", "plan_hash")


def pack_ask(plan_hash: str) -> RecordDict:
    """Coordinator → node: send your contribution to this plan."""
    return RecordDict({"ask": ConfigRecord({"plan_hash": plan_hash})})


def unpack_ask(content: RecordDict) -> str:
    """The plan hash of a `query.contribute` message."""
    return _text(content, "ask", "plan_hash")


def pack_contribution(plan_hash: str, update: NDArray[np.float32]) -> RecordDict:
    """Node → coordinator: the clipped update, (d,)."""
    return RecordDict({"receipt": ConfigRecord({"plan_hash": plan_hash}), "contribution": _vector("update", update)})


def unpack_contribution(content: RecordDict) -> tuple[str, NDArray[np.float32]]:
    """The plan hash and the update of an answer to `query.contribute`."""
    _only(content, {"receipt", "contribution"})
    record = content.config_records.get("receipt")
    if record is None or set(record) != {"plan_hash"} or not isinstance(record["plan_hash"], str):
        raise CorruptMessage("The contribution does not say which plan it is for.")
    return record["plan_hash"], _read_vector(content, "contribution", "update")


def pack_refusal(error: Exception) -> RecordDict:
    """Node → coordinator: no, and why, in one sentence of our own making (never a traceback)."""
    return RecordDict({"refusal": ConfigRecord({"error": type(error).__name__, "reason": str(error)[:REFUSAL_LIMIT]})})


def raise_refusal(content: RecordDict, member: str) -> None:
    """Turn a refusal into `NodeFailed`; anything else passes."""
    record = content.config_records.get("refusal")
    if record is not None:
        raise NodeFailed(
            f"{member} declined with {str(record.get('error'))[:100]}: {str(record.get('reason'))[:REFUSAL_LIMIT]}"
        )


def _vector(name: str, values: NDArray[np.float32]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(values, dtype=np.float32))})


def _read_vector(content: RecordDict, record_name: str, name: str) -> NDArray[np.float32]:
    record = content.array_records.get(record_name)
    if record is None or set(record) != {name}:
        raise CorruptMessage(f"The message's {record_name!r} record must hold exactly {name!r}.")
    try:
        values = record[name].numpy()
    except (TypeError, ValueError) as error:
        raise CorruptMessage(f"The message's {name!r} array cannot be read ({error}).") from error
    if values.dtype != np.float32 or values.ndim != 1 or not np.isfinite(values).all():
        raise CorruptMessage(f"The message's {name!r} must be one finite float32 vector.")
    return np.array(values, dtype=np.float32)


def _text(content: RecordDict, record_name: str, key: str) -> str:
    _only(content, {record_name})
    record = content.config_records.get(record_name)
    value = None if record is None or set(record) != {key} else record[key]
    if not isinstance(value, str) or len(value) > 200:
        raise CorruptMessage(f"The message's {record_name!r} record must hold exactly the text {key!r}.")
    return value


def _only(content: RecordDict, names: set[str]) -> None:
    extra = set(content) - names
    if extra:
        raise CorruptMessage(f"The message holds {sorted(extra)}, which this protocol does not know.")
