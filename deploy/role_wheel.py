"""A wheel that holds one role's code and nothing of the others: `python -m deploy.role_wheel node --out dist`.

The project's own wheel holds all four trust domains, which is right for a laptop. A label's security officer wants to
see that no server code lies on the label's machine, so what is installed there is built from fewer folders. Name and
extra stay those of the project; the version carries the role as its local part (PEP 440: `0.1.0+node`), so that
`pip list` says what a machine holds. Members and custodian greet the coordinator with that version.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Role:
    """What one kind of machine holds.

    Attributes:
        domains: top-level folders that its wheel is built from.
        extra: the project's extra that brings the packages it imports.
        foreign: modules that must not be found there.
    """

    domains: tuple[str, ...]
    extra: str
    foreign: tuple[str, ...]


_PARTY: Final = Role(
    ("common", "client"), "node", ("partbook.coordinator", "partbook.generator", "partbook.simulation")
)
ROLES: Final[dict[str, Role]] = {
    "node": _PARTY,
    "custodian": _PARTY,
    "coordinator": Role(
        ("common", "server"),
        "coordinator",
        ("partbook.node", "partbook.custodian", "partbook.vault", "partbook.training", "partbook.simulation"),
    ),
}


def project_of(role: str, root: Path = ROOT) -> dict[str, Any]:
    """The project's `pyproject.toml` as it would read if it held `role` alone.

    Raises:
        KeyError: there is no such role.
    """
    wanted = ROLES[role]
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project["project"]["version"] += f"+{role}"
    extras = project["project"]["optional-dependencies"]
    project["project"]["optional-dependencies"] = {wanted.extra: extras[wanted.extra]}
    build = project["tool"]["hatch"]["build"]
    build["targets"]["wheel"]["packages"] = [f"{domain}/partbook" for domain in wanted.domains]
    if "server" not in wanted.domains:
        # The one hook compiles the server's protocol, for which its compiler would have to be there.
        del build["hooks"]
    return project


def build(project: dict[str, Any], out: Path, root: Path = ROOT) -> Path:
    """Build the wheel that `project` describes out of `root`; returns its path. Built twice, it is the same bytes."""
    from hatchling.builders.wheel import WheelBuilder
    from hatchling.plugin.manager import PluginManager

    manager = PluginManager()
    builder = WheelBuilder(str(root), plugin_manager=manager, config=project)
    (path,) = builder.build(directory=str(out), versions=["standard"])
    return Path(path)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.role_wheel", description="Build one role's wheel.")
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the wheel")
    asked = parser.parse_args(arguments)
    sys.stdout.write(f"{build(project_of(asked.role), asked.out)}\n")


if __name__ == "__main__":
    main()
