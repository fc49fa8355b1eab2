"""`partbook corpus`: which public works there are, who may use them for what, and a pool as MIDI or as heard.

`partbook corpus hear` makes what a base model learns a node's hand from, such as

    partbook corpus hear --data ../shared/data --takes 1 --works 150 --out cache/heard
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from partbook.threads import one_thread

if TYPE_CHECKING:
    from symusic.core import ScoreTick

    from partbook.corpus.heard import Hearing
    from partbook.corpus.library import Library, PublicWork

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
    """Collections and pools: how many works, tune families, notes and hours, and whose they are.

    The first time, works are parsed, which takes minutes; what comes of it is kept.
    """
    one_thread()
    from rich.console import Console
    from rich.markup import escape
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
        about = {
            "pools": rows,
            "rights": {name: library.rights(name) for name in names},
            "left_out": {name: dict(reasons) for name, reasons in library.left_out.items()},
            "shared_families": _shared(library),
        }
        print(json.dumps(about, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for head in _HEADS:
        table.add_column(head, justify="left" if head in _HEADS[:2] else "right", overflow="fold")
    for row in rows:
        if row["works"]:
            table.add_row(row["collection"], row["pool"], *[f"{row[head]:,}" for head in _HEADS[2:]])
    console = Console()
    console.print(table)
    rights = Table(box=None, pad_edge=False)
    rights.add_column("collection", overflow="fold")
    rights.add_column("rights", overflow="fold")
    for name in names:
        rights.add_row(name, escape(library.rights(name)))
    console.print()
    console.print(rights)
    console.print()
    for name, reasons in library.left_out.items():
        if reasons:
            said = "; ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
            console.print(f"{escape(name)}: {sum(reasons.values()):,} files left out ({said}).", highlight=False)
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


@app.command()
def hear(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to; made if missing.", show_default=False)],
    takes: Annotated[int, typer.Option(min=1, help="Takes of each work; each is played in its own way.")] = 1,
    collection: Annotated[
        list[str] | None, typer.Option(help="This collection alone; may be repeated.", show_default=False)
    ] = None,
    pool: Annotated[PoolName, typer.Option(help="Which of the pools.")] = PoolName.base,
    most_works: Annotated[
        int | None, typer.Option("--works", min=1, help="At most so many works of each collection, by their hashes.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=15, max=600, help="How much of a work a take is.")] = 45.0,
    soundfont: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A SoundFont; of several, each take has one.  [default: $PARTBOOK_SOUNDFONT, or pretty_midi's]",
            show_default=False,
        ),
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed-soundfonts", help="Also those of /usr/share/sounds/sf2 and the like.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time; one a processor where not given.")
    ] = None,
    data: _Data = None,
    cache: _Cache = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for a script.")] = False,
) -> None:
    """Have a node's ears hear works: played in many ways, transcribed, and kept a file each.

    A take needs about 4 s of a core. Broken off, the same command goes on; what is there is not heard again.
    """
    one_thread()
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from partbook.corpus.heard import Hearing
    from partbook.corpus.heard import hear as hear_all
    from partbook.corpus.library import Library
    from partbook.corpus.rendition import installed_soundfonts
    from partbook.music.rendering import soundfonts
    from partbook.simulation.watching import RichWatcher

    # Those that are installed join; in one order whatever they are called by, and each once.
    fonts = tuple(dict.fromkeys([*(soundfont or soundfonts()), *(installed_soundfonts() if installed else ())]))
    with RichWatcher(Console(stderr=True)) as watch:
        library = Library.open(data or (), cache, watch)
        works = [
            work
            for name in collection or library.collections
            for work in _some(library.pool(name, pool.value), most_works)
        ]
        hearings = [Hearing(work, take, seconds, fonts) for work in works for take in range(takes)]
        watch.stage("Hearing works", len(hearings))
        paths = hear_all(hearings, out, on_work=watch.step, workers=workers, scores=library.parsed)
    rows = _summed(hearings, paths)
    if as_json:
        print(json.dumps({"out": str(out), "pool": pool.value, "collections": rows}, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for head in _HEARD_HEADS:
        table.add_column(head, justify="left" if head == "collection" else "right", overflow="fold")
    for row in rows:
        table.add_row(row["collection"], *[f"{row[head]:,}" for head in _HEARD_HEADS[1:]])
    console = Console()
    console.print(table)
    console.print(f"Written to {escape(str(out))}.", soft_wrap=True)


_HEARD_HEADS: Final = ("collection", "works", "takes", "refused", "notes", "hours")


def _some(works: Sequence[PublicWork], most: int | None) -> Sequence[PublicWork]:
    """At most so many works, the same ones every time."""
    if most is None or len(works) <= most:
        return works
    chosen = set(sorted((work.key for work in works), key=lambda key: hashlib.sha256(key.encode()).digest())[:most])
    return [work for work in works if work.key in chosen]


def _summed(hearings: Sequence[Hearing], paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What was heard, by collection."""
    from partbook.corpus.heard import Heard, kept

    rows: dict[str, dict[str, Any]] = {}
    works: dict[str, set[str]] = {}
    for hearing, path in zip(hearings, paths, strict=True):
        name = hearing.work.collection
        row = rows.setdefault(name, {"collection": name, "works": 0, "takes": 0, "refused": 0, "notes": 0, "hours": 0})
        found = kept(path)
        if isinstance(found, Heard):
            works.setdefault(name, set()).add(found.key)
            row["works"] = len(works[name])
            row["takes"] += 1
            row["notes"] += len(found.notes)
            row["hours"] += found.seconds / 3600
        else:
            row["refused"] += 1
    return [row | {"hours": round(row["hours"], 2)} for row in rows.values()]


def _seconds(score: ScoreTick) -> float:
    from partbook.music.tokens import in_seconds

    return float(in_seconds(score).end())


def _shared(library: Library) -> list[str]:
    """Families in two kinds of pool, whichever the collections; there must be none."""
    from partbook.corpus.library import POOLS
    from partbook.corpus.table import leaks

    names = library.collections
    return sorted(leaks({p: [work.family for name in names for work in library.pool(name, p)] for p in POOLS}))
