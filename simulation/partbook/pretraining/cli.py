"""`partbook base`: make the public base model, from public works to the files that ship.

    partbook base train --data ../shared/data --out common/partbook/model/base

Ended at any second (Ctrl-C, SIGTERM, a crash), the same command goes on.
"""

from __future__ import annotations

import enum
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.corpus.library import Library
    from partbook.pretraining.making import Order
    from partbook.pretraining.watching import Onlooker

base = typer.Typer(add_completion=False, no_args_is_help=True, help="The public base model and tokeniser.")


class Size(enum.StrEnum):
    """`partbook.model.config.SIZES`, for the command line."""

    small = "small"
    full = "full"


_Data = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="Further works: a folder of MIDI files, or of such folders; may be repeated."),
]
_Cache = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where works and takes are kept.  [default: ~/.cache/partbook/corpus]"),
]
_State = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="The training's; outside version control.  [default: ~/.cache/partbook/base/SIZE]"
    ),
]
_Heldout = Annotated[
    int, typer.Option(min=0, help="Held-out works of a collection that the finished base is measured by.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]


@base.callback()
def _base() -> None:
    """The public base model and tokeniser."""


@base.command()
def train(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the finished base goes.")] = Path("base"),
    data: _Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="This collection alone; may be repeated.", show_default=False)
    ] = None,
    size: Annotated[Size, typer.Option(help="small trains on two cores, full wants a card.")] = Size.small,
    tokens: Annotated[int, typer.Option(min=1, help="To train on, in all.")] = 60_000_000,
    takes: Annotated[int, typer.Option(min=0, help="Takes that are heard of each of these works; 0 for none.")] = 1,
    works: Annotated[int, typer.Option(min=1, help="Works of a collection that are heard, at most.")] = 150,
    soundfont: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A SoundFont for takes; repeatable.  [default: $PARTBOOK_SOUNDFONT, or pretty_midi's]",
        ),
    ] = None,
    vocabulary: Annotated[
        int, typer.Option(min=600, max=32_767, help="Tokens that the tokeniser learns, merges included.")
    ] = 2000,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A tokeniser, in place of learning one.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="BASE",
            help="Begin with weights and tokeniser of this base, such as the shipped one.",
        ),
    ] = None,
    state: _State = None,
    prolong: Annotated[
        bool, typer.Option("--prolong", help="Let the run that is there go on to other --tokens, or with other works.")
    ] = False,
    step_tokens: Annotated[int, typer.Option(min=64, help="Tokens a step.")] = 8192,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and windows.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="That the training computes with.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that hear works; one a processor where not given.")
    ] = None,
    board: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="TensorBoard's: curves, and sampled pieces as roll and sound.")
    ] = None,
    curve_every: Annotated[int, typer.Option(min=1, help="Steps from one point of a curve to the next.")] = 10,
    measure_every: Annotated[float, typer.Option(min=0.0, help="Minutes between looks at held-out works.")] = 30,
    heldout: _Heldout = 40,
    cache: _Cache = None,
    as_json: _Json = False,
) -> None:
    """Make the base: read and hear public works, learn a tokeniser, train for days, and export.

    60 M tokens of the small size take two days of a core beside other work. Run it under `nice -n 19`. Ended by Ctrl-C
    or SIGTERM it keeps its state, exits with 130 or 143, and goes on by the same command; `partbook base export` makes
    a base of what there is, meanwhile too.
    """
    one_thread()
    from rich.console import Console

    from partbook.corpus.library import Library, default_cache
    from partbook.heap import keep_freed_memory
    from partbook.music.rendering import soundfonts
    from partbook.pretraining.exporting import export as export_base
    from partbook.pretraining.making import Order, read
    from partbook.pretraining.making import train as train_base
    from partbook.simulation.watching import RichWatcher
    from partbook.threads import exactly

    kept = cache or default_cache()
    order = Order(
        state=state or _default_state(size.value, cache),
        cache=kept,
        data=tuple(data or ()),
        collections=tuple(collection or ()),
        size=size.value,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        start=start,
        tokens=tokens,
        step_tokens=step_tokens,
        takes=takes,
        heard_works=works,
        soundfonts=tuple(soundfont or (soundfonts() if takes else ())),
        heldout=heldout,
        seed=seed,
        prolong=prolong,
        workers=workers,
    )
    exactly(threads)
    keep_freed_memory()
    about: dict[str, Any] | None = None
    with RichWatcher(Console(stderr=True)) as watch:
        corpus = read(order, Library.open(order.data, cache, watch), watch)
        ending = train_base(
            order, corpus, watch, board=board, curve_every=curve_every, measure_every=measure_every * 60
        )
        if ending.signal is None:
            about = export_base(order.state, out, corpus.heldout, watch)
    found = {
        "state": str(order.state), "steps": ending.step, "tokens": ending.tokens, "signal": ending.signal,
        "out": None if about is None else str(out), "about": about,
    }  # fmt: skip
    _say(found, ending.message if about is None else f"Base model written to {out}.", as_json)
    raise typer.Exit(ending.exit_code)


@base.command()
def export(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the base goes; files of its names are replaced.")],
    state: _State = None,
    data: _Data = None,
    heldout: _Heldout = 40,
    cache: _Cache = None,
    as_json: _Json = False,
) -> None:
    """Write a training's averaged weights as a base, with manifest and model card. The training may go on meanwhile."""
    one_thread()
    from rich.console import Console

    from partbook.corpus.library import Library, default_cache
    from partbook.pretraining.account import Account
    from partbook.pretraining.exporting import export as export_base
    from partbook.pretraining.making import Order, read
    from partbook.simulation.watching import RichWatcher

    folder = state or _default_state(Size.small.value, cache)
    account = Account.load(folder)
    with RichWatcher(Console(stderr=True)) as watch:
        pieces = []
        if account is not None and heldout:
            folders = tuple(data or (path for path in map(Path, account.data) if path.is_dir()))
            order = Order(
                folder, cache or default_cache(), data=folders, takes=account.takes, heldout=heldout,
                collections=tuple(source.collection for source in account.sources),
            )  # fmt: skip
            library = Library.open(folders, cache, watch)
            pieces = read(_known(order, library, watch), library, watch, heldout_only=True).heldout
        about = export_base(folder, out, pieces, watch)
    _say({"out": str(out), "about": about}, f"Base model written to {out}.", as_json)


def _known(order: Order, library: Library, watch: Onlooker) -> Order:
    """The order without collections whose folders are not here."""
    here = tuple(name for name in order.collections if name in library.collections)
    for name in order.collections:
        if name not in here:
            watch.note(f"{name} is not here, and is not measured; name its folder (--data).")
    return replace(order, collections=here)


def _default_state(size: str, cache: Path | None) -> Path:
    from partbook.corpus.library import default_cache

    return (default_cache().parent if cache is None else cache) / "base" / size


def _say(found: dict[str, Any], message: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    if found["about"] is not None:
        console.print_json(data=found["about"])
    console.print(message, soft_wrap=True, highlight=False)
