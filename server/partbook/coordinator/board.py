"""Curves for TensorBoard, in `state/board`: `tensorboard --logdir state/board` shows them, also while rounds go on.

    validation/<label>     nats per token on that label's public recordings
    update/norm            L2 norm of the average update (masked rounds)
    seconds/round          and seconds/<exchange>
    epsilon/colluders      ε so far, and epsilon/outsiders; left out where there is no bound
    members/in, members/dropped

Steps are round numbers. The event file is a picture of the checkpoint: each process draws it anew from the first round,
and removes the ones before it, so that no crash leaves a gap or a point twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partbook.coordinator.checkpoints import RoundRecord
    from partbook.coordinator.standing import Spending

_EVENTS = "events.out.tfevents."


class Board:
    """One event file, drawn as far as the rounds have come."""

    def __init__(self, folder: Path) -> None:
        """Begin the file; earlier ones go.

        Raises:
            ImportError: tensorboardX is not installed.
            OSError: the folder cannot be written in.
        """
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{_EVENTS}*"):
            old.unlink()
        self._writer: Any = SummaryWriter(str(folder))
        self._drawn: dict[int, RoundRecord] = {}

    def close(self) -> None:
        """Write what is not on the disk yet."""
        self._writer.close()

    def draw(
        self, history: Sequence[RoundRecord], spending: Callable[[Sequence[RoundRecord]], Spending | None]
    ) -> None:
        """Add the rounds that are not drawn yet, or were scored since.

        Args:
            history: records, of round 0 first.
            spending: what the rounds of a shorter history cost.
        """
        ended = time.time()
        for index, record in enumerate(history):
            if self._drawn.get(record.round) == record:
                continue
            # A record has no date; the rounds after it took so long.
            when = ended - sum(later.seconds for later in history[index + 1 :])
            for name, value in curves(record, spending(history[: index + 1])).items():
                self._writer.add_scalar(name, value, record.round, walltime=when)
            self._drawn[record.round] = record
        self._writer.flush()


def curves(record: RoundRecord, spending: Spending | None) -> dict[str, float]:
    """The points of one round, by curve."""
    points = {f"validation/{label}": score for label, score in record.validation.items()}
    if record.round == 0:
        return points
    points["seconds/round"] = record.seconds
    points |= {f"seconds/{kind.removeprefix('query.')}": spent for kind, spent in record.exchanges.items()}
    points |= {"members/in": float(len(record.members)), "members/dropped": float(len(record.dropped))}
    if record.update_norm is not None:
        points["update/norm"] = record.update_norm
    if spending is not None and spending.colluders is not None:
        points["epsilon/colluders"] = spending.colluders
    if spending is not None and spending.outsiders is not None:
        points["epsilon/outsiders"] = spending.outsiders
    return points
