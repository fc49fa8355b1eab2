"""`partbook node start|pause|resume|leave`: the node as a process, and how its engineer stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", help="The node's TOML file.", show_default=False)]
JsonLogs = Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line.")]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]


def start(config: Config, json_logs: JsonLogs = False, log_level: LogLevel = "info") -> None:
    """Take part in the federation until stopped (Ctrl-C or SIGTERM); goes on where it was after any interruption.

    It connects to the coordinator named in the file and to nothing else, takes only the messages of the protocol,
    and runs only what is installed here.
    """
    from partbook import logs
    from partbook.node.settings import NodeSettings

    settings = NodeSettings.read(config)
    logs.configure("node", settings.member, as_json=json_logs, level=log_level)

    from partbook.node.app import app, close_nodes, flower_config, open_node
    from partbook.node.pinned import run_party
    from partbook.plan import wire

    node = settings.node
    try:
        run_party(settings, node.member, app, flower_config(node), wire.TO_LABELS, prepare=lambda: open_node(node))
    finally:
        close_nodes()


def pause(
    config: Config, why: Annotated[str, typer.Option(help="For the engineer's own eyes; never sent.")] = ""
) -> None:
    """Train for no further plan; a running node obeys at once, and finishes the round it has trained for."""
    from partbook.node import pausing
    from partbook.node.settings import NodeSettings

    settings = NodeSettings.read(config)
    pausing.pause(settings.state, why)
    typer.echo(f"{settings.member} is paused. It trains again after: partbook node resume --config {config}")


def resume(config: Config) -> None:
    """Take part again."""
    from partbook.node import pausing
    from partbook.node.settings import NodeSettings

    settings = NodeSettings.read(config)
    typer.echo(f"{settings.member} takes part again." if pausing.resume(settings.state) else "It was not paused.")


def leave(config: Config, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop for good: end the running node, destroy what it has not handed over, and take back what that cost.

    What was handed over stays in the model and stays debited. Ask the coordinator for a roster without this label, so
    that no round waits for it.
    """
    from partbook.node import leaving, pausing
    from partbook.node.holding import only_one
    from partbook.node.settings import NodeSettings

    settings = NodeSettings.read(config)
    if not yes:
        typer.confirm(f"{settings.member} will leave its federation. Go on?", abort=True)
    settings.unlock()
    pausing.pause(settings.state, "left the federation")
    stopped = pausing.stop_running(settings.state)
    with only_one(settings.state):
        released = leaving.leave(settings.node)
    typer.echo(
        f"{settings.member} has left. "
        + ("The running node was ended. " if stopped else "")
        + (f"{released} reserved rounds were given back. " if released else "Nothing was reserved. ")
        + "What was handed over stays debited: `partbook node budget` shows it."
    )


def running(
    config: Config, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Say whether the node runs, is paused, and until when its certificate lasts; exit 0 if it runs, else 1."""
    from partbook.errors import PartbookError
    from partbook.identity.tls import Leaf
    from partbook.node import pausing
    from partbook.node.holding import running as process_of
    from partbook.node.settings import NodeSettings

    settings = NodeSettings.read(config)
    process, paused = process_of(settings.state), pausing.paused(settings.state)
    try:
        expires = Leaf.load(settings.tls).expires.isoformat(timespec="seconds")
    except (PartbookError, OSError):
        expires = None
    if as_json:
        found = {"member": settings.member, "process": process, "paused": paused, "certificate_until": expires}
        typer.echo(json.dumps(found))
    else:
        typer.echo(f"{settings.member}: " + (f"runs as process {process}" if process else "does not run"))
        if paused:
            typer.echo(f"paused {paused}")
        typer.echo(f"certificate until {expires}" if expires else "no certificate yet; it is made at the first start")
    if process is None:
        raise typer.Exit(1)
