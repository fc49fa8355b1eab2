"""`partbook node adapt`: a label fits an adapter to its own recordings, for itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from partbook.node.adapting import Adapted
    from partbook.training.adaptation import Adaptation, Epoch

_WHY: Final = {
    "patience": "no later one was better",
    "epochs": "all epochs that were allowed",
    "diverged": "training came to something that is no number; a lower --rate goes further",
    "interrupted": "interrupted",
}


def adapt(
    vault: Annotated[Path, typer.Option("--vault", help="Folder of the vault.", show_default=False)],
    key: Annotated[Path | None, typer.Option("--key", help="Key file; inside the vault where not given.")] = None,
    base: Annotated[Path | None, typer.Option(help="Base model's folder; the shipped one where not given.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="ADAPTER",
            help="Begin from this: a run's adapter, a release's folder, or state/model.safetensors of sealed rounds.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the recordings, at most.")] = 80,
    patience: Annotated[int, typer.Option(min=1, help="End after so many epochs without a better one.")] = 10,
    share: Annotated[float, typer.Option(help="Share of the recordings held out, to tell the best epoch.")] = 0.2,
    rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    batch: Annotated[int, typer.Option(min=1, help="Windows in a step; fewer need less memory.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of what is held out, and of the order.")] = 0,
    style: Annotated[
        int | None, typer.Option(min=0, max=15, help="The label's style number, as in node.toml; none if left out.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="The policy, whose gpu_share holds; policy.toml in the vault, or the default, if left out."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Train nothing: write the adapter that is kept to a new file. Not private."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train an adapter on this vault's recordings alone, for this label alone. Nothing leaves this machine.

    The best epoch's adapter is kept in the vault, encrypted with its key, in place of an earlier one. Ctrl-C ends it
    early and keeps the best so far. Exit code 0; 1 if no epoch was better than where it began, and nothing was kept.
    """
    from rich.console import Console

    if export is not None:
        _export(vault, key, export, as_json=as_json)
        return
    from partbook.model.checkpoint import BASE
    from partbook.node.adapting import Source
    from partbook.node.adapting import adapt as run
    from partbook.node.policy import Policy
    from partbook.training.adaptation import Fitting

    fitting = Fitting(epochs, patience, share, rate, batch, seed)
    source = Source(vault, key, base or BASE, start, style)
    limits = Policy.in_force(vault, policy)
    with _Progress(Console(stderr=True), epochs) as progress:
        adapted = run(
            source,
            fitting,
            gpu_share=limits.gpu_share,
            on_begin=progress.begin,
            on_step=progress.step,
            on_epoch=progress.epoch,
        )
    if as_json:
        typer.echo(json.dumps(_as_json(adapted), indent=2))
    else:
        _print(adapted)
    if adapted.ended == "interrupted":
        raise typer.Exit(130)
    if adapted.kept is None:
        raise typer.Exit(1)


def _export(vault: Path, key: Path | None, path: Path, *, as_json: bool) -> None:
    from partbook.node.own_adapter import OwnAdapter

    note = OwnAdapter(vault, key).export(path)
    typer.secho(
        f"{path} is not private: it was trained on {len(note.recordings)} recordings without noise, and passages of "
        "them may be got out of it, and out of what it writes. The budget does not count it.",
        fg="yellow",
        err=True,
    )
    if as_json:
        typer.echo(json.dumps({"exported": str(path), "base": note.base, "epoch": note.epoch, "private": False}))
    else:
        typer.echo(
            f"Wrote {path}, of epoch {note.epoch}, for the base model {note.base[:12]}…; it becomes a generator with: "
            f"partbook release pack --adapter '{path}' …"
        )


class _Progress:
    """A bar over epochs, in a terminal; elsewhere nothing."""

    def __init__(self, console: Console, epochs: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._epochs = epochs
        self._task = self._bar.add_task("Loading the base model and the recordings", total=None)
        self._before = self._best = float("nan")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, adaptation: Adaptation) -> None:
        self._before = self._best = adaptation.start.held_out
        self._bar.update(self._task, total=self._epochs * adaptation.steps, description=self._said(0))

    def step(self) -> None:
        self._bar.advance(self._task)

    def epoch(self, epoch: Epoch) -> None:
        self._best = min(self._best, epoch.held_out)
        self._bar.update(self._task, description=self._said(epoch.number))

    def _said(self, done: int) -> str:
        return f"{done} of {self._epochs} epochs, held out {self._before:.3f} → {self._best:.3f} nats a token"


def _print(adapted: Adapted) -> None:
    typer.echo(
        f"{adapted.epochs} epochs on {adapted.trained} recordings, {adapted.held_out} held out ({_WHY[adapted.ended]})."
    )
    if adapted.kept is None:
        typer.echo(
            f"No epoch was better than where it began, {adapted.before:.3f} nats a token held out; nothing was kept. "
            "Try a lower --rate, or ingest more recordings."
        )
    else:
        typer.echo(
            f"Epoch {adapted.best} is the best: held out {adapted.before:.3f} → {adapted.after:.3f} nats a token."
        )
        typer.echo(f"It is kept, encrypted, in {adapted.kept}.")
    typer.echo("Nothing left this machine.")


def _as_json(adapted: Adapted) -> dict[str, object]:
    return {
        "epochs": adapted.epochs,
        "ended": adapted.ended,
        "best_epoch": adapted.best,
        "held_out_nats_before": adapted.before,
        "held_out_nats_after": adapted.after,
        "recordings": {"trained": adapted.trained, "held_out": adapted.held_out},
        "kept": None if adapted.kept is None else str(adapted.kept),
        "left_the_machine": [],
    }
