"""A kit, from two folders to a folder: what listeners get, and the key, apart from each other.

FOLDER/send/listen.html    the page
FOLDER/send/README.txt     what a listener has to know
FOLDER/key.json            which clip is which; it stays with the researcher
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from partbook.errors import ConfigError, InputError
from partbook.evaluation.listening.clips import Begin, Excerpt, Gathered, gather, levelled
from partbook.evaluation.listening.page import Wording, kit_id, page
from partbook.evaluation.listening.scores import Playing
from partbook.evaluation.listening.trials import CHOICES, KINDS, QUESTIONS, Key, Kind, Source, Trial, laid_out, wanted

PAGE, README, KEY, SEND = "listen.html", "README.txt", "key.json", "send"
HEAR_SECONDS: Final = 5.0
_SHORTEST, _LONGEST = 1.0, 300.0  # seconds of a clip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a kit is to be.

    Attributes:
        kind: `ab` or `human`.
        trials: pairs, or single clips.
        seed: chooses files, sides and order.
        seconds: length of every clip.
        hear: seconds of a clip that must be heard before an answer.
        name: the page's title.
        question: that is asked; the kind's own where None.
        playing: how scores are played.
        begin: where in a piece a clip begins.
    """

    kind: Kind = "ab"
    trials: int = 20
    seed: int = 1
    seconds: float = 20.0
    hear: float = HEAR_SECONDS
    name: str = "Listening test"
    question: str | None = None
    playing: Playing = field(default_factory=Playing)
    begin: Begin = "start"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"--kind is {self.kind!r}; it is one of {', '.join(KINDS)}.")
        wanted(self.kind, self.trials)
        if not _SHORTEST <= self.seconds <= _LONGEST:
            raise ConfigError(f"--seconds is {self.seconds:g}; a clip lasts {_SHORTEST:g} to {_LONGEST:g} seconds.")
        if not 0 < self.hear <= self.seconds:
            raise ConfigError(f"--hear is {self.hear:g}; it is above 0 and at most --seconds ({self.seconds:g}).")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; it is 0 or more.")
        if not self.name.strip():
            raise ConfigError("--name is empty; give the page a title, or leave the option out.")

    @property
    def wording(self) -> Wording:
        """What the page says."""
        return Wording(self.name.strip(), self.question or QUESTIONS[self.kind], CHOICES[self.kind])


@dataclass(frozen=True, slots=True)
class Made:
    """A kit that was made.

    Attributes:
        key: its key.
        folder: where it lies.
        page_bytes: size of the page.
        left_out: a line for each file that could not be used.
        warnings: a line for each thing that may tell which is which.
    """

    key: Key
    folder: Path
    page_bytes: int
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


def make(
    a: Path,
    b: Path,
    out: Path,
    want: Wanted | None = None,
    on_step: Callable[[str], None] = lambda stage: None,
) -> Made:
    """Make a kit; its folder appears whole or not at all.

    Args:
        a, b: folders of MIDI or audio.
        out: a folder that does not exist yet.
        want: see `Wanted`.
        on_step: called after each of `steps(want)` steps with what is being done.

    Raises:
        ConfigError: the folder exists already.
        InputError: a folder has too few usable files, or both are one.
    """
    want = want or Wanted()
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new folder, or remove that one.")
    if a.resolve() == b.resolve():
        raise InputError(f"{a} and {b} are the same folder; name two.")
    count = wanted(want.kind, want.trials)
    gathered: dict[str, Gathered] = {}
    for name, folder in (("A", a), ("B", b)):
        gathered[name] = gather(
            folder,
            count,
            seed=want.seed,
            seconds=want.seconds,
            playing=want.playing,
            begin=want.begin,
            taken=frozenset(e.sha256 for each in gathered.values() for e in each.excerpts),
            on_clip=lambda: on_step("cutting clips"),
        )
    trials = laid_out(want.kind, want.seed, *([_source(e) for e in gathered[name].excerpts] for name in "AB"))
    by_file = {e.sha256: e for each in gathered.values() for e in each.excerpts}
    sounds = []
    for sound in levelled([by_file[clip.sha256] for trial in trials for clip in trial.clips], want.seconds):
        sounds.append(sound)
        on_step("levelling and encoding")
    kit = kit_id(want.kind, want.wording, want.seconds, want.hear, sounds)
    key = Key(
        kit, want.kind, want.wording.name, want.wording.question, want.seed, want.seconds,
        {"A": str(a), "B": str(b)}, trials,
    )  # fmt: skip
    html = page(kit, want.kind, want.wording, want.seconds, want.hear, trials, sounds)
    _write(out, {f"{SEND}/{PAGE}": html, f"{SEND}/{README}": readme(want, trials), KEY: key.to_json()})
    left_out = tuple(line for each in gathered.values() for line in each.left_out)
    return Made(key, out, len(html.encode()), left_out, _telling(gathered, want))


def steps(want: Wanted) -> int:
    """How often `make` calls `on_step`."""
    return 4 * wanted(want.kind, want.trials)


def _source(excerpt: Excerpt) -> Source:
    return Source(excerpt.file, excerpt.sha256, excerpt.begins)


def _telling(gathered: dict[str, Gathered], want: Wanted) -> tuple[str, ...]:
    """What may tell A from B apart from the music."""
    scored = {name: sum(e.scored for e in each.excerpts) / len(each.excerpts) for name, each in gathered.items()}
    found = []
    if scored["A"] != scored["B"]:
        found.append(
            f"{100 * scored['A']:.0f} % of A's clips are played from scores and {100 * scored['B']:.0f} % of B's: the "
            "sound alone may tell them apart. Render both the same way, or give recordings on both sides."
        )
    elif scored["A"] and want.playing.program is None:
        found.append("Scores keep their instruments, which may tell A from B; --instrument piano hides them.")
    return tuple(found)


def readme(want: Wanted, trials: tuple[Trial, ...]) -> str:
    """The text for a listener."""
    clips = sum(len(trial.clips) for trial in trials)
    minutes = max(1, round((clips * want.seconds + 6 * len(trials)) / 60))
    ask = f"{len(trials)} pairs of clips" if want.kind == "ab" else f"{len(trials)} clips"
    other = ", S goes to the other clip" if want.kind == "ab" else ""
    return f"""{want.wording.name}
{"=" * len(want.wording.name)}

Thank you for listening. The test is one page, {PAGE}: {ask} of {want.seconds:g} seconds, some {minutes} minutes.

    {want.wording.question}

1. Put on headphones, or sit before good loudspeakers, in a quiet room.
2. Open {PAGE} with a browser (a double click does it). It needs no internet and sends nothing.
3. Write your name or initials, and go through the questions. If you cannot tell, guess: that counts as much.
   You may close the page and open it again on the same computer: it goes on where you were.
4. At the end press "Save the answers", and send the file (answers-….csv) to whoever sent you this.
   If saving is not possible, copy the text that the page shows and send that.

Keys: Space plays and pauses{other}, R starts a clip again, 1 and 2 (or ← and →)
choose, ↑ and ↓ say how sure you are, Enter goes on, Backspace goes back. A mouse or a finger does as well.

Please do not talk about the clips with others who take the test before you both have sent your answers.
"""


def _write(out: Path, files: dict[str, str]) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ConfigError(f"{out} cannot be made ({error.strerror}); name another folder.") from error
    try:
        for name, text in files.items():
            path = draft / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o777 & ~mask)  # mkdtemp's 0700 is for secrets
        draft.rename(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); make room or name another folder.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
