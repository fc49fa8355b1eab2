"""`partbook listen …`: make a blind listening test out of two folders, and score what listeners send back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partbook.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from partbook.evaluation.listening.kit import Made, Wanted
    from partbook.evaluation.listening.scores import Playing
    from partbook.evaluation.listening.scoring import Scores

_HELP = "Make a blind listening test out of two folders, and score what listeners send back."
app = typer.Typer(help=_HELP, no_args_is_help=True, add_completion=False)


@app.callback()
def _listen() -> None:
    """Make a blind listening test out of two folders, and score what listeners send back."""


@app.command()
def make(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of MIDI or audio; for --kind human, the human one.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder to compare it with.")],
    out: Annotated[Path, typer.Option(help="Folder to make: send/ for listeners, key.json for you.")],
    kind: Annotated[str, typer.Option(help="ab: which of two; human: one clip, human or not.")] = "ab",
    trials: Annotated[int, typer.Option(help="Pairs, or single clips.")] = 20,
    seed: Annotated[int, typer.Option(help="Chooses files, sides and order.")] = 1,
    seconds: Annotated[float, typer.Option(help="Length of every clip.")] = 20.0,
    hear: Annotated[float, typer.Option(help="Seconds of a clip that must be heard before an answer.")] = 5.0,
    name: Annotated[str, typer.Option(help="Title of the page; listeners read it.")] = "Listening test",
    question: Annotated[
        str | None, typer.Option(help="The question; the kind's own where not given.", show_default=False)
    ] = None,
    instrument: Annotated[
        str, typer.Option(help="That plays scores: piano, a General MIDI program (0-127), or as-written.")
    ] = "piano",
    dynamics: Annotated[str, typer.Option(help="Of scores: as-written, or even: every note as loud.")] = "as-written",
    begin: Annotated[str, typer.Option(help="Where a clip begins: start of the piece, or anywhere.")] = "start",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")] = False,
) -> None:
    """Make a kit: one offline page for listeners, and the key.

    Every clip is as long and as loud as every other, and scores are played on one instrument, so that nothing but the
    music tells. Send what lies in send/ and keep key.json to yourself.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from partbook.evaluation.listening.kit import Wanted, steps
    from partbook.evaluation.listening.kit import make as make_kit

    if begin not in ("start", "anywhere"):
        raise ConfigError(f"--begin is {begin!r}; it is start or anywhere.")
    want = Wanted(
        kind=kind,  # type: ignore[arg-type]  # checked where it arrives
        trials=trials, seed=seed, seconds=seconds, hear=min(hear, seconds), name=name, question=question,
        playing=_playing(instrument, dynamics), begin=begin,  # type: ignore[arg-type]
    )  # fmt: skip
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with progress:
        task = progress.add_task("cutting clips", total=steps(want))
        made = make_kit(a, b, out, want, on_step=lambda stage: progress.update(task, advance=1, description=stage))
    if as_json:
        typer.echo(json.dumps(_made_as_json(made), ensure_ascii=False))
    else:
        _describe_made(made, want)


def _playing(instrument: str, dynamics: str) -> Playing:
    from partbook.evaluation.listening.scores import PIANO, Playing

    if dynamics not in ("as-written", "even"):
        raise ConfigError(f"--dynamics is {dynamics!r}; it is as-written or even.")
    even = dynamics == "even"
    if instrument == "as-written":
        return Playing(None, even)
    if instrument == "piano":
        return Playing(PIANO, even)
    if instrument.isdecimal() and int(instrument) <= 127:
        return Playing(int(instrument), even)
    raise ConfigError(f"--instrument is {instrument!r}; it is piano, as-written, or a number from 0 to 127.")


def _describe_made(made: Made, want: Wanted) -> None:
    from partbook.evaluation.listening.kit import KEY, PAGE, SEND
    from partbook.evaluation.listening.scoring import meaning

    console = _console()
    what = "pairs" if want.kind == "ab" else "clips"
    console.print(
        f"Kit {made.key.kit}: {want.trials} {what} of {want.seconds:g} s, page of {made.page_bytes / 1e6:.1f} MB."
    )
    for line in made.left_out:
        console.print(f"  left out: {line}", markup=False)
    _warn(console, made.warnings)
    console.print(f"\nSend      {made.folder / SEND}  ({PAGE} and README.txt)", markup=False)
    console.print(f"Keep      {made.folder / KEY}  (it says which is which; listeners must not see it)", markup=False)
    console.print(f"Then      partbook listen score {made.folder / KEY} answers-*.csv\n", markup=False)
    console.print(meaning(want.trials), markup=False)


def _made_as_json(made: Made) -> dict[str, Any]:
    from partbook.evaluation.listening.kit import KEY, PAGE, README, SEND

    return {
        "kit": made.key.kit,
        "page": str(made.folder / SEND / PAGE),
        "readme": str(made.folder / SEND / README),
        "key": str(made.folder / KEY),
        "page_bytes": made.page_bytes,
        "left_out": list(made.left_out),
        "warnings": list(made.warnings),
    }


@app.command()
def score(
    key: Annotated[Path, typer.Argument(metavar="KEY.json", help="The kit's key.")],
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS.csv...", help="What listeners sent.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Say what the answers prove: exact intervals and tests, agreement, and what to be wary of."""
    from partbook.evaluation.listening.answers import read_answers
    from partbook.evaluation.listening.scoring import as_json as in_json
    from partbook.evaluation.listening.scoring import scored
    from partbook.evaluation.listening.trials import read_key

    opened = read_key(key)
    scores = scored(opened, *read_answers(opened, answers))
    if as_json:
        typer.echo(json.dumps(in_json(scores), ensure_ascii=False))
    else:
        _describe(scores)


def _describe(scores: Scores) -> None:
    from rich import box
    from rich.table import Table

    from partbook.evaluation.listening.scoring import agreement_in_words, meaning, p_value, percent, verdict

    key, console = scores.key, _console()
    console.print(f"{key.name}: {key.question}", markup=False)
    console.print(f"A is {key.folders.get('A')}, B is {key.folders.get('B')}.\n", markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("listener")
    for heading in ("for A" if key.kind == "ab" else "right", "of", "share", "95 % interval", "p"):
        table.add_column(heading, justify="right")
    rows = [(result.listener, result.hits) for result in scores.listeners]
    if len(rows) != 1:
        rows.append(("together", scores.together))
    for place, (name, found) in enumerate(rows):
        share = percent(found.share) if found.of else "–"
        interval = f"{100 * found.low:.1f} – {100 * found.high:.1f} %" if found.of else "–"
        last = place == len(rows) - 1 and place > 0
        from rich.text import Text

        table.add_row(
            Text(name), str(found.hits), str(found.of), share, interval, p_value(found.p).removeprefix("p = "),
            style="bold" if last else None,
        )  # fmt: skip
    console.print(table)
    console.print(verdict(key, scores.together), markup=False)
    if len(scores.listeners) > 1:
        console.print(
            "Answers of several listeners to one trial are not independent, so the interval together is narrower than "
            "it should be.",
            markup=False,
        )
    if scores.majority is not None:
        console.print(f"By majority, trial by trial: {verdict(key, scores.majority)}", markup=False)
    if scores.taken_for_human is not None:
        human, other = scores.taken_for_human
        console.print(
            f"Called human: {human.hits} of {human.of} human clips, {other.hits} of {other.of} others.", markup=False
        )
    if scores.agreement is not None:
        console.print(agreement_in_words(scores.agreement), markup=False)
    console.print(f"\n{meaning(len(key.trials))}", markup=False)
    _warn(console, scores.warnings)


def _warn(console: Console, lines: tuple[str, ...]) -> None:
    from rich.text import Text

    for line in lines:
        console.print(Text.assemble(("Warning: ", "yellow"), line))


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)
