"""Public works as a label's node would have them: played, recorded, and written down by the node's own ears.

What a model has to say about written scores says little of what it has to learn: a node never sees a score. A work is
played as its rendition says (`partbook.corpus.rendition`) and heard as `partbook.vault.analysis` hears. That takes 4 s
of a core, so each hearing is kept in a file of its own, under a name that holds all it depends on: the work, how it is
played, and what plays and hears. No tokeniser is among these: what is kept is notes, and `written` makes tokens of them
when they are wanted.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from partbook.corpus import rendition as renditions
from partbook.corpus.library import PublicWork
from partbook.corpus.parsed import ParsedScores, write_whole
from partbook.corpus.rendition import Rendition, drawn, played
from partbook.errors import AudioError, CorruptMessage, ScoreError
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.simulation import labels, performance
from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.music.tokens import Tokenizer
    from partbook.vault.transcription import Transcriber

RECIPE: Final = 2  # changes whenever the same work would be heard otherwise, and nothing below says so
SECONDS: Final = 45.0  # of each work
SUFFIX: Final = ".heard"
_REFUSED: Final = b"refused: "  # in place of a hearing: there is none, and why
_EARS: Final = ("partbook.vault.transcription", "partbook.music.decode", "partbook.music.mel")
_SOUND: Final = ("partbook.music.rendering", "partbook.music.mastering", performance.__name__, renditions.__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a node's ears make of one rendition of a work.

    Attributes:
        collection: the work's.
        key: the work's.
        title: the work's.
        program: General MIDI program that it was played on.
        rendition: how it was played, as JSON has it.
        seconds: length of the audio.
        notes: as transcribed, in seconds; at least one.
        mel: log-mel, float16 (frames, 128); see `partbook.music.mel`.
    """

    collection: str
    key: str
    title: str
    program: int
    rendition: dict[str, Any]
    seconds: float
    notes: Notes
    mel: NDArray[np.float16]

    def to_bytes(self) -> bytes:
        """A safetensors blob."""
        names = ("collection", "key", "title", "program", "rendition", "seconds")
        about = {"partbook": json.dumps({name: getattr(self, name) for name in names})}
        notes = self.notes
        arrays = {"onset": notes.onset, "duration": notes.duration, "pitch": notes.pitch, "velocity": notes.velocity}
        return save({k: np.ascontiguousarray(v) for k, v in (*arrays.items(), ("mel", self.mel))}, metadata=about)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Heard:
        """Read a blob that `to_bytes` wrote.

        Raises:
            CorruptMessage: it is not one.
        """
        try:
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
            about: dict[str, Any] = json.loads(header["__metadata__"]["partbook"])
            a = load(blob)
            return cls(**about, notes=Notes(a["onset"], a["duration"], a["pitch"], a["velocity"]), mel=a["mel"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CorruptMessage(f"These bytes are no hearing of a work ({error}); have it heard again.") from error


def written(heard: Heard, tokenizer: Tokenizer) -> Recording:
    """A hearing as a node writes it down, in a tokeniser's tokens.

    Raises:
        AudioError: its notes cannot be written down.
    """
    from partbook.vault.analysis import written_down

    return written_down(heard.title, heard.notes, heard.seconds, heard.mel, tokenizer, heard.program)


@dataclass(frozen=True, slots=True)
class Hearing:
    """One hearing to be made: of a work's take, or of its plain rendition.

    Attributes:
        work: what is played.
        take: its number; None for the plain rendition.
        seconds: how much of it.
        soundfonts: what a take may be played with; the default alone where there are none.
    """

    work: PublicWork
    take: int | None = None
    seconds: float = SECONDS
    soundfonts: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The name of the file that it is kept in."""
        work = self.work
        source = "" if work.source is None else _hash_of(work.source)
        fonts = [_hash_of(font) for font in self.soundfonts or (_default_soundfont(),)]
        fields = [RECIPE, labels.RECIPE, work.key, work.title, work.program, source, self.seconds, self.take, fonts]
        return hashlib.sha256(json.dumps([*fields, _versions()]).encode()).hexdigest()[:40] + SUFFIX


def hear(
    hearings: Sequence[Hearing],
    cache: Path,
    *,
    on_work: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
    scores: ParsedScores | None = None,
) -> list[Path]:
    """Have works heard; what is in `cache` already is not heard again. Returns each one's file, in order.

    May be broken off at any time: what is done by then is done for the next time. A file in the cache that is damaged
    is made anew. A script that calls this needs the usual `if __name__ == "__main__":`, because workers are spawned.

    Args:
        hearings: what to hear.
        cache: a folder, made if it is missing.
        on_work: told each work's title when it is done, in no fixed order.
        workers: processes at a time; one a processor where None.
        scores: where parsed scores are kept; each is parsed anew where None.

    Raises:
        ConfigError: a SoundFont cannot be used.
    """
    jobs = [_Job(hearing, cache / hearing.name, scores) for hearing in hearings]
    missing = []
    for job in jobs:
        if _is_kept(job.path):
            on_work(job.hearing.work.title)
        else:
            missing.append(job)
    if missing:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context, initializer=_begin) as pool:
            waiting = {pool.submit(_hear, job): job for job in missing}
            try:
                for done in as_completed(waiting):
                    done.result()
                    on_work(waiting[done].hearing.work.title)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what is being heard is kept, what is not yet is left
                raise
    return [job.path for job in jobs]


def kept(path: Path) -> Heard | str:
    """What a file of `hear` holds: a hearing, or why there is none.

    Raises:
        OSError: it cannot be read.
        CorruptMessage: it is damaged.
    """
    data = path.read_bytes()
    if data.startswith(_REFUSED):
        return data.removeprefix(_REFUSED).decode()
    return Heard.from_bytes(data)


def mapped_mel(path: Path) -> NDArray[np.float16]:
    """The sound of a hearing that `hear` kept, (frames, 128), mapped from its file: it takes memory where it is read.

    Raises:
        OSError: it cannot be read.
        CorruptMessage: it is none, or is damaged.
    """
    with path.open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head, "little")
        if head.startswith(_REFUSED[:8]) or size > path.stat().st_size:
            raise CorruptMessage(f"{path} is no hearing of a work; have it heard again.")
        try:
            about = json.loads(file.read(size))["mel"]
            begin, shape = int(about["data_offsets"][0]), tuple(map(int, about["shape"]))
            return np.memmap(path, np.float16, "r", 8 + size + begin, shape)
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptMessage(f"{path} is no hearing of a work ({error}); have it heard again.") from error


def heard_in(folder: Path) -> Iterator[Heard]:
    """All hearings in a folder that `hear` filled, in the order of their files' names; one is in memory at a time.

    Raises:
        CorruptMessage: a file is damaged.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if isinstance(found := kept(path), Heard):
            yield found


def heard(
    works: Sequence[PublicWork],
    tokenizer_path: Path,
    cache: Path,
    *,
    seconds: float = SECONDS,
    on_work: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
) -> list[Recording]:
    """Recordings of works' plain renditions, in the works' order; those that cannot be played or heard are passed over.

    Args:
        works: what to hear; each is played on its own instrument.
        tokenizer_path: the tokeniser that recordings are written with.
        cache: as of `hear`.
        seconds: how much of each work, from the beginning.
        on_work: as of `hear`.
        workers: as of `hear`.

    Raises:
        ScoreError: the tokeniser cannot be read.
    """
    from partbook.music.tokens import Tokenizer

    if not tokenizer_path.is_file():
        raise ScoreError(f"There is no tokeniser at {tokenizer_path}; name the one that the model comes with.")
    tokenizer = Tokenizer.load(tokenizer_path)
    paths = hear([Hearing(work, None, seconds) for work in works], cache, on_work=on_work, workers=workers)
    recordings = []
    for path in paths:
        if isinstance(found := kept(path), Heard):
            try:
                recordings.append(written(found, tokenizer))
            except AudioError:
                continue
    return recordings


@dataclass(frozen=True, slots=True)
class _Job:
    hearing: Hearing
    path: Path
    scores: ParsedScores | None


@functools.lru_cache(maxsize=64)
def _hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _default_soundfont() -> Path:
    from partbook.music.rendering import default_soundfont

    return default_soundfont()


@functools.cache
def _versions() -> str:
    """What plays and hears, as a hash of its code and of its network."""
    from importlib.util import find_spec

    from partbook.vault.transcription import NETWORK

    digest = hashlib.sha256(NETWORK.read_bytes())
    for module in (*_EARS, *_SOUND):
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()


def _is_kept(path: Path) -> bool:
    try:
        kept(path)
    except (OSError, CorruptMessage):
        return False
    return True


# ---------------------------------------------------------------------- the other side


def _begin() -> None:
    """Set a worker up: Ctrl-C reaches the whole foreground group, and it is the first process that decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread()


@functools.cache
def _ears() -> Transcriber:
    from partbook.vault.transcription import Transcriber

    return Transcriber()


def _hear(job: _Job) -> None:
    try:
        found = _heard(job.hearing, job.scores)
    except (AudioError, ScoreError) as error:
        write_whole(job.path, _REFUSED + str(error).encode())
    else:
        write_whole(job.path, found.to_bytes())


def _heard(hearing: Hearing, scores: ParsedScores | None) -> Heard:
    from partbook.music.decode import normalised_mono, read_audio
    from partbook.music.rendering import write_flac
    from partbook.vault.analysis import log_mel_in_blocks

    work = hearing.work
    score = work.score() if scores is None else scores.score(work)
    if score is None:
        raise ScoreError(f"{work.title} cannot be read.")
    how = Rendition(work.program)
    if hearing.take is not None:
        how = drawn(score, work.key, work.program, hearing.take, hearing.seconds, hearing.soundfonts)
    sound = played(score, work.key, how, hearing.seconds)
    if sound is None:
        raise ScoreError(f"{work.title} is shorter than {labels.SHORTEST:g} s.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "played.flac"
        write_flac(path, sound)
        audio = read_audio(path)
    mono = normalised_mono(audio)
    notes = _ears().transcribe(mono)
    if not len(notes):
        raise AudioError(f"{work.title} is audible, but no notes are heard in it.")
    about = asdict(how) | {"soundfont": None if how.soundfont is None else how.soundfont.name}
    return Heard(
        work.collection, work.key, work.title, how.program, about, audio.seconds, notes, log_mel_in_blocks(mono)
    )
