"""`partbook baseline`: train the models that the generator is held against, and score all of them alike."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.baselines.scoring import ModelScore

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Models that the generator is held against.")


class BaselineKind(enum.StrEnum):
    """`partbook.baselines.training.Kind`, for the command line."""

    kneser_ney = "kneser-ney"
    lstm = "lstm"
    vae = "vae"


_Data = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="Further public works: a folder of MIDI, or of such folders; repeatable."),
]
_Collections = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only this collection; may be repeated. All where not given.")
]


@app.callback()
def _baseline() -> None:
    """Models that the generator is held against."""


@app.command()
def train(
    kind: Annotated[BaselineKind, typer.Argument(help="Which model.")],
    out: Annotated[Path, typer.Option(help="Folder to make; the same command goes on with what it holds.")],
    data: _Data = None,
    collections: _Collections = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to see in training; as many as the base's run.")
    ] = 60_000_000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens of an optimiser step; the base's.")] = 8192,
    takes: Annotated[int, typer.Option(min=0, help="Of each work that is heard; the base's. 0: scores alone.")] = 1,
    heard_works: Annotated[
        int, typer.Option("--heard-works", min=1, help="Works of a collection that are heard; the base's.")
    ] = 150,
    seed: Annotated[int, typer.Option(min=0, help="Of keys, windows and initialisation.")] = 1,
    most_tokens: Annotated[
        int, typer.Option(min=10_000, help="Tokens to count; scores in fewer than twelve keys if more.")
    ] = 25_000_000,
    cache: Annotated[
        Path | None, typer.Option(help="Where pieces and takes are kept.", show_default="~/.cache/partbook/corpus")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON, and nothing else.")] = False,
) -> None:
    """Train one baseline on what the base learns from: the base pools of music21's, or with --data of all there are.

    Kneser–Ney takes minutes, LSTM and VAE hours on one core. Interrupted, the same command goes on.
    """
    one_thread()
    from rich.console import Console

    from partbook.baselines.training import Order
    from partbook.baselines.training import train as train_baseline
    from partbook.heap import keep_freed_memory
    from partbook.simulation.watching import RichWatcher

    keep_freed_memory()
    console = Console(stderr=True)
    order = Order(
        kind.value, tuple(data or ()), tuple(collections or ()), tokens, batch, takes, heard_works, seed, most_tokens
    )
    with RichWatcher(console) as watcher:
        manifest = train_baseline(order, out, watcher, cache=cache)
    if as_json:
        typer.echo(json.dumps(manifest, indent=1, ensure_ascii=False))
        return
    console.print_json(data=manifest["about"])
    console.print(f"Written to {out}; `partbook baseline score {out}` says what it is worth.", soft_wrap=True)


@app.command()
def score(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="`base`, or a folder: of a baseline, a release or a base model."),
    ],
    data: _Data = None,
    collections: _Collections = None,
    heard: Annotated[bool, typer.Option("--heard", help="As the node's ears hear them played, not as scores.")] = False,
    most_works: Annotated[
        int | None,
        typer.Option("--works", min=1, help="At most so many works of each collection; all where not given."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where heard works are kept.", show_default="~/.cache/partbook/corpus")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Nats a note, nats a token and perplexity of models on held-out works, with 95 % intervals over works.

    Held-out works are those of the four collections, and with --data of every further one; no model learns from them.
    """
    one_thread()
    from rich.console import Console
    from rich.table import Table

    from partbook.baselines.loading import learnt_from, load_language_model
    from partbook.baselines.scoring import heard_works, heldout_works, score_model, score_table_rows, written_works
    from partbook.baselines.training import chosen_collections
    from partbook.corpus.library import Library
    from partbook.errors import ConfigError
    from partbook.simulation.watching import RichWatcher

    console = Console(stderr=True)
    loaded = [load_language_model(called) for called in models]
    library = Library.open(tuple(data or ()))
    names = chosen_collections(library, tuple(data or ()), tuple(collections or ()))
    chosen = {name: heldout_works(library, name, most_works) for name in names}
    for called in models:
        known = sorted(learnt_from(called) & {work.key for works in chosen.values() for work in works})
        if known:
            raise ConfigError(
                f"{called} has learnt from {len(known)} of these held-out works ({known[0]} is one): they were in a "
                "base pool when it was trained. Train it again, or name collections that it does not know."
            )
    with RichWatcher(console) as watcher:
        works = {}
        for name in names:
            watcher.stage(f"{'Hearing' if heard else 'Reading'} {name}", len(chosen[name]))
            if heard:
                works[name] = heard_works(chosen[name], cache, watcher.step)
            else:
                works[name] = written_works(library, chosen[name], loaded[0].tokenizer, watcher.step)
        works = {name: recordings for name, recordings in works.items() if recordings}
        scores: list[ModelScore] = []
        for model in loaded:
            watcher.stage(f"Scoring {model.name}", sum(map(len, works.values())))
            scores.append(score_model(model, works, watcher.step))
    if as_json:
        found = {"works": "heard" if heard else "scores", "models": [score.about() for score in scores]}
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    out = Console()
    for name in works:
        at = scores[0].collections[name]
        table = Table(
            title=f"{name}: {at.works} held-out works {'heard' if heard else 'as scores'}, {at.notes:,} notes"
        )
        table.add_column("Model")
        for column in ("Nats a note", "Nats a token", "Perplexity", "In repeated bars", "In other bars"):
            table.add_column(column, justify="right")
        for row in score_table_rows(scores, name):
            table.add_row(*row)
        out.print(table)
        share = f"{at.repeated_notes:.0%}"
        out.print(f"[dim]95 % intervals over works. {share} of the notes are in bars that repeat one of their window.")
