"""What is said, drawn and measured of the long run while it goes: progress, curves, held-out works, a sampled piece.

Nothing here moves the run: weights are looked at as their moving average, and put back.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from symusic.core import ScoreTick

from partbook.corpus.watching import Watcher
from partbook.model.generation import generate
from partbook.model.sampling import Sampling
from partbook.model.transformer import PartbookModel
from partbook.music.grammar import Grammar
from partbook.music.tokens import Tokenizer
from partbook.pretraining.measuring import Held, mean, nats_a_note
from partbook.training.run import Run, Step

if TYPE_CHECKING:
    from partbook.training.board import Board

CURVE: Final = "heldout.jsonl"
UNIT: Final = 10_000  # tokens that a progress bar moves by
SAMPLED_TOKENS: Final = 768
SAMPLED_BARS: Final = 32
_SMOOTHING: Final = 0.97  # of the loss that people are told
_SAID_EVERY: Final = 600.0  # seconds, in a log


class Onlooker(Watcher, Protocol):
    """Draws stages, and says what is being done; `partbook.simulation.watching.RichWatcher` does."""

    def now(self, what: str) -> None:
        """What is being done."""
        ...

    def note(self, text: str) -> None:
        """A line that stays."""
        ...


def sampled(model: PartbookModel, tokenizer: Tokenizer, seed: int, *, tokens: int = SAMPLED_TOKENS) -> ScoreTick:
    """A piece that a model writes freely, at most 32 bars; leaves it in evaluation mode."""
    model.eval()
    drawing = Sampling(seed=seed, max_tokens=tokens)
    grammar = Grammar(tokenizer, bars=SAMPLED_BARS)
    return tokenizer.decode(list(generate(model, tokenizer, drawing, constraint=grammar)))


class Watching:
    """Of one run."""

    def __init__(
        self,
        run: Run,
        tokenizer: Tokenizer,
        openings: Sequence[Held],
        watch: Onlooker,
        board: Board | None,
        curve_every: int,
        measure_every: float,
    ) -> None:
        """At the step where the run goes on.

        Args:
            run: that is open.
            tokenizer: its windows'.
            openings: of held-out works.
            watch: told how far it is.
            board: drawn on, if there is one.
            curve_every: steps from one point of a curve to the next.
            measure_every: seconds from one look to the next.
        """
        self._run, self._tokenizer, self._openings, self._watch = run, tokenizer, openings, watch
        self._board, self._curve_every, self._measure_every = board, curve_every, measure_every
        self._loss: float | None = None
        self._moved = 0
        self._looked_at = run.step
        self._began = self._looked = self._said = time.monotonic()
        self._first = run.tokens

    def step(self, step: Step) -> None:
        """Told each step."""
        self._loss = step.loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * step.loss
        now = time.monotonic()
        pace = (step.tokens - self._first) / max(now - self._began, 1e-9)
        left = max(self._run.recipe.tokens - step.tokens, 0) / pace
        said = f"{self._loss:.3f} nats a token, {pace:,.0f}/s, {_hours(left)} left"
        while self._moved < step.tokens // UNIT:
            self._watch.step(said)
            self._moved += 1
        self._watch.now(said)
        if now - self._said >= _SAID_EVERY:
            self._watch.note(f"step {step.number:,}, {step.tokens:,} tokens: {said}")
            self._said = now
        if self._board is not None and step.number % self._curve_every == 0:
            self._board.step(step)
        if now - self._looked >= self._measure_every:
            self.look()
            self._looked = time.monotonic()

    def look(self) -> None:
        """Measure the averaged weights, and have them write a piece; once a step."""
        run = self._run
        if run.step == self._looked_at:
            return
        self._looked_at = run.step
        with run.averaged() as model:
            figures = nats_a_note(model, self._tokenizer, self._openings)
            piece = sampled(model, self._tokenizer, run.step) if self._board is not None else None
        row = {"step": run.step, "tokens": run.tokens, "nats_a_note": {k: round(v, 4) for k, v in figures.items()}}
        with (run.folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        written_, heard_ = mean(figures, "score"), mean(figures, "heard")
        as_heard = "" if math.isnan(heard_) else f", {heard_:.2f} as heard"
        if figures:
            self._watch.note(f"step {run.step:,}: {written_:.2f} nats a note on held-out scores{as_heard}")
        if self._board is not None:
            self._board.heldout(figures, run.step)
            if piece is not None:
                self._board.piece(piece, run.step)


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
