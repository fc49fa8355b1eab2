"""The node as a Flower ClientApp: unpack a message, ask the `LabelNode`, pack the answer.

The node's own configuration comes from `context.node_config`, never from the coordinator's run configuration:

    member            the label's name
    vault             folder of the vault
    journal           file for losses (optional)
    key               the vault's key file (optional)
    base              folder of the base model (optional)
    seed              of the visiting order (optional; simulations only)
    allow-clear-sums  true only in simulations
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from partbook.errors import ConfigError, PartbookError
from partbook.model.checkpoint import BASE
from partbook.node.label import LabelNode, NodeConfig
from partbook.plan import wire

log = logging.getLogger(__name__)

app = ClientApp()

_nodes: dict[NodeConfig, LabelNode] = {}
_opening = threading.Lock()


def node_config(context: Context) -> NodeConfig:
    """The node's configuration out of Flower's context.

    Raises:
        ConfigError: `member` or `vault` is missing.
    """
    values = context.node_config
    for key in ("member", "vault"):
        if not isinstance(values.get(key), str):
            raise ConfigError(f"The node configuration lacks {key!r}; set it when the node is started.")

    def path(key: str) -> Path | None:
        return Path(str(values[key])) if key in values else None

    seed = values.get("seed")
    return NodeConfig(
        member=str(values["member"]),
        vault=Path(str(values["vault"])),
        journal=path("journal"),
        key=path("key"),
        base=path("base") or BASE,
        seed=int(seed) if isinstance(seed, (int, float)) else None,
        allow_clear_sums=values.get("allow-clear-sums") is True,
    )


def label_node(context: Context) -> LabelNode:
    """The node of this context, opened once a process: rounds share its model and windows."""
    config = node_config(context)
    with _opening:
        if config not in _nodes:
            _nodes[config] = LabelNode(config)
        return _nodes[config]


def close_nodes() -> None:
    """Forget all open nodes and what they hold in memory."""
    with _opening:
        _nodes.clear()


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    try:
        content = work()
    except PartbookError as error:
        log.warning("declined %s: %s: %s", message.metadata.message_type, type(error).__name__, error)
        content = wire.pack_refusal(error)
    return Message(content, reply_to=message)


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say which member this node is."""
    return _answer(message, lambda: wire.pack_member(node_config(context).member))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Check a plan and train for it."""

    def work() -> RecordDict:
        plan, adapter = wire.unpack_train(message.content)
        return wire.pack_ready(label_node(context).train(plan, adapter))

    return _answer(message, work)


@app.query("contribute")
def contribute(message: Message, context: Context) -> Message:
    """Hand over the update of a plan."""

    def work() -> RecordDict:
        plan_hash = wire.unpack_ask(message.content)
        return wire.pack_contribution(plan_hash, label_node(context).contribute(plan_hash))

    return _answer(message, work)
