"""The public base model: which scores it learns from, as what sound, and the one command that makes it again.

Every example is a stretch of a public score in a random key, beginning at a random bar. For one in five the eight
seconds before it are played on a random instrument and heard through the mel encoder; the others begin in
silence. The tokeniser's merges are learnt from the same scores in all keys.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from symusic.core import ScoreSecond, ScoreTick
from torch.utils.data import DataLoader, IterableDataset

from partbook.errors import ScoreError
from partbook.model.checkpoint import save_base
from partbook.model.config import SIZES
from partbook.model.likelihood import evaluate
from partbook.model.transformer import PartbookModel, parameter_count, pick_device
from partbook.music.mel import HOP, MEMORY_SECONDS, SAMPLE_RATE, log_mel
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, Tokenizer, bar_seconds, in_seconds, notes_of
from partbook.music.windows import Span, Windows, gather, spans
from partbook.simulation.collections import COLLECTIONS, Work, split
from partbook.simulation.performance import INSTRUMENTS, perform
from partbook.training.pretraining import Schedule, pretrain

KEYS: Final = range(-5, 7)  # semitones: every key once
HEARD: Final = 0.2  # share of examples that follow on from sound


@dataclass(frozen=True, slots=True)
class PublicScore:
    """A score of the base pool, parsed."""

    collection: str
    score: ScoreTick


def public_scores() -> list[PublicScore]:
    """Every readable work of every collection's base pool, in a fixed order; parsing takes minutes."""
    works = [work for collection in COLLECTIONS for work in split(collection.name)["base"]]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return [found for found in pool.map(_parse, works, chunksize=8) if found is not None]


def _parse(work: Work) -> PublicScore | None:
    try:
        return PublicScore(work.collection, work.score())
    except ScoreError:
        return None  # a few ABC tunes are malformed in the corpus


def heldout_scores() -> dict[str, list[ScoreTick]]:
    """The held-out works of every collection as played scores, to measure the finished base by."""
    random = np.random.Generator(np.random.Philox(2))
    found: dict[str, list[ScoreTick]] = {}
    for collection in COLLECTIONS:
        found[collection.name] = [perform(work.score(), random) for work in split(collection.name)["heldout"]]
    return found


def transposed(score: ScoreTick, semitones: int, program: int | None = None) -> ScoreTick:
    """A copy in another key, notes that leave the piano's range an octave back inside it."""
    moved = score.copy()
    for track in moved.tracks:
        for note in track.notes:
            pitch = note.pitch + semitones
            note.pitch = pitch - 12 if pitch > HIGHEST_PITCH else pitch + 12 if pitch < LOWEST_PITCH else pitch
        if program is not None:
            track.program = program
    return moved


def written(score: ScoreTick, tokenizer: Tokenizer) -> Recording:
    """A score as a recording without sound: its mel is empty."""
    ids = tokenizer.encode(score)
    starts = tokenizer.bar_starts(ids)
    notes: Notes = notes_of(score)
    end = float((notes.onset + notes.duration).max(initial=0.0))
    return Recording("", end, notes, ids, starts, bar_seconds(score, len(starts)), np.zeros((0, 128), np.float16))


class Examples(IterableDataset[Windows]):
    """An endless, seeded stream of batches; made in a worker process so that playing and training overlap."""

    def __init__(self, scores: Sequence[PublicScore], tokenizer_path: Path, length: int, batch: int, seed: int) -> None:
        self._scores, self._path = scores, tokenizer_path
        self._length, self._batch, self._seed = length, batch, seed

    def __iter__(self) -> Iterator[Windows]:
        from partbook.music.rendering import synthesise

        tokenizer = Tokenizer.load(self._path)
        random = np.random.Generator(np.random.Philox(self._seed))
        # Collections of few but long works would drown otherwise: the square root evens them out.
        sizes = {c.name: sum(s.collection == c.name for s in self._scores) for c in COLLECTIONS}
        weight = np.array([sizes[s.collection] ** -0.5 for s in self._scores])
        weight /= weight.sum()
        while True:
            items: list[tuple[Recording, Span]] = []
            while len(items) < self._batch:
                chosen = self._scores[int(random.choice(len(self._scores), p=weight))]
                program = int(random.choice(INSTRUMENTS))
                score = perform(transposed(chosen.score, int(random.choice(KEYS)), program), random)
                try:
                    recording = written(score, tokenizer)
                except ScoreError:
                    continue
                cuts = spans(recording, self._length, stride=0.25)
                cut = cuts[int(random.integers(len(cuts)))]
                if random.random() < HEARD and cut.second > 1.0:
                    excerpt = in_seconds(score).clip(max(0.0, cut.second - MEMORY_SECONDS), cut.second, clip_end=True)
                    recording = _with_sound(recording, excerpt, cut.second, synthesise)
                items.append((recording, cut))
            yield gather(items, self._length, bos=tokenizer.bos, eos=tokenizer.eos, pad=tokenizer.pad)


def _with_sound(
    recording: Recording, excerpt: ScoreSecond, second: float, play: Callable[..., NDArray[np.float32]]
) -> Recording:
    start = max(0.0, second - MEMORY_SECONDS)
    past: ScoreTick = excerpt.shift_time(-start).to("tick")  # type: ignore[assignment]  # the stub says object
    if not past.note_num():
        return recording
    samples = play(past, tail=0.0).mean(axis=1)
    wanted = round((second - start) * SAMPLE_RATE)
    samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    level = float(np.sqrt(np.mean(samples**2)))
    samples = (samples * (0.07 / max(level, 1e-4))).astype(np.float32)  # -23 dB RMS, near -23 LUFS
    heard = log_mel(samples)
    silence = np.full((round(start * SAMPLE_RATE / HOP), heard.shape[1]), -1.0, np.float16)
    return Recording(
        recording.title, recording.seconds, recording.notes, recording.ids, recording.bar_starts,
        recording.bar_seconds, np.concatenate([silence, heard]),
    )  # fmt: skip


def train_tokenizer(scores: Sequence[PublicScore], vocabulary: int, folder: Path) -> Tokenizer:
    """Learn merges from the public scores, each in three keys."""
    paths = []
    random = np.random.Generator(np.random.Philox(1))
    for index, public in enumerate(scores):
        for turn, key in enumerate(random.choice(list(KEYS), 3, replace=False)):
            path = folder / f"{index:05d}-{turn}.mid"
            score = transposed(public.score, int(key), int(random.choice(INSTRUMENTS)))
            perform(score, random).dump_midi(path)
            paths.append(path)
    return Tokenizer.train(paths, vocabulary)


def make_base(
    out: Path,
    *,
    steps: int,
    batch: int,
    vocabulary: int,
    size: str,
    seed: int,
    on_stage: Callable[[str], None],
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Make the base model from nothing but music21's corpus; returns the manifest's account of it."""
    torch.manual_seed(seed)
    on_stage("reading public scores")
    scores = public_scores()
    on_stage(f"learning {vocabulary} tokens from {len(scores)} scores")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(scores, vocabulary, Path(folder))
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(path)
        config = SIZES[size](len(tokenizer))
        model = PartbookModel(config, dropout=0.1).to(pick_device())
        examples = Examples(scores, path, config.context, batch, seed)
        loader = DataLoader(examples, batch_size=None, num_workers=1, prefetch_factor=8)
        on_stage(f"training {parameter_count(model):,} parameters")
        pretrain(model, loader, Schedule(steps), tokenizer.pad, on_step)
    on_stage("measuring")
    figures = {
        name: round(evaluate(model, tokenizer, [written(s, tokenizer) for s in held]).per_token, 4)
        for name, held in heldout_scores().items()
    }
    about: dict[str, Any] = {
        "command": f"partbook base train --steps {steps} --batch {batch} --vocabulary {vocabulary} --seed {seed}",
        "heldout_nats_per_token_on_scores": figures,
        "parameters": parameter_count(model),
        "sources": [
            f"{c.about}: works in the public domain, as encoded in music21's corpus ({c.name})" for c in COLLECTIONS
        ],
        "works": len(scores),
        "tokens_seen": steps * batch * config.context,
    }
    save_base(out, model.cpu(), tokenizer, about)
    return about
