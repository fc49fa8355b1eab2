from __future__ import annotations

import math
from dataclasses import replace

import pytest
from evaluated import evaluation

from partbook.evaluation.comparison import Comparison
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import MEASURES, by_name
from partbook.evaluation.results import Evaluation, Subject
from partbook.evaluation.wording import (
    DASH,
    collections,
    distance,
    estimate,
    findings,
    interval,
    main_subject,
    number,
    percent,
    scale,
    side,
    verdict,
)


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluation()


def test_numbers_are_written_as_people_write_them() -> None:
    assert number(-1.25, 1) == "−1.2"
    assert number(-0.001) == "0.00"
    assert number(12345.6, 0) == "12,346"
    assert number(math.nan) == number(math.nan, 0) == DASH
    assert number(math.inf) == "∞"
    assert interval(0.1, 0.25) == "0.10–0.25"
    assert interval(-0.1, 0.25) == "−0.10 to 0.25"
    assert interval(math.nan, 1.0) == DASH
    assert estimate(Estimate(0.5, 0.4, 0.6)) == "0.50 (0.40–0.60)"
    assert estimate(Estimate.nothing()) == DASH
    assert percent(0.256) == "26\N{NO-BREAK SPACE}%"


def test_what_is_defined_as_a_share_is_a_percentage_and_nothing_else_is() -> None:
    assert scale(by_name("silence")).one(0.256) == "26"
    assert scale(by_name("silence")).one(0.0042) == "0.4"
    assert scale(by_name("silence")).one(0.0) == "0"
    assert scale(by_name("rhythm_entropy")).one(3.512) == "3.51"
    assert scale(by_name("bar_line_leap")).range(-0.31, 1.2) == "−0.3 to 1.2"
    assert {m.name for m in MEASURES if scale(m).unit == "%"} == {
        m.name for m in MEASURES if not m.unit and m.definition.startswith("Share ")
    }


def test_a_median_is_inside_above_or_below_the_band() -> None:
    band = (1.0, 2.0, 3.0)
    assert [side(x, band) for x in (0.5, 1.0, 3.0, 3.5, math.nan)] == ["below", "", "", "above", ""]
    assert [distance(x, band) for x in (0.5, 2.0, 4.0)] == [0.25, 0.0, 0.5]
    assert distance(0.1, (0.0, 0.0, 0.0)) == math.inf
    assert side(0.1, (math.nan, math.nan, math.nan)) == ""


def _with(found: Evaluation, features: Estimate, tokens: Estimate) -> Subject:
    subject = found.subjects[0]
    assert isinstance(subject.comparison, Comparison)
    return replace(subject, comparison=replace(subject.comparison, features=features, tokens=tokens))


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (Estimate(0.5, 0.44, 0.56), "cannot be told"),
        (Estimate(0.7, 0.45, 0.9), "too few pieces to be sure"),
        (Estimate(0.6, 0.55, 0.65), "can hardly be told"),
        (Estimate(0.7, 0.65, 0.75), "is often told"),
        (Estimate(0.9, 0.85, 0.95), "is mostly told"),
        (Estimate(0.95, 0.9, 0.99), "gives itself away"),
        (Estimate.nothing(), "too few pieces for a test"),
    ],
)
def test_the_verdict_follows_the_test_that_tells_more(found: Evaluation, test: Estimate, words: str) -> None:
    lower = Estimate(0.3, 0.2, 0.4) if not math.isnan(test.value) else test
    assert words in verdict(_with(found, test, lower))
    assert words in verdict(_with(found, lower, test))


def test_findings_name_silence_and_repeats_beside_those_of_human_works(found: Evaluation) -> None:
    said = " ".join(findings(found.subjects[2], found))
    comparison = found.subjects[2].comparison
    assert comparison is not None
    silence = scale(by_name("silence")).one(comparison.measures["silence"].median.value)
    assert f"Nothing sounds for {silence}\N{NO-BREAK SPACE}% of the time (human works:" in said
    assert "0\N{NO-BREAK SPACE}% of bars repeat an earlier one exactly" in said
    assert "Farthest from human works" in said


def test_the_generator_is_asked_about_and_else_the_first(found: Evaluation) -> None:
    first, human, *rest = found.subjects
    assert main_subject(replace(found, subjects=(human, first))) == first
    assert main_subject(replace(found, subjects=(human, *rest))) == human
    assert main_subject(replace(found, subjects=())) is None


def test_collections_come_in_order_as_written_before_as_heard(found: Evaluation) -> None:
    assert collections(found.subjects) == [("bach", "score"), ("bach", "heard"), ("monteverdi", "heard")]
