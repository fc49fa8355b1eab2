"""Files and scores → clips of one length and loudness → what the network hears in them, on all cores.

A file is what it is: its first half minute, mixed to mono. A score is played dry, all of it on one instrument, so that
sets of scores differ in their music and not in the sounds they ask for. Both are brought to -23 LUFS, over the
half minute alone. Sound is kept for as long as its clip takes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AnalysisCrashed, AudioError, ScoreError
from partbook.evaluation.musicnn import Embedded, Embedder
from partbook.music.mel import SAMPLE_RATE
from partbook.threads import in_environment, one_thread_each

if TYPE_CHECKING:
    from symusic.core import ScoreTick

SECONDS: Final = 30.0
PIANO: Final = 0  # General MIDI
_DEFAULT_QPM: Final = 120.0  # where a score has no tempo mark yet: the MIDI file standard's

Source: TypeAlias = "Path | ScoreTick"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one source was not heard.

    Attributes:
        index: which of the sources.
        reason: the error's message.
    """

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in a list of sources.

    Attributes:
        clips: of each source that could be heard, in their order.
        indices: which sources these are.
        refused: the others.
    """

    clips: tuple[Embedded, ...]
    indices: tuple[int, ...]
    refused: tuple[Refusal, ...]

    @property
    def features(self) -> list[NDArray[np.float32]]:
        """(patches, 200) of each clip, for `frechet`."""
        return [clip.features for clip in self.clips]

    @property
    def tags(self) -> list[NDArray[np.float32]]:
        """(patches, 50) of each clip, for `inception`."""
        return [clip.tags for clip in self.clips]


def hear(
    sources: Sequence[Source],
    *,
    seconds: float = SECONDS,
    program: int = PIANO,
    workers: int | None = None,
    on_clip: Callable[[int], None] = lambda _: None,
) -> Heard:
    """Listen to the opening of every source. The same whatever the number of workers.

    Args:
        sources: audio files, and scores.
        seconds: how much of each is heard; what is shorter is heard whole.
        program: General MIDI program that plays the scores.
        workers: processes that listen; one a core where None, none but this one where 1.
        on_clip: is told how many sources are done.

    Raises:
        AnalysisCrashed: a process that listened was ended.
        ConfigError: the SoundFont cannot be used.
    """
    listen = functools.partial(_listen, seconds=seconds, program=program)
    count = min(workers or os.cpu_count() or 1, len(sources))
    answers: list[Embedded | str] = []
    with _mapped(listen, sources, count) as found:
        for answer in found:
            answers.append(answer)
            on_clip(len(answers))
    heard = {index: answer for index, answer in enumerate(answers) if isinstance(answer, Embedded)}
    refused = [Refusal(index, answer) for index, answer in enumerate(answers) if isinstance(answer, str)]
    return Heard(tuple(heard.values()), tuple(heard), tuple(refused))


def clip_of_file(path: Path, seconds: float = SECONDS) -> NDArray[np.float32]:
    """The opening of an audio file: mono at 44.1 kHz and -23 LUFS, (samples,).

    Raises:
        AudioError: it cannot be read, is under 3 s, or silent.
    """
    from partbook.music.decode import Audio, normalised_mono, read_audio

    audio = read_audio(path)
    return normalised_mono(Audio(audio.samples[: round(seconds * audio.sample_rate)], audio.sample_rate, audio.sha256))


def clip_of_score(score: ScoreTick, seconds: float = SECONDS, program: int = PIANO) -> NDArray[np.float32]:
    """The opening of a score, played dry on one instrument and without drums: as `clip_of_file`.

    Raises:
        ScoreError: it has no notes but drums', or none in its opening.
        SilentAudio: its notes cannot be heard.
        ConfigError: the SoundFont cannot be used.
    """
    from partbook.music.decode import Audio, normalised_mono
    from partbook.music.rendering import synthesise

    sound = synthesise(opening(score, seconds, program), sample_rate=SAMPLE_RATE)
    return normalised_mono(Audio(sound[: round(seconds * SAMPLE_RATE)], SAMPLE_RATE, ""))


def opening(score: ScoreTick, seconds: float, program: int) -> ScoreTick:
    """The first seconds of a score by its tempo marks, all tracks on one instrument and no drums."""
    end = _tick_at(score, seconds)
    cut = score.clip(0, end)
    cut.tracks = type(cut.tracks)([track for track in cut.tracks if not track.is_drum])
    for track in cut.tracks:
        track.program = program
        for note in track.notes:
            note.duration = min(note.duration, end - note.time)
    return cut


def _tick_at(score: ScoreTick, second: float) -> int:
    """The tick at which a score has lasted for so long."""
    tick, qpm = 0, _DEFAULT_QPM
    for tempo in sorted(score.tempos, key=lambda tempo: tempo.time):
        lasts = (tempo.time - tick) * 60.0 / (qpm * score.ticks_per_quarter)
        if lasts > second:
            break
        second -= lasts
        tick, qpm = tempo.time, tempo.qpm
    return tick + max(1, round(second * qpm * score.ticks_per_quarter / 60.0))


@functools.cache
def _embedder() -> Embedder:
    return Embedder()


def _listen(source: Source, *, seconds: float, program: int) -> Embedded | str:
    """What was heard, or why nothing was. A missing SoundFont is no source's fault."""
    try:
        sound = clip_of_file(source, seconds) if isinstance(source, Path) else clip_of_score(source, seconds, program)
        return _embedder().embed(sound, SAMPLE_RATE)
    except (AudioError, ScoreError) as error:
        return str(error)


@contextlib.contextmanager
def _mapped(
    listen: Callable[[Source], Embedded | str], sources: Sequence[Source], count: int
) -> Iterator[Iterator[Embedded | str]]:
    """Answers in the order of their sources, from as many processes, which end with the block."""
    if count < 2:
        yield map(listen, sources)
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin)
    try:
        with in_environment(one_thread_each()):  # the processes start here, all of them
            found = pool.map(listen, sources)
        yield found
    except BrokenProcessPool as error:
        raise AnalysisCrashed(
            "A process that listened to clips was ended, by a decoder or for want of memory; leave out what is not "
            "music, or listen with one worker to see which it is."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Set a worker up: it ends with its parent, whose Ctrl-C it leaves to it, and C libraries warn nobody."""
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
