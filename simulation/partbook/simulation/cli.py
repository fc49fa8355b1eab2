"""`partbook demo` and `partbook base`: the commands of a researcher's laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

base = typer.Typer(add_completion=False, no_args_is_help=True, help="The public base model and tokeniser.")


@base.callback()
def _base() -> None:
    """The public base model and tokeniser."""


@base.command()
def train(
    out: Annotated[Path, typer.Option(help="Where the base model goes.")] = Path("base"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1600,
    batch: Annotated[int, typer.Option(min=1, help="Windows a step.")] = 8,
    vocabulary: Annotated[int, typer.Option(min=600, help="Tokens, merges included.")] = 640,
    size: Annotated[str, typer.Option(help="small or full.")] = "small",
    seed: Annotated[int, typer.Option(help="Of initialisation, keys, instruments and order.")] = 1,
) -> None:
    """Make the base model again, from public scores in music21's corpus alone (about half an hour on two cores)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from partbook.simulation.base import make_base

    console = Console()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=steps, loss="")

        def on_step(step: int, loss: float) -> None:
            progress.update(task, completed=step, loss=f"{loss:.3f} nats/token")
            if step % 50 == 0:
                progress.console.print(f"step {step}: {loss:.4f} nats/token")

        about = make_base(
            out,
            steps=steps,
            batch=batch,
            vocabulary=vocabulary,
            size=size,
            seed=seed,
            on_stage=lambda stage: progress.update(task, description=stage),
            on_step=on_step,
        )
    console.print_json(data=about)
    console.print(f"Base model written to {out}.")


demo = typer.Typer(add_completion=False, help="Four labels, one generator: the whole way, on this machine.")


@demo.command()
def run(
    out: Annotated[Path | None, typer.Option(help="Results; runs/<date> where not given.")] = None,
    home: Annotated[Path, typer.Option(help="Where recordings and vaults are kept between runs.")] = Path(
        ".cache/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Picks each label's works and the order of training.")] = 1,
    rounds: Annotated[int | None, typer.Option(min=1, help="How many rounds.")] = None,
    recordings: Annotated[int | None, typer.Option(min=1, max=22, help="Recordings a label.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where things are as JSON, and nothing else.")] = False,
) -> None:
    """Play four labels' recordings, ingest them, run the rounds, sign a release, write three pieces, and report.

    A second run finds the recordings and vaults it needs already there.
    """
    import dataclasses
    import datetime
    import json

    from rich.console import Console

    from partbook.simulation.demo import Demo, DemoOptions
    from partbook.simulation.watching import RichWatcher

    console = Console(stderr=as_json)
    target = out or Path("runs") / datetime.datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    options = DemoOptions(home=home, out=target, seed=seed)
    if rounds is not None:
        options = dataclasses.replace(options, rounds=rounds)
    if recordings is not None:
        options = dataclasses.replace(options, recordings=recordings)
    with RichWatcher(console) as watcher:
        result = Demo(options, watcher).run()
    if as_json:
        nll = {label: {"base": before, "after": after} for label, (before, after) in result.nll.items()}
        paths = {
            "report": str(result.report),
            "pieces": list(map(str, result.pieces)),
            "release": str(result.release),
        }
        typer.echo(json.dumps({**paths, "heldout_nats_per_token": nll}))
        return
    from rich.table import Table

    table = Table("Label", "Base", "After the rounds", title="Held-out nats per token, on transcribed audio")
    for label, (before, after) in result.nll.items():
        table.add_row(label, f"{before:.3f}", f"{after:.3f}")
    console.print(table)
    console.print("\n[bold]Listen[/bold]")
    for piece in result.pieces:
        console.print(f"  {piece}", soft_wrap=True)
    console.print(f"[bold]Look[/bold]\n  {result.report}", soft_wrap=True)
    console.print(f"[bold]Serve[/bold]\n  partbook serve {result.release}", soft_wrap=True)
