"""`partbook demo` and `partbook simulate`: the commands of a researcher's laptop."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.coordinator.rounds import Progress


class Mode(enum.StrEnum):
    """`partbook.plan.rounds.Mode`, for the command line."""

    masked = "masked"
    sealed = "sealed"


class Scope(enum.StrEnum):
    """`partbook.model.scope.Scope`, for the command line."""

    all = "all"
    norms = "norms"


class NoiseKind(enum.StrEnum):
    """`partbook.node.policy.Noise`, for the command line."""

    distributed = "distributed"
    local = "local"
    none = "none"


class Engine(enum.StrEnum):
    """`partbook.simulation.trial.Engine`, for the command line."""

    process = "process"
    ray = "ray"


_Noise = Annotated[
    NoiseKind,
    typer.Option(
        help="distributed: the labels' noise adds up to enough. local: each label's own is enough. none: ε is infinite."
    ),
]
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
    noise: _Noise = NoiseKind.distributed,
    epsilon: Annotated[
        float | None,
        typer.Option(min=0.01, help="ε of each recording after all rounds; 8 where not given, inf for no noise."),
    ] = None,
    drop: _Drop = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where things are as JSON, and nothing else.")] = False,
) -> None:
    """Play four labels' recordings, ingest them, run the rounds, sign a release, write three pieces, and report.

    A second run finds the recordings and vaults it needs already there. Its ledgers begin anew, with nothing spent.
    """
    one_thread()
    import dataclasses
    import datetime
    import json

    from rich.console import Console

    from partbook.errors import ConfigError
    from partbook.simulation.demo import COURSES, Demo, DemoOptions
    from partbook.simulation.trial_table import stated
    from partbook.simulation.watching import RichWatcher

    console = Console(stderr=as_json)
    target = out or Path("runs") / datetime.datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    kind = NoiseKind.none if epsilon == float("inf") else noise
    if kind is NoiseKind.none and epsilon not in (None, float("inf")):
        raise ConfigError(f"--epsilon {epsilon:g} needs noise; leave out --noise none.")
    course = COURSES[kind.value]
    if epsilon is not None:
        course = dataclasses.replace(course, asked=dataclasses.replace(course.asked, epsilon=epsilon))
    if rounds is not None:
        course = dataclasses.replace(course, rounds=rounds)
    options = DemoOptions(home=home, out=target, seed=seed, mode=locks.value, course=course, drops=tuple(drop or ()))
    if recordings is not None:
        options = dataclasses.replace(options, recordings=recordings)
    with RichWatcher(console) as watcher:
        result = Demo(options, watcher).run()
    if as_json:
        nll = {label: dataclasses.asdict(losses) for label, losses in result.nll.items()}
        cost = {**result.privacy.about(), "recordings": result.recordings}
        if result.privacy.bounded:
            cost["spent_by_ledger"] = result.spent
        paths = {
            "report": str(result.report),
            "pieces": list(map(str, result.pieces)),
            "release": str(result.release),
        }
        scores = {"heldout_nats_per_token": nll, "control_nats_per_token": dataclasses.asdict(result.control)}
        typer.echo(json.dumps({**paths, **scores, "privacy": cost}, ensure_ascii=False))
        return
    from rich.table import Table

    compared = any(losses.without_noise is not None for losses in result.nll.values())
    table = Table("Label", title="Held-out nats per token, on transcribed audio")
    for name in ("Base", *(("With noise", "Without noise") if compared else ("After the rounds",))):
        table.add_column(name, justify="right")
    for label, losses in (*result.nll.items(), ("Control: a style of no label", result.control)):
        figures = (losses.base, losses.after, *((losses.without_noise,) if compared else ()))
        table.add_row(label, *("–" if figure is None else f"{figure:.3f}" for figure in figures))
    console.print(table)
    console.print(
        f"\n[bold]Privacy[/bold]\n  {stated(result.privacy, result.recordings, result.colluders)}", highlight=False
    )
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
    noise: _Noise = NoiseKind.distributed,
    epsilon: Annotated[
        float,
        typer.Option(min=0.01, help="ε of each recording after all rounds, against colluding labels; inf: no noise."),
    ] = 8.0,
    delta: Annotated[
        float | None,
        typer.Option(min=1e-12, max=0.5, help="δ of it; a power of ten below 1/(10·recordings) where not given."),
    ] = None,
    sampling: Annotated[
        float, typer.Option(min=1e-4, max=1.0, help="Probability with which noisy rounds draw a recording.")
    ] = 1.0,
    windows: Annotated[int, typer.Option(min=1, max=256, help="Windows of each drawn recording; with noise only.")] = 1,
    local_steps: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="With noise: steps on each recording alone; in local mode, of a label in a round."
        ),
    ] = 1,
    scope: Annotated[
        Scope, typer.Option(help="all: every number of the adapter is trained. norms: few of them, which noise spares.")
    ] = Scope.all,
    steps: Annotated[
        int, typer.Option(min=1, max=10_000, help="Optimiser steps of a label in a round; without noise only.")
    ] = 8,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Windows a step; without noise only.")] = 8,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1.0,
            help="Of the labels' steps; 0.003 without noise, 0.01 with, 0.1 in local mode where not given.",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            min=1e-3,
            max=1e6,
            help="Largest L2 norm of an update: a label's, 3 where not given; with noise a recording's, 0.3.",
            show_default=False,
        ),
    ] = None,
    server_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=10.0,
            help="Of the step that the average takes; 1 where not given, 0.02 (Adam's) with distributed noise.",
            show_default=False,
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="Of that step; 0 where not given, 0.9 with distributed noise.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Base model; the shipped one where not given.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="For a run that can be repeated; drawn where not given.")
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="process: all labels in this process. ray: Flower's engine, here or on RAY_ADDRESS's cluster."
        ),
    ] = Engine.process,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Labels that work at a time on this machine.")] = 2,
    gpus: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="On Ray: the part of a GPU that each of them takes; 0 keeps off.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Run the rounds of a whole federation on this machine: every party, with keys of its own.

    Exit code 2 and the reason where a round could not be finished: the state is kept, and the same command goes on.
    """
    one_thread()
    import datetime
    import json

    from rich.console import Console

    from partbook.errors import PartbookError
    from partbook.model.checkpoint import BASE
    from partbook.plan.training import PlainTraining
    from partbook.simulation.noise import Asked, server_step
    from partbook.simulation.results import doing
    from partbook.simulation.trial import Trial, TrialOptions
    from partbook.simulation.trial_table import stated, trial_json, trial_table
    from partbook.simulation.watching import RichWatcher

    console = Console(stderr=as_json)
    home = out or Path("runs") / datetime.datetime.now().astimezone().strftime("trial-%Y-%m-%d-%H%M%S")
    asked = Asked(
        noise.value,
        epsilon,
        delta,
        sampling,
        clip=clip or 0.3,
        windows=windows,
        steps=local_steps,
        learning_rate=learning_rate or (0.1 if noise is NoiseKind.local else 0.01),
    )
    options = TrialOptions(
        tuple(vaults),
        home,
        rounds=rounds,
        mode=locks.value,
        drops=tuple(drop or ()),
        threshold=threshold,
        asked=asked,
        training=PlainTraining(steps=steps, batch=batch, learning_rate=learning_rate or 3e-3, clip=clip or 3.0),
        scope=scope.value,
        step=server_step(asked, learning_rate=server_rate, momentum=momentum),
        base=base or BASE,
        seed=seed,
        engine=engine.value,
        workers=workers,
        gpus=gpus,
    )
    running = Trial(options)
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
        spent = {name: budget.total.committed for name, budget in running.accounts().items()}
        found = trial_json(result, spent)
        typer.echo(json.dumps({**found, "error": reason}, indent=1, ensure_ascii=False))
    else:
        console.print(trial_table(result))
        console.print(
            f"[bold]Privacy[/bold]\n  {stated(result.cost, result.recordings, result.colluders)}", highlight=False
        )
        if result.adapter is not None:
            console.print(f"[bold]Adapter[/bold]\n  {result.adapter}", soft_wrap=True)
    if stopped is not None:
        console.print(f"What was done is kept in {home}; with --out {home} the same command goes on.", soft_wrap=True)
        raise stopped
