"""Reads a Dockerfile into stages of instructions, as far as ours go."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER"),
    *("VOLUME", "WORKDIR"),
}


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str | None
    steps: tuple[tuple[str, str], ...]

    def all(self, word: str) -> list[str]:
        return [rest for found, rest in self.steps if found == word]

    def one(self, word: str) -> str:
        (rest,) = self.all(word)
        return rest

    def words(self, word: str) -> list[str]:
        """The JSON form of an instruction: no shell stands between Docker and the program."""
        found = self.one(word)
        return list(json.loads(found[found.index("[") :]))


def read(path: Path) -> list[Stage]:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    steps = []
    for step in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = step.partition(" ")
        assert word in KNOWN, f"{path.name}: {word}"
        steps.append((word, rest.strip()))
    starts = [i for i, (word, _) in enumerate(steps) if word == "FROM"]
    assert all(word == "ARG" for word, _ in steps[: starts[0]])
    stages = []
    for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
        base, _, name = steps[start][1].partition(" AS ")
        stages.append(Stage(base, name or None, tuple(steps[start + 1 : end])))
    return stages
