"""Public works as tokens: every one played in several keys, written down once, and cut into windows for training.

The base draws a new key and a new performance for every example. Models that count need their corpus at hand, and
long works take seconds to write down, so here each work is played once in each of its keys; in all twelve where the
corpus then stays under `MOST_TOKENS`, in fewer keys of the largest collections where it does not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AlteredFile, ConfigError, ScoreError
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import Span, Windows, gather, spans
from partbook.simulation.base import KEYS, PublicScore, transposed
from partbook.simulation.performance import INSTRUMENTS, perform

MOST_TOKENS: Final = 25_000_000
_FEW: Final = 64  # works that are written down sooner than a process has started
_TOKENS_A_NOTE: Final = 2.5  # about; more is needed only to say how many keys fit


def keys_of(notes: dict[str, int], most_tokens: int = MOST_TOKENS) -> dict[str, int]:
    """In how many keys each collection of so many notes is written: twelve, the largest in fewer, at least one."""
    keys = dict.fromkeys(notes, len(KEYS))
    while sum(_TOKENS_A_NOTE * notes[name] * keys[name] for name in notes) > most_tokens:
        shrinkable = [name for name in notes if keys[name] > 1]
        if not shrinkable:
            break
        keys[max(shrinkable, key=lambda name: (notes[name] * keys[name], name))] -= 1
    return keys


@dataclass(frozen=True, slots=True)
class TokenCorpus:
    """Pieces of tokens, one after another.

    Attributes:
        collections: their names.
        ids: of all pieces, int16 (tokens,).
        ends: where each piece ends in `ids`, int64 (pieces,).
        collection: which collection each piece is of, int64 (pieces,).
    """

    collections: tuple[str, ...]
    ids: NDArray[np.int16]
    ends: NDArray[np.int64]
    collection: NDArray[np.int64]

    def __len__(self) -> int:
        """Pieces."""
        return len(self.ends)

    def piece(self, number: int) -> NDArray[np.int16]:
        """One piece's ids."""
        begin = int(self.ends[number - 1]) if number else 0
        return self.ids[begin : int(self.ends[number])]

    def pieces(self) -> list[NDArray[np.int16]]:
        """Every piece's ids."""
        return [self.piece(number) for number in range(len(self))]

    @property
    def sha256(self) -> str:
        """Of all that is in it."""
        digest = hashlib.sha256("\n".join(self.collections).encode())
        for array in (self.ids, self.ends, self.collection):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write it as npz; replaces the file whole."""
        temporary = path.with_suffix(".part.npz")
        np.savez_compressed(
            temporary, collections=np.array(self.collections), ids=self.ids, ends=self.ends, collection=self.collection
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> TokenCorpus:
        """Read what `save` wrote.

        Raises:
            AlteredFile: the file cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = tuple(str(name) for name in file["collections"])
                return cls(names, file["ids"], file["ends"], file["collection"])
        except (OSError, KeyError, ValueError) as error:
            raise AlteredFile(f"{path} is not a token corpus ({error}); delete it, and it is written again.") from error

    @classmethod
    def write(
        cls,
        scores: Sequence[PublicScore],
        tokenizer: Path,
        seed: int,
        *,
        most_tokens: int = MOST_TOKENS,
        workers: int | None = None,
        on_work: Callable[[int], None] = lambda _: None,
    ) -> TokenCorpus:
        """Play and write down each score in as many keys as fit; the same for a seed, whatever the workers.

        Raises:
            ConfigError: no score can be written down.
        """
        names = tuple(dict.fromkeys(public.collection for public in scores))
        notes: Counter[str] = Counter()
        for public in scores:
            notes[public.collection] += int(public.score.note_num())
        keys = keys_of(dict(notes), most_tokens)
        tasks = [
            _Task(public, keys[public.collection], seed, number, tokenizer) for number, public in enumerate(scores)
        ]
        found: list[list[NDArray[np.int16]]] = []
        with contextlib.ExitStack() as stack:
            each = map
            if workers != 1 and len(tasks) >= _FEW:
                pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
                stack.callback(pool.shutdown, cancel_futures=True)  # Ctrl-C does not wait for what is not begun
                each = functools.partial(pool.map, chunksize=4)  # type: ignore[assignment]  # as `map` for one sequence
            for ids in each(_written, tasks):
                found.append(ids)
                on_work(len(found))
        pieces = [ids for of_one in found for ids in of_one]
        if not pieces:
            raise ConfigError("None of the scores can be written down as tokens; choose other collections.")
        collection = [names.index(public.collection) for public in scores]
        return cls(
            names,
            np.concatenate(pieces),
            np.cumsum([len(ids) for ids in pieces]),
            np.repeat(np.array(collection, dtype=np.int64), [len(of_one) for of_one in found]),
        )


@dataclass(frozen=True, slots=True)
class _Task:
    public: PublicScore
    keys: int
    seed: int
    number: int
    tokenizer: Path


@functools.lru_cache(maxsize=1)
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


def _written(task: _Task) -> list[NDArray[np.int16]]:
    """A score's ids in each of its keys; none where it cannot be written down."""
    random = np.random.Generator(np.random.Philox(key=[task.seed, task.number]))
    result = []
    for key in random.choice(list(KEYS), task.keys, replace=False):
        program = int(random.choice(INSTRUMENTS))
        try:
            result.append(
                _tokenizer(task.tokenizer).encode(perform(transposed(task.public.score, int(key), program), random))
            )
        except ScoreError:
            continue
    return result


class TokenWindows:
    """Batches of windows of a corpus that begin on bars: batch n of a seed is always the same.

    Works are drawn as the base draws them, by the root of their collection's size.
    """

    def __init__(self, corpus: TokenCorpus, tokenizer: Tokenizer, length: int, batch: int, seed: int) -> None:
        self._corpus, self._tokenizer = corpus, tokenizer
        self._length, self._batch, self._seed = length, batch, seed
        sizes = np.bincount(corpus.collection, minlength=len(corpus.collections)).astype(np.float64)
        weight = sizes[corpus.collection] ** -0.5
        self._cumulative = np.cumsum(weight / weight.sum())
        self._cut: dict[int, list[Span]] = {}

    def batch(self, number: int) -> Windows:
        """Batch `number`, from 0."""
        random = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        items = []
        for _ in range(self._batch):
            at = min(int(np.searchsorted(self._cumulative, random.random())), len(self._corpus) - 1)
            ids = self._corpus.piece(at)
            recording = as_recording(ids, self._tokenizer)
            if at not in self._cut:
                self._cut[at] = spans(recording, self._length, stride=0.25)
            items.append((recording, self._cut[at][int(random.integers(len(self._cut[at])))]))
        return gather(items, self._length, bos=self._tokenizer.bos, eos=self._tokenizer.eos, pad=self._tokenizer.pad)


def as_recording(ids: NDArray[np.int16], tokenizer: Tokenizer) -> Recording:
    """Tokens alone as a recording: no sound, no notes, all in the first second."""
    starts = tokenizer.bar_starts(ids)
    silence = np.zeros((0, 128), np.float16)
    return Recording("", 0.0, Notes.from_rows([]), ids, starts, np.zeros(len(starts), np.float32), silence)
