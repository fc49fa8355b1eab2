"""The custodian as a Flower ClientApp, whose configuration comes from `context.node_config`:

custodian   its name in the roster
roster      the pinned roster
identity    its identity key file
secret      the secret key file that sums open with
record      file that remembers what was opened
"""

from __future__ import annotations

import threading
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from partbook.custodian.opening import Custodian, CustodianConfig
from partbook.errors import ConfigError
from partbook.node.answering import answer
from partbook.plan import wire

app = ClientApp()

_custodians: dict[CustodianConfig, Custodian] = {}
_opening = threading.Lock()


def custodian_config(context: Context) -> CustodianConfig:
    """The custodian's configuration out of Flower's context.

    Raises:
        ConfigError: a key is missing.
    """
    values = context.node_config
    for key in ("custodian", "roster", "identity", "secret", "record"):
        if not isinstance(values.get(key), str):
            raise ConfigError(f"The custodian's configuration lacks {key!r}; set it when it is started.")
    paths = (Path(str(values[key])) for key in ("roster", "identity", "secret", "record"))
    return CustodianConfig(str(values["custodian"]), *paths)


def custodian(context: Context) -> Custodian:
    """The custodian of this context, opened once a process."""
    return open_custodian(custodian_config(context))


def flower_config(config: CustodianConfig) -> dict[str, str | int | float | bool]:
    """What `custodian_config` reads."""
    return {
        "custodian": config.name,
        "roster": str(config.roster),
        "identity": str(config.identity),
        "secret": str(config.secret),
        "record": str(config.record),
    }


def open_custodian(config: CustodianConfig) -> Custodian:
    """The custodian of this configuration, opened once a process."""
    with _opening:
        if config not in _custodians:
            _custodians[config] = Custodian(config)
        return _custodians[config]


def close_custodians() -> None:
    """Forget all open custodians and their keys."""
    with _opening:
        _custodians.clear()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Prove who this is."""
    return answer(message, lambda: wire.pack([custodian(context).greet(wire.unpack(message.content)[0][0])]))


@app.query("open")
def open_sum(message: Message, context: Context) -> Message:
    """Open a chunk of an agreed sum, for the labels."""

    def work() -> RecordDict:
        (plan, request), (blob,) = wire.unpack(message.content, signed=2, blobs=1)
        opened, encrypted = custodian(context).open(plan, request, blob)
        return wire.pack([opened], [encrypted])

    return answer(message, work)
