"""The node as a Flower ClientApp: unpack a message, ask the `LabelNode`, pack the answer.

The node's own configuration comes from `context.node_config`, never from the coordinator's run configuration:

    member      the label's name
    vault       folder of the vault
    roster      the pinned roster
    identity    the label's identity key file
    receiving   its receiving key file (sealed rounds)
    seal-key    the custodian's public key file (sealed rounds)
    policy      what the label allows (optional; the safe default where not given)
    ledger      what its recordings have spent (optional; inside the vault where not given)
    state       folder for what is kept between exchanges (optional)
    journal     file for losses (optional)
    key         the vault's key file (optional)
    base        folder of the base model (optional)
    seed        of the visiting order and of rounding (optional; simulations only)
    devices     what to train on, comma between them (optional)
    style       its style number, if it opts in (optional)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from partbook.errors import ConfigError, CorruptMessage
from partbook.model.checkpoint import BASE
from partbook.music.vocabulary import STYLES
from partbook.node.answering import answer
from partbook.node.label import LabelNode, NodeConfig
from partbook.plan import wire

app = ClientApp()

_nodes: dict[NodeConfig, LabelNode] = {}
_opening = threading.Lock()


def node_config(context: Context) -> NodeConfig:
    """The node's configuration out of Flower's context.

    Raises:
        ConfigError: `member`, `vault`, `roster` or `identity` is missing, or `style` is none.
    """
    values = context.node_config
    for key in ("member", "vault", "roster", "identity"):
        if not isinstance(values.get(key), str):
            raise ConfigError(f"The node configuration lacks {key!r}; set it when the node is started.")

    def path(key: str) -> Path | None:
        return Path(str(values[key])) if key in values else None

    seed = values.get("seed")
    return NodeConfig(
        member=str(values["member"]),
        vault=Path(str(values["vault"])),
        roster=Path(str(values["roster"])),
        identity=Path(str(values["identity"])),
        receiving=path("receiving"),
        seal_key=path("seal-key"),
        policy=path("policy"),
        ledger=path("ledger"),
        state=path("state"),
        journal=path("journal"),
        key=path("key"),
        base=path("base") or BASE,
        seed=int(seed) if isinstance(seed, (int, float)) else None,
        devices=tuple(str(values["devices"]).split(",")) if values.get("devices") else None,
        style=_style(values.get("style")),
    )


def _style(value: object) -> int | None:
    """A style number out of Flower's context, where it may be a text."""
    if value is None:
        return None
    if str(value) not in map(str, range(STYLES)):
        raise ConfigError(f"style: {value!r} is no style; give a number from 0 to {STYLES - 1}, or leave it out.")
    return int(str(value))


def flower_config(config: NodeConfig) -> dict[str, str | int | float | bool]:
    """What `node_config` reads."""
    values: dict[str, str | int | float | bool] = {
        "member": config.member,
        "vault": str(config.vault),
        "roster": str(config.roster),
        "identity": str(config.identity),
        "base": str(config.base),
    }
    optional: dict[str, Path | str | int | None] = {
        "receiving": config.receiving,
        "seal-key": config.seal_key,
        "state": config.state,
        "policy": config.policy,
        "ledger": config.ledger,
        "journal": config.journal,
        "key": config.key,
        "seed": config.seed,
        "devices": None if config.devices is None else ",".join(config.devices),
        "style": config.style,
    }
    for key, value in optional.items():
        if value is not None:
            values[key] = value if isinstance(value, int) else str(value)
    return values


def label_node(context: Context) -> LabelNode:
    """The node of this context, opened once a process: rounds share its model and windows."""
    return open_node(node_config(context))


def open_node(config: NodeConfig) -> LabelNode:
    """The node of this configuration, opened once a process."""
    with _opening:
        if config not in _nodes:
            _nodes[config] = LabelNode(config)
        return _nodes[config]


def close_nodes() -> None:
    """Forget all open nodes and what they hold in memory."""
    with _opening:
        for node in _nodes.values():
            node.close()
        _nodes.clear()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Prove which member this node is."""
    return _exchange(message, lambda data: label_node(context).greet(data))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for a plan."""

    def work() -> RecordDict:
        (plan,), blobs = wire.unpack(message.content, blobs=None)
        if len(blobs) > 1:
            raise CorruptMessage("A plan came with more than the adapter it starts from; send it again.")
        return wire.pack([label_node(context).train(plan, blobs[0] if blobs else None)])

    return answer(message, work)


@app.query("advertise")
def advertise(message: Message, context: Context) -> Message:
    """Make keys for an attempt."""
    return _exchange(message, lambda data: label_node(context).advertise(data))


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Give shares of this node's secrets to its peers."""
    return _exchange(message, lambda data: label_node(context).share(data))


@app.query("contribute")
def contribute(message: Message, context: Context) -> Message:
    """Hand over the first chunk of the masked update."""
    return _chunk(message, lambda data: label_node(context).contribute(data))


@app.query("proceed")
def proceed(message: Message, context: Context) -> Message:
    """Hand over a further chunk."""
    return _chunk(message, lambda data: label_node(context).proceed(data))


@app.query("confirm")
def confirm(message: Message, context: Context) -> Message:
    """Sign the list of survivors."""
    return _exchange(message, lambda data: label_node(context).confirm(data))


@app.query("reveal")
def reveal(message: Message, context: Context) -> Message:
    """Hand over the shares that the sum needs."""
    return _exchange(message, lambda data: label_node(context).reveal(data))


@app.query("apply")
def apply(message: Message, context: Context) -> Message:
    """Take the step of an opened sum."""

    def work() -> RecordDict:
        (plan, *opened), blobs = wire.unpack(message.content, signed=None, blobs=None)
        return wire.pack([label_node(context).apply(plan, opened, blobs)])

    return answer(message, work)


@app.query("endorse")
def endorse(message: Message, context: Context) -> Message:
    """Agree to a release."""

    def work() -> RecordDict:
        (plan, request), _ = wire.unpack(message.content, signed=2)
        return wire.pack([label_node(context).endorse(plan, request)])

    return answer(message, work)


@app.query("publish")
def publish(message: Message, context: Context) -> Message:
    """Hand over the model that enough labels endorsed."""

    def work() -> RecordDict:
        (plan, request), _ = wire.unpack(message.content, signed=2)
        signed, blob = label_node(context).publish(plan, request)
        return wire.pack([signed], [blob])

    return answer(message, work)


def _exchange(message: Message, work: Callable[[bytes], bytes]) -> Message:
    return answer(message, lambda: wire.pack([work(wire.unpack(message.content)[0][0])]))


def _chunk(message: Message, work: Callable[[bytes], tuple[bytes, bytes]]) -> Message:
    def packed() -> RecordDict:
        signed, blob = work(wire.unpack(message.content)[0][0])
        return wire.pack([signed], [blob])

    return answer(message, packed)
