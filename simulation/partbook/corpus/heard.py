"""Public works as a label's node would have them: played, recorded, and written down by the node's own ears.

What a model has to say about written scores says little of what it has to learn: a node never sees a score. A work is
played as the demo's labels play theirs (`partbook.simulation.labels.played`) and heard by `partbook.vault.analysis`.
Hearing one takes 4 s of a core, so each is kept in a file of its own, under a name that holds all it depends on.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partbook.corpus.library import PublicWork
from partbook.corpus.parsed import write_whole
from partbook.errors import AudioError, CorruptMessage, ScoreError
from partbook.music.recording import Recording
from partbook.simulation import labels, performance
from partbook.threads import one_thread

if TYPE_CHECKING:
    from partbook.music.tokens import Tokenizer
    from partbook.vault.transcription import Transcriber

RECIPE: Final = 1  # changes whenever the same work would be heard otherwise, and nothing below says so
_REFUSED: Final = b"refused: "  # in place of a recording: there is none, and why
_EARS: Final = ("partbook.vault.analysis", "partbook.vault.beats", "partbook.vault.transcription")
_SOUND: Final = ("partbook.music.decode", "partbook.music.mel", "partbook.music.rendering", performance.__name__)


def heard(
    works: Sequence[PublicWork],
    tokenizer_path: Path,
    cache: Path,
    *,
    seconds: float = 45.0,
    on_work: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
) -> list[Recording]:
    """Recordings of works, in the works' order; those that cannot be played or heard are passed over.

    May be broken off at any time: what is done by then is done for the next time. A file in the cache that is damaged
    is made anew. A script that calls this needs the usual `if __name__ == "__main__":`, because workers are spawned.

    Args:
        works: what to hear; each is played on its own instrument.
        tokenizer_path: the tokeniser that recordings are written with.
        cache: a folder, made if it is missing.
        seconds: how much of each work, from the beginning.
        on_work: told each work's title when it is done, in no fixed order.
        workers: processes at a time; one a processor where None.

    Raises:
        ScoreError: the tokeniser cannot be read.
    """
    if not tokenizer_path.is_file():
        raise ScoreError(f"There is no tokeniser at {tokenizer_path}; name the one that the model comes with.")
    tokenizer = hashlib.sha256(tokenizer_path.read_bytes()).hexdigest()
    jobs = [_Job(work, seconds, tokenizer_path, cache / _name(work, seconds, tokenizer)) for work in works]
    missing = []
    for job in jobs:
        if _is_kept(job.path):
            on_work(job.work.title)
        else:
            missing.append(job)
    if missing:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context, initializer=_begin) as pool:
            waiting = {pool.submit(_hear, job): job for job in missing}
            try:
                for done in as_completed(waiting):
                    done.result()
                    on_work(waiting[done].work.title)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what is being heard is kept, what is not yet is left
                raise
    found = (_kept(job.path) for job in jobs)
    return [recording for recording in found if recording is not None]


@dataclass(frozen=True, slots=True)
class _Job:
    work: PublicWork
    seconds: float
    tokenizer: Path
    path: Path


def _name(work: PublicWork, seconds: float, tokenizer: str) -> str:
    source = "" if work.source is None else hashlib.sha256(work.source.read_bytes()).hexdigest()
    fields = [RECIPE, labels.RECIPE, work.key, work.title, work.program, source, seconds, tokenizer, _versions()]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:40] + ".heard"


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
        _kept(path)
    except (OSError, CorruptMessage):
        return False
    return True


def _kept(path: Path) -> Recording | None:
    data = path.read_bytes()
    return None if data.startswith(_REFUSED) else Recording.from_bytes(data)


# ---------------------------------------------------------------------- the other side


def _begin() -> None:
    """Set a worker up: Ctrl-C reaches the whole foreground group, and it is the first process that decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread()


@functools.cache
def _loaded(tokenizer: Path) -> tuple[Tokenizer, Transcriber]:
    from partbook.music.tokens import Tokenizer
    from partbook.vault.transcription import Transcriber

    return Tokenizer.load(tokenizer), Transcriber()


def _hear(job: _Job) -> None:
    from partbook.music.rendering import write_flac
    from partbook.vault.analysis import analyse

    tokenizer, transcriber = _loaded(job.tokenizer)
    try:
        sound = labels.played(job.work.score(), job.work.key, job.seconds)
        if sound is None:
            raise ScoreError(f"{job.work.title} is shorter than {labels.SHORTEST:g} s.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "played.flac"
            write_flac(path, sound)
            found = analyse(path, tokenizer, transcriber, program=job.work.program).recording
    except (AudioError, ScoreError) as error:
        write_whole(job.path, _REFUSED + str(error).encode())
    else:
        write_whole(job.path, dataclasses.replace(found, title=job.work.title).to_bytes())
