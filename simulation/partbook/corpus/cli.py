"""`partbook corpus`: which public works there are, who may use them for what, and a pool as a folder of MIDI files."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from partbook.threads import one_thread

if TYPE_CHECKING:
    from symusic.core import ScoreTick

    from partbook.corpus.library import Library

app = typer.Typer(help="Public works and their pools.", no_args_is_help=True, pretty_exceptions_enable=False)


class PoolName(enum.StrEnum):
    """`partbook.simulation.collections.Pool`, for the command line."""

    base = "base"
    label = "label"
    heldout = "heldout"


_Data = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER", help="A folder of MIDI files, or of such folders; may be repeated.", show_default=False
    ),
]
_Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where tune families and parsed scores are kept.  [default: ~/.cache/partbook/corpus]",
        show_default=False,
    ),
]
_HEADS: Final = ("collection", "pool", "works", "families", "notes", "hours")


@app.command()
def show(
    collection: Annotated[
        list[str] | None, typer.Option(help="This collection alone; may be repeated.", show_default=False)
    ] = None,
    data: _Data = None,
    cache: _Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for a script.")] = False,
) -> None:
    """Collections and pools: how many works, tune families, notes and hours.

    The first time, works are parsed, which takes minutes; what comes of it is kept.
    """
    one_thread()
    from rich.console import Console
    from rich.table import Table

    from partbook.corpus.library import POOLS, Library
    from partbook.simulation.watching import RichWatcher

    rows: list[dict[str, Any]] = []
    with RichWatcher(Console(stderr=True)) as watch:
        library = Library.open(data or (), cache, watch)
        names = tuple(collection or library.collections)
        works = [work for name in names for pool in POOLS for work in library.pool(name, pool)]
        watch.stage("Parsing works", len(works))
        scores = iter(library.each_score(works, watch.step))
    for name in names:
        for pool in POOLS:
            own = library.pool(name, pool)
            read = [score for _, score in zip(own, scores, strict=False) if score is not None]
            row: dict[str, Any] = {
                "collection": name,
                "pool": pool,
                "works": len(own),
                "families": len({work.family for work in own}),
                "notes": sum(len(track.notes) for score in read for track in score.tracks),
                "hours": round(sum(_seconds(score) for score in read) / 3600, 2),
                "unreadable": len(own) - len(read),
            }
            rows.append(row)
    if as_json:
        print(json.dumps({"pools": rows, "shared_families": _shared(library)}, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for head in _HEADS:
        table.add_column(head, justify="left" if head in _HEADS[:2] else "right", overflow="fold")
    for row in rows:
        if row["works"]:
            table.add_row(row["collection"], row["pool"], *[f"{row[head]:,}" for head in _HEADS[2:]])
    console = Console()
    console.print(table)
    if unreadable := sum(row["unreadable"] for row in rows):
        console.print(f"{unreadable} works cannot be read, or are in a metre that the tokeniser lacks.")
    shared = _shared(library)
    console.print("No tune is in two pools." if not shared else f"In two pools: {', '.join(shared)}.")


@app.command()
def export(
    collection: Annotated[str, typer.Option(help="Which collection, such as bach.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to; made if missing.", show_default=False)],
    pool: Annotated[PoolName, typer.Option(help="Which of its pools.")] = PoolName.heldout,
    data: _Data = None,
    cache: _Cache = None,
) -> None:
    """Write a pool's works as MIDI files, such as a folder to measure generated pieces against."""
    one_thread()
    from rich.console import Console

    from partbook.corpus.library import Library
    from partbook.corpus.parsed import write_whole
    from partbook.simulation.watching import RichWatcher

    with RichWatcher(Console(stderr=True)) as watch:
        library = Library.open(data or (), cache, watch)
        works = library.pool(collection, pool.value)
        watch.stage("Parsing works", len(works))
        scores = library.each_score(works, watch.step)
    written = 0
    for number, (work, score) in enumerate(zip(works, scores, strict=True), start=1):
        if score is not None:
            title = "".join(c if c.isalnum() or c in " '-." else " " for c in work.title)
            write_whole(out / f"{number:04d} {' '.join(title.split())[:60]}.mid", score.dumps_midi())
            written += 1
    Console().print(f"{written} of {len(works)} works of {collection}, {pool}: {out}", soft_wrap=True)


def _seconds(score: ScoreTick) -> float:
    from partbook.music.tokens import in_seconds

    return float(in_seconds(score).end())


def _shared(library: Library) -> list[str]:
    """Families in two kinds of pool, whichever the collections; there must be none."""
    from partbook.corpus.library import POOLS
    from partbook.corpus.table import leaks

    names = library.collections
    return sorted(leaks({p: [work.family for name in names for work in library.pool(name, p)] for p in POOLS}))
