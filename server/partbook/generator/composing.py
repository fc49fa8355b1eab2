"""From a request to a piece: draw or search tokens, write them down bar by bar, stop at the wanted length.

`compose` is what the service streams and what `partbook generate` runs without one. It knows no network and
no files; all randomness comes from the request's seed.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick, TempoTick, TextMetaTick

from partbook.errors import GenerationError
from partbook.generator.prompts import score_of_midi
from partbook.model.beam import settled_tokens
from partbook.model.generation import generate
from partbook.model.sampling import Sampling
from partbook.music.tokens import Tokenizer, seconds_at

if TYPE_CHECKING:
    from partbook.model.transformer import PartbookModel

LONGEST_SECONDS: Final = 600.0
MOST_TOKENS: Final = 16_384
DEFAULT_SECONDS: Final = 30.0
DEFAULT_TOKENS: Final = 4096
DEFAULT_WINDOW: Final = 64
MOST_BEAMS: Final = 16
LARGEST_SEED: Final = 2**53 - 1  # what a JSON reader keeps exactly


@dataclass(frozen=True, slots=True)
class Generator:
    """A loaded release: the model with its adapter, its tokeniser, and the release's id."""

    model: PartbookModel
    tokenizer: Tokenizer
    release_id: str


@dataclass(frozen=True, slots=True)
class PieceRequest:
    """What is wanted.

    Attributes:
        seed: 0 to 2^53 - 1.
        seconds: of new music; the piece ends at the first bar line at or after it.
        max_tokens: at most this many are drawn, even if the music is then shorter.
        temperature: above 0, at most 10.
        top_p: above 0, at most 1.
        prompt: a score to go on from; the piece begins with it.
        memory: log-mel of the eight seconds before the piece, (688, 128); None for silence.
        top_k: at least 1; 0 is off.
        min_p: 0 to 1; 0 is off.
        repetition_penalty: 1 to 10; 1 is off.
        repetition_window: tokens, at least 1.
        beam_width: 1 to 16 searches the likeliest piece with so many beams and draws nothing, so that the seed and all
            that shapes a draw are not looked at; 0 draws.
    """

    seed: int
    seconds: float = DEFAULT_SECONDS
    max_tokens: int = DEFAULT_TOKENS
    temperature: float = 1.0
    top_p: float = 0.95
    prompt: ScoreTick | None = None
    memory: NDArray[np.float16] | None = field(default=None, repr=False)
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = DEFAULT_WINDOW
    beam_width: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise GenerationError(f"seed is {self.seed}; it must be from 0 to 2^53 - 1.")
        if not (math.isfinite(self.seconds) and 0.0 < self.seconds <= LONGEST_SECONDS):
            raise GenerationError(f"seconds is {self.seconds}; it must be above 0 and at most {LONGEST_SECONDS:g}.")
        if not 1 <= self.max_tokens <= MOST_TOKENS:
            raise GenerationError(f"max_tokens is {self.max_tokens}; it must be from 1 to {MOST_TOKENS}.")
        if not 0 <= self.beam_width <= MOST_BEAMS:
            raise GenerationError(f"beam_width is {self.beam_width}; it must be from 1 to {MOST_BEAMS}, or 0 to draw.")
        self.sampling()

    def sampling(self) -> Sampling:
        """How to draw. The model may not end the piece: a request says how long it is to be."""
        return Sampling(
            self.seed,
            self.max_tokens,
            self.temperature,
            self.top_p,
            end=False,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            repetition_window=self.repetition_window,
        )


@dataclass(frozen=True, slots=True, order=True)
class PlayedNote:
    """One note: onset and duration in seconds, MIDI pitch and velocity, General MIDI program."""

    onset: float
    pitch: int
    program: int
    duration: float
    velocity: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that is finished: the notes that begin in it.

    Attributes:
        number: from 0. A prompt, however long, counts as bar 0.
        start, end: in seconds from the start of the piece.
        notes: by onset, then pitch; none in a bar of rest.
        given: these are the prompt's notes.
    """

    number: int
    start: float
    end: float
    notes: tuple[PlayedNote, ...]
    given: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished piece.

    Attributes:
        midi: a standard MIDI file, the prompt included; a marker names release and seed, another the place
            where the prompt ends.
        seconds: its length up to the last bar line, the prompt included.
        tokens: how many were drawn.
        release_id: what wrote it.
        request: what was asked for (prompt and memory left out if it came through a server).
        continues_at: the second where the prompt ends; None without one.
    """

    midi: bytes = field(repr=False)
    seconds: float
    tokens: int
    release_id: str
    request: PieceRequest
    continues_at: float | None = None

    @property
    def midi_sha256(self) -> str:
        """SHA-256 of `midi`, in hex."""
        return hashlib.sha256(self.midi).hexdigest()

    @property
    def score(self) -> ScoreTick:
        """The piece as a score."""
        return score_of_midi(self.midi)


def compose(
    generator: Generator, request: PieceRequest, *, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[Bar | Piece]:
    """Write one piece: every bar as soon as it is finished, then the piece.

    Args:
        generator: what writes.
        request: what is wanted.
        cancelled: asked before every token; once true, the stream ends without a piece.

    Raises:
        ScoreError: the prompt has no note that can be written down.
        GenerationError: nothing but rests was written.
    """
    draft = _Draft(generator.tokenizer)
    if request.prompt is not None:
        draft.ids.extend(int(i) for i in generator.tokenizer.encode(request.prompt))
        yield draft.finish_bar(given=True)
    prompt_end, prompt_tick = draft.end, draft.end_tick
    tokens = 0
    for token in _tokens(generator, request, np.asarray(draft.ids, dtype=np.int16), cancelled):
        if cancelled():
            return
        tokens += 1
        # A bar is known to be finished only when the next begins.
        if _starts_bar(generator.tokenizer, token) and draft.unfinished:
            yield draft.finish_bar()
            if draft.end >= prompt_end + request.seconds:
                break
        draft.ids.append(token)
    else:
        if cancelled():
            return
        if draft.unfinished:
            yield draft.finish_bar()
    score = draft.score()
    if not any(len(track.notes) for track in score.tracks):
        raise GenerationError(
            f"Seed {request.seed} led to {tokens} tokens and no note; use another seed, or allow more tokens."
        )
    score.markers.append(TextMetaTick(0, f"Partbook release {generator.release_id}, seed {request.seed}"))
    if request.prompt is not None:
        score.markers.append(TextMetaTick(prompt_tick, "Partbook goes on from here"))
    continues_at = None if request.prompt is None else prompt_end
    yield Piece(score.dumps_midi(), draft.end, tokens, generator.release_id, request, continues_at)


def _tokens(
    generator: Generator, request: PieceRequest, prompt: NDArray[np.int16], cancelled: Callable[[], bool]
) -> Iterator[int]:
    """New tokens after the prompt, drawn or searched; once cancelled, a search ends early."""
    model, tokenizer = generator.model, generator.tokenizer
    memory = None if request.memory is None else request.memory.astype(np.float32)
    if request.beam_width:
        return settled_tokens(
            model,
            tokenizer,
            prompt,
            memory,
            width=request.beam_width,
            max_tokens=request.max_tokens,
            end=False,
            cancelled=cancelled,
        )
    return generate(model, tokenizer, request.sampling(), prompt=prompt, memory=memory)


class _Draft:
    """The tokens so far, and what of them has been handed out as bars."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._told: Counter[PlayedNote] = Counter()
        self._bars = 0  # handed out
        self._finished = 0  # written, a prompt's own counted each
        self.ids: list[int] = []
        self.end = 0.0  # seconds, of the last finished bar
        self.end_tick = 0

    @property
    def unfinished(self) -> bool:
        return self._begun_bars() > self._finished  # a header alone is no bar

    def score(self) -> ScoreTick:
        score: ScoreTick = self._tokenizer.decode(self.ids)
        if not len(score.tempos) or score.tempos[0].time > 0:
            # What a MIDI player assumes, said aloud, so that all who read this score count the same seconds.
            score.tempos.append(TempoTick(0, 120.0))
            score.tempos.sort()
        return score

    def finish_bar(self, *, given: bool = False) -> Bar:
        # Decoding it all again costs milliseconds a bar and cannot drift from what the MIDI file will say.
        score = self.score()
        begun = self._begun_bars()
        self.end_tick = _bar_line(score, begun)
        played = played_notes(score)
        new = sorted((played - self._told).elements())
        start, self.end = self.end, float(seconds_at(score, np.array([float(self.end_tick)]))[0])
        self._told, self._finished = played, begun
        number, self._bars = self._bars, self._bars + 1
        return Bar(number, start, self.end, tuple(new), given)

    def _begun_bars(self) -> int:
        return len(self._tokenizer.bar_starts(np.asarray(self.ids, dtype=np.int16)))


def _starts_bar(tokenizer: Tokenizer, token: int) -> bool:
    return len(tokenizer.bar_starts(np.array([token], dtype=np.int16))) > 0


def _bar_line(score: ScoreTick, bars: int) -> int:
    """The tick at which the first `bars` bars of a score end, by its metres (4/4 where there is none)."""
    metres = [(m.time, 4 * score.ticks_per_quarter * m.numerator // m.denominator) for m in score.time_signatures]
    tick = 0
    for _ in range(bars):
        tick += next((length for time, length in reversed(metres) if time <= tick), 4 * score.ticks_per_quarter)
    return tick


def played_notes(score: ScoreTick) -> Counter[PlayedNote]:
    """The pitched notes of a score, in seconds."""
    timed: Any = score.to("second")
    return Counter(
        PlayedNote(float(n.time), int(n.pitch), int(track.program), max(float(n.duration), 1e-3), int(n.velocity))
        for track in timed.tracks
        if not track.is_drum
        for n in track.notes
    )
