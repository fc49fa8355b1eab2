"""`partbook demo`, `partbook simulate` and `partbook base`: the commands of a researcher's laptop."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from partbook.coordinator.rounds import Progress
    from partbook.simulation.trial import TrialResult


class Mode(enum.StrEnum):
    """`partbook.plan.rounds.Mode`, for the command line."""

    masked = "masked"
    sealed = "sealed"


_Locks = Annotated[
    Mode,
    typer.Option(help="masked: the coordinator reads each round's sum. sealed: nobody but the labels does."),
]
_Drop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MEMBER@EXCHANGE[:ROUND]",
        help="A label that is down from this exchange to the round's end, such as Cremona@confirm:2; may be repeated.",
    ),
]

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
    locks: _Locks = Mode.sealed,
    drop: _Drop = None,
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
    options = DemoOptions(home=home, out=target, seed=seed, mode=locks.value, drops=tuple(drop or ()))
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


simulate = typer.Typer(add_completion=False, help="A federation out of vaults on this machine, masked or sealed.")


@simulate.command()
def trial(
    vaults: Annotated[
        list[Path],
        typer.Argument(metavar="VAULT...", help="Vault folders, one a label, named after it or called `vault` in it."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Keys, states, the adapter; a trial found there is gone on with. runs/trial-<date> where not given.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How many in all.")] = 3,
    locks: _Locks = Mode.sealed,
    drop: _Drop = None,
    threshold: Annotated[
        int | None, typer.Option(help="Fewest labels to sum; two thirds of them and one where not given.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="Optimiser steps of a label in a round.")] = 8,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Windows a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Of the labels' optimiser.")] = 3e-3,
    clip: Annotated[float, typer.Option(min=1e-3, max=1e6, help="Largest L2 norm of an update.")] = 3.0,
    momentum: Annotated[float, typer.Option(min=0.0, max=0.99, help="Of the step that the average takes.")] = 0.0,
    base: Annotated[
        Path | None, typer.Option(help="Base model; the shipped one where not given.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="For a run that can be repeated; drawn where not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Run the rounds of a whole federation on this machine: every party, with keys of its own.

    Exit code 2 and the reason where a round could not be finished: the state is kept, and the same command goes on.
    """
    import datetime
    import json

    from rich.console import Console

    from partbook.errors import PartbookError
    from partbook.model.checkpoint import BASE
    from partbook.plan.rounds import ServerStep
    from partbook.plan.training import PlainTraining
    from partbook.simulation.results import doing
    from partbook.simulation.trial import Trial, TrialOptions
    from partbook.simulation.watching import RichWatcher

    console = Console(stderr=as_json)
    home = out or Path("runs") / datetime.datetime.now().astimezone().strftime("trial-%Y-%m-%d-%H%M%S")
    running = Trial(
        TrialOptions(
            tuple(vaults),
            home,
            rounds=rounds,
            mode=locks.value,
            drops=tuple(drop or ()),
            threshold=threshold,
            training=PlainTraining(steps=steps, batch=batch, learning_rate=learning_rate, clip=clip),
            step=ServerStep(momentum=momentum),
            base=base or BASE,
            seed=seed,
        )
    )
    stopped: PartbookError | None = None
    done = len(running.result().history)
    with RichWatcher(console) as watcher:
        watcher.stage("Rounds", rounds)
        for number in range(min(done, rounds)):
            watcher.step(f"round {number + 1} was done before")

        def on_progress(at: Progress) -> None:
            if at.record is None:
                watcher.now(f"round {at.round}: {doing(at.stage)}")
            elif at.round:
                watcher.step(f"round {at.round} is done")

        try:
            running.run(on_progress)
        except PartbookError as error:
            stopped = error
    result = running.result()
    if as_json:
        reason = None if stopped is None else f"{type(stopped).__name__}: {stopped}"
        typer.echo(json.dumps({**_trial_json(result), "error": reason}, indent=1, ensure_ascii=False))
    else:
        console.print(_trial_table(result))
        if result.adapter is not None:
            console.print(f"[bold]Adapter[/bold]\n  {result.adapter}", soft_wrap=True)
    if stopped is not None:
        console.print(f"What was done is kept in {home}; with --out {home} the same command goes on.", soft_wrap=True)
        raise stopped


def _trial_json(result: TrialResult) -> dict[str, Any]:
    rounds = [
        {
            "round": record.round,
            "members": record.members,
            "dropped": record.dropped,
            "seconds": round(record.seconds, 3),
            "exchanges": {kind: round(seconds, 4) for kind, seconds in record.exchanges.items()},
            "model": record.adapter_hash,
            "bytes_per_node": (
                {"sent": round(crossed.sent), "received": round(crossed.received)}
                if (crossed := result.traffic.get(record.round))
                else None
            ),
        }
        for record in result.history
    ]
    adapter = None if result.adapter is None else str(result.adapter)
    return {"labels": result.labels, "rounds": rounds, "adapter": adapter}


def _trial_table(result: TrialResult) -> Table:
    from rich.table import Table

    from partbook.simulation.diagram import in_bytes

    table = Table(
        "Round", "In the sum", "Fell away", title="Rounds", caption="Sent and received: by one node, mean of all."
    )
    for name in ("Time", "Sent", "Received", "Model after it"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in result.history:
        crossed = result.traffic.get(record.round)
        table.add_row(
            str(record.round),
            f"{len(record.members)} of {len(result.labels)}",
            "\n".join(f"{who} @ {kind.removeprefix('query.')}" for who, kind in sorted(record.dropped.items())) or "–",
            f"{record.seconds:.1f} s",
            *(("earlier", "earlier") if crossed is None else (in_bytes(crossed.sent), in_bytes(crossed.received))),
            record.adapter_hash[:12],
        )
    after = result.traffic.get(len(result.history) + 1)
    if after is not None:
        name = f"{len(result.history) + 1}, cut short" if result.adapter is None else "release"
        table.add_row(name, "", "", "", in_bytes(after.sent), in_bytes(after.received), "")
    return table
