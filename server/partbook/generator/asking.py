"""What may be asked of a generator: how long, how to draw, and what the music is to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick

from partbook.errors import GenerationError
from partbook.model.sampling import TOP_P, Sampling
from partbook.music.tokens import Header
from partbook.music.vocabulary import (
    BARS_LEFT,
    DENSITIES,
    GENRES,
    HANDS,
    KEYS,
    KINDS,
    METRES,
    POLYPHONIES,
    SLOWEST,
    Hand,
    class_of,
)

LONGEST_SECONDS: Final = 600.0
MOST_TOKENS: Final = 16_384
DEFAULT_SECONDS: Final = 30.0
DEFAULT_TOKENS: Final = 4096
DEFAULT_WINDOW: Final = 64
MOST_BEAMS: Final = 16
MOST_BARS: Final = 1000
CONTROLS: Final = ("bars", "genre", "key", "tempo", "program", "density", "polyphony")
"""What may be asked of a piece, and said as it is; its metre is said as text."""
FASTEST: Final = 285.0  # quarter notes a minute
LARGEST_SEED: Final = 2**53 - 1  # what a JSON reader keeps exactly


def seconds_of(seconds: float | None, bars: int | None) -> float:
    """The longest that a piece may be where only its bars are asked for, or nothing; else what is asked for."""
    if seconds is not None:
        return seconds
    return DEFAULT_SECONDS if bars is None else LONGEST_SECONDS


def metre_of(text: str | None) -> tuple[int, int] | None:
    """A metre such as "6/8" as numbers.

    Raises:
        GenerationError: it is not two numbers.
    """
    if not text:
        return None
    upper, _, lower = text.partition("/")
    if not (upper.isascii() and upper.isdigit() and lower.isascii() and lower.isdigit()):
        raise GenerationError(f"metre is {text!r}; write it as 3/4 or 6/8.")
    return int(upper), int(lower)


@dataclass(frozen=True, slots=True)
class PieceRequest:
    """What is wanted.

    Attributes:
        seed: 0 to 2^53 - 1.
        seconds: of new music; the piece ends at the first bar line at or after it, unless the model ends it before.
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
        bars: of new music; the piece ends after so many at the latest. The model counts them down: of a new piece as
            many as the vocabulary can say (1 to 16, 20, 24, 28, 32, 40, …), after a prompt where it can say how many
            there are with the prompt's. A search ends a piece only where they are given: the likeliest piece of any
            length is a very short one.
        genre, key: as in `partbook.music.vocabulary`'s GENRES and KEYS.
        metre: one of METRES; not with a prompt, which has its own. Nor have the next two a place beside one.
        tempo: quarter notes a minute at the beginning, 30 to 285.
        program: General MIDI program of the one instrument, 0 to 127.
        density: notes a quarter note, above 0; the nearest of eight classes is asked for.
        polyphony: notes that sound at once where any does, at least 1; the nearest of five classes.
        hand: as composers write, or as a node writes down what it hears, which is how a transcribed prompt goes on.

    What is None is the model's to choose.
    """

    seed: int
    seconds: float = DEFAULT_SECONDS
    max_tokens: int = DEFAULT_TOKENS
    temperature: float = 1.0
    top_p: float = TOP_P
    prompt: ScoreTick | None = None
    memory: NDArray[np.float16] | None = field(default=None, repr=False)
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = DEFAULT_WINDOW
    beam_width: int = 0
    bars: int | None = None
    genre: str | None = None
    key: str | None = None
    metre: tuple[int, int] | None = None
    tempo: float | None = None
    program: int | None = None
    density: float | None = None
    polyphony: float | None = None
    hand: Hand = "score"

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise GenerationError(f"seed is {self.seed}; it must be from 0 to 2^53 - 1.")
        if not (math.isfinite(self.seconds) and 0.0 < self.seconds <= LONGEST_SECONDS):
            raise GenerationError(f"seconds is {self.seconds}; it must be above 0 and at most {LONGEST_SECONDS:g}.")
        if not 1 <= self.max_tokens <= MOST_TOKENS:
            raise GenerationError(f"max_tokens is {self.max_tokens}; it must be from 1 to {MOST_TOKENS}.")
        if not 0 <= self.beam_width <= MOST_BEAMS:
            raise GenerationError(f"beam_width is {self.beam_width}; it must be from 1 to {MOST_BEAMS}, or 0 to draw.")
        self._check_controls()
        self.sampling()

    def _check_controls(self) -> None:
        if self.bars is not None and not 1 <= self.bars <= MOST_BARS:
            raise GenerationError(f"bars is {self.bars}; it must be from 1 to {MOST_BARS}.")
        if self.hand not in HANDS:
            raise GenerationError(f"hand is {self.hand!r}; it must be one of {', '.join(HANDS)}.")
        if self.genre is not None and self.genre not in GENRES:
            raise GenerationError(f"genre is {self.genre!r}; the model knows {', '.join(GENRES)}.")
        if self.key is not None and self.key not in KEYS:
            raise GenerationError(f"key is {self.key!r}; it must be one of {', '.join(KEYS)}.")
        if self.metre is not None and self.metre not in METRES:
            known = ", ".join(f"{n}/{d}" for n, d in METRES)
            raise GenerationError(f"metre is {self.metre[0]}/{self.metre[1]}; it must be one of {known}.")
        if self.tempo is not None and not SLOWEST <= self.tempo <= FASTEST:
            raise GenerationError(f"tempo is {self.tempo}; it must be from {SLOWEST:g} to {FASTEST:g}.")
        if self.program is not None and not 0 <= self.program <= 127:
            raise GenerationError(f"program is {self.program}; it must be from 0 to 127.")
        if self.density is not None and not (math.isfinite(self.density) and self.density > 0.0):
            raise GenerationError(f"density is {self.density}; it must be above 0.")
        if self.polyphony is not None and not (math.isfinite(self.polyphony) and self.polyphony >= 1.0):
            raise GenerationError(f"polyphony is {self.polyphony}; it must be at least 1.")
        if self.prompt is not None:
            for name in ("metre", "tempo", "program"):
                if getattr(self, name) is not None:
                    raise GenerationError(f"{name} cannot be asked for with a prompt, which has its own; leave it out.")

    def header(self, *, before: int = 0) -> Header:
        """What the piece's header says beside metre, tempo and programs; `before` bars are given."""
        bars = None if self.bars is None else before + self.bars
        if before and bars not in BARS_LEFT:
            bars = None  # the number below would end the piece bars too early
        return Header(
            hand=self.hand,
            genre=self.genre,
            key=self.key,
            density=None if self.density is None else class_of(self.density, DENSITIES),
            polyphony=None if self.polyphony is None else class_of(self.polyphony, POLYPHONIES),
            bars=bars,
        )

    def asked(self) -> list[int]:
        """Symbols that the header of a piece without a prompt says."""
        free = {
            kind
            for kind, value in (("Metre", self.metre), ("Tempo", self.tempo), ("Program", self.program))
            if value is None
        }
        symbols = self.header().symbols(self.metre or (4, 4), self.tempo or 120.0, [self.program or 0])
        return [symbol for symbol in symbols if KINDS[symbol] not in free]

    def sampling(self) -> Sampling:
        """How to draw."""
        return Sampling(
            self.seed,
            self.max_tokens,
            self.temperature,
            self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            repetition_window=self.repetition_window,
        )


def controls_of(request: PieceRequest) -> dict[str, Any]:
    """What is asked of a piece and not left to the model, as JSON says it."""
    asked = {name: getattr(request, name) for name in CONTROLS}
    asked["metre"] = None if request.metre is None else f"{request.metre[0]}/{request.metre[1]}"
    return {name: value for name, value in asked.items() if value is not None}
