from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
from evaluated import HOSTILE, evaluation, scattered, tuneful, write_pieces

from partbook.errors import ScoreError
from partbook.evaluation.drawing import gauge, place, ridges, roll
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import MEASURES
from partbook.evaluation.page import write_page
from partbook.evaluation.page_gallery import HEARD, rate
from partbook.evaluation.page_tables import measure_table, surprise_tables, whole_table
from partbook.evaluation.results import Evaluation
from partbook.evaluation.wording import DASH, label, medians_inside, number, percent, scale

VOID = {"meta", "br", "img", "path", "line", "rect", "circle", "text"}


class Reader(HTMLParser):
    """The page as a list of (tag, attributes) and the text of each table cell; complains of tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.cells: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data + " "


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    folder = tmp_path_factory.mktemp("shown")
    write_pieces(folder)
    return evaluation(), write_page(evaluation(), folder)


@pytest.fixture(scope="module")
def plain() -> Evaluation:
    return evaluation()


def test_the_page_fetches_nothing_and_says_so_to_the_browser(shown: tuple[Evaluation, Path]) -> None:
    reader = read(shown[1].read_text("utf-8"))
    (policy,) = [a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for tag, attributes in reader.tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "base"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:audio/mpeg;base64,")) or re.fullmatch(r"[\w%.-]+\.mid", address)
    style = shown[1].read_text("utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_name_from_outside_is_escaped(shown: tuple[Evaluation, Path]) -> None:
    html = shown[1].read_text("utf-8")
    assert "<script" not in html
    assert "<i>" not in html
    assert escape(HOSTILE) in html
    assert "Piece &amp; &lt;i&gt;one&lt;/i&gt;" in html


def test_scrolling_tables_can_be_reached_by_keyboard_and_have_names(shown: tuple[Evaluation, Path]) -> None:
    reader = read(shown[1].read_text("utf-8"))
    regions = [a for _, a in reader.tags if "scroll" in (a.get("class") or "").split()]
    assert len(regions) == 4
    for attributes in regions:
        assert attributes["role"] == "region"
        assert attributes["tabindex"] == "0"
        assert attributes["aria-label"]
    assert len({a["aria-label"] for a in regions}) == len(regions)
    pictures = [a for tag, a in reader.tags if tag == "svg"]
    assert all(a.get("aria-label") or a.get("aria-hidden") or "row axis" for a in pictures)
    identifiers = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(set(identifiers)) == len(identifiers)
    assert {f"#{i}" for i in identifiers} >= {
        a["href"] for tag, a in reader.tags if tag == "a" and (a["href"] or "").startswith("#")
    }


def test_every_median_band_share_and_overlap_of_the_table_is_the_evaluations(plain: Evaluation) -> None:
    rows = [row for row in read(measure_table(plain)).cells[1:] if len(row) > 2]
    assert len(rows) == len(MEASURES)
    for row, measure in zip(rows, MEASURES, strict=True):
        how, band = scale(measure), plain.bands[measure.name]
        assert row[0].split() == f"{measure.title} {how.unit}".split()
        assert row[1].split("\n")[0].split()[0] == how.one(band[1])
        assert how.range(band[0], band[2]) in row[1]
        for cell, subject in zip(row[2:], plain.subjects, strict=False):
            assert subject.comparison is not None
            spread = subject.comparison.measures[measure.name]
            if math.isnan(spread.median.value):
                assert cell.strip() == DASH
                continue
            assert cell.split()[0] == how.one(spread.median.value)
            assert how.range(spread.median.low, spread.median.high) in cell
            inside = DASH if math.isnan(band[0]) else percent(spread.inside.value)
            assert f"{inside} in · {number(spread.overlap)}" in cell
            outside = not math.isnan(band[0]) and not band[0] - 1e-9 <= spread.median.value <= band[2] + 1e-9
            assert ("the band" in cell) == outside


def test_tests_runs_sound_and_style_stand_with_their_intervals(plain: Evaluation) -> None:
    rows = {row[0].strip(): row[1:] for row in read(whole_table(plain)).cells}
    features = next(cells for name, cells in rows.items() if name.startswith("Two-sample test, measures"))
    tokens = next(cells for name, cells in rows.items() if name.startswith("Two-sample test, tokens"))
    distance = next(cells for name, cells in rows.items() if name.startswith("Fréchet"))
    style = next(cells for name, cells in rows.items() if name.startswith("Heard in the style"))
    training = next(cells for name, cells in rows.items() if name.startswith("Run shared with training"))
    assert [cell.split() for cell in features] == [["0.87", "0.81–0.93"], ["0.51", "0.43–0.59"], ["1.00", "1.00–1.00"]]
    assert [cell.split()[0] for cell in tokens] == ["0.79", DASH, "1.00"]
    assert distance[0].split() == ["21.3", "19.2–23.4", "33", "clips"]
    assert [cell.strip() for cell in distance[1:]] == [DASH, DASH]
    assert style[0].split() == ["44", "31–58", "human", "83", "%,", "chance", "25", "%", "55", "pieces"]
    assert [cell.strip() for cell in training] == [DASH] * 3  # no works of training were given


def test_nats_stand_by_collection_and_hand_with_bounds_marked_as_such(plain: Evaluation) -> None:
    rows = read(surprise_tables(plain)).cells
    first = [row for row in rows if row and row[0].startswith(("bach", "monteverdi"))]
    assert [" ".join(row[0].split()) for row in first[:3]] == [
        "bach as written, 7 works", "bach as heard, 7 works", "monteverdi as heard, 7 works",
    ]  # fmt: skip
    assert first[0][1].split()[:2] == ["5.41", "5.30–5.53"]
    assert "perpl. 3.49, 3.16–3.86" in first[0][1]  # e to the 1.25, 1.15 and 1.35
    assert first[0][2].startswith("≤ 6.66")
    assert first[1][2].strip() == DASH  # it was not asked
    assert first[3][1].split()[:3] == ["2.71", "/", "5.91"]
    assert first[5][1].split()[:3] == [DASH, "/", "7.93"]


def test_without_models_there_is_no_table_of_nats(plain: Evaluation) -> None:
    silent = replace(plain, subjects=tuple(replace(s, surprise={}) for s in plain.subjects))
    assert surprise_tables(silent) == ""


def test_not_a_number_is_an_en_dash_everywhere(shown: tuple[Evaluation, Path]) -> None:
    html = re.sub(r"<details>.*?</details>", "", shown[1].read_text("utf-8"), flags=re.S)  # definitions speak of NaN
    assert not re.search(r"\bnan\b|\bNaN\b|\bNone\b|\binf\b", html)


def test_how_many_pieces_works_and_seeds_is_said(shown: tuple[Evaluation, Path]) -> None:
    text = " ".join(read(shown[1].read_text("utf-8")).text)
    assert "10 pieces in 3 sets are held against 9 works by people: nine tunes." in text
    assert "from one seed, 5" in text
    for pieces in ("3 pieces", "4 pieces"):
        assert pieces in text


def test_the_answer_is_in_words(shown: tuple[Evaluation, Path]) -> None:
    text = re.sub(r"\s+", " ", " ".join(read(shown[1].read_text("utf-8")).text))
    assert "is mostly told from human works. Put beside a human work, it is picked out 87 times in 100 by its" in text
    inside, of = medians_inside(shown[0].subjects[0], shown[0])
    assert f"{inside} of {of} measures have a median where eight in ten human works lie." in text
    assert "Gives itself away nearly every time" in text
    assert "Held out: 0.51 (0.43–0.59) by measures, – by tokens." in text


def test_every_measure_is_defined_with_its_unit_and_source_in_order(shown: tuple[Evaluation, Path]) -> None:
    html = shown[1].read_text("utf-8")
    terms = re.findall(r"<dt>[^<]*<code>(\w+)</code></dt><dd>(.*?)</dd><dd class=\"note\">(.*?)</dd>", html)
    assert [term[0] for term in terms] == [measure.name for measure in MEASURES]
    for (_, definition, note), measure in zip(terms, MEASURES, strict=True):
        assert definition == escape(measure.definition)
        assert note.endswith(escape(measure.source))
        assert ("In percent" in note) == (scale(measure).unit == "%")


def test_a_distribution_is_drawn_for_each_measure(shown: tuple[Evaluation, Path]) -> None:
    html = shown[1].read_text("utf-8")
    for measure in MEASURES:
        assert f'aria-label="{escape(label(measure))}: human works' in html
    assert html.count("<figure>") == len(MEASURES)


def test_the_gallery_plays_20_seconds_and_marks_the_worst(shown: tuple[Evaluation, Path]) -> None:
    html = shown[1].read_text("utf-8")
    reader = read(html)
    sounds = [a["src"] or "" for tag, a in reader.tags if tag == "audio"]
    assert len(sounds) == 2
    samples, sample_rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0].split(",")[1])))
    assert HEARD <= len(samples) / sample_rate <= HEARD + 2.0
    assert abs(samples).max() > 0.1
    assert '<span class="tag worst"' in html
    assert "suspicion 0.97" in html
    assert html.count("suspicion ") == 1  # the other piece has none
    assert 'href="release%201.mid"' in html


def test_players_keep_to_their_budget() -> None:
    assert rate(1) == 80
    assert [rate(count) for count in (20, 40, 60)] == sorted((rate(c) for c in (20, 40, 60)), reverse=True)
    assert rate(500) == 0


def test_a_missing_piece_is_named_before_anything_is_written(tmp_path: Path) -> None:
    write_pieces(tmp_path)
    (tmp_path / "release 2.mid").unlink()
    with pytest.raises(ScoreError, match=r"release 2\.mid.*write the pieces again"):
        write_page(evaluation(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release 1.mid"]


def test_two_writes_leave_the_same_bytes(shown: tuple[Evaluation, Path], tmp_path: Path) -> None:
    write_pieces(tmp_path)
    again = write_page(evaluation(), tmp_path)
    for name in ("evaluation.json", "evaluation.html"):
        assert (again.parent / name).read_bytes() == (shown[1].parent / name).read_bytes()


def test_the_data_beside_the_page_hold_its_numbers_and_no_paths(shown: tuple[Evaluation, Path]) -> None:
    data = json.loads((shown[1].parent / "evaluation.json").read_text("utf-8"))
    subject = data["subjects"][0]
    assert subject["comparison"]["features"] == {"value": 0.873, "low": 0.812, "high": 0.934}
    assert subject["gallery"][0]["midi"] == "release 1.mid"
    assert subject["gallery"][1]["suspicion"] is None
    assert "seconds" not in subject
    assert list(data["bands"]["silence"]) == pytest.approx(shown[0].bands["silence"])


def test_a_roll_stays_small_whatever_it_draws() -> None:
    long = tuneful(1, bars=800)
    assert len(long) > 2000
    assert len(roll(long, "c0").encode()) < 25_000
    assert len(roll(tuneful(1), "c0").encode()) < 15_000
    assert roll(scattered(3, HOSTILE), "c0").count("<script") == 0


def test_a_gauge_puts_chance_and_certainty_where_they_belong() -> None:
    assert [place(auc) for auc in (0.4, 0.7, 1.0, 0.1)] == ["0%", "50%", "100%", "0%"]
    drawn = gauge(Estimate(0.7, 0.55, 0.85), Estimate.nothing(), "c1", "A & B")
    assert 'cx="50%"' in drawn
    assert 'x1="25%" x2="75%"' in drawn
    assert drawn.count("<circle") == 1
    assert 'aria-label="A &amp; B: area under the curve by measures 0.70, 0.55 to 0.85"' in drawn


def test_a_distribution_of_nothing_or_of_one_number_can_be_drawn() -> None:
    how = scale(MEASURES[0])
    nan = float("nan")
    for values in ((), (nan,), (0.25,), (0.0, 0.0, 0.0)):
        drawn = ridges(values, (nan, nan, nan), [("One", values, "c0")], how, "about")
        assert drawn.startswith("<svg")
        assert "nan" not in drawn
