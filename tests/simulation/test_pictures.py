"""Pictures are drawn, and what they show is where it should be."""

from __future__ import annotations

import numpy as np
import pytest

from partbook.errors import ScoreError
from partbook.music.notes import Notes
from partbook.simulation.palette import LABEL_COLOURS, label_colour
from partbook.simulation.pictures import LabelCurve, loss_curves, note_name, piano_roll

TUNE = Notes.from_rows([(i * 0.5, 0.45, 55 + (i * 5) % 24, 30 + 4 * i) for i in range(20)])


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[:, :, :3]


def saturation(image):
    return image.max(axis=2) - image.min(axis=2)


def test_middle_c_is_c4():
    assert (note_name(60), note_name(69), note_name(21), note_name(61)) == ("C4", "A4", "A0", "C♯4")


def test_the_prompt_is_grey_and_what_follows_is_coloured(tmp_path):
    path = tmp_path / "roll.png"
    piano_roll(TUNE, path, title="A <tune> for $5 & more", subtitle="harp", split_at=5.0)
    image = pixels(path)
    height, width = image.shape[:2]
    assert width == 2000
    middle = saturation(image[int(0.25 * height) : int(0.85 * height)])
    given, generated = middle[:, int(0.07 * width) : int(0.5 * width)], middle[:, int(0.55 * width) :]
    assert given.max() < 0.25
    assert (generated > 0.4).mean() > 0.005


def test_without_a_prompt_everything_is_coloured(tmp_path):
    path = tmp_path / "roll.png"
    piano_roll(TUNE, path, title="Free")
    image = pixels(path)
    left = saturation(image[200:660, 140:1000])
    assert (left > 0.25).mean() > 0.005


def test_one_note_can_be_drawn_and_none_cannot(tmp_path):
    piano_roll(Notes.from_rows([(0.0, 0.01, 108, 1)]), tmp_path / "one.png", title="One")
    assert (tmp_path / "one.png").stat().st_size > 2000
    with pytest.raises(ScoreError, match="no notes to draw"):
        piano_roll(Notes.from_rows([]), tmp_path / "none.png", title="None")
    assert not (tmp_path / "none.png").exists()


def test_each_label_has_its_panel_in_its_colour(tmp_path):
    path = tmp_path / "loss.png"
    curves = [
        LabelCurve(f"Label {k}", tuple((r, 2.0 - 0.1 * r - 0.05 * k) for r in range(6)), ((1, 1.9), (5, 1.2)))
        for k in range(5)
    ]
    loss_curves(path, curves)
    image = pixels(path)
    for k in range(5):
        colour = np.array([int(label_colour(k)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(image - colour).max(axis=2) < 0.02).sum() > 200


def test_one_label_and_one_round_suffice(tmp_path):
    loss_curves(tmp_path / "one.png", [LabelCurve("Alone", ((0, 2.0),))])
    assert (tmp_path / "one.png").exists()
    for nothing in ([], [LabelCurve("Alone", ())]):
        with pytest.raises(ScoreError, match="no losses"):
            loss_curves(tmp_path / "none.png", nothing)


def test_label_colours_are_distinct_and_readable_on_white():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # WCAG 2.2, relative luminance

    assert len(set(LABEL_COLOURS)) == len(LABEL_COLOURS)
    for colour in LABEL_COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) >= 4.4
