"""The curves are read back out of the file that TensorBoard reads."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from partbook.coordinator.board import Board
from partbook.coordinator.checkpoints import RoundRecord
from partbook.coordinator.rounds import Progress
from partbook.coordinator.standing import Spending
from partbook.coordinator.status import StatusWriter
from partbook.privacy.events import NoisySum, Repeated, to_json

COST = to_json((Repeated(NoisySum(1.2, 0.2, 1e-9, 1e-20)),))


def record(number: int) -> RoundRecord:
    spent = {"colluders": COST, "outsiders": COST} if number else {}
    scores = {"Bach": 2.0 - number / 10, "Haydn": 1.0}
    seconds = {"train": 3.0, "query.share": 0.5}
    return RoundRecord(number, "0" * 64, ("Alto", "Bass"), 4.0, 0.25, scores, {"Tenor": "train"}, seconds, spent)


def spending(history: object) -> Spending:
    assert isinstance(history, tuple)
    return Spending(1e-6, len(history) - 1, float(len(history)), 1.0, 9.0, 8.0)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point of every event file: TFRecords, whose checksums TensorBoard would look at."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        blob = path.read_bytes()
        while blob:
            (length,) = struct.unpack("<Q", blob[:8])
            event = Event.FromString(blob[12 : 12 + length])
            blob = blob[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, round(value.simple_value, 4)))
    return found


def test_every_round_is_a_point_of_every_curve(tmp_path: Path) -> None:
    history = tuple(map(record, range(4)))
    board = Board(tmp_path)
    for rounds in (1, 3, 4, 4):
        board.draw(history[:rounds], spending)
    board.close()
    found = curves(tmp_path)
    assert found["validation/Bach"] == [(0, 2.0), (1, 1.9), (2, 1.8), (3, 1.7)]
    assert found["update/norm"] == [(1, 0.25), (2, 0.25), (3, 0.25)]
    assert found["epsilon/colluders"] == [(1, 2.0), (2, 3.0), (3, 4.0)]
    assert found["seconds/share"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert set(found) == {
        *("validation/Bach", "validation/Haydn", "update/norm", "seconds/round", "seconds/train", "seconds/share"),
        *("members/in", "members/dropped", "epsilon/colluders", "epsilon/outsiders"),
    }


def test_what_is_not_known_has_no_point(tmp_path: Path) -> None:
    sealed = replace(record(1), update_norm=None, validation={})
    board = Board(tmp_path)
    board.draw((record(0), sealed), lambda _: Spending(1e-6, 1, None, None, None, None))
    board.close()
    assert not {"update/norm", "epsilon/colluders"} & set(curves(tmp_path))
    assert curves(tmp_path)["validation/Bach"] == [(0, 2.0)]


def test_a_model_that_labels_release_at_the_end_adds_its_score(tmp_path: Path) -> None:
    sealed = replace(record(1), validation={})
    board = Board(tmp_path)
    board.draw((record(0), sealed), lambda _: None)
    board.draw((record(0), record(1)), lambda _: None)
    board.close()
    assert curves(tmp_path)["validation/Bach"] == [(0, 2.0), (1, 1.9)]


def test_a_later_run_draws_everything_once(tmp_path: Path) -> None:
    first = Board(tmp_path)
    first.draw((record(0), record(1)), lambda _: None)
    first.close()
    second = Board(tmp_path)
    second.draw(tuple(map(record, range(3))), lambda _: None)
    second.close()
    assert curves(tmp_path)["seconds/round"] == [(1, 4.0), (2, 4.0)]


def test_rounds_draw_their_curves_by_themselves(tmp_path: Path) -> None:
    with StatusWriter(tmp_path, federation="trio", rounds=2) as watch:
        for number in range(3):
            watch.progress(Progress(number, 2, "done", record(number)))
    found = curves(tmp_path / "board")
    assert [step for step, _ in found["validation/Bach"]] == [0, 1, 2]
    assert [step for step, _ in found["epsilon/colluders"]] == [1, 2]
