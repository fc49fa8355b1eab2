"""Lines and branches that the suite reaches, by package: what is kept is the floor that later changes must hold.

python -m tests.coverage_table          compares the last run of the suite with what is kept; 1 where it is less
python -m tests.coverage_table --keep   keeps the last run: docs/figures/coverage.json, and coverage.md to be read

The last run is build/coverage/coverage.json, which `make coverage` and `make coverage-floor` write.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RUN: Final = ROOT / "build" / "coverage" / "coverage.json"
KEPT: Final = ROOT / "docs" / "figures"
TOLERANCE: Final = 0.5  # points; what a kill or a race cuts off differs from run to run
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Reached:
    """How much of a package.

    Attributes:
        lines, branches: there are.
        lines_reached, branches_reached: of these.
    """

    lines: int = 0
    lines_reached: int = 0
    branches: int = 0
    branches_reached: int = 0

    def __add__(self, other: Reached) -> Reached:
        return Reached(*(one + more for one, more in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def line(self) -> float:
        """Percent of the lines; 100 where there are none."""
        return 100.0 * self.lines_reached / self.lines if self.lines else 100.0

    @property
    def branch(self) -> float:
        """Percent of the branches; 100 where there are none."""
        return 100.0 * self.branches_reached / self.branches if self.branches else 100.0


def by_package(report: Mapping[str, Any]) -> dict[str, Reached]:
    """What `coverage json` says, by package as Python names it, and of all together."""
    found: dict[str, Reached] = {}
    for name, file in report["files"].items():
        said = file["summary"]
        # client/partbook/node/ledger.py: the first part says on whose machine, the last names the module.
        package = ".".join(PurePath(name).parts[1:-1])
        counts = ("num_statements", "covered_lines", "num_branches", "covered_branches")
        reached = Reached(*(int(said[count]) for count in counts))
        for key in (package, ALL):
            found[key] = found.get(key, Reached()) + reached
    return dict(sorted(found.items(), key=lambda item: (item[0] == ALL, item[0])))


def table(found: Mapping[str, Reached]) -> str:
    """To be read."""
    lines = [
        "# What the suite reaches (`make coverage`)",
        "",
        "Of lines and of branches, parties in processes of their own included; a process that gets SIGKILL takes what",
        f"it had seen with it. `make coverage-floor` fails where a package has {TOLERANCE:g} points less than here.",
        "",
        "| Package | Lines | reached | Branches | reached |",
        "|---|---|---|---|---|",
    ]
    for name, reached in found.items():
        cells = (f"`{name}`", f"{reached.lines:,}", f"{reached.line:.1f} %")
        cells += (f"{reached.branches:,}", f"{reached.branch:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def less(found: Mapping[str, Reached], kept: Mapping[str, Reached], tolerance: float = TOLERANCE) -> Iterator[str]:
    """Where a package, or all together, is below what is kept, in words. A package that is gone is no loss."""
    for name, before in kept.items():
        now = found.get(name)
        if now is None:
            continue
        for what, was, is_ in (("lines", before.line, now.line), ("branches", before.branch, now.branch)):
            if is_ < was - tolerance:
                yield f"{name}: {is_:.1f} % of the {what} are reached; {was:.1f} % are kept."


def main(arguments: Sequence[str]) -> int:
    """Compare, or keep."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage_table")
    parser.add_argument("--keep", action="store_true", help="keep the last run's figures")
    parser.add_argument("--run", type=Path, default=RUN, help="what `coverage json` wrote")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of what is kept")
    chosen = parser.parse_args(arguments)
    found = by_package(json.loads(chosen.run.read_text()))
    path = chosen.kept / "coverage.json"
    if chosen.keep:
        chosen.kept.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: asdict(reached) for name, reached in found.items()}, indent=1) + "\n")
        (chosen.kept / "coverage.md").write_text(table(found))
        print(table(found))
        return 0
    kept = {name: Reached(**counts) for name, counts in json.loads(path.read_text()).items()}
    lost = list(less(found, kept))
    print("\n".join(lost) or f"No package is more than {TOLERANCE:g} points below {path}.")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
