"""`partbook doctor PATH`: is this machine fit for its part, and what to do where it is not.

The role's own checks are imported by name once the path says which role it is, so that a node's machine needs nothing
of the coordinator's, and the other way round.
"""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from partbook.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from partbook.doctor import Check

ROLES: Final[dict[str, tuple[str, str]]] = {
    # role: (module with `examine(path)`, extra that provides it)
    "node": ("partbook.node.doctor", "node"),
    "custodian": ("partbook.custodian.doctor", "node"),
    "coordinator": ("partbook.coordinator.doctor", "coordinator"),
}
_MARKS: Final = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="node.toml, custodian.toml, or the coordinator's folder.")
    ] = Path(),
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where there are warnings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Check this machine: versions, GPU, disk, keys, roster, certificate, clock, and the way to the coordinator.

    PATH is node.toml, custodian.toml, or the coordinator's folder. Nothing is changed.

    Exit code 0 where nothing failed, 2 where something did, 1 for warnings with --strict.
    """
    role = role_of(path)
    if as_json:
        checks = examine(role, path)
    else:
        from rich.console import Console

        console = Console()
        with console.status(f"Looking at this {role}'s machine …"):
            checks = examine(role, path)
        console.print(table(role, path, checks))
    from partbook.doctor import verdict_of

    worst = verdict_of(checks)
    if as_json:
        about = {"role": role, "path": str(path), "verdict": worst, "checks": [check.about() for check in checks]}
        typer.echo(json.dumps(about, ensure_ascii=False))
    raise typer.Exit({"fail": 2, "warn": 1 if strict else 0, "ok": 0}[worst])


def role_of(path: Path) -> str:
    """Whose machine a path speaks of: `node`, `custodian` or `coordinator`.

    Raises:
        ConfigError: it is none of the three, or cannot be read.
    """
    if path.is_dir():
        if (path / "federation.toml").exists() or (path / "server.toml").exists():
            return "coordinator"
        there = [path / name for name in ("node.toml", "custodian.toml") if (path / name).exists()]
        hint = f"name {there[0]}" if there else "name node.toml, custodian.toml, or the coordinator's folder"
        raise ConfigError(f"{path} is not a coordinator's folder: it holds no federation.toml; {hint}.")
    try:
        keys = set(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); name a party's TOML file or folder.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    if {"member", "vault"} & keys:
        return "node"
    if {"secret", "record"} & keys:
        return "custodian"
    if {"training", "listen", "hosts"} & keys:
        raise ConfigError(f"{path} is the coordinator's; name its folder, {path.resolve().parent}.")
    raise ConfigError(
        f"{path} is neither a node's nor a custodian's file: it holds none of `member`, `vault`, `secret`."
    )


def examine(role: str, path: Path) -> list[Check]:
    """A role's checks.

    Raises:
        ConfigError: the role's package is not installed here, or its configuration is wrong.
    """
    module, extra = ROLES[role]
    try:
        checks: list[Check] = importlib.import_module(module).examine(path)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path} is a {role}'s, and {error.name} is not installed on this machine; "
            f"run this where the {role} runs, or install it with: pip install 'partbook[{extra}]'"
        ) from error
    return checks


def table(role: str, path: Path, checks: list[Check]) -> RenderableType:
    """The checks for a terminal: what was found, and what to do below it."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(ratio=1, overflow="fold")
    for check in checks:
        mark, style = _MARKS[check.verdict]
        said = Text(check.what)
        if check.remedy:
            said.append(f"\n→ {check.remedy}", style="bold" if check.verdict == "fail" else "")
        grid.add_row(Text(mark, style=style), check.name, said)
    head = Text.assemble(("Partbook doctor ", "bold"), (f"{role}, {path}", "dim"))
    return Group(head, Padding(grid, (1, 0)), summary(checks))


def summary(checks: list[Check]) -> RenderableType:
    """How many of each verdict, in a line."""
    from rich.text import Text

    failed, warned = (sum(check.verdict == verdict for check in checks) for verdict in ("fail", "warn"))
    parts = []
    if failed:
        parts.append((f"{failed} to mend before this machine takes part", "bold red"))
    if warned:
        parts.append((f"{warned} to know about", "yellow"))
    fine = len(checks) - failed - warned
    parts.append((f"{fine} in order" if parts else f"All {fine} in order.", "green"))
    text = Text(", ").join(Text(each, style=style) for each, style in parts)
    return text if len(parts) == 1 else text.append(".")
