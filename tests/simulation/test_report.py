"""The report stands alone, says which locks were on, and repeats nothing but what it was given."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tunes import tune

from partbook.errors import InputError
from partbook.evaluation.brief import Brief, brief
from partbook.evaluation.reading import read
from partbook.music.mastering import Sound
from partbook.music.notes import Notes
from partbook.music.rendering import write_wav
from partbook.simulation.control import ControlReport, Gain
from partbook.simulation.pictures import LabelCurve, piano_roll
from partbook.simulation.report import (
    DemoReport,
    DropReport,
    ExchangeReport,
    LabelReport,
    Locks,
    MessageKind,
    ModelFacts,
    PieceReport,
    RoundReport,
    write_report,
)

TUNE = Notes.from_rows([(i * 0.25, 0.25, 60 + (0, 2, 4, 5, 7, 9, 11)[i % 7], 40 + 5 * (i % 12)) for i in range(40)])
MUSIC: Brief = brief(
    [("The release", "generator", [read(tune(number), f"piece {number}") for number in range(3)])],
    [read(tune(number), f"work {number}") for number in range(3)],
    reference="three <tunes>",
)
VOID = {"meta", "img", "br", "link", "input", "hr", "source"}


def example(folder: Path) -> DemoReport:
    """A run of two labels, one of which has a name that is no HTML."""
    time = np.arange(22_050) / 44_100
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    write_wav(folder / "free.wav", Sound(np.stack([tone, tone], axis=1), 44_100))
    piano_roll(TUNE, folder / "free.png", title="Free", split_at=None)

    def label(name, before, after):
        curve = LabelCurve(name, ((0, before), (1, (before + after) / 2), (2, after)), ((1, 2.0), (2, 1.9)))
        refused = (("broken <1>.wav", "ends before its header says"),)
        return LabelReport(
            name, "Songs & dances", "harp", 37, 2468.0, 98765, refused, 11, 4321, 2160, before, after,
            Gain.of(before, after, 0.0625), Gain.of(2 * before, 2 * after, 0.1875), curve, 19, 1_234_567, 7_654_321,
        )  # fmt: skip

    return DemoReport(
        federation="Four <b>houses</b>",
        created=datetime(2026, 11, 22, 15, 4, tzinfo=UTC),
        seed=4242,
        rounds=2,
        labels=(label('A&B "Records" <script>alert(1)</script>', 2.5, 2.25), label("Cremona", 2.0, 2.125)),
        control=ControlReport("Airs <of> nobody", "flute", 8, 3000, 1000, 3.0, 2.9375, 9.0, 8.8125),
        stages=(("ingest", 61.0), ("rounds", 3.21)),
        locks=Locks(seal=False, noise=False, threshold=3, bits=20, clip_norm=0.75),
        messages=(
            MessageKind("query.contribute", True, "node", "a masked update", 4, 400_000, 100_000),
            MessageKind("train", False, "node", "the plan & the model", 4, 480_000, 120_000),
        ),
        history=(
            RoundReport(1, ("A&B", "Cremona"), (), 4.25, "12" * 32, {"train": 3.5, "query.contribute": 0.25}),
            RoundReport(
                2, ("Cremona",), (DropReport("A&B", "query.share", False, "It left <nothing> behind."),),
                5.5, "34" * 32, {"train": 4.5},
            ),
        ),
        exchanges=(
            ExchangeReport("train", "Training", "Cremona", 2, 860, 240_000, 6.5),
            ExchangeReport("query.contribute", "Masked update", "Cremona", 2, 200_000, 1_800, 0.0246),
            ExchangeReport("query.open", "Opening the sum", "Notary <1>", 2, 316_100, 658_400, 0.068),
        ),
        pieces=(
            PieceReport(
                "Free", "From nothing.", 9, folder / "free.wav", folder / "free.mid", folder / "free.png",
                0.5, -6.0, 40, 60, 71, 7, 37,
            ),
        ),
        model=ModelFacts("r-1", "ab" * 32, "cd" * 32, "ef" * 16, 6_800_000, 54_321),
        music=MUSIC,
        machine=(("Cores", "2"),),
        limits=("One seed.",),
    )  # fmt: skip


class Outline(HTMLParser):
    """Collects tags and attributes, and checks that every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(html):
    parsed = Outline()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == []
    return parsed


@pytest.fixture
def written(tmp_path):
    report = example(tmp_path)
    path = write_report(report, tmp_path)
    return report, path.read_text(encoding="utf-8")


def test_the_page_fetches_nothing_and_runs_nothing(written):
    _, html = written
    parsed = outline(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "xlink:href", "poster", "data", "action"}:
                assert value.startswith("data:")
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"https?://", html)


def test_names_from_outside_cannot_become_markup(written):
    _, html = written
    assert "<script" not in html
    assert "<b>houses" not in html
    assert "Four &lt;b&gt;houses&lt;/b&gt;" in html
    assert "broken &lt;1&gt;.wav" in html


def test_a_reader_who_cannot_see_is_told_what_is_drawn(written):
    _, html = written
    parsed = outline(html)
    for tag, attributes in parsed.tags:
        if tag == "img":
            assert len(attributes["alt"]) > 20
        if tag == "svg":
            assert attributes["role"] == "img"
            assert "aria-label" in attributes or "aria-labelledby" in attributes
        if tag == "audio":
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in {"row", "col"}
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    tables = [tag for tag, _ in parsed.tags if tag in {"table", "caption"}]
    assert tables[::2] == ["table"] * (len(tables) // 2)
    assert tables[1::2] == ["caption"] * (len(tables) // 2)


def test_the_numbers_on_the_page_are_the_ones_given(written):
    report, html = written
    text = " ".join(" ".join(outline(html).text).split())
    for number in (
        "2.5000", "2.2500", "-0.2500", "+0.1250", "98,765", "4,321", "41 min 08 s", "1.2 MB", "7.7 MB",
        "1 of 2", "1 min 04 s", "400.0 kB", "120.0 kB", "54,321", "0.75", "4242", "7 notes",
        "4.25 s", "12.3 ms", "4.00 s", "100.0 kB", "121212121212", "Once a label fell away",
        "It left <nothing> behind.", "held against 3 human works (three <tunes>)", "wrote 3 pieces",
        report.model.base_sha256,
    ):  # fmt: skip
        assert number in text, number


def test_change_of_hand_and_style_stand_beside_each_label_by_note_and_by_token(written):
    _, html = written
    text = " ".join(" ".join(outline(html).text).split())
    for words in (
        "The base knows transcriptions already; what labels can add is style.",
        "8 recordings of Airs <of> nobody, on the flute",
        "stood at 9.000 nats a note before the rounds and stands at 8.812 after them (3.000 and 2.938 a token)",
        "5.000 4.500 +0.500 +0.188 +0.312",
        "2.000 2.125 -0.125 +0.062 -0.188",
    ):
        assert words in text, words
    assert "of style in the mean of labels" not in text, "there was no noise"


def test_what_noise_took_of_the_style_is_said_where_there_was_noise(tmp_path):
    report = example(tmp_path)
    labels = tuple(replace(label, per_note_without_noise=Gain(5.0, 4.0, 1.0, 0.25, 0.75)) for label in report.labels)
    assert "gained +0.750 nats a note of style in the mean of labels" in shown(replace(report, labels=labels), tmp_path)


def test_the_base_models_piece_is_shown_under_the_releases(tmp_path):
    report = example(tmp_path)
    piano_roll(TUNE, tmp_path / "base.png", title="Base", split_at=None)
    pieces = (replace(report.pieces[0], base_roll=tmp_path / "base.png"),)
    text = shown(replace(report, pieces=pieces), tmp_path)
    assert "The base model alone, asked for the same" in text
    images = [a for tag, a in outline((tmp_path / "report.html").read_text()).tags if tag == "img"]
    assert len(images) == 2
    assert json.loads((tmp_path / "report.json").read_text())["pieces"][0]["base_roll"] == "base.png"
    (tmp_path / "base.png").unlink()
    with pytest.raises(InputError, match=r"base\.png"):
        write_report(replace(report, pieces=pieces), tmp_path)


def shown(report, folder):
    return " ".join(" ".join(outline(write_report(report, folder).read_text()).text).split())


def test_open_locks_are_admitted_and_closed_ones_are_not_denied(tmp_path):
    report = example(tmp_path)
    masked = shown(report, tmp_path)
    assert masked.count("ON in this run") == 1
    assert masked.count("OFF in this run") == 2
    assert "the coordinator read what all labels' updates added up to" in masked
    assert "The finished model is not guaranteed to forget any one recording" in masked
    assert "There was no noise" in masked
    assert "reads only their sum" in masked
    sealed = shown(replace(report, locks=Locks(True, False, 3, "Notary", 16, 1.0)), tmp_path)
    assert sealed.count("ON in this run") == 2
    assert "One party alone has the key that opens the sum: Notary." in sealed
    assert "cannot read even their sum" in sealed
    assert "a real coordinator has only the first and the last" in sealed
    noisy = shown(replace(report, locks=NOISY), tmp_path)
    assert noisy.count("ON in this run") == 3
    assert "There was no noise" not in noisy


NOISY = Locks(
    True, True, 3, "Notary", 16, 0.15, noise_kind="distributed", epsilon_colluders=7.5, epsilon_outsiders=5.9,
    delta=1e-5, colluders=1, noise_multiplier=2.25, sampling=0.5, recordings=74, dimension=4992,
    epsilon_curve=((0, 0.0, 0.0), (1, 4.5, 3.25), (2, 7.5, 5.9)),
)  # fmt: skip


def test_the_noise_card_says_what_is_bounded_against_whom_and_on_what_assumption(tmp_path):
    report = replace(example(tmp_path), locks=NOISY)
    text = shown(report, tmp_path)
    for words in (
        "ε = 7.50 for each recording against one label that would take its own noise out again",
        "ε = 5.90 against everybody else; both at δ = 10⁻⁵",
        "a spread of 2.25 times", "in each of 4,992 trained numbers", "drawn with probability 0.5",
        "multiply the odds that a given recording was used by 1,808 at most",
        "at least 2 come from labels that added their noise as planned",
        "74 recordings stand behind it",
        "each recording's update was clipped: its length could not exceed 0.15",
        "sent only noised, masked and sealed changes",
        "of which 4,992",
    ):  # fmt: skip
        assert words in text, words
    local = replace(NOISY, noise_kind="local", colluders=None, epsilon_outsiders=7.5, sampling=1.0)
    text = shown(replace(report, locks=local), tmp_path)
    assert "ε = 7.50 at δ = 10⁻⁵ for each recording, against everybody." in text
    assert "Every recording took part each time" in text
    assert "would take its own noise out" not in text


def test_what_the_noise_cost_and_what_the_ledgers_say_stand_on_the_page(tmp_path):
    report = example(tmp_path)
    spent = {"epsilon_spent": 7.5, "epsilon_left": 0.0625, "rounds_paid": 2}
    labels = tuple(
        replace(label, nll_without_noise=without, **spent)
        for label, without in zip(report.labels, (2.0, 2.0625), strict=True)
    )
    noisy = replace(report, locks=NOISY, labels=labels)
    text = shown(noisy, tmp_path)
    for words in ("With noise", "Without noise", "2.0625", "from 2.250 to 2.031 nats a token", "came to 2.188",
                  "The noise cost 0.156. It left 29% of the gain.", "7.5000", "0.0625",
                  "It agrees to the last digit", "one ledger, in its vault"):  # fmt: skip
        assert words in text, words
    parsed = outline((tmp_path / "report.html").read_text())
    (figure,) = (a["aria-label"] for tag, a in parsed.tags if tag == "svg" and "ε over" in a.get("aria-label", ""))
    assert "7.50 against colluding labels (solid) and 5.90 against everybody else" in figure
    fewer = (replace(labels[0], epsilon_spent=4.5, rounds_paid=1), labels[1])
    assert "has spent less than what the coordinator states" in shown(replace(noisy, labels=fewer), tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["locks"]["epsilon_curve"][1] == [1, 4.5, 3.25]
    assert data["labels"][0]["nll_without_noise"] == 2.0
    assert "Without noise" not in shown(report, tmp_path)


@pytest.mark.parametrize(
    ("labels", "threshold", "words"),
    [
        (4, 3, "while no more than 1 of them help it"),
        (10, 7, "while no more than 3 of them help it"),
        (10, 6, "while no more than 1 of them help it"),
        (3, 2, "It must not lie about who took part"),
    ],
)
def test_what_a_lying_coordinator_may_be_helped_by_follows_from_the_threshold(tmp_path, labels, threshold, words):
    report = example(tmp_path)
    many = tuple(replace(report.labels[1], name=f"Label {index}") for index in range(labels))
    locks = Locks(True, False, threshold, "Notary")
    assert words in shown(replace(report, labels=many, locks=locks), tmp_path)


def test_every_party_has_its_bar_in_every_exchange_it_took_part_in(written):
    report, html = written
    panels = re.findall(r'<svg viewBox="[^"]+" role="img" aria-label="(?:Sent|Received|Worked).*?</svg>', html)
    assert len(panels) == 3
    for panel in panels:
        assert panel.count("<rect ") == len(report.exchanges)
        widths = [float(width) for width in re.findall(r'<rect [^>]*width="([^"]+)"', panel)]
        assert all(0 < width <= 191 for width in widths)
    assert panels[0].index(">train<") < panels[0].index(">contribute<") < panels[0].index(">open<")


def test_the_audio_in_the_page_is_the_piece(written):
    _, html = written
    encoded = re.search(r'src="data:audio/mpeg;base64,([^"]+)"', html)[1]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    assert rate == 44_100
    assert len(samples) / rate == pytest.approx(0.5, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples[4096:20480, 0]))
    assert np.argmax(spectrum) * rate / 16384 == pytest.approx(440, abs=4)


def test_the_json_holds_the_same_report_and_no_folder_names(tmp_path):
    report = example(tmp_path)
    write_report(report, tmp_path)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    data = json.loads(text)
    assert data["labels"][0]["name"] == report.labels[0].name
    assert data["labels"][1]["nll_after"] == 2.125
    assert data["labels"][0]["curve"]["held_out"][0] == [0, 2.5]
    assert data["pieces"][0]["wav"] == "free.wav"
    assert data["locks"]["masks"] is True
    assert data["music"]["sets"]["Random notes"]["pieces"] == 3
    assert data["history"][1]["dropped"][0]["member"] == "A&B"
    assert data["history"][0]["exchanges"]["train"] == 3.5
    assert data["exchanges"][2]["bytes_received"] == 658_400
    assert data["created"] == "2026-11-22T15:04:00+00:00"
    assert str(tmp_path) not in text
    assert str(tmp_path) not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_missing_piece_is_named_and_the_last_report_survives(tmp_path):
    report = example(tmp_path)
    path = write_report(report, tmp_path)
    before = path.read_bytes()
    (tmp_path / "free.wav").unlink()
    with pytest.raises(InputError, match=r"free\.wav"):
        write_report(report, tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="at least one label"):
        write_report(replace(report, labels=()), tmp_path)


def test_a_run_without_pieces_or_refusals_still_makes_a_page(tmp_path):
    report = example(tmp_path)
    labels = tuple(replace(label, refused=(), curve=LabelCurve(label.name, ())) for label in report.labels)
    bare = replace(
        report, pieces=(), labels=labels, machine=(), limits=(), stages=(), messages=(), history=(), exchanges=()
    )
    assert "Files that were refused" not in write_report(bare, tmp_path).read_text()
