"""The drawing of the federation is valid, complete, and honest about who can read what."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from partbook.simulation.diagram import House, federation_svg, in_bytes

SVG = "{http://www.w3.org/2000/svg}"
HOUSES = [House(f"Label <{i}> & Sons", "Songs", "harp", 1000 + i, 1_500_000 * i, 2_000) for i in range(1, 5)]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]  # noqa: S314


def test_noise_is_named_where_there_is_some():
    for custodian in (None, "Custodian"):
        quiet, noisy = (federation_svg(HOUSES, custodian=custodian, noise=noise) for noise in (False, True))
        assert "noise" not in quiet
        assert "noised" in noisy
        assert "never audio" in noisy


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3, 4, 7])
@pytest.mark.parametrize("custodian", [None, "Custodian"])
def test_any_number_of_labels_is_drawn_inside_the_frame(columns, count, custodian):
    houses = [House(f"House {i}", "Songs", "harp", i) for i in range(count)]
    drawn = federation_svg(houses, custodian=custodian, columns=columns, standalone=True)
    root = ElementTree.fromstring(drawn)  # noqa: S314
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    names = [element.text for element in root.iter(f"{SVG}text")]
    assert [name for name in names if name.startswith("House ")] == [h.name for h in houses]
    for element in root.iter(f"{SVG}rect"):
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        assert x >= 0
        assert y >= 0
        assert x + float(element.attrib["width"]) <= width
        assert y + float(element.attrib["height"]) <= height


def test_names_counts_and_bytes_are_shown_as_given():
    shown = texts(federation_svg(HOUSES, custodian=None))
    assert "Label <1> & Sons" in shown
    assert "1,001 recordings stay here" in shown
    assert "1.5 MB out · 2.0 kB in" in shown


def test_counts_and_bytes_may_be_left_out():
    shown = texts(federation_svg([House("A", "Songs", "harp")], custodian=None))
    assert "its recordings stay here" in shown
    assert not any(" out · " in text for text in shown)


@pytest.mark.parametrize("columns", [2, 4])
def test_the_seal_changes_what_the_coordinator_is_said_to_read_and_brings_the_custodian(columns):
    drawn = [federation_svg(HOUSES, custodian=who, columns=columns) for who in (None, "Notary <&> Sons")]
    masked, sealed = (" ".join(texts(svg)) for svg in drawn)
    assert "reads only their sum" in masked
    assert "the shared model, coming back" in masked
    assert "Notary" not in masked
    assert "cannot read even their sum" in sealed
    assert "their sum, for the labels only" in sealed
    assert "Notary <&> Sons" in sealed
    for svg, words in zip(drawn, ("can read their sum and nothing else", "without being able to read"), strict=True):
        assert words in svg


def test_only_a_file_of_its_own_carries_the_namespace():
    assert "http" not in federation_svg(HOUSES, custodian="Custodian")
    alone = ElementTree.fromstring(federation_svg(HOUSES, custodian="Custodian", standalone=True))  # noqa: S314
    assert alone.tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1234, "1.2 kB"),
        (999_600, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (5e9, "5.00 GB"),
    ],
)
def test_bytes_read_as_a_person_would_say_them(count, words):
    assert in_bytes(count) == words


def test_the_picture_in_the_readme_shows_the_labels_of_the_demo():
    from partbook.simulation.collections import COLLECTIONS

    kept = Path(__file__).parents[2] / "docs" / "images" / "federation.svg"
    shown = texts(kept.read_text(encoding="utf-8"))
    for collection in COLLECTIONS:
        assert collection.label in shown
    assert "Custodian" in shown
