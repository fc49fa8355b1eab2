"""`partbook custodian …`: what a custodian's operator types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The custodian's side: opens the sums that enough labels agreed on.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _custodian() -> None:
    """A group, though it has one command: others will stand beside it."""


@app.command()
def start(
    config: Annotated[Path, typer.Option("--config", help="The custodian's TOML file.", show_default=False)],
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line.")] = False,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Open agreed sums until stopped (Ctrl-C or SIGTERM). It connects to the coordinator and to nothing else."""
    from partbook import logs
    from partbook.custodian.settings import CustodianSettings

    settings = CustodianSettings.read(config)
    logs.configure("custodian", settings.name, as_json=json_logs, level=log_level)

    from partbook.custodian.app import app as answers
    from partbook.custodian.app import close_custodians, flower_config, open_custodian
    from partbook.node.pinned import run_party
    from partbook.plan import wire

    custodian = settings.custodian
    try:
        run_party(
            settings,
            custodian.name,
            answers,
            flower_config(custodian),
            wire.TO_CUSTODIANS,
            prepare=lambda: open_custodian(custodian),
        )
    finally:
        close_custodians()
