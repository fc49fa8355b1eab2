"""What a board draws is read back out of the file that TensorBoard reads."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pieces
import soundfile
from PIL import Image
from symusic.core import ScoreTick
from tensorboardX.proto.event_pb2 import Event

from partbook.training.board import LONGEST, SOUND_RATE, Board, roll
from partbook.training.run import Step


def events(folder: Path) -> list[Event]:
    """Of every event file, in order: TFRecords, whose checksums TensorBoard would look at."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        blob = path.read_bytes()
        while blob:
            (length,) = struct.unpack("<Q", blob[:8])
            found.append(Event.FromString(blob[12 : 12 + length]))
            blob = blob[16 + length :]
    return found


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, round(value.simple_value, 4)))
    return found


def step(number: int, auxiliary: float | None = None) -> Step:
    return Step(number, number * 64, 4.0 / number, auxiliary, 0.02, 0.5, 2.0, 32.0)


def test_steps_are_points_of_every_curve(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        for number in (1, 2):
            board.step(step(number))
        board.step(step(4, auxiliary=0.25))
    assert curves(tmp_path) == {
        "training/loss": [(1, 4.0), (2, 2.0), (4, 1.0)],
        "training/auxiliary": [(4, 0.25)],
        "training/rate": [(1, 0.02), (2, 0.02), (4, 0.02)],
        "training/norm": [(1, 0.5), (2, 0.5), (4, 0.5)],
        "training/tokens_per_second": [(1, 32.0), (2, 32.0), (4, 32.0)],
    }


def test_heldout_collections_are_curves_and_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        board.heldout({"chorales": 2.5, "POP909": float("nan")}, 100)
        board.heldout({"chorales": 2.25, "POP909": 8.5}, 200)
    assert curves(tmp_path) == {"heldout/chorales": [(100, 2.5), (200, 2.25)], "heldout/POP909": [(200, 8.5)]}


def test_a_piece_is_seen_and_heard(tmp_path: Path) -> None:
    piece = pieces.line(pieces.RISE)
    with Board(tmp_path) as board:
        board.piece(piece.score(), 300, "free")
    drawn = [(event.step, value) for event in events(tmp_path) for value in event.summary.value]
    assert {number for number, _ in drawn} == {300}
    assert curves(tmp_path) == {"samples/free/notes": [(300, 8.0)]}
    (image,) = (value.image for _, value in drawn if value.HasField("image"))
    picture = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert (picture == roll(piece)).all()
    (audio,) = (value.audio for _, value in drawn if value.HasField("audio"))
    sound, rate = soundfile.read(io.BytesIO(audio.encoded_audio_string))
    assert rate == SOUND_RATE
    assert sound.ndim == 1
    assert 4.0 < len(sound) / rate < 8.5, "eight quarters at 120, and what rings"
    assert np.abs(sound).max() > 0.01


def test_a_long_piece_is_cut(tmp_path: Path) -> None:
    long = pieces.line(pieces.RISE * 24)  # 96 seconds
    with Board(tmp_path) as board:
        board.piece(long.score(), 1)
    (audio,) = (v.audio for event in events(tmp_path) for v in event.summary.value if v.HasField("audio"))
    assert audio.length_frames == int(LONGEST * SOUND_RATE)


def test_a_piece_without_notes_is_a_point_at_zero(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        board.piece(ScoreTick(480), 7)
    assert curves(tmp_path) == {"samples/piece/notes": [(7, 0.0)]}


def test_a_resumed_training_leaves_out_what_was_drawn_past_it(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        board.step(step(1))
        board.step(step(2))
    with Board(tmp_path, 1) as board:
        board.step(step(2))
    starts = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert starts[-1] == 2


def test_a_roll_shows_pitch_upwards_bars_and_repeated_notes() -> None:
    piece = pieces.piece((0, 1, 62), (1, 1, 62), (4, 2, 65))
    picture = roll(piece)
    height, width, _ = picture.shape
    assert (height, width) == ((65 - 62 + 5) * 4, 2 * 12 * 8)
    dark = (picture == (74, 13, 24)).all(2)
    left = sorted({int(x) // 24 for x in np.nonzero(dark)[1]})
    assert left == [0, 1, 4], "an onset each, in quarters"
    red = (picture == (179, 38, 30)).all(2)
    assert np.nonzero(red[:, :48])[0].min() > np.nonzero(red[:, 96:])[0].max(), "the lower note lies lower"
    assert (picture[0, 96] == (207, 200, 186)).all(), "a bar line"


def test_a_roll_ends_where_the_screen_does() -> None:
    assert roll(pieces.line(pieces.RISE * 40)).shape[1] == 3840
