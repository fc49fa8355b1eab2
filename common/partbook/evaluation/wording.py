"""An evaluation's numbers as text and its findings as sentences: what the page and the terminal both say.

Nothing is computed here that `results.Evaluation` does not hold; a number that is not one is an en dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import MEASURES, Measure, by_name
from partbook.evaluation.results import Evaluation, Subject

DASH: Final = "–"
_MINUS: Final = "−"
_SPACE: Final = "\N{NO-BREAK SPACE}"
_TOLERANCE: Final = 1e-9  # as when pieces are counted as inside the band

_UNSURE: Final = 0.75  # an interval from chance to beyond this says little

Side = Literal["above", "below", ""]


def number(value: float, decimals: int = 2) -> str:
    """A number with a real minus sign; an en dash where it is not one."""
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", _MINUS)


def interval(low: float, high: float, decimals: int = 2) -> str:
    """Two ends as a range; an en dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return DASH
    return _range(number(low, decimals), number(high, decimals))


def _range(low: str, high: str) -> str:
    return f"{low} to {high}" if _MINUS in low + high else f"{low}–{high}"


def estimate(value: Estimate, decimals: int = 2) -> str:
    """A number and, in brackets, its interval."""
    if math.isnan(value.value):
        return DASH
    return f"{number(value.value, decimals)} ({interval(value.low, value.high, decimals)})"


def percent(value: float) -> str:
    """A share as a percentage, with its sign."""
    return DASH if math.isnan(value) else f"{number(100 * value, 0)}{_SPACE}%"


def counted(count: int, noun: str) -> str:
    """A number and what it counts; the noun takes an s where there is not one."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


@dataclass(frozen=True, slots=True)
class Scale:
    """How a measure's numbers are written.

    Attributes:
        unit: after them, or in the head of their row.
        factor: 100 where a share is written as a percentage.
        decimals: behind the point.
    """

    unit: str
    factor: float
    decimals: int

    def one(self, value: float) -> str:
        """A number without its unit; a small share keeps one decimal."""
        scaled = value * self.factor
        return number(scaled, self._decimals(scaled))

    def range(self, low: float, high: float) -> str:
        """Two numbers as a range, without their unit."""
        if math.isnan(low) or math.isnan(high):
            return DASH
        return _range(self.one(low), self.one(high))

    def with_unit(self, text: str) -> str:
        """A text of numbers and the unit."""
        return f"{text}{_SPACE}{self.unit}" if self.unit else text

    def _decimals(self, scaled: float) -> int:
        return 1 if self.unit == "%" and 0 < abs(scaled) < 0.995 else self.decimals


def scale(measure: Measure) -> Scale:
    """How a measure is written: what is defined as a share as a percentage, semitones with one decimal."""
    if not measure.unit and measure.definition.startswith("Share "):
        return Scale("%", 100.0, 0)
    return Scale(measure.unit, 1.0, {"MIDI": 0, "semitones": 1, "notes/s": 1}.get(measure.unit, 2))


def label(measure: Measure) -> str:
    """A measure's title and unit."""
    unit = scale(measure).unit
    return f"{measure.title}, {unit}" if unit else measure.title


def side(median: float, band: tuple[float, float, float]) -> Side:
    """On which side of the reference's 10–90 % band a median lies; empty where inside, or where there is none."""
    low, _, high = band
    if math.isnan(median) or math.isnan(low) or math.isnan(high):
        return ""
    return "above" if median > high + _TOLERANCE else "below" if median < low - _TOLERANCE else ""


def distance(median: float, band: tuple[float, float, float]) -> float:
    """How far outside the band, in widths of the band: 0 inside, infinite outside a band of no width."""
    where = side(median, band)
    if not where:
        return 0.0
    width = band[2] - band[0]
    beyond = median - band[2] if where == "above" else band[0] - median
    return beyond / width if width > _TOLERANCE else math.inf


def medians_inside(subject: Subject, evaluation: Evaluation) -> tuple[int, int]:
    """How many measures have their median inside the reference's band, and of how many."""
    if subject.comparison is None:
        return 0, 0
    found = [
        not side(spread.median.value, evaluation.bands[name])
        for name, spread in subject.comparison.measures.items()
        if name in evaluation.bands and not math.isnan(spread.median.value + evaluation.bands[name][0])
    ]
    return sum(found), len(found)


def main_subject(evaluation: Evaluation) -> Subject | None:
    """The subject that is asked about: the first generator or folder, else the first of all."""
    asked = [s for s in evaluation.subjects if s.kind in ("generator", "folder")]
    return next(iter(asked or evaluation.subjects), None)


def telling(evaluation: Evaluation, subject: Subject | None) -> list[Measure]:
    """The measures, those first by which a subject is most unlike the reference; the usual order without one.

    Unlike: the fewest pieces inside the reference's band, then the smallest overlapping area.
    """
    known = [m for m in MEASURES if m.name in evaluation.bands]
    if subject is None or subject.comparison is None:
        return known
    spreads = subject.comparison.measures

    def rank(measure: Measure) -> tuple[float, float]:
        spread = spreads[measure.name]
        return _last(spread.inside.value), _last(spread.overlap)

    return sorted(known, key=rank)


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def verdict(subject: Subject) -> str:
    """A few words on whether the pieces pass for human works, by whichever two-sample test tells more.

    They follow a name, as in "The release … can hardly be told from human works".
    """
    test = plainest(subject)
    if test is None:
        return "too few pieces for a test" if subject.comparison is not None else "no pieces here"
    if test.low <= 0.5:
        if test.high > _UNSURE:
            return "is not told from human works, but by too few pieces to be sure"
        return "cannot be told from human works"
    for bound, words in (
        (0.65, "can hardly be told from human works"),
        (0.8, "is often told from human works"),
        (0.95, "is mostly told from human works"),
    ):
        if test.value < bound:
            return words
    return "gives itself away nearly every time"


def plainest(subject: Subject) -> Estimate | None:
    """The higher AUC of the two tests; None where there is none."""
    if subject.comparison is None:
        return None
    tests = [t for t in (subject.comparison.features, subject.comparison.tokens) if not math.isnan(t.value)]
    return max(tests, key=lambda t: t.value) if tests else None


def findings(subject: Subject, evaluation: Evaluation) -> list[str]:
    """What the figures say about a subject, in sentences."""
    comparison = subject.comparison
    if comparison is None:
        return [] if not subject.surprise else ["It is judged by how well it predicts human works; see nats a note."]
    sentences = [_told(comparison.features, comparison.tokens, comparison.pieces)]
    inside, of = medians_inside(subject, evaluation)
    if of:
        sentences.append(
            f"{inside} of {counted(of, 'measure')} {'have' if inside != 1 else 'has'} a median where eight in ten "
            "human works lie."
        )
    sentences += [
        text
        for name, words in (
            ("silence", "Nothing sounds for {} of the time"),
            ("bar_repeats", "{} of bars repeat an earlier one exactly"),
        )
        if (text := _beside(subject, evaluation, name, words))
    ]
    far = _farthest(subject, evaluation)
    if far:
        sentences.append(f"Farthest from human works, theirs in brackets: {far}.")
    return sentences


def _told(features: Estimate, tokens: Estimate, pieces: int) -> str:
    parts = [
        f"{number(100 * test.value, 0)} times in 100 by {what} ({interval(100 * test.low, 100 * test.high, 0)})"
        for what, test in (("its measures", features), ("its notes", tokens))
        if not math.isnan(test.value)
    ]
    if not parts:
        return f"There are too few pieces for a two-sample test ({counted(pieces, 'piece')})."
    return f"Put beside a human work, it is picked out {' and '.join(parts)}; guessing is right 50 times."


def _beside(subject: Subject, evaluation: Evaluation, name: str, words: str) -> str:
    if subject.comparison is None or name not in evaluation.bands:
        return ""
    median, band = subject.comparison.measures[name].median.value, evaluation.bands[name]
    if math.isnan(median):
        return ""
    how = scale(by_name(name))
    there = how.with_unit(how.range(band[0], band[2]))
    return f"{words.format(how.with_unit(how.one(median)))} (human works: {there})."


def _farthest(subject: Subject, evaluation: Evaluation, most: int = 3) -> str:
    if subject.comparison is None:
        return ""
    spreads = subject.comparison.measures
    far = [
        (distance(spreads[m.name].median.value, evaluation.bands[m.name]), m)
        for m in MEASURES
        if m.name in evaluation.bands and m.name in spreads
    ]
    far = sorted((pair for pair in far if pair[0] > 0), key=lambda pair: -pair[0])[:most]
    return ", ".join(
        f"{label_of(m)} {scale(m).with_unit(scale(m).one(spreads[m.name].median.value))} "
        f"({scale(m).range(evaluation.bands[m.name][0], evaluation.bands[m.name][2])})"
        for _, m in far
    )


def label_of(measure: Measure) -> str:
    """A measure's title inside a sentence."""
    return measure.title[:1].lower() + measure.title[1:]


def calibration(evaluation: Evaluation) -> str:
    """What the test says where the answer is known: human works against human works, noise against human works."""
    parts = [
        f"{s.title}: {estimate(s.comparison.features)} by measures, {estimate(s.comparison.tokens)} by tokens"
        for kind in ("human", "noise")
        for s in evaluation.subjects
        if s.kind == kind and s.comparison is not None and plainest(s)
    ]
    return f"Where the answer is known. {'. '.join(parts)}." if parts else ""


def lengths(evaluation: Evaluation) -> str:
    """How many pieces, works and seeds stand behind the numbers."""
    sets = [s.comparison.pieces for s in evaluation.subjects if s.comparison is not None]
    held = (
        f"{counted(sum(sets), 'piece')} in {counted(len(sets), 'set')} are held against" if sets else "Held against are"
    )
    return (
        f"{held} {counted(evaluation.works, 'work')} by people: {evaluation.reference}. All that is drawn is drawn "
        f"from one seed, {evaluation.seed}; intervals are 95 %, over pieces."
    )


def answer(subject: Subject, evaluation: Evaluation) -> str:
    """The answer for one subject as sentences that follow its name and a colon."""
    said = findings(subject, evaluation)
    return " ".join([f"{verdict(subject)}.", *said[:4]])


def begun(text: str) -> str:
    """A text with a capital letter."""
    return text[:1].upper() + text[1:]


def collections(subjects: Sequence[Subject]) -> list[tuple[str, Literal["score", "heard"]]]:
    """Every (collection, hand) of which some subject knows how surprised it is, in order of appearance."""
    found: dict[tuple[str, Literal["score", "heard"]], None] = {}
    for subject in subjects:
        for collection, hands in subject.surprise.items():
            for hand in hands:
                found[collection, hand] = None
    order = list(dict.fromkeys(collection for collection, _ in found))
    return sorted(found, key=lambda pair: (order.index(pair[0]), pair[1] != "score"))
