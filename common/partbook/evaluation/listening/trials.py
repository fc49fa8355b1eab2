"""Which clip is heard when, and the key that knows where each comes from. No audio.

The seed chooses; but sides and order are drawn from the seed together with what the clips hold, so a listener who
knows this program and guesses the seed still cannot work them out. Each side is a fair coin of its own, not balanced
over the kit: whatever a listener's strategy is, guessing is then exactly binomial.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from partbook.errors import ConfigError, InputError

Kind = Literal["ab", "human"]
Origin = Literal["A", "B"]
KINDS: Final[tuple[Kind, ...]] = ("ab", "human")
KEY_FORMAT: Final = "partbook/v1/listening-key"
ANSWERS: Final[dict[Kind, tuple[str, str]]] = {"ab": ("first", "second"), "human": ("human", "not")}
QUESTIONS: Final[dict[Kind, str]] = {
    "ab": "Which of the two is the better music?",
    "human": "Did a human write this music?",
}
CHOICES: Final[dict[Kind, tuple[str, str]]] = {"ab": ("This one", "This one"), "human": ("A human", "Not a human")}


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as the key knows it.

    Attributes:
        id: what the page calls it: its place, and nothing else.
        origin: the folder it comes from.
        file: path within that folder.
        sha256: of the file, hex.
        begins: seconds into the sounding piece at which the clip begins.
    """

    id: str
    origin: Origin
    file: str
    sha256: str
    begins: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One question: a pair of clips in the order in which they are offered, or one clip alone."""

    number: int
    clips: tuple[Clip, ...]

    def hit(self, answer: str) -> bool:
        """Whether an answer is for A (of a pair), or right (human or not)."""
        if len(self.clips) == 2:
            return self.clips[ANSWERS["ab"].index(answer)].origin == "A"
        return (answer == "human") == (self.clips[0].origin == "A")


@dataclass(frozen=True, slots=True)
class Key:
    """What the researcher keeps.

    Attributes:
        kit: identifies the page that it opens.
        kind: `ab` (which of two) or `human` (A is human, B is not).
        name, question: as on the page.
        seed: that chose.
        seconds: length of every clip.
        folders: of A and of B, as they were given.
        trials: in the page's order.
    """

    kit: str
    kind: Kind
    name: str
    question: str
    seed: int
    seconds: float
    folders: dict[Origin, str]
    trials: tuple[Trial, ...]

    def to_json(self) -> str:
        """The key as a file's text."""
        return json.dumps({"format": KEY_FORMAT} | asdict(self), indent=2, ensure_ascii=False) + "\n"


def wanted(kind: Kind, trials: int) -> int:
    """Clips that each folder has to give.

    Raises:
        ConfigError: no trials, or an odd number of single clips, which cannot be half and half.
    """
    if trials < 1:
        raise ConfigError(f"--trials is {trials}; ask for at least one.")
    if kind == "ab":
        return trials
    if trials % 2:
        raise ConfigError(
            f"--trials is {trials}; half of the clips are human and half are not, so take an even number."
        )
    return trials // 2


@dataclass(frozen=True, slots=True)
class Source:
    """A file from which a clip is cut: see `Clip`."""

    file: str
    sha256: str
    begins: float


def laid_out(kind: Kind, seed: int, a: Sequence[Source], b: Sequence[Source]) -> tuple[Trial, ...]:
    """Trials in the order in which they are heard; as many sources of A as of B, each used once."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} clips")
    random = _generator(seed, [*a, *b])
    sources: dict[Origin, Sequence[Source]] = {
        "A": [a[int(i)] for i in random.permutation(len(a))],
        "B": [b[int(i)] for i in random.permutation(len(b))],
    }
    groups: list[tuple[tuple[Origin, Source], ...]]
    if kind == "ab":
        coins = random.integers(0, 2, len(a))
        groups = [
            tuple((origin, sources[origin][i]) for origin in (_BA if coin else _AB)) for i, coin in enumerate(coins)
        ]
    else:
        every: list[tuple[Origin, Source]] = [(origin, source) for origin in _AB for source in sources[origin]]
        groups = [(every[int(i)],) for i in random.permutation(len(every))]
    return tuple(
        Trial(
            number,
            tuple(
                Clip(f"t{number:02d}" + f"-{place}" * (kind == "ab"), origin, s.file, s.sha256, s.begins)
                for place, (origin, s) in enumerate(group, 1)
            ),
        )
        for number, group in enumerate(groups, 1)
    )


_AB: Final[tuple[Origin, Origin]] = ("A", "B")
_BA: Final[tuple[Origin, Origin]] = ("B", "A")


def _generator(seed: int, sources: Sequence[Source]) -> np.random.Generator:
    text = " ".join([f"partbook/v1/listening {seed}", *sorted(source.sha256 for source in sources)])
    return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")))


def read_key(path: Path) -> Key:
    """A kit's key.

    Raises:
        InputError: missing, or not a key of this format.
    """
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name the kit's key.json.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); name the key.json that lies in the kit's folder.") from error
    if not isinstance(raw, dict) or raw.get("format") != KEY_FORMAT:
        raise InputError(f"{path} is no key of a listening kit ({KEY_FORMAT}); name the kit's key.json.")
    try:
        trials = tuple(
            Trial(int(trial["number"]), tuple(_clip(clip) for clip in trial["clips"])) for trial in raw["trials"]
        )
        if raw["kind"] not in KINDS or {len(trial.clips) for trial in trials} != {2 if raw["kind"] == "ab" else 1}:
            raise ValueError("its kind does not fit its trials")
        if [trial.number for trial in trials] != list(range(1, len(trials) + 1)):
            raise ValueError("its trials are not numbered from 1 on")
        names = ("kit", "kind", "name", "question")
        texts = {name: str(raw[name]) for name in names}
        return Key(
            **texts,  # type: ignore[arg-type]  # the kind is checked above
            seed=int(raw["seed"]), seconds=float(raw["seconds"]), folders=dict(raw["folders"]), trials=trials,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); take the key.json that was made with the page.") from error


def _clip(raw: dict[str, Any]) -> Clip:
    if raw["origin"] not in _AB:
        raise ValueError(f"a clip comes from {raw['origin']!r}")
    return Clip(str(raw["id"]), raw["origin"], str(raw["file"]), str(raw["sha256"]), float(raw["begins"]))
