"""Answers as listeners send them: whole, half, twice, from elsewhere, and through spreadsheets."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_listening_trials import key_of

from partbook.errors import InputError
from partbook.evaluation.listening.answers import COLUMNS, read_answers
from partbook.evaluation.listening.trials import Key


def row(key: Key, number: int, answer: str, session: str = "s1", listener: str = "Ann", time: str = "") -> list[str]:
    clips = " ".join(clip.id for clip in key.trials[number - 1].clips) if number <= len(key.trials) else "t99"
    return [key.kit, session, listener, str(number), clips, answer, "3", "5.0 4.2", time or f"2026-12-01T10:0{number}Z"]


def file_of(path: Path, rows: list[list[str]], comma: str = ",", bom: bool = False) -> Path:
    text = "\r\n".join(comma.join(cells) for cells in [list(COLUMNS), *rows]) + "\r\n"
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    return path


@pytest.fixture
def key() -> Key:
    return key_of("ab")


def test_a_sitting_is_read_with_confidence_and_seconds(key: Key, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.csv", [row(key, n, "first") for n in (1, 2, 3, 4)])
    (sitting,), warnings = read_answers(key, [path])
    assert not warnings
    assert sitting.listener == "Ann"
    assert {number: a.choice for number, a in sitting.answers.items()} == dict.fromkeys((1, 2, 3, 4), "first")
    assert sitting.answers[1].confidence == 3
    assert sitting.answers[1].seconds == (5.0, 4.2)


@pytest.mark.parametrize(("comma", "bom"), [(";", False), ("\t", True), (",", True)])
def test_what_spreadsheets_do_to_a_file_does_not_matter(key: Key, tmp_path: Path, comma: str, bom: bool) -> None:
    path = file_of(tmp_path / "a.csv", [*(row(key, n, "SECOND") for n in (1, 2)), [""] * 9], comma, bom)
    (sitting,), warnings = read_answers(key, [path])
    assert not warnings
    assert len(sitting.answers) == 2


def test_a_half_finished_file_counts_for_what_it_has(key: Key, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.csv", [row(key, 1, "first"), *(row(key, n, "") for n in (2, 3, 4))])
    (sitting,), warnings = read_answers(key, [path])
    assert list(sitting.answers) == [1]
    assert not warnings


def test_answers_to_another_kit_are_refused(key: Key, tmp_path: Path) -> None:
    foreign = row(key, 1, "first")
    foreign[0] = "ffffffffffff"
    path = file_of(tmp_path / "a.csv", [foreign])
    with pytest.raises(InputError, match="answers kit ffffffffffff"):
        read_answers(key, [path])


def test_unknown_trials_clips_and_words_are_left_out_with_a_line(key: Key, tmp_path: Path) -> None:
    wrong = row(key, 3, "first")
    wrong[4] = "t01-1 t01-2"
    lines = [row(key, 9, "first"), row(key, 1, "third"), wrong, row(key, 4, "first")]
    lines += [[*row(key, 1, "first")[:3], number, *row(key, 1, "first")[4:]] for number in ("", "-1", "9" * 5000)]
    (sitting,), warnings = read_answers(key, [file_of(tmp_path / "a.csv", lines)])
    assert list(sitting.answers) == [4]
    assert len(warnings) == 6
    assert all("left out" in line for line in warnings)


def test_a_trial_answered_twice_counts_once_and_the_later_answer_wins(key: Key, tmp_path: Path) -> None:
    late = row(key, 1, "second", time="2026-12-01T12:00Z")
    early = row(key, 1, "first", time="2026-12-01T11:00Z")
    for rows in ([late, early], [early, late]):
        (sitting,), warnings = read_answers(key, [file_of(tmp_path / "a.csv", rows)])
        assert sitting.answers[1].choice == "second"
        assert len(warnings) == 1
        assert "two different answers" in warnings[0]


def test_one_file_given_twice_is_one_sitting(key: Key, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.csv", [row(key, 1, "first"), row(key, 2, "second")])
    sittings, warnings = read_answers(key, [path, path])
    assert len(sittings) == 1
    assert ["the same twice" in line for line in warnings] == [True, True]


def test_two_sittings_of_one_name_are_told_apart(key: Key, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.csv", [row(key, 1, "first"), row(key, 1, "first", session="s2")])
    sittings, warnings = read_answers(key, [path])
    assert [sitting.listener for sitting in sittings] == ["Ann", "Ann (2)"]
    assert "sat more than once" in warnings[0]


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xfe\x00", b'kit,session\r\n"x', b"kit;trial\r\n"])
def test_what_is_no_file_of_answers_is_refused(key: Key, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.csv"):
        read_answers(key, [path])
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(key, [tmp_path / "none.csv"])
