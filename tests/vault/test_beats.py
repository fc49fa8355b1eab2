import numpy as np
import pytest

from partbook.music.notes import Notes
from partbook.vault.beats import find_beats

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels


def melody(bpm: float, lead: float, seed: int, *, triplets: bool = False, bars: int = 20) -> Notes:
    """A tune of quarters, eighths, and sixteenths or triplets, played with 8 ms of unevenness."""
    random = np.random.default_rng(seed)
    third = 1 / 3 if triplets else 1 / 4
    cells = [[0.0], [0.0, 0.5], [0.0, third, 2 * third] + ([] if triplets else [0.75])]
    beats = [k + x for k in range(4 * bars) for x in cells[random.choice(3, p=[0.3, 0.45, 0.25])]]
    rows = []
    for beat in beats:
        strength = 90 if beat == int(beat) else 65
        second = lead + beat * 60 / bpm + random.normal(0, 0.008)
        rows.append((max(second, 0.0), 0.2, int(random.integers(55, 80)), strength))
    return Notes.from_rows(rows)


def written_steps(notes: Notes, beats: np.ndarray) -> np.ndarray:
    """Twelfths of a beat between neighbouring notes, as `score_of` would write them."""
    return np.diff(np.round(np.interp(notes.onset, beats, np.arange(len(beats))) * 12))


@pytest.mark.parametrize("triplets", [False, True])
@pytest.mark.parametrize("bpm", [72, 96, 113.7, 140])
def test_steady_music_is_written_as_it_was_meant(bpm: float, triplets: bool) -> None:
    notes = melody(bpm, 0.7, int(bpm), triplets=triplets)
    seconds = float(notes.onset[-1] + 1)
    found = find_beats(notes, seconds)
    truth = 0.7 + np.arange(-1, int(seconds * bpm / 60) + 3) * 60 / bpm
    meant = written_steps(notes, truth)
    steps = written_steps(notes, found.seconds)
    # Which level of the metre is called a beat is a matter of taste: 72 in triplets may be read as 108.
    shares = {ratio: np.mean(np.abs(steps - meant * ratio) < 0.01) for ratio in (0.5, 2 / 3, 1, 1.5, 2)}
    best = max(shares, key=shares.__getitem__)
    assert shares[best] > 0.9
    assert found.beats_per_minute / bpm == pytest.approx(best, rel=0.01)


def test_a_tempo_that_sways_is_followed() -> None:
    notes = melody(100, 0.3, 5)
    swayed = notes.onset + 0.1 * np.sin(2 * np.pi * notes.onset / 16)
    moved = Notes(swayed, notes.duration, notes.pitch, notes.velocity)
    found = find_beats(moved, float(swayed[-1] + 1))
    truth = 0.3 + np.arange(-1, 90) * 0.6
    meant = written_steps(notes, truth)
    assert np.mean(written_steps(moved, found.seconds) == meant) > 0.85


def test_the_grid_begins_at_the_first_note_and_covers_the_recording() -> None:
    notes = melody(90, 3.1, 2)
    found = find_beats(notes, 60.0)
    assert 3.1 - 60 / 90 - 0.05 < found.seconds[0] < 3.15
    assert found.seconds[-1] >= 60.0
    assert np.all(np.diff(found.seconds) > 0.2)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_few_notes_get_the_fixed_grid(count: int) -> None:
    notes = Notes.from_rows([(1.0 + i * 1.37, 0.5, 60, 80) for i in range(count)])
    found = find_beats(notes, 12.0)
    assert found.beats_per_minute == pytest.approx(120.0)
    assert found.seconds[0] == pytest.approx(1.0 if count else 0.0)
    assert found.seconds[-1] >= 12.0


def test_notes_at_random_times_get_the_fixed_grid() -> None:
    random = np.random.default_rng(0)
    onset = np.sort(random.uniform(0, 40, 200))
    notes = Notes(onset, np.full(200, 0.1), np.full(200, 60, np.uint8), np.full(200, 70, np.uint8))
    assert find_beats(notes, 40.0).beats_per_minute == pytest.approx(120.0)


def test_beats_past_the_end_go_on_at_the_last_pace() -> None:
    found = find_beats(melody(120, 0.0, 3), 45.0)
    last = len(found.seconds) - 1
    step = found.seconds[-1] - found.seconds[-2]
    assert found.second_of(np.array([last + 4.0]))[0] == pytest.approx(found.seconds[-1] + 4 * step)
