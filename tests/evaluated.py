"""A small evaluation whose every number is known, and the MIDI files that its gallery shows."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick

from partbook.evaluation.comparison import Comparison, MeasuredSet, Spread
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import NAMES
from partbook.evaluation.reading import GRID, Reading
from partbook.evaluation.results import Evaluation, Hand, Kind, Listening, Shown, StyleTest, Subject, Surprise

HOSTILE = '<script>alert("& ε")</script> |x| [b]'
MIDI = ("release 1.mid", "release 2.mid")


def tuneful(seed: int, title: str = "", bars: int = 16) -> Reading:
    """Steps of a scale in eighths and quarters; the second half of each eight bars repeats the first."""
    random = np.random.Generator(np.random.Philox(seed))
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    onset, pitch, duration = [], [], []
    for first in range(0, bars, 8):
        degree, start = int(random.integers(14)), len(onset)
        for bar in range(first, first + 4):
            place = 0
            while place < 4 * GRID:
                length = int(random.choice([GRID // 2, GRID]))
                length = min(length, 4 * GRID - place)
                degree = int(np.clip(degree + random.integers(-2, 3), 0, 20))
                onset.append(bar * 4 * GRID + place)
                pitch.append(60 + 12 * (degree // 7) + int(scale[degree % 7]))
                duration.append(length)
                place += length
        count = len(onset) - start
        onset += [at + 16 * GRID for at in onset[start:]]
        pitch += pitch[start : start + count]
        duration += duration[start : start + count]
    lines = np.arange(bars + 1) * 4 * GRID
    arrays = (np.array(values, dtype=np.int64) for values in (onset, duration, pitch))
    return Reading(title or f"Tune {seed}", *arrays, lines, 2.0 * bars, f"tune {seed}")


def scattered(seed: int, title: str = "") -> Reading:
    """As many notes as a tune has, anywhere."""
    like = tuneful(seed)
    random = np.random.Generator(np.random.Philox(seed))
    onset = np.sort(random.integers(0, like.end - GRID, len(like)))
    pitch = random.integers(40, 90, len(like))
    named = title or f"Noise {seed}"
    return replace(like, title=named, work=named, onset=onset, pitch=pitch, duration=np.full(len(like), 3))


def surprise(note: float, *, bound: bool = False) -> Surprise:
    """Numbers that tell where they come from."""
    return Surprise(
        works=7,
        per_note=Estimate(note, note - 0.11, note + 0.12),
        per_token=Estimate(1.25, 1.15, 1.35),
        repeated=Estimate(note / 2, note / 2 - 0.1, note / 2 + 0.1),
        new=Estimate(note + 0.5, note + 0.4, note + 0.6),
        bound=bound,
    )


def write_pieces(folder: Path) -> None:
    """The MIDI files that the gallery shows."""
    for name, piece in zip(MIDI, _sets()["release"], strict=False):
        score: ScoreTick = piece.score()
        score.dump_midi(str(folder / name))


@functools.cache
def evaluation() -> Evaluation:
    """Four subjects: a generator with a hostile title, human works, noise, and a model that writes no pieces."""
    works = MeasuredSet.of("works", [tuneful(seed) for seed in range(9)])
    titles = {"release": HOSTILE, "human": "Held out", "noise": "Random notes"}
    kinds: dict[str, Kind] = {"release": "generator", "human": "human", "noise": "noise"}
    tests = {
        "release": (Estimate(0.873, 0.812, 0.934), Estimate(0.791, 0.702, 0.885)),
        "human": (Estimate(0.512, 0.431, 0.593), Estimate.nothing()),
        "noise": (Estimate(1.0, 1.0, 1.0), Estimate(0.996, 0.981, 1.0)),
    }
    subjects = []
    for name, pieces in _sets().items():
        measured = MeasuredSet.of(name, pieces)
        generator = name == "release"
        subjects.append(
            Subject(
                name=name,
                title=titles[name],
                kind=kinds[name],
                about="Drawn by its seed.",
                comparison=_compared(measured, works, *tests[name]),
                values={measure: tuple(measured.column(measure).tolist()) for measure in NAMES},
                surprise=_surprises() if generator else {},
                listening=Listening(Estimate(21.3, 19.2, 23.4), Estimate(2.17, 2.05, 2.29), 33) if generator else None,
                style=StyleTest(Estimate(0.44, 0.31, 0.58), Estimate(0.83, 0.78, 0.87), 0.25, 55)
                if generator
                else None,
                gallery=(
                    Shown(pieces[0].title, "worst", 0.97, Path("elsewhere") / MIDI[0]),
                    Shown(pieces[1].title, "drawn", float("nan"), Path(MIDI[1])),
                )
                if generator
                else (),
                seconds=12.0,
            )
        )
    vae: dict[str, Mapping[Hand, Surprise]] = {"bach": {"score": surprise(6.66, bound=True)}}
    subjects.append(Subject("vae", "VAE", "baseline", "Writes nothing.", None, {}, vae))
    return Evaluation(
        command="partbook evaluate release --seed 5",
        seed=5,
        reference="nine tunes",
        works=len(works),
        bands={name: _quantiles(works.column(name)) for name in NAMES},
        reference_values={name: tuple(works.column(name).tolist()) for name in NAMES},
        subjects=tuple(subjects),
        machine=(("Processor", "two cores"),),
        notes=("Openings are compared.",),
    )


@functools.cache
def _sets() -> dict[str, list[Reading]]:
    return {
        "release": [tuneful(100, "Piece & <i>one</i>"), tuneful(101, bars=8), tuneful(102)],
        "human": [tuneful(200 + seed) for seed in range(4)],
        "noise": [scattered(300 + seed) for seed in range(3)],
    }


def _compared(measured: MeasuredSet, works: MeasuredSet, features: Estimate, tokens: Estimate) -> Comparison:
    """A comparison in no time: quartiles for intervals, no test, no bootstrap."""
    spreads = {}
    for index, name in enumerate(NAMES):
        column = measured.column(name)
        defined = column[~np.isnan(column)]
        low, _, high = _quantiles(defined)
        quarters = np.quantile(defined, (0.25, 0.5, 0.75)).tolist() if len(defined) else [float("nan")] * 3
        spreads[name] = Spread(
            median=Estimate(quarters[1], quarters[0], quarters[2]),
            low=low,
            high=high,
            inside=Estimate((index % 11) / 10, 0.0, 1.0) if len(defined) else Estimate.nothing(),
            overlap=index / 100 if len(defined) else float("nan"),
            undefined=len(column) - len(defined),
        )
    return Comparison(
        pieces=len(measured),
        reference=len(works),
        measures=spreads,
        features=features,
        tokens=tokens,
        precision=Estimate(0.321, 0.234, 0.432),
        heldout_run=Estimate(6.0, 5.0, 7.0),
        heldout_longest=19,
        training_run=Estimate.nothing(),
        training_longest=0,
        suspicion=(),
    )


def _quantiles(column: NDArray[np.float64]) -> tuple[float, float, float]:
    defined = column[~np.isnan(column)]
    if not len(defined):
        return float("nan"), float("nan"), float("nan")
    low, middle, high = np.quantile(defined, (0.1, 0.5, 0.9)).tolist()
    return low, middle, high


def _surprises() -> Mapping[str, Mapping[Hand, Surprise]]:
    return {
        "bach": {"score": surprise(5.41), "heard": surprise(6.42)},
        "monteverdi": {"heard": replace(surprise(7.43), repeated=Estimate.nothing())},
    }
