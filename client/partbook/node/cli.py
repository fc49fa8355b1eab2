"""`partbook node …`: what a label's engineer types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.node import adapting_cli, budget_cli, handing_cli, running_cli

if TYPE_CHECKING:
    from rich.console import Console

    from partbook.vault.ingest import IngestEvent, IngestReport
    from partbook.vault.store import VaultSummary

app = typer.Typer(
    help="A label's side: ingest recordings, take part in rounds, look after the vault and its privacy.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(running_cli.start)
app.command()(running_cli.running)
app.command()(running_cli.pause)
app.command()(running_cli.resume)
app.command()(running_cli.leave)
app.command()(handing_cli.hand_over)
app.command()(handing_cli.take_over)
app.command()(budget_cli.budget)
app.command()(budget_cli.policy)
app.command()(budget_cli.withdraw)
app.command()(adapting_cli.adapt)

_Vault = Annotated[Path, typer.Option("--vault", help="Folder of the vault.", show_default=False)]
_Key = Annotated[Path | None, typer.Option("--key", help="Key file of mode 0600; inside the vault where not given.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of recordings, or single files.")],
    vault: _Vault,
    key: _Key = None,
    program: Annotated[
        str,
        typer.Option(help="General MIDI program of these recordings: 0 to 127, or a name such as 'violin'."),
    ] = "0",
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokeniser file; the base model's where not given.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file was refused.")] = False,
    as_json: _Json = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes to use; one a processor where not given.")
    ] = None,
) -> None:
    """Read recordings into the vault, which is made at first use. Nothing leaves this machine.

    Every file that cannot be used is named with its reason, and the others go in. Audio that is inside
    already is recognised, also under another name or in another lossless format. Exit code 0, or 1 with
    --strict.
    """
    from rich.console import Console

    from partbook.vault.ingest import ingest as run
    from partbook.vault.store import Vault

    number = program_number(program)
    chosen = tokenizer if tokenizer is not None else _base_tokenizer()
    console = Console(stderr=as_json)
    exists = (vault / "index.sqlite").exists()
    with Vault.open(vault, key, writable=True) if exists else Vault.create(vault, key) as opened:
        if not exists:
            console.print(f"Made a vault in {vault}; its key is {key or vault / 'vault.key'}. Keep a copy of it.")
        try:
            with _Progress(console) as progress:
                report = run(sources, opened, chosen, program=number, workers=workers, on_event=progress.advance)
        except KeyboardInterrupt:
            console.print(f"Interrupted. The vault holds {len(opened)} recordings; run the same command to go on.")
            raise typer.Exit(130) from None
        summary = opened.summary()
    if as_json:
        typer.echo(json.dumps(_report_json(report, summary), indent=2, ensure_ascii=False))
    else:
        _print_report(console, report, summary)
    if strict and report.refused:
        raise typer.Exit(1)


@app.command()
def status(vault: _Vault, key: _Key = None, as_json: _Json = False) -> None:
    """Say what the vault holds, and check that its key opens it."""
    from rich.console import Console

    from partbook.vault.store import Vault

    with Vault.open(vault, key) as opened:
        summary, tokenizer = opened.summary(), opened.tokenizer_sha256
    if as_json:
        typer.echo(json.dumps({**_summary_json(summary), "tokenizer_sha256": tokenizer}, indent=2))
        return
    console = Console()
    console.print(_holds(summary))
    console.print(f"Tokeniser: {tokenizer or 'not chosen yet'}", highlight=False)


def program_number(text: str) -> int:
    """The General MIDI program that a number or a name means; part of a name will do if it fits one only.

    Raises:
        InputError: it fits none, or several.
    """
    from partbook.errors import InputError

    if text.strip().lstrip("+-").isdigit():
        number = int(text)
        if not 0 <= number <= 127:
            raise InputError(f"Program {number} is not between 0 and 127 (General MIDI).")
        return number
    from pretty_midi.constants import INSTRUMENT_MAP

    wanted = text.strip().casefold()
    names = [name.casefold() for name in INSTRUMENT_MAP]
    fitting = [wanted] if wanted in names else [name for name in names if wanted and wanted in name]
    if len(fitting) == 1:
        return names.index(fitting[0])
    meant = f"it may mean {', '.join(fitting[:6])}" if fitting else "no General MIDI instrument is called that"
    raise InputError(f"--program {text!r}: {meant}; give its number (0 to 127) or its whole name.")


def _base_tokenizer() -> Path:
    from partbook.model.checkpoint import BASE

    return Path(BASE) / "tokenizer.json"


class _Progress:
    """A bar over files, in a terminal; elsewhere nothing."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("Reading recordings", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, event: IngestEvent) -> None:
        self._bar.update(self._task, completed=event.done, total=event.total)


def _print_report(console: Console, report: IngestReport, summary: VaultSummary) -> None:
    from rich.table import Table
    from rich.text import Text

    if report.refused:
        table = Table(title="Refused", title_justify="left", show_lines=True)
        for heading in ("File", "Error", "Reason"):
            table.add_column(heading, overflow="fold")
        for refusal in report.refused:
            reason = refusal.reason.removeprefix(f"{refusal.path} ").removeprefix(f"{refusal.path}: ")
            table.add_row(Text(str(refusal.path)), refusal.error, Text(reason))
        console.print(table)
    if not (report.added or report.known or report.refused):
        console.print("No audio files were found there.")
    pace = f", {report.audio_seconds / report.seconds:.0f}x real time" if report.added else ""
    other = f", {len(report.passed_over)} other files passed over" if report.passed_over else ""
    console.print(
        f"{len(report.added)} added, {len(report.known)} already known, {len(report.refused)} refused{other} "
        f"in {report.seconds:.1f} s{pace}."
    )
    console.print(_holds(summary))


def _holds(summary: VaultSummary) -> str:
    return (
        f"The vault holds {summary.recordings} recordings, {summary.seconds / 60:.1f} minutes, "
        f"{summary.tokens:,} tokens, {summary.bytes / 1e6:.1f} MB."
    )


def _summary_json(summary: VaultSummary) -> dict[str, float]:
    return {
        "recordings": summary.recordings,
        "seconds": round(summary.seconds, 3),
        "tokens": summary.tokens,
        "bytes": summary.bytes,
    }


def _report_json(report: IngestReport, summary: VaultSummary) -> dict[str, object]:
    return {
        "added": [{"path": str(path), "id": identifier} for path, identifier in report.added],
        "known": [str(path) for path in report.known],
        "refused": [{"path": str(r.path), "error": r.error, "reason": r.reason} for r in report.refused],
        "passed_over": [str(path) for path in report.passed_over],
        "audio_seconds": round(report.audio_seconds, 3),
        "seconds": round(report.seconds, 3),
        "vault": _summary_json(summary),
    }
