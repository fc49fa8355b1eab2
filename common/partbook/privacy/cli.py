"""`partbook privacy …`: what a federation's noise costs, before anybody trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from partbook.privacy.planning import Choice, PrivacyPlan, Wish

app = typer.Typer(
    help="Plan what a federation's noise costs, before anybody trains.", no_args_is_help=True, add_completion=False
)


@app.callback()
def _privacy() -> None:
    """Plan what a federation's noise costs, before anybody trains."""


@app.command()
def plan(
    epsilon: Annotated[float, typer.Option(help="ε that no recording may exceed after all rounds.")],
    recordings: Annotated[int, typer.Option(help="Recordings of all labels together.")],
    rounds: Annotated[int, typer.Option(help="Rounds of training.")],
    delta: Annotated[
        float | None,
        typer.Option(help="δ; where not given, a power of ten below a tenth of 1/recordings.", show_default=False),
    ] = None,
    batch: Annotated[
        float | None,
        typer.Option(help="Recordings expected in a noisy sum; 64 where not given.", show_default=False),
    ] = None,
    sampling: Annotated[
        float | None, typer.Option(help="The same as a probability q, instead of --batch.", show_default=False)
    ] = None,
    labels: Annotated[int, typer.Option(help="Members of the federation.")] = 4,
    threshold: Annotated[
        int | None,
        typer.Option(help="Fewest members whose sum may be opened; ⌊2n/3⌋ + 1 where not given.", show_default=False),
    ] = None,
    colluders: Annotated[
        int | None,
        typer.Option(help="Members who may subtract their noise; ⌈n/3⌉ − 1 where not given.", show_default=False),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="distributed: members' noise adds up; local: each member's own suffices.")
    ] = "distributed",
    steps: Annotated[int, typer.Option(help="Noisy steps of a member in a round; local mode only.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print the [training] section for the coordinator's file, too.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="PNG to write: ε over the rounds.", show_default=False, metavar="FILE.png")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Ask other accountants as well.")] = False,
) -> None:
    """Say how much noise keeps every recording within ε, and what that noise drowns.

    The unit is one recording, added or removed. δ, ε and the number of rounds are promises: more rounds than
    planned cost more, and a label's own ledger refuses them.
    """
    from partbook.privacy.accounting import cross_check
    from partbook.privacy.events import Repeated
    from partbook.privacy.planning import choices, planned

    wish = _wish(epsilon, recordings, rounds, delta, batch, sampling, labels, threshold, colluders, mode, steps)
    found = planned(wish)
    others = choices(wish)
    checks: dict[str, float] = {}
    if check:
        every = [Repeated(each.event, each.times * rounds) for each in found.one_round("colluders")]
        checks = cross_check(every, wish.delta)
    if plot is not None:
        from partbook.privacy.picture import draw_cost

        draw_cost(found, plot)
    if as_json:
        typer.echo(json.dumps(_as_json(found, others, checks, as_toml), ensure_ascii=False))
        return
    _describe(found, others, checks)
    if plot is not None:
        typer.echo(f"\nDrew {plot}.")
    if as_toml:
        typer.echo(f"\n{found.toml()}", nl=False)


def _wish(
    epsilon: float,
    recordings: int,
    rounds: int,
    delta: float | None,
    batch: float | None,
    sampling: float | None,
    labels: int,
    threshold: int | None,
    colluders: int | None,
    mode: str,
    steps: int,
) -> Wish:
    from partbook.plan.rounds import default_threshold
    from partbook.privacy.planning import Wish, default_colluders, default_delta

    if mode not in ("distributed", "local"):
        raise ConfigError(f"--mode is {mode!r}; it is either distributed or local.")
    if batch is not None and sampling is not None:
        raise ConfigError("--batch and --sampling say the same thing; give one of them.")
    if sampling is not None and not 0 < sampling <= 1:
        raise ConfigError(f"--sampling is {sampling} and must be above 0 and at most 1.")
    if labels < 1:
        raise ConfigError(f"--labels is {labels} and must be at least 3.")
    pool = recordings / labels if mode == "local" else float(recordings)
    size = sampling * pool if sampling is not None else batch if batch is not None else min(64.0, pool)
    least = default_threshold(labels) if threshold is None else threshold
    return Wish(
        epsilon=epsilon,
        delta=default_delta(recordings) if delta is None else delta,
        recordings=recordings,
        rounds=rounds,
        batch=size,
        labels=labels,
        threshold=least,
        colluders=default_colluders(labels, least) if colluders is None else colluders,
        kind="local" if mode == "local" else "distributed",
        steps=steps,
    )


def _describe(plan: PrivacyPlan, others: tuple[Choice, ...], checks: dict[str, float]) -> None:
    from rich.console import Console

    from partbook.privacy.planning import milestones

    wish, console = plan.wish, Console(highlight=False)
    honest = wish.threshold - wish.colluders
    one_each = f"one sum of {wish.labels} labels a round"
    if wish.kind == "local":
        one_each = f"{wish.steps} of each of {wish.labels} labels a round, {wish.pool:g} recordings a label"
    rows = [
        ("noise multiplier σ", f"{plan.noise_multiplier:g}"),
        ("sampling probability q", f"{wish.sampling:.6g}"),
        ("expected batch", f"{wish.batch:g} of {wish.pool:g} recordings"),
        ("noisy sums", one_each),
        ("δ", f"{wish.delta:g}, below 1/{wish.recordings}"),
    ]
    if wish.kind == "local":
        rows.append(("ε against everybody", f"{plan.spent('colluders'):.4f}"))
    else:
        rows.append(
            (f"ε against {wish.colluders} colluding", f"{plan.spent('colluders'):.4f}, {honest} honest make the noise")
        )
        rows.append(("ε against outsiders", f"{plan.spent('outsiders'):.4f}, noise of {wish.threshold} or more"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"{name:<{width}}  {value}", markup=False)
    console.print()
    console.print(_curve_table(plan, milestones(wish.rounds)))
    console.print(_choice_table(plan, others))
    if checks:
        console.print(_check_table(plan, checks))


def _curve_table(plan: PrivacyPlan, rounds: tuple[int, ...]) -> Table:
    table = _table("ε as rounds go by", "round")
    against = {"colluders": plan.curve("colluders", rounds)}
    if plan.wish.kind == "distributed":
        against["outsiders"] = plan.curve("outsiders", rounds)
    names = {"colluders": "against everybody"} if len(against) == 1 else {}
    for name in against:
        table.add_column(names.get(name, f"against {name}"), justify="right")
    for row, done in enumerate(rounds):
        table.add_row(str(done), *(f"{curve[row]:.3f}" for curve in against.values()))
    return table


def _choice_table(plan: PrivacyPlan, others: tuple[Choice, ...]) -> Table:
    table = _table("The same ε with other batches", "batch")
    for heading in ("q", "σ", "noise in the mean, σ/batch"):
        table.add_column(heading, justify="right")
    for each in others:
        row = (
            f"{each.batch:g}",
            f"{each.batch / plan.wish.pool:.4g}",
            f"{each.noise_multiplier:g}",
            f"{each.noise:.5f}",
        )
        table.add_row(*row, style="bold" if each.batch == plan.wish.batch else None)
    return table


def _check_table(plan: PrivacyPlan, checks: dict[str, float]) -> Table:
    table = _table("The same sums with continuous noise, by other accountants", "accountant")
    table.add_column("ε", justify="right")
    for name, value in {"ours": plan.spent("colluders"), **checks}.items():
        table.add_row(name, f"{value:.4f}")
    return table


def _table(title: str, first: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first, justify="right")
    return table


def _as_json(
    plan: PrivacyPlan, others: tuple[Choice, ...], checks: dict[str, float], as_toml: bool
) -> dict[str, object]:
    from dataclasses import asdict

    from partbook.privacy.planning import milestones

    wish, rounds = plan.wish, milestones(plan.wish.rounds)
    curves = zip(rounds, plan.curve("colluders", rounds), plan.curve("outsiders", rounds), strict=True)
    return {
        "wish": asdict(wish),
        "noise_multiplier": plan.noise_multiplier,
        "sampling": wish.sampling,
        "expected_batch": wish.batch,
        "epsilon": {"colluders": plan.spent("colluders"), "outsiders": plan.spent("outsiders")},
        "curve": [{"round": done, "colluders": near, "outsiders": far} for done, near, far in curves],
        "choices": [
            {"batch": each.batch, "noise_multiplier": each.noise_multiplier, "noise": each.noise} for each in others
        ],
        **({"check": checks} if checks else {}),
        **({"toml": plan.toml()} if as_toml else {}),
    }
