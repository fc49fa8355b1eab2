"""`partbook audit`: attack a federation, and hold what is found against its claim."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.simulation.audit.results import AuditResult
    from partbook.simulation.watching import RichWatcher

ATTACKS: Final = {
    "one-run": "Which recordings were in the sums",
    "membership": "Whom the released model learnt from",
    "inversion": "Which notes were in an update",
    "copying": "What the released model recites",
}
"""Modules of this package, but for the hyphen, and what a person calls them."""

app = typer.Typer(add_completion=False, help="Attack a federation, and hold what is found against its claim.")


@app.command()
def audit(
    out: Annotated[Path | None, typer.Option(help="Results; runs/audit-<date> where not given.")] = None,
    runs: Annotated[
        int, typer.Option(min=1, max=1000, help="Runs of the attack on the sums, with noise and as many without.")
    ] = 20,
    epsilon: Annotated[float, typer.Option(min=0.01, help="What the attacked federation claims, at δ = 1e-5.")] = 1.0,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A finished run of the demo, whose release is asked for members and copies.",
            show_default=False,
        ),
    ] = None,
    home: Annotated[Path, typer.Option(help="Where that demo kept its recordings and vaults.")] = Path(".cache/demo"),
    base: Annotated[
        Path | None,
        typer.Option(help="Base model of audited federations; the shipped one where not given.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option(help="These attacks alone, with commas between.")] = ",".join(ATTACKS),
    quick: Annotated[bool, typer.Option("--quick", help="Small federations, and three runs at most.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of canaries and coins; noise is always the system's.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print audit.json, and nothing else.")] = False,
) -> None:
    """Play the strongest adversaries against a federation, with its noise and without, and report.

    Exit code 0 where everything found is within the claim, 1 where an attack went beyond it, 2 where something is
    wrong with the question.
    """
    one_thread()
    import datetime
    import time

    from rich.console import Console

    from partbook.errors import ConfigError
    from partbook.model.checkpoint import BASE
    from partbook.simulation.audit.report import FIGURES, write_audit
    from partbook.simulation.watching import RichWatcher

    chosen = [name.strip() for name in only.split(",")]
    for name in chosen:
        if name not in ATTACKS:
            raise ConfigError(f"--only {name}: there is no such attack; there are {', '.join(ATTACKS)}.")
    runs = min(runs, 3) if quick else runs
    console = Console(stderr=as_json)
    target = out or Path("runs") / datetime.datetime.now().astimezone().strftime("audit-%Y-%m-%d-%H%M%S")
    target.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = {"epsilon": epsilon, "runs": runs, "seed": seed, "only": ",".join(chosen)}
    if quick:
        asked["quick"] = True
    asked.update({name: str(path) for name, path in (("run", run), ("base", base)) if path is not None})
    results: dict[str, AuditResult] = {}
    seconds: dict[str, float] = {}
    with RichWatcher(console) as watcher:
        for name in ATTACKS:
            if name in chosen:
                began = time.monotonic()
                results[name] = _attack(name, target, watcher, quick, seed, epsilon, runs, run, home, base or BASE)
                seconds[name] = time.monotonic() - began
    report = write_audit(target, results, asked, seconds)
    if as_json:
        typer.echo((target / FIGURES).read_text(), nl=False)
    else:
        for result in results.values():
            colour, word = ("green", "within the claim") if result.within else ("red", "beyond the claim")
            console.print(f"\n[bold]{result.title}[/bold] [{colour}]{word}[/{colour}]\n{result.finding}")
        console.print(f"\n[bold]Look[/bold]\n  {report}", soft_wrap=True)
    if not all(result.within for result in results.values()):
        raise typer.Exit(1)


def _attack(
    name: str,
    out: Path,
    watcher: RichWatcher,
    quick: bool,
    seed: int,
    epsilon: float,
    runs: int,
    finished: Path | None,
    home: Path,
    base: Path,
) -> AuditResult:
    from partbook.simulation.audit import membership, one_run

    if name == "one-run":
        watcher.stage(ATTACKS[name], 2 * runs)
        return one_run.run(out, quick=quick, seed=seed, on_progress=watcher.step, epsilon=epsilon, runs=runs, base=base)
    watcher.stage(ATTACKS[name], 1)
    if name == "membership":
        result = membership.run(
            out,
            quick=quick,
            seed=seed,
            on_progress=watcher.now,
            epsilon=epsilon,
            finished=finished,
            home=home,
            base=base,
        )
    elif name == "inversion":
        from partbook.simulation.audit import inversion

        result = inversion.run(out, quick=quick, seed=seed, on_progress=watcher.now, base=base)
    else:
        from partbook.simulation.audit import copying

        result = copying.run(out, quick=quick, seed=seed, on_progress=watcher.now, demo=finished, home=home)
    watcher.step("done")
    return result
