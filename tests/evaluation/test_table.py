from __future__ import annotations

import io
import math
import re
import textwrap
from dataclasses import replace

import pytest
from evaluated import HOSTILE, evaluation
from rich.console import Console

from partbook.evaluation.measures import MEASURES, Measure
from partbook.evaluation.results import Evaluation
from partbook.evaluation.table import as_markdown, print_table
from partbook.evaluation.wording import label, scale, telling


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluation()


def printed(found: Evaluation, width: int = 80, rows: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_table(found, console, rows=rows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def first_line(measure: Measure) -> str:
    return textwrap.wrap(label(measure), 26)[0]


def test_it_fits_a_terminal_of_80_columns_and_shows_titles_as_they_are(found: Evaluation) -> None:
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "[b]" in text  # no markup of rich's
    assert "87 times in 100" in text
    assert not re.search(r"\bnan", text)


def test_the_most_telling_measures_come_first(found: Evaluation) -> None:
    order = telling(found, found.subjects[0])
    comparison = found.subjects[0].comparison
    assert comparison is not None
    inside = [comparison.measures[measure.name].inside.value for measure in order]
    defined = [share for share in inside if not math.isnan(share)]
    assert defined == sorted(defined)
    text = printed(found, width=200)
    places = [text.index(f"\n{first_line(measure)}") for measure in order]
    assert places == sorted(places)


def test_few_rows_are_shown_where_few_are_asked_for(found: Evaluation) -> None:
    text = printed(found, width=200, rows=3)
    shown = [measure for measure in MEASURES if f"\n{first_line(measure)}" in text]
    assert len(shown) == 3


def test_subjects_that_do_not_fit_follow_below(found: Evaluation) -> None:
    assert printed(found, width=52).count("\nMeasures") == 3
    assert printed(found, width=200).count("\nMeasures") == 1


def test_without_subjects_there_is_still_a_table(found: Evaluation) -> None:
    assert "Told from human works?" in printed(replace(found, subjects=()))
    assert "Held against are 9 works" in as_markdown(replace(found, subjects=()))


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown_holds_a_row_a_subject_and_a_row_a_measure(found: Evaluation) -> None:
    rows = rows_of(as_markdown(found))
    heads = [row for row in rows if row[0] in {"Held out", "Random notes"}]
    assert heads[0][1:3] == ["4", "0.51 (0.43–0.59)"]
    assert heads[1][1:4] == ["3", "1.00 (1.00–1.00)", "1.00 (0.98–1.00)"]
    names = [row[0] for row in rows]
    for measure in MEASURES:
        row = rows[names.index(label(measure))]
        assert len(row) == 2 + 3
        comparison = found.subjects[2].comparison
        assert comparison is not None
        assert row[-1].split()[0] == scale(measure).one(comparison.measures[measure.name].median.value)


def test_markdown_of_a_hostile_title_stays_one_cell(found: Evaluation) -> None:
    text = as_markdown(found)
    assert "<script" not in text
    (row,) = [row for row in rows_of(text) if "script" in row[0]]
    assert row[0] == HOSTILE.replace("<", "&lt;").replace("|", "\\|")
    assert row[-3:-1] == ["21.3 (19.2–23.4)", "2.17 (2.05–2.29)"]
    assert row[-1].startswith("44")
    widths = {}
    for row in rows_of(text):
        widths.setdefault(len(row), []).append(row[0])
    assert len(widths) == 3  # heads, measures, nats


def test_markdown_holds_nats_a_note_a_token_and_perplexity(found: Evaluation) -> None:
    rows = [row for row in rows_of(as_markdown(found)) if row[0].startswith("bach, written")]
    assert [row[0] for row in rows] == ["bach, written, 7 works"] * 4
    assert [row[1] for row in rows] == [
        "5.41 (5.30–5.53)",
        "1.250 (1.150–1.350)",
        "3.49 (3.16–3.86)",
        "2.71 (2.60–2.81) / 5.91 (5.81–6.01)",
    ]
    assert rows[0][2] == "≤ 6.66 (6.55–6.78)"


def test_two_turns_make_the_same_text(found: Evaluation) -> None:
    assert as_markdown(found) == as_markdown(evaluation.__wrapped__())
