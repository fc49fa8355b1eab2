"""What came out of a listening test: counts with exact intervals, agreement, what to be wary of, and all in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.listening.answers import Sitting
from partbook.evaluation.listening.statistics import (
    ALPHA,
    MISSING,
    Proportion,
    by_guessing,
    critical,
    fleiss_kappa,
    krippendorff_alpha,
    margins_p,
    power,
    proportion,
    raw_agreement,
    trials_needed,
)
from partbook.evaluation.listening.trials import ANSWERS, Key

CLEAR: Final = 0.75  # the share that is spelt out
POWER: Final = 0.8
_BIASED: Final = 0.01  # p-value of one answer given too often


@dataclass(frozen=True, slots=True)
class ListenerResult:
    """One listener.

    Attributes:
        listener: as in the answers.
        answered: how many trials.
        hits: answers for A (of pairs), or right answers (human or not), with interval and test.
        first: answers "first", or "human", of all: what shows a habit.
        margins_p: human or not: p-value that allows for a listener who counts (`statistics.margins_p`); else None.
        seconds: listened in all.
    """

    listener: str
    answered: int
    hits: Proportion
    first: Proportion
    margins_p: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether listeners give the same answer to the same trial.

    Attributes:
        shared: trials with two answers or more.
        raw: mean share of pairs of listeners that agree.
        alpha: Krippendorff's, nominal, all answers.
        kappa: Fleiss', trials that everybody answered.
    """

    shared: int
    raw: float
    alpha: float
    kappa: float


@dataclass(frozen=True, slots=True)
class Scores:
    """A test's results.

    Attributes:
        key: of the kit.
        listeners: in the files' order.
        together: all answers in one pot.
        majority: trials in which more listeners hit than missed, of those without a draw; None below three listeners.
        taken_for_human: human or not: share of A's and of B's clips that were called human; else None.
        agreement: None below two listeners.
        warnings: a line each.
    """

    key: Key
    listeners: tuple[ListenerResult, ...]
    together: Proportion
    majority: Proportion | None
    taken_for_human: tuple[Proportion, Proportion] | None
    agreement: Agreement | None
    warnings: tuple[str, ...]


def scored(key: Key, sittings: Sequence[Sitting], warnings: Sequence[str] = ()) -> Scores:
    """Score sittings against a key; further warnings are put behind those given."""
    listeners = tuple(_listener(key, sitting) for sitting in sittings)
    hits = [{number: _hit(key, number, a.choice) for number, a in s.answers.items()} for s in sittings]
    together = proportion(sum(sum(each.values()) for each in hits), sum(map(len, hits)))
    agreement = None
    if len(sittings) >= 2:
        table = _table(key, sittings)
        shared = int(((table != MISSING).sum(axis=0) >= 2).sum())
        agreement = Agreement(shared, raw_agreement(table), krippendorff_alpha(table), fleiss_kappa(table))
    human = None
    if key.kind == "human":
        human = _taken_for_human(key, sittings, "A"), _taken_for_human(key, sittings, "B")
    majority = _majority(key, hits) if len(sittings) >= 3 else None
    said = (*warnings, *(line for result in listeners for line in _habits(key, result)), *_too_few(key, together))
    return Scores(key, listeners, together, majority, human, agreement, said)


def _hit(key: Key, number: int, choice: str) -> bool:
    return key.trials[number - 1].hit(choice)


def _listener(key: Key, sitting: Sitting) -> ListenerResult:
    answers, first = sitting.answers, ANSWERS[key.kind][0]
    hits = proportion(sum(_hit(key, number, a.choice) for number, a in answers.items()), len(answers))
    habit = proportion(sum(a.choice == first for a in answers.values()), len(answers))
    counted = None
    if key.kind == "human":
        table = np.zeros((2, 2), np.int64)
        for number, answer in answers.items():
            table[int(key.trials[number - 1].clips[0].origin == "B"), int(answer.choice == "not")] += 1
        counted = margins_p(table)
    return ListenerResult(
        sitting.listener, len(answers), hits, habit, counted, sum(sum(a.seconds) for a in answers.values())
    )


def _table(key: Key, sittings: Sequence[Sitting]) -> NDArray[np.int64]:
    """Answers as given, (listeners, trials): two listeners agree where they chose the same clip or word."""
    table = np.full((len(sittings), len(key.trials)), MISSING, np.int64)
    for row, sitting in enumerate(sittings):
        for number, answer in sitting.answers.items():
            table[row, number - 1] = ANSWERS[key.kind].index(answer.choice)
    return table


def _majority(key: Key, hits: Sequence[dict[int, bool]]) -> Proportion:
    won = lost = 0
    for trial in key.trials:
        votes = [each[trial.number] for each in hits if trial.number in each]
        won += 2 * sum(votes) > len(votes)
        lost += 2 * sum(votes) < len(votes)
    return proportion(won, won + lost)


def _taken_for_human(key: Key, sittings: Sequence[Sitting], origin: str) -> Proportion:
    said = [
        answer.choice == "human"
        for sitting in sittings
        for number, answer in sitting.answers.items()
        if key.trials[number - 1].clips[0].origin == origin
    ]
    return proportion(sum(said), len(said))


def _habits(key: Key, result: ListenerResult) -> list[str]:
    found = []
    if result.answered < len(key.trials):
        found.append(f"{result.listener} answered {result.answered} of {len(key.trials)} trials; those are counted.")
    word = ANSWERS[key.kind]
    habit = result.first
    if habit.of >= critical(habit.of) and (habit.p < _BIASED or habit.hits in (0, habit.of)):
        often, count = (word[0], habit.hits) if 2 * habit.hits >= habit.of else (word[1], habit.of - habit.hits)
        found.append(f"{result.listener} answered “{often}” {count} times of {habit.of}: a habit rather than an ear?")
    return found


def _too_few(key: Key, together: Proportion) -> list[str]:
    if not together.of:
        return ["No answers: nothing can be said."]
    chance = power(together.of, CLEAR)
    if chance >= POWER:
        return []
    return [
        f"Too few answers: with {together.of}, a true share of {percent(CLEAR)} is found in {percent(chance)} of "
        f"tests; from {trials_needed(CLEAR)} on in {percent(POWER)} or more."
    ]


# ---- in words


def meaning(of: int, share: float = CLEAR) -> str:
    """What a share of hits in so many trials would mean, and how many trials it takes to see it."""
    hits = math.ceil(share * of - 1e-9)
    return (
        f"A listener who cannot tell gets {hits} of {of} or better {once_in(by_guessing(hits, of))}. "
        f"The test calls it more than guessing (p < {ALPHA:g}, two-sided) from "
        + (f"{critical(of)} of {of} on" if critical(of) <= of else f"no count of {of} on: too few trials")
        + f". To see a true {percent(share)} with {percent(POWER)} power takes {trials_needed(share, POWER)} trials."
    )


def once_in(p: float) -> str:
    """A probability as a frequency: "once in 48 times"."""
    if p > 0.6667:
        return f"in {percent(p)} of such tests"
    return f"once in {round(1 / p):,} times" if p > 1e-9 else "practically never"


def verdict(key: Key, found: Proportion) -> str:
    """One sentence on a count."""
    if not found.of:
        return "No answers."
    interval = f"95 % interval {percent(found.low)} to {percent(found.high)}"
    count = f"{found.hits} of {found.of} ({percent(found.share)}; {interval})"
    if key.kind == "ab":
        subject = f"A was preferred in {count}"
        other = "; the answers do not tell A from B"
        clear = "; that is more than chance" if 2 * found.hits > found.of else "; B was preferred, more than by chance"
    else:
        subject = f"{count} right"
        other = "; that is what guessing gives, too"
        clear = "; they can tell" if 2 * found.hits > found.of else "; they hear a difference and call it the wrong way"
    return f"{subject}{clear if found.p < ALPHA else other} ({p_value(found.p)})."


def percent(share: float) -> str:
    """A share as people write it: "75 %"."""
    return f"{100 * share:.0f} %"


def p_value(p: float) -> str:
    """ "p = 0.041", or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def agreement_in_words(found: Agreement) -> str:
    """One sentence on agreement."""
    if not found.shared:
        return "No trial has answers of two listeners."
    said = f"Two listeners give the same answer in {percent(found.raw)} of {found.shared} shared trials"
    if math.isnan(found.alpha):
        return f"{said}; all gave one and the same answer throughout, so chance would agree as well."
    kappa = "" if math.isnan(found.kappa) else f", Fleiss' kappa {found.kappa:.2f}"
    return f"{said}; Krippendorff's alpha {found.alpha:.2f}{kappa} (1 is full agreement, 0 is chance)."


def as_json(scores: Scores) -> dict[str, Any]:
    """Everything, for a script; what is not a number is null."""
    key = scores.key
    agreement = scores.agreement
    of = len(key.trials)
    hits = math.ceil(CLEAR * of - 1e-9)
    return {
        "kit": key.kit,
        "kind": key.kind,
        "name": key.name,
        "question": key.question,
        "folders": key.folders,
        "trials": of,
        "counted": "answers for A" if key.kind == "ab" else "right answers",
        "listeners": [
            {
                "listener": result.listener,
                "answered": result.answered,
                **_count(result.hits),
                "first": result.first.hits,
                "margins_p": result.margins_p,
                "seconds": round(result.seconds, 1),
            }
            for result in scores.listeners
        ],
        "together": _count(scores.together),
        "majority": None if scores.majority is None else _count(scores.majority),
        "taken_for_human": None
        if scores.taken_for_human is None
        else {origin: _count(each) for origin, each in zip("AB", scores.taken_for_human, strict=True)},
        "agreement": None
        if agreement is None
        else {
            "trials": agreement.shared,
            "raw": _number(agreement.raw),
            "krippendorff_alpha": _number(agreement.alpha),
            "fleiss_kappa": _number(agreement.kappa),
        },
        "meaning": {
            "share": CLEAR,
            "hits": hits,
            "by_guessing": by_guessing(hits, of),
            "critical": critical(of),
            "power": power(of, CLEAR),
            "trials_needed": trials_needed(CLEAR, POWER),
            "words": meaning(of),
        },
        "warnings": list(scores.warnings),
    }


def _count(found: Proportion) -> dict[str, Any]:
    return {
        "hits": found.hits,
        "of": found.of,
        "share": _number(found.share),
        "interval": [found.low, found.high],
        "p": found.p,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
