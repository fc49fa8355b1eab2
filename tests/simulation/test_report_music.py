"""The report's answer: what is said at which AUC, which numbers are marked, and what is not known."""

import re
from dataclasses import replace

import pytest

from partbook.evaluation.brief import HEADLINES, Brief, BriefRow
from partbook.evaluation.comparison import Comparison, Spread
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import NAMES
from partbook.simulation.report_music import is_it_music

NAN = float("nan")


def comparison(auc: Estimate, median: float, **medians: float) -> Comparison:
    """Every measure's median, and its own where one is given."""

    def spread(value: float) -> Spread:
        return Spread(Estimate(value, value, value), value, value, Estimate.nothing(), NAN, 0)

    nothing = Estimate.nothing()
    measures = {name: spread(medians.get(name, median)) for name in NAMES}
    return Comparison(24, 60, measures, auc, nothing, nothing, nothing, 0, nothing, 0, ())


def brief(auc: Estimate, median: float = 0.5, **medians: float) -> Brief:
    """A release and noise, whose human works lie between 0.25 and 0.75."""
    rows = (
        BriefRow("The release", "generator", comparison(auc, median, **medians)),
        BriefRow("Random notes", "noise", comparison(Estimate(1.0, 1.0, 1.0), 0.875)),
    )
    return Brief("scores & <b>recordings</b>", 60, dict.fromkeys(NAMES, (0.25, 0.5, 0.75)), rows, 1)


def verdict(found: Brief) -> str:
    """The first paragraph, up to what the release wrote."""
    return re.findall(r"<p>(.*?) The release wrote", is_it_music(found))[0]


def cells(found: Brief, title: str) -> list[str]:
    """The numbers of a row."""
    (row,) = [line for line in re.findall(r"<tr>.*?</tr>", is_it_music(found)) if f">{title}" in line]
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


@pytest.mark.parametrize(
    ("auc", "said"),
    [
        (Estimate(1.0, 1.0, 1.0), "No: a small classifier tells nearly every piece of the release from human works"),
        (Estimate(0.95, 0.9, 0.99), "No: a small classifier tells nearly every piece"),
        (Estimate(0.94, 0.9, 0.99), "Not yet: a small classifier mostly tells"),
        (Estimate(0.75, 0.6, 0.9), "Not yet: a small classifier mostly tells"),
        (Estimate(0.74, 0.6, 0.9), "Nearly: a small classifier has trouble"),
        (Estimate(0.5, 0.4, 0.6), "Nearly: a small classifier has trouble"),
        (Estimate(0.5, 0.41, 0.59), "By these measures, yes: a small classifier cannot tell"),
        (Estimate(0.4, 0.3, 0.5), "By these measures, yes"),
    ],
)
def test_the_verdict_goes_by_the_auc_and_by_what_its_interval_leaves_open(auc: Estimate, said: str) -> None:
    found = verdict(brief(auc))
    assert found.startswith(said)
    assert f"(AUC {auc.value:.2f} ({auc.low:.2f}–{auc.high:.2f}))" in found


def test_it_counts_the_medians_that_lie_where_human_works_do() -> None:
    assert verdict(brief(Estimate(0.9, 0.8, 1.0))).endswith(
        f"; {len(HEADLINES)} of {len(HEADLINES)} medians lie where human works do."
    )
    found = verdict(brief(Estimate(0.9, 0.8, 1.0), density=0.76, silence=0.24, groove=0.75, form=0.25))
    assert found.endswith(f"; {len(HEADLINES) - 2} of {len(HEADLINES)} medians lie where human works do.")


def test_what_has_no_median_or_no_band_lies_nowhere() -> None:
    found = brief(Estimate(0.9, 0.8, 1.0), form=NAN, density=9.0)
    found = replace(found, bands={**found.bands, "density": (NAN, NAN, NAN)})
    left = len(HEADLINES) - 2
    assert verdict(found).endswith(f"; {left} of {left} medians lie where human works do.")
    assert cells(found, "Form") == ["0.25 – 0.50 – 0.75", "–", "0.88*"]
    assert cells(found, "Density")[:2] == ["–", "9.00"]


def test_few_pieces_leave_the_answer_open() -> None:
    found = brief(Estimate.nothing())
    assert verdict(found).startswith("There are too few pieces to say; ")
    assert cells(found, "Told from human works by its measures")[1] == "–"
    assert "nan" not in is_it_music(found)


def test_a_star_marks_a_median_outside_the_human_band() -> None:
    found = brief(Estimate(0.9, 0.8, 1.0), silence=0.8, groove=0.75)
    assert cells(found, "Silence") == ["0.25 – 0.50 – 0.75", "0.80*", "0.88*"]
    assert cells(found, "Groove") == ["0.25 – 0.50 – 0.75", "0.75", "0.88*"]


def test_the_table_has_every_headline_and_the_sets_with_their_pieces() -> None:
    html = is_it_music(brief(Estimate(0.9, 0.8, 1.0)))
    assert html.count("<tr>") == 1 + 2 + len(HEADLINES)
    assert "The release (24)" in html
    assert "Random notes (24)" in html
    assert "held against 60 human works (scores &amp; &lt;b&gt;recordings&lt;/b&gt;)" in html
