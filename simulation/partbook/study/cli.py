"""`partbook evaluate`: is it music, and whose?"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from partbook.threads import one_thread

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    what: Annotated[
        list[str],
        typer.Argument(
            help="base, a release's or baseline's folder, or a folder of MIDI or audio; also human, shuffled, random."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for evaluation.html, evaluation.json and the pieces shown.")],
    reference: Annotated[
        Path | None, typer.Option(help="Folder of human works to hold it against, instead of the public held-out ones.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of further public works whose held-out ones count too.")
    ] = None,
    pieces: Annotated[int, typer.Option(min=10, max=1000, help="Pieces that a model writes.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=20_000, help="Of everything that is drawn.")] = 1,
    scale: Annotated[
        bool, typer.Option(help="Add human works, shuffled bars and random notes as a scale; not beside a --reference.")
    ] = True,
    heard: Annotated[bool, typer.Option(help="Nats on held-out works as recordings too (made once, minutes).")] = False,
    sound: Annotated[bool, typer.Option(help="Fréchet audio distance and inception-style score.")] = True,
    originality: Annotated[bool, typer.Option(help="Look for passages of the base's training works.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evaluation as JSON.")] = False,
) -> None:
    """Measure pieces, and hold them against human works: measures, two-sample tests, likelihood, sound, copies."""
    one_thread()
    from rich.console import Console

    from partbook.errors import ConfigError
    from partbook.evaluation.page import write_page
    from partbook.evaluation.table import print_table
    from partbook.simulation.watching import RichWatcher
    from partbook.study.study import Options, Study
    from partbook.study.subjects import SCALE

    if (out / "evaluation.json").exists():
        raise ConfigError(f"{out} holds an evaluation already; choose another folder.")
    names = list(dict.fromkeys([*what, *(SCALE if scale and reference is None else ())]))
    options = Options(
        names=tuple(names),
        out=out,
        reference=reference,
        data=tuple(data or ()),
        pieces=pieces,
        seed=seed,
        heard=heard,
        sound=sound,
        originality=originality,
        command=shlex.join(["partbook", *sys.argv[1:]]),
    )
    with RichWatcher(Console(stderr=True)) as watcher:
        evaluation = Study(options, watcher).run()
        watcher.stage("Making the page", sum(len(subject.gallery) for subject in evaluation.subjects))
        page = write_page(evaluation, out, watcher.step)
    if as_json:
        typer.echo(evaluation.to_json(), nl=False)
        return
    print_table(evaluation, Console())
    typer.echo(f"{page}")
