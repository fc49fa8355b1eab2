"""From a request to a piece: draw or search tokens, write them down bar by bar, stop at the wanted length.

`compose` is what the service streams and what `partbook generate` runs without one. It knows no network and
no files; all randomness comes from the request's seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick, TextMetaTick

from partbook.errors import GenerationError
from partbook.generator.asking import PieceRequest
from partbook.generator.prompts import score_of_midi
from partbook.model.beam import settled_tokens
from partbook.model.generation import generate
from partbook.music.grammar import Grammar
from partbook.music.quantised import quantised
from partbook.music.tokens import Tokenizer, seconds_at
from partbook.music.vocabulary import KINDS, SYMBOLS, TEMPI, tempo_number

if TYPE_CHECKING:
    from partbook.model.transformer import PartbookModel

__all__ = ["Bar", "Generator", "Piece", "PieceRequest", "PlayedNote", "compose", "played_notes"]


@dataclass(frozen=True, slots=True)
class Generator:
    """A loaded release: the model with its adapter, its tokeniser, and the release's id."""

    model: PartbookModel
    tokenizer: Tokenizer
    release_id: str


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
    draft, given = _Draft(generator.tokenizer), 0
    if request.tempo is not None:
        draft.keep_tempi([request.tempo])
    if request.prompt is not None:
        music = quantised(request.prompt)
        given = len(music)
        draft.keep_tempi(music.tempi, of_bars=True)
        draft.extend(generator.tokenizer.write(music, request.header(before=given)))
        yield draft.finish_bar(given=True)
    prompt_end, prompt_tick = draft.end, draft.end_tick
    bars = None if request.bars is None else given + request.bars
    grammar = Grammar(generator.tokenizer, bars=bars, said=request.asked())
    tokens = 0
    for token in _tokens(generator, request, np.asarray(draft.ids, dtype=np.int16), grammar, cancelled):
        if cancelled():
            return
        tokens += 1
        # A bar is known to be finished only when the next begins.
        if draft.unfinished and _starts_bar(generator.tokenizer, token):
            yield draft.finish_bar()
            if draft.end >= prompt_end + request.seconds:
                break
        draft.extend([token])
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
    generator: Generator,
    request: PieceRequest,
    prompt: NDArray[np.int16],
    grammar: Grammar,
    cancelled: Callable[[], bool],
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
            end=request.bars is not None,
            constraint=grammar,
            cancelled=cancelled,
        )
    return generate(model, tokenizer, request.sampling(), prompt=prompt, memory=memory, constraint=grammar)


class _Draft:
    """The tokens so far, and what of them has been handed out as bars."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._told: Counter[PlayedNote] = Counter()
        self._bars = 0
        self._exact: dict[int, float] = {}  # by the symbol that stands for it
        self._of_bars: list[float] = []
        self.unfinished = False
        self.ids: list[int] = []
        self.end = 0.0  # seconds, of the last finished bar
        self.end_tick = 0

    def keep_tempi(self, tempi: Sequence[float], *, of_bars: bool = False) -> None:
        """Tempi that are meant exactly where their symbols are said; those of the first bars in any case."""
        self._exact.update({tempo_number(tempo): tempo for tempo in tempi})
        self._of_bars = list(tempi) if of_bars else []

    def extend(self, tokens: Iterable[int]) -> None:
        for token in map(int, tokens):
            self.ids.append(token)
            # A header is no bar, and a change of metre or tempo belongs to the bar that begins behind it.
            self.unfinished |= any(KINDS[symbol] in ("Bar", "Length") for symbol in self._tokenizer.expand([token]))

    def score(self) -> ScoreTick:
        score: ScoreTick = self._tokenizer.decode(self.ids, tempi=self._tempi())
        return score

    def _tempi(self) -> list[float]:
        now, tempi = 120.0, list[float]()
        for symbol in self._tokenizer.expand(self.ids):
            if KINDS[symbol] == "Tempo":
                now = self._exact.get(symbol, TEMPI[int(SYMBOLS[symbol].partition("_")[2])])
            elif KINDS[symbol] == "Bar":
                bar = len(tempi)
                tempi.append(self._of_bars[bar] if bar < len(self._of_bars) else now)
        return tempi

    def finish_bar(self, *, given: bool = False) -> Bar:
        # Decoding it all again costs milliseconds a bar and cannot drift from what the MIDI file will say.
        score = self.score()
        self.end_tick = _bar_line(score, self._begun_bars())
        played = played_notes(score)
        new = sorted((played - self._told).elements())
        start, self.end = self.end, float(seconds_at(score, np.array([float(self.end_tick)]))[0])
        self._told, self.unfinished = played, False
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
