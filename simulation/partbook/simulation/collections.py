"""Four collections of public-domain scores from music21's corpus, and who may use which work for what.

No work and no tune is in two pools: `base` trained the tokeniser and the base model, a label's recordings are drawn
from `label`, and `heldout` is the public validation set. They come about in two steps.

1. Which works are `base` is fixed for good, because the shipped base model has learnt from them: works are grouped by
   title, ordered by a hash, and all but the first (`Collection.withheld`) are base.
2. Titles are not tunes: of the withheld works, those of a tune family that base has heard (`partbook.corpus.families`:
   by melody, so that two harmonisations of one chorale are one tune) are in no pool at all, nor are those of a tune
   that a collection before has withheld. The others are dealt to `heldout` until it is full, and then to `label`;
   works of one family, or of one title, stay together.

Rights, checked per file: Bach's chorales, O'Neill (1850 in the corpus' name; 1903 in print), Ryan (1883) and
Monteverdi are in the public domain; files whose encoding carries a `<rights>` statement are left out.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import hashlib
import itertools
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.corpus.table import shipped
from partbook.errors import ScoreError
from partbook.music.tokens import TICKS_PER_QUARTER
from partbook.music.vocabulary import METRES

Pool = Literal["heldout", "label", "base"]
SPLIT: Final = "partbook/v1/split"
PLAIN_XML: Final = frozenset({"trecento"})  # folders whose MusicXML is not zipped


@dataclass(frozen=True, slots=True)
class Collection:
    """A body of scores, and the label that plays it.

    Attributes:
        name: the folder in music21's corpus.
        label: the label's name in the demo.
        about: one line for a report.
        instrument: what its recordings are played on, in words.
        program: the same as a General MIDI program; all have an attack that transcription can find.
        withheld: works, at least, that base does not hold. The shipped base depends on the two numbers: titles are
            withheld until there are as many works as the first says, and then as many again as the second says.
        heldout: works, at least, kept for public validation.
        pool: works, at least, from which the label's recordings are drawn.
        tempo: quarter notes a minute where a score gives none.
    """

    name: str
    label: str
    about: str
    instrument: str
    program: int
    withheld: tuple[int, int]
    heldout: int
    pool: int
    tempo: float


COLLECTIONS: Final = (
    Collection("bach", "Thomaskirche", "Bach's four-part chorales", "piano", 0, (24, 150), 30, 25, 84),
    Collection("oneills1850", "Chicago Reels", "O'Neill's Irish dance tunes", "flute", 73, (24, 500), 150, 290, 120),
    Collection(
        "ryansMammoth", "Mammoth Strings", "Ryan's fiddle tunes", "steel-string guitar", 25, (24, 400), 100, 150, 120
    ),
    Collection("monteverdi", "Cremona", "Monteverdi's madrigals", "harpsichord", 6, (6, 22), 6, 20, 112),
)
CONTROL: Final = Collection("airdsAirs", "Control", "Aird's airs (Glasgow, 1778–1801)", "flute", 73, (0, 0), 0, 0, 120)
"""What no label plays and no base has seen; its pools are `partbook.corpus.library`'s."""


@dataclass(frozen=True, slots=True)
class Work:
    """One work of a collection.

    Attributes:
        collection: the collection's name.
        key: stable identifier within the corpus, such as `oneills1850/0001-0050.abc#12`.
        title: as printed.
    """

    collection: str
    key: str
    title: str

    @property
    def printed(self) -> str:
        """The title as a person would say it: “BWV 289”, “Madrigal 3.13”, “The Jolly Corkonian”."""
        if not self.key.endswith(".mxl"):
            return self.title
        stem, _, title = self.title.partition(": ")
        said = stem.replace("bwv", "BWV ").replace("madrigal.", "Madrigal ")
        return said if title.startswith(stem) else f"{said} {title}"

    def score(self, program: int | None = None) -> ScoreTick:
        """The work on one track at 480 ticks a quarter.

        Args:
            program: General MIDI program to write; the collection's own where not given.

        Raises:
            ScoreError: the score cannot be read, is empty, or has a metre outside the tokeniser's.
        """
        collection = CONTROL if self.collection == CONTROL.name else by_name(self.collection)
        return score_at(self.key, collection.program if program is None else program, collection.tempo)


def score_at(key: str, program: int, tempo: float) -> ScoreTick:
    """A work of music21's corpus on one track at 480 ticks a quarter.

    Args:
        key: as of `Work`.
        program: General MIDI program to write.
        tempo: quarter notes a minute where the score gives none.

    Raises:
        ScoreError: the score cannot be read, is empty, or has a metre outside the tokeniser's.
    """
    score = tune_at(key) if "#" in key else _from_musicxml(corpus() / key, tempo)
    for track in score.tracks:
        track.program = program
    for metre in score.time_signatures:
        if (metre.numerator, metre.denominator) not in METRES:
            raise ScoreError(f"{key} is in {metre.numerator}/{metre.denominator}, which the tokeniser lacks.")
    return score


def tune_at(key: str) -> ScoreTick:
    """An ABC tune of the corpus, whatever its metre.

    Raises:
        ScoreError: it cannot be read, or has no notes.
    """
    path, _, number = key.partition("#")
    return _from_abc(tunes_of(corpus() / path)[int(number)])


def corpus() -> Path:
    """Where the installed music21 keeps its scores; music21 itself is not imported for this."""
    from importlib.util import find_spec

    spec = find_spec("music21")
    if spec is None or spec.origin is None:
        raise ScoreError("music21 is not installed; install it with: pip install 'partbook[simulation]'")
    return Path(spec.origin).parent / "corpus"


def by_name(name: str) -> Collection:
    """The collection called `name`."""
    for collection in COLLECTIONS:
        if collection.name == name:
            return collection
    known = ", ".join(c.name for c in COLLECTIONS)
    raise ScoreError(f"There is no collection {name!r}; the collections are {known}.")


@functools.lru_cache
def works(name: str) -> tuple[Work, ...]:
    """All usable works in a folder of music21's corpus, in the corpus' order."""
    folder = corpus() / name
    found: list[Work] = []
    for path in sorted(folder.rglob("*.abc")):
        key = str(path.relative_to(corpus()))
        for index, tune in enumerate(tunes_of(path)):
            title = re.search(r"^T:\s*(.+?)\s*$", tune, re.MULTILINE)
            found.append(Work(name, f"{key}#{index}", title[1] if title else f"{path.stem} {index}"))
    for path in sorted(folder.glob("*.xml" if name in PLAIN_XML else "*.mxl")):
        text = _musicxml_head(path)
        if "<rights" in text:
            continue
        title = re.search(r"<(?:movement|work)-title>([^<]+)<", text)
        printed = title[1].strip() if title else path.stem
        found.append(Work(name, str(path.relative_to(corpus())), f"{path.stem}: {printed}"))
    return tuple(found)


@functools.lru_cache
def split(name: str) -> dict[Pool, tuple[Work, ...]]:
    """Who may use which work of a collection: disjoint pools, the same on every machine."""
    collection = by_name(name)
    base, withheld = _by_title(name)
    heard = {_family(work) for c in COLLECTIONS for work in _by_title(c.name)[0]}
    before = itertools.takewhile(lambda c: c.name != name, COLLECTIONS)
    elsewhere = {_family(work) for c in before for group in _by_title(c.name)[1] for work in group}
    fresh = [
        [work for work in group if _family(work) not in heard and _family(work) not in elsewhere] for group in withheld
    ]
    pools: dict[Pool, list[Work]] = {"heldout": [], "label": [], "base": list(base)}
    for tied in _tied(fresh):
        pools["heldout" if len(pools["heldout"]) < collection.heldout else "label"].extend(tied)
    return {pool: tuple(members) for pool, members in pools.items()}


@functools.lru_cache
def _by_title(name: str) -> tuple[tuple[Work, ...], tuple[tuple[Work, ...], ...]]:
    """The base works of a collection, and its withheld works by title; what one before withholds is in neither."""
    groups: dict[str, list[Work]] = {}
    for work in works(name):
        groups.setdefault(_tune_name(work), []).append(work)
    elsewhere: dict[str, bool] = {}  # by title, whether an earlier collection withholds it
    for collection in itertools.takewhile(lambda c: c.name != name, COLLECTIONS):
        base, withheld = _by_title(collection.name)
        elsewhere.update({_tune_name(work): False for work in base})
        elsewhere.update({_tune_name(work): True for group in withheld for work in group})
    first, second = by_name(name).withheld
    learnt: list[Work] = []
    kept: list[tuple[Work, ...]] = []
    counts = [0, 0]
    for group in sorted(groups, key=lambda group: hashlib.sha256(f"{SPLIT}/{group}".encode()).digest()):
        if group in elsewhere:
            learnt.extend(() if elsewhere[group] else groups[group])
        elif counts[0] < first or counts[1] < second:
            counts[counts[0] >= first] += len(groups[group])
            kept.append(tuple(groups[group]))
        else:
            learnt.extend(groups[group])
    return tuple(learnt), tuple(kept)


def _tied(groups: Iterable[Sequence[Work]]) -> list[list[Work]]:
    """Groups that share a family as one, in the order of the first of them; empty ones are gone."""
    found: list[list[Work]] = []
    place: dict[str, int] = {}  # by family, which of `found` it is in
    for group in groups:
        families = {_family(work) for work in group}
        same = sorted({place[family] for family in families if family in place})
        into = same[0] if same else len(found)
        if not same:
            found.append([])
        for other in same[1:]:
            found[into].extend(found[other])
            found[other] = []
        found[into].extend(group)
        place.update({_family(work): into for work in found[into]})
    return [tied for tied in found if tied]


def _family(work: Work) -> str:
    return shipped().get(work.key, work.key)


def _tune_name(work: Work) -> str:
    title = work.title.partition(": ")[2] or work.title if work.key.endswith(".mxl") else work.title
    if title == Path(work.key).name or not re.search(r"[A-Za-z]{3}", title):
        return work.key
    words = re.sub(r"[^a-z0-9 ]", "", title.lower().replace("&", "and")).split()
    plain = [
        w for w in words if w not in {"the", "a", "an", "reel", "jig", "hornpipe", "strathspey", "clog", "favorite"}
    ]
    return " ".join(sorted(plain)) or work.key


@functools.lru_cache(maxsize=64)
def tunes_of(path: Path) -> tuple[str, ...]:
    """The tunes in an ABC file, each as ABC of its own."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    return tuple("X:" + part for part in re.split(r"^X:", text, flags=re.MULTILINE)[1:])


def _from_abc(tune: str) -> ScoreTick:
    # Chord symbols would become an accompaniment of abc2midi's own; grace notes and decorations stay.
    tune = re.sub(r'"[^"\n]*"', "", tune)
    try:
        with _quiet(), own_temporary_folder():
            score = ScoreTick.from_abc(tune)
    except Exception as error:
        raise ScoreError(f"An ABC tune cannot be read ({error}).") from error
    tracks = [track for track in score.tracks if len(track.notes)]
    if not tracks:
        raise ScoreError("An ABC tune has no notes.")
    kept = ScoreTick(score.ticks_per_quarter)
    kept.tracks.append(tracks[0])
    kept.tempos.extend(score.tempos)
    kept.time_signatures.extend(score.time_signatures)
    return kept.resample(TICKS_PER_QUARTER, min_dur=1)


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """A `TMPDIR` for this process alone, while symusic reads ABC.

    symusic hands abc2midi a file whose name comes from an unseeded rand(): every process uses the same names, and two
    that parse at once would read each other's tunes, or none.
    """
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


def _musicxml_head(path: Path) -> str:
    if path.suffix != ".mxl":
        with path.open("rb") as file:
            head = file.read(16000)
        in_16_bits = head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        return head.decode("utf-16" if in_16_bits else "utf-8", errors="replace")
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.startswith("META-INF") and n != "mimetype"]
        with archive.open(names[0]) as file:
            return file.read(8000).decode("utf-8", errors="replace")


def _from_musicxml(path: Path, tempo: float) -> ScoreTick:
    from music21 import converter

    try:
        parsed = converter.parse(path, format="musicxml").stripTies()
        events = list(parsed.flatten().notes)
        metres = list(parsed.parts[0].flatten().getTimeSignatures())  # type: ignore[union-attr]  # a score has parts
    except Exception as error:
        raise ScoreError(f"{path.name} cannot be read as MusicXML ({error}).") from error
    score, track = ScoreTick(TICKS_PER_QUARTER), TrackTick()
    seen: set[tuple[int, int]] = set()
    for event in events:
        start, length = (
            round(float(event.offset) * TICKS_PER_QUARTER),
            round(float(event.quarterLength) * TICKS_PER_QUARTER),
        )
        for pitch in event.pitches:
            if length > 0 and (start, pitch.midi) not in seen:  # two voices in unison are one key on a keyboard
                seen.add((start, pitch.midi))
                track.notes.append(NoteTick(start, length, int(pitch.midi), 88))
    if not seen:
        raise ScoreError(f"{path.name} has no notes.")
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, tempo))
    last: tuple[int, int] | None = None
    for metre in metres:
        now = (int(metre.numerator), int(metre.denominator))
        if now != last:
            score.time_signatures.append(TimeSignatureTick(round(float(metre.offset) * TICKS_PER_QUARTER), *now))
            last = now
    if last is None:
        score.time_signatures.append(TimeSignatureTick(0, 4, 4))
    return score.sort()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what abc2midi prints straight to the process' streams about its dialect's fine points."""
    saved = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (null, *saved):
            os.close(descriptor)
