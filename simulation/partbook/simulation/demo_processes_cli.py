"""`partbook demo-processes`: the federation of the demo, every party a process of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help="A coordinator, three labels and a custodian as processes of their own.")


@app.command()
def run(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Results; a run found there is gone on with. runs/processes-<date> where not given.",
            show_default=False,
        ),
    ] = None,
    home: Annotated[
        Path, typer.Option(help="Where recordings and vaults are kept between runs; `partbook demo` uses them too.")
    ] = Path(".cache/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Picks each label's works and the order of training.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="With noise, and again without.")] = 5,
    recordings: Annotated[int, typer.Option(min=1, max=22, help="Recordings a label.")] = 20,
    epsilon: Annotated[float, typer.Option(min=0.01, max=1e6, help="ε of each recording after all rounds.")] = 8.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Run a federation as real ones run it, all on this machine, and check that its processes add nothing of their own.

    SuperLink, ServerApp, three labels' nodes and a custodian speak over TLS with client certificates; rounds are
    sealed, with distributed noise, on recordings that the labels have ingested; a release is signed. Then the same
    labels run rounds without noise, as processes and in one process: both must come to the same adapter, bit for bit.

    Exit code 0: all is as it must be. 1: the adapters differ, or a ledger says more than the release states. 2: an
    error. Ctrl-C ends every process; what was done is kept, and with --out the same command goes on with it.
    """
    import dataclasses
    import datetime
    import json

    from rich.console import Console

    from partbook.simulation.demo import COURSES
    from partbook.simulation.demo_processes import ProcessesDemo, ProcessesOptions
    from partbook.simulation.demo_processes_view import ProcessesWatcher, about, report
    from partbook.simulation.demo_vaults import Shelf, filled
    from partbook.simulation.watching import RichWatcher

    console = Console(stderr=as_json)
    target = out or Path("runs") / datetime.datetime.now().astimezone().strftime("processes-%Y-%m-%d-%H%M%S")
    noised = COURSES["distributed"]
    noised = dataclasses.replace(noised, asked=dataclasses.replace(noised.asked, epsilon=epsilon))
    try:
        with _ended_like_ctrl_c():
            with RichWatcher(console) as watcher:
                labels = filled(Shelf(home, seed, recordings), watcher)
            options = ProcessesOptions(
                out=target,
                vaults={label.name: label.vault for label in labels},
                noised=noised,
                check=COURSES["none"],
                rounds=rounds,
                seed=seed,
                sources=tuple(f"{label.collection.about}, played on {label.collection.instrument}" for label in labels),
            )
            with ProcessesWatcher(console) as watching:
                result = ProcessesDemo(options, watching).run()
    except KeyboardInterrupt:
        command = f"partbook demo-processes --out {target}"
        typer.echo(f"Interrupted; every process has ended. To go on: {command} (and what else was asked for)", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(about(result), ensure_ascii=False))
    else:
        console.print(report(result), soft_wrap=False)
    if not result.good:
        raise typer.Exit(1)


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the processes too, which are in sessions of their own."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
