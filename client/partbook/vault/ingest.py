"""Folders of audio → the vault: several files at once, each refusal reported, nothing lost on the way.

Analysis runs in processes of its own, so that a file that crashes a decoder costs that file only. This
process alone writes to the vault, in the order of the file names, so a vault's order does not depend on
timing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from partbook.errors import AnalysisCrashed, AudioError, InputError, ScoreError, UnreadableAudio, WithdrawnRecording
from partbook.threads import in_environment, one_thread_each
from partbook.vault.analysis import Analysis, analyse
from partbook.vault.store import Vault, withdrawn_reason
from partbook.vault.transcription import Transcriber

if TYPE_CHECKING:
    from partbook.music.tokens import Tokenizer

# Cover pictures, notes and cue sheets lie beside recordings; only these names are tried in a folder.
# fmt: off
AUDIO_SUFFIXES: Final = frozenset({
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".aif",
    ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".avr", ".m4a", ".m4b", ".mp4", ".aac", ".wma",
    ".ape", ".wv", ".tta", ".ac3", ".dts", ".dsf", ".mka", ".webm", ".mpc",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was not taken: which, the class of the error, and its message."""

    path: Path
    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestEvent:
    """One file is dealt with: the `done`-th of `total`."""

    path: Path
    outcome: Literal["added", "known", "refused"]
    done: int
    total: int


@dataclass(slots=True)
class IngestReport:
    """What came of an ingest.

    Attributes:
        added: files taken, with the ids they got.
        known: files whose audio was inside already.
        refused: files that cannot be used.
        passed_over: files in the folders that are not audio by name.
        audio_seconds: length of what was added.
        seconds: time it took.
    """

    added: list[tuple[Path, str]] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    audio_seconds: float = 0.0
    seconds: float = 0.0


def ingest(
    sources: Path | Iterable[Path],
    vault: Vault,
    tokenizer_path: Path,
    *,
    program: int = 0,
    workers: Workers | int | None = None,
    on_event: Callable[[IngestEvent], None] | None = None,
) -> IngestReport:
    """Put every recording found at `sources` into an open, writable vault.

    On Ctrl-C the recordings analysed so far are stored, the workers are ended, and `KeyboardInterrupt` goes
    on. A script that calls this needs the usual `if __name__ == "__main__":`, because workers are spawned; each
    of them imports that script again, so what is heavy is best imported below that line.

    Args:
        sources: folders (searched through, links followed, hidden names skipped) and files (always tried).
        vault: where to.
        tokenizer_path: the federation's tokeniser; a vault keeps to the first it has seen.
        program: General MIDI program, 0–127, of all these recordings; files already known keep theirs.
        workers: those to use, which are left running for the next ingest; or how many to start for this one, one
            a processor where None. Where every file is known, no worker starts.
        on_event: called after each file, in this thread.

    Raises:
        InputError: a source does not exist.
        ScoreError: the tokeniser cannot be read.
        VaultError: the disk is full, or the vault was written with another tokeniser.
    """
    begun = time.monotonic()
    report = IngestReport()
    files, report.passed_over = audio_files([sources] if isinstance(sources, Path) else sources)
    if not tokenizer_path.is_file():
        raise ScoreError(f"There is no tokeniser at {tokenizer_path}; name one with --tokenizer.")
    tokenizer = TokenizerFile(tokenizer_path, _sha256(tokenizer_path))
    vault.bind_tokenizer(tokenizer.sha256)

    def tell(path: Path, outcome: Literal["added", "known", "refused"]) -> None:
        done = len(report.added) + len(report.known) + len(report.refused)
        if on_event:
            on_event(IngestEvent(path, outcome, done, len(files)))

    def refuse_withdrawn(path: Path, identifier: str) -> None:
        reason = f"{path}: {withdrawn_reason(identifier)}"
        report.refused.append(Refusal(path, WithdrawnRecording.__name__, reason))
        tell(path, "refused")

    def settle(path: Path, file_sha256: str, result: Analysis | Refusal) -> None:
        if isinstance(result, Refusal):
            report.refused.append(result)
            tell(path, "refused")
        elif gone := vault.withdrawn(result.audio_sha256):
            refuse_withdrawn(path, gone)
        elif identifier := vault.known(result.audio_sha256):
            vault.remember_file(file_sha256, identifier)
            report.known.append(path)
            tell(path, "known")
        else:
            identifier = vault.add(result.recording, result.audio_sha256, file_sha256=file_sha256)
            report.added.append((path, identifier))
            report.audio_seconds += result.recording.seconds
            tell(path, "added")

    queue = deque(files)
    waiting: deque[tuple[Path, str, Future[Analysis | Refusal]]] = deque()
    with _at_hand(workers) as crew:
        try:
            while queue or waiting:
                while queue and len(waiting) < 3 * crew.count:
                    path = queue.popleft()
                    try:
                        file_sha256 = _sha256(path)
                    except OSError as error:
                        reason = f"{path} cannot be read ({error.strerror}); check the path and its rights."
                        report.refused.append(Refusal(path, UnreadableAudio.__name__, reason))
                        tell(path, "refused")
                        continue
                    if vault.known_file(file_sha256):
                        report.known.append(path)
                        tell(path, "known")
                    elif gone := vault.withdrawn_file(file_sha256):
                        refuse_withdrawn(path, gone)
                    else:
                        waiting.append((path, file_sha256, crew.submit(path, tokenizer, program)))
                if not waiting:
                    continue
                path, file_sha256, future = waiting[0]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    # Which file ended the worker is not said. The first is tried alone; the others go again,
                    # and whichever breaks the pool ends up first.
                    result = crew.alone(path, tokenizer, program)
                    for place, (other, other_sha256, lost) in enumerate(waiting):
                        if place and not _sound(lost):
                            again = crew.submit(other, tokenizer, program)
                            waiting[place] = (other, other_sha256, again)
                settle(path, file_sha256, result)
                waiting.popleft()  # only now: Ctrl-C in the midst of storing stores it after all, below
        except KeyboardInterrupt:
            for path, file_sha256, future in waiting:
                if future.done() and _sound(future):
                    settle(path, file_sha256, future.result())
            raise
    report.seconds = time.monotonic() - begun
    return report


def audio_files(sources: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The files to try, in sorted order without repeats, and those in folders whose names are not audio's.

    Raises:
        InputError: a source does not exist.
    """
    found: dict[Path, None] = {}
    others: list[Path] = []
    for source in sources:
        if source.is_dir():
            for path in _walk(source, set()):
                if path.suffix.lower() in AUDIO_SUFFIXES:
                    found[path] = None
                else:
                    others.append(path)
        elif source.exists():
            found[source] = None
        else:
            raise InputError(f"There is no file or folder {source}; check its name.")
    return list(found), others


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:  # a link to a folder that holds it
        return
    seen.add(real)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, seen)
        else:
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sound(future: Future[Analysis | Refusal]) -> bool:
    """Whether a future was not lost with its pool."""
    return not (future.cancelled() or (future.done() and isinstance(future.exception(), BrokenProcessPool)))


# ---------------------------------------------------------------------- this side of the processes


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """Where the tokeniser lies and its hash, by which a worker notices that another has taken its place."""

    path: Path
    sha256: str


class Workers:
    """Processes that analyse files, for one ingest or for several one after another.

    A worker takes 4 s of a core to start, most of it imports, and keeps nothing of a file it has dealt with. Workers
    start as files come in, so an ingest of known files starts none.

        with Workers() as workers:
            for vault, folder in ...:
                ingest(folder, vault, tokenizer_path, workers=workers)

    Leaving the block waits for them; leaving it by an exception ends them where they are.
    """

    def __init__(self, count: int | None = None) -> None:
        """At most `count` at a time; one a processor where None."""
        self.count: Final = count or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None
        self._started: set[multiprocessing.process.BaseProcess] = set()

    def submit(self, path: Path, tokenizer: TokenizerFile, program: int) -> Future[Analysis | Refusal]:
        """Analyse a file when a worker is free; a pool that broke is replaced."""
        if self._pool is not None:
            with contextlib.suppress(BrokenProcessPool):
                return self._submit(self._pool, path, tokenizer, program)
            self._pool.shutdown()
        self._pool = ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn"), _begin)
        return self._submit(self._pool, path, tokenizer, program)

    def alone(self, path: Path, tokenizer: TokenizerFile, program: int) -> Analysis | Refusal:
        """Analyse a file in a process of its own; if that ends too, the file is to blame."""
        with Workers(1) as one:
            try:
                return one.submit(path, tokenizer, program).result()
            except BrokenProcessPool:
                reason = (
                    f"{path} ended the process that analysed it, twice (a crash in a decoder, or no memory "
                    "left); convert it to FLAC or WAV, or cut it into shorter pieces."
                )
                return Refusal(path, AnalysisCrashed.__name__, reason)

    def stop(self) -> None:
        """End the workers where they are; a file that is submitted after this starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        for process in self._started:
            process.terminate()
        self._started.clear()

    def _submit(
        self, pool: ProcessPoolExecutor, path: Path, tokenizer: TokenizerFile, program: int
    ) -> Future[Analysis | Refusal]:
        # Workers start here and inherit what is set: one thread each for BLAS, and a blocked SIGINT, since
        # Ctrl-C reaches the whole foreground group and it is this process that decides.
        others = set(multiprocessing.active_children()) - self._started
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with in_environment(one_thread_each()):
                return pool.submit(_work, path, tokenizer, program)
        finally:
            self._started = set(multiprocessing.active_children()) - others
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self.stop()


@contextlib.contextmanager
def _at_hand(workers: Workers | int | None) -> Iterator[Workers]:
    """The caller's workers, or some for the time; ended either way where they are left in the midst of files."""
    if not isinstance(workers, Workers):
        with Workers(workers) as own:
            yield own
        return
    try:
        yield workers
    except BaseException:
        workers.stop()
        raise


# ---------------------------------------------------------------------- the other side


def _begin() -> None:
    """Set a worker up: it ends with its parent, and C libraries' warnings stay off the terminal."""
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    # What matters comes back as an exception; mpg123 and others write straight to descriptor 2 besides.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@functools.cache
def _loaded(tokenizer: TokenizerFile) -> tuple[Tokenizer, Transcriber]:
    from partbook.music.tokens import Tokenizer

    return Tokenizer.load(tokenizer.path), Transcriber()


def _work(path: Path, tokenizer_file: TokenizerFile, program: int) -> Analysis | Refusal:
    tokenizer, transcriber = _loaded(tokenizer_file)
    try:
        return analyse(path, tokenizer, transcriber, program=program)
    except AudioError as error:
        return Refusal(path, type(error).__name__, str(error))
    except ImportError:
        raise
    except Exception as error:  # one odd file must not keep the others out
        reason = f"{path} could not be analysed ({type(error).__name__}: {error}); please report this."
        return Refusal(path, type(error).__name__, reason)
