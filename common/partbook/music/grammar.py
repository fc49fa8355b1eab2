"""Which token may come next: the vocabulary's grammar as a mask, so that everything drawn is music.

A `Grammar` follows one piece, symbol by symbol, and says of every token, merged ones included, whether it may be next:
headers are in order, and say what was asked for; a bar holds no more than its metre and no program that the header does
not name; pitches are given a length, rise within a chord, and none is struck twice at one moment, at which programs
rise too; dynamics are said where the music is heard; a piece ends at a note's end or a bar's, once it has a note, and
at the latest after as many bars as asked for. It is a `Constraint` of `partbook.model.sampling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import (
    HIGHEST_PITCH,
    KINDS,
    LOWEST_PITCH,
    MOST_GAPS,
    NUMBER,
    SYMBOLS,
    bar_positions,
)

_PITCHES: Final = HIGHEST_PITCH - LOWEST_PITCH + 1
_HEADER: Final = ("Hand", "Genre", "Style", "Key", "Metre", "Tempo", "Density", "Polyphony", "Bars", "Program")
MOST_PROGRAMS: Final = 16  # that a header names: as many as a MIDI file has channels
_NEEDED: Final = frozenset({"Hand", "Metre", "Tempo", "Program"})
_KINDS: Final = tuple(dict.fromkeys(KINDS))
_ASKED: Final = frozenset(_HEADER)  # kinds that a header may be asked to say


@dataclass(frozen=True, slots=True)
class _Tables:
    """What a mask needs of every token, (tokens, …)."""

    kind: NDArray[np.int64]  # of the first symbol, its place in _KINDS
    first: NDArray[np.int64]  # the first symbol
    steps: NDArray[np.int64]  # positions moved on by
    first_step: NDArray[np.int64]  # size of the first symbol, where it is a step
    pitch: NDArray[np.int64]  # of the first symbol, where it is one, else -1
    struck: NDArray[np.bool_]  # pitches struck before the first step, (tokens, 88)


@lru_cache(maxsize=4)
def _tables(tokenizer: Tokenizer) -> _Tables:
    count = len(tokenizer)
    kind, first, steps = (np.zeros(count, dtype=np.int64) for _ in range(3))
    first_step, pitch = np.zeros(count, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    struck = np.zeros((count, _PITCHES), dtype=np.bool_)
    for token in range(count):
        moved = False
        for place, symbol in enumerate(tokenizer.expand([token])):
            what, _, value = SYMBOLS[symbol].partition("_")
            if place == 0:
                kind[token], first[token] = _KINDS.index(what), symbol
            if what == "Step":
                moved = True
                steps[token] += int(value)
                if place == 0:
                    first_step[token] = int(value)
            elif what == "Pitch":
                if place == 0:
                    pitch[token] = int(value)
                if not moved:
                    struck[token, int(value) - LOWEST_PITCH] = True
    return _Tables(kind, first, steps, first_step, pitch, struck)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a piece is.

    Attributes:
        last: kind of the last symbol; "" before the first.
        value: its number, where it is a step or a pitch.
        heard: whether dynamics are said.
        bars: bars begun.
        length, at: of the present bar, and how far into it, in positions.
        struck: pitches of the present moment and program, a bit each.
        programs: those that the header names, a bit each.
        home, program: what bars begin on, the header's first; and what plays.
        gaps, filled: gaps left open so far, and those returned to.
        music: whether a note was written, or may have been before the window.
    """

    last: str = ""
    value: int = 0
    heard: bool = False
    bars: int = 0
    length: int = 48
    coming: int = 48
    at: int = 0
    struck: int = 0
    programs: int = 0
    home: int = -1
    program: int = -1
    gaps: int = 0
    filled: int = 0
    music: bool = False


class Grammar:
    """One piece's rules. `copy` branches it, as beam search does."""

    def __init__(
        self, tokenizer: Tokenizer, *, bars: int | None = None, gaps: bool = False, said: Sequence[int] = ()
    ) -> None:
        """At a piece's beginning, before its header.

        Args:
            tokenizer: the model's.
            bars: the piece ends after so many at the latest; None: never forced.
            gaps: whether gaps may be drawn; those of a prompt always may be filled.
            said: symbols that the header says, one of a kind at most; what else it says is free. A prompt's header
                stays as it is.
        """
        self._tokenizer, self._tables = tokenizer, _tables(tokenizer)
        self._most, self._gaps = bars, gaps
        self._said = {KINDS[symbol]: symbol for symbol in said}
        assert len(self._said) == len(said), "a header says one thing of a kind"
        assert self._said.keys() <= _ASKED, "only a header's symbols can be asked for"
        self._place = _Place()

    def within(self, bars: int) -> Grammar:
        """The same rules for a piece that ends after so many bars at the latest."""
        return Grammar(self._tokenizer, bars=bars, gaps=self._gaps, said=tuple(self._said.values()))

    def copy(self) -> Grammar:
        """The same place, to go on from separately."""
        other = Grammar(self._tokenizer, bars=self._most, gaps=self._gaps, said=tuple(self._said.values()))
        other._place = self._place
        return other

    @property
    def bars(self) -> int:
        """Bars begun so far."""
        return self._place.bars

    def append(self, token: int) -> None:
        """One token is written."""
        for symbol in self._tokenizer.expand([token]):
            self._place = _after(self._place, symbol)

    def allowed(self) -> Tensor:
        """Which tokens may be next, bool (vocabulary,)."""
        now, t = self._place, self._tables
        kinds = self._kinds()
        allowed = np.array([kind in kinds for kind in _KINDS])[t.kind]
        if not now.bars:
            for kind in kinds & self._said.keys():
                allowed &= (t.kind != _KIND[kind]) | (t.first == self._said[kind])
        if "Program" in kinds:  # in the header one that it does not name yet, in a bar one of those that it does
            named = np.array([now.programs >> k & 1 for k in range(128)], dtype=np.bool_)[
                (t.first - _PROGRAM).clip(0, 127)
            ]
            may = named if now.bars else ~named
            if now.bars:
                of = t.first - _PROGRAM
                may &= (of > now.program) if now.last == "Length" else (of != now.program)
            allowed &= (t.kind != _KIND["Program"]) | may
        if now.last == "Pitch":
            allowed &= (t.kind == _KIND["Length"]) | ((t.kind == _KIND["Pitch"]) & (t.pitch > now.value))
        allowed &= now.at + t.steps < np.where(t.kind == _KIND["Step"], now.length, max(now.length, 1))
        if now.last == "Step":  # several only where one is not enough: the largest first
            allowed &= (t.kind != _KIND["Step"]) | ((now.value >= 48) & (t.first_step <= now.value))
        if now.struck:
            bits = np.array([now.struck >> k & 1 for k in range(_PITCHES)], dtype=np.bool_)
            allowed &= ~(t.struck & bits).any(axis=1)
        return torch.from_numpy(allowed)

    def _kinds(self) -> set[str]:
        """Kinds of symbols that may begin the next token."""
        now = self._place
        if now.last in ("", "Begin", "Cut"):
            return {"Hand"} if now.last else {"Begin", "Cut", "Hand"}
        if not now.bars and now.last in _HEADER:
            order = _HEADER.index(now.last)
            found = set()
            for kind in _HEADER[order + (now.last != "Program") :]:
                found.add(kind)
                if kind in _NEEDED or kind in self._said:
                    break
            if now.last == "Program":
                enough = "Program" in self._said or now.programs.bit_count() >= MOST_PROGRAMS
                return {"Bar"} if enough else {"Program", "Bar"}
            return found
        if now.last == "Metre":
            return {"Tempo", "Bar"}
        if now.last in ("Tempo", "Fill"):
            return {"Bar"} | ({"Metre", "Tempo"} if now.last == "Fill" else set())
        if now.last == "Pitch":
            return {"Length", "Pitch"}
        if now.last == "Program":
            return {"Pitch"}
        if now.last == "Step":
            return {"Step", "Chord", "Program", "Pitch"}
        # after BAR, LEVEL, LENGTH, CHORD or GAP, something may be finished
        found = set() if now.last == "Gap" else {"Step", "Chord", "Program", "Pitch"}
        if now.last == "Bar" and now.heard:
            found = {"Level"}
        if now.last in ("Length", "Chord"):
            found -= {"Chord"}
        if now.last != "Level":
            more = self._most is None or now.bars < self._most
            found |= {"Bar", "Metre", "Tempo"} if more else set()
            if self._gaps and more and not now.filled and now.gaps < MOST_GAPS:
                found.add("Gap")
            if now.filled < now.gaps:
                found.add("Fill")
            elif now.music:
                found.add("End")
        return found


def _after(now: _Place, symbol: int) -> _Place:
    kind, _, value = SYMBOLS[symbol].partition("_")
    if kind == "Bar":
        return replace(now, last=kind, bars=now.bars + 1, length=now.coming, at=0, struck=0, program=now.home)
    if kind == "Metre":
        numerator, _, denominator = value.partition("/")
        return replace(now, last=kind, coming=bar_positions(int(numerator), int(denominator)))
    if kind == "Step":
        return replace(now, last=kind, value=int(value), at=now.at + int(value), struck=0)
    if kind == "Pitch":
        return replace(now, last=kind, value=int(value), struck=now.struck | 1 << (int(value) - LOWEST_PITCH))
    if kind == "Program":
        if now.bars:
            return replace(now, last=kind, struck=0, program=int(value))
        home = int(value) if now.home < 0 else now.home
        return replace(now, last=kind, home=home, programs=now.programs | 1 << int(value))
    if kind == "Hand":
        return replace(now, last=kind, heard=value == "heard")
    if kind == "Gap":
        return replace(now, last=kind, gaps=now.gaps + 1)
    if kind == "Fill":
        return replace(now, last=kind, filled=now.filled + 1)
    return replace(now, last=kind, music=now.music or kind in ("Length", "Cut"))


_KIND: Final = {kind: place for place, kind in enumerate(_KINDS)}
_PROGRAM: Final = NUMBER["Program_0"]
assert set(_HEADER) <= set(KINDS)
