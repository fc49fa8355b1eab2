"""Chords are what a chart would say."""

import numpy as np

from partbook.music.chords import beats_of, chords_of
from partbook.music.quantised import Quantised, quantised
from partbook.music.tokens import Header, Tokenizer, symbols_of
from partbook.music.vocabulary import SYMBOLS


def music(rows: list[tuple[int, int, int]], bars: int, metre: tuple[int, int] = (4, 4)) -> Quantised:
    """Rows of (onset, length, pitch) on the piano."""
    onset, length, pitch = np.array(sorted(rows), dtype=np.int64).T
    size = metre[0] * 48 // metre[1]
    same = np.zeros_like(onset)
    return Quantised(
        onset, length, pitch, same, same + 72, np.arange(bars + 1) * size, (metre,) * bars, (120.0,) * bars
    )


def named(found: dict[int, int]) -> dict[int, str]:
    return {position: SYMBOLS[symbol].removeprefix("Chord_") for position, symbol in found.items()}


def chord(at: int, length: int, *pitches: int) -> list[tuple[int, int, int]]:
    return [(at, length, pitch) for pitch in pitches]


def test_a_cadence_is_named() -> None:
    rows = chord(0, 24, 48, 64, 67, 72) + chord(24, 24, 53, 65, 69, 72) + chord(48, 24, 43, 62, 65, 71)
    rows += chord(72, 24, 45, 64, 69, 72)
    assert named(chords_of(music(rows, 2))) == {0: "C", 24: "F", 48: "G7", 72: "Am"}


def test_a_passing_note_changes_no_chord() -> None:
    rows = [*chord(0, 48, 48, 64, 67), (0, 12, 72), (12, 12, 74), (24, 24, 76)]
    assert named(chords_of(music(rows, 1))) == {0: "C"}


def test_silence_has_no_chord() -> None:
    assert named(chords_of(music(chord(0, 48, 48, 64, 67), 3)))[48] == "none"


def test_beats_of_compound_metres_are_dotted() -> None:
    assert beats_of(music([(0, 6, 60)], 2, (6, 8))).tolist() == [0, 18, 36, 54]


def test_music_with_its_chords_reads_as_the_same_music() -> None:
    rows = chord(0, 24, 48, 64, 67) + chord(60, 12, 53, 65, 69) + chord(96, 24, 43, 62, 65, 71)
    q = music(rows, 4)
    plain, charted = Tokenizer(), symbols_of(q, Header(), chords=chords_of(q))
    assert any(SYMBOLS[s].startswith("Chord_") for s in charted)
    back = quantised(plain.decode(plain.merged(charted)))
    assert back.onset.tolist() == q.onset.tolist()
    assert back.pitch.tolist() == q.pitch.tolist()
