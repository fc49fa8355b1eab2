"""The held-out loss after every round, also of sealed ones.

In sealed rounds the coordinator does not know the model until the labels release it. Whoever plays every part on one
machine can look into a label's copy instead; a real coordinator cannot, and reports say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from partbook.coordinator.checkpoints import RoundRecord
from partbook.coordinator.validation import ValidationSet
from partbook.model.adapter import adapter_state, apply_adapter, attach
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.model.transformer import pick_device
from partbook.node.label import NodeConfig
from partbook.node.shared_model import SharedModel


class RoundScores:
    """Scores by round; the coordinator's own where it has them."""

    def __init__(self, validation: ValidationSet, base: Path, nodes: Mapping[str, NodeConfig], last: int) -> None:
        """Score on `validation` the copies that `nodes` keep; the round `last` is left to the coordinator."""
        self._validation, self._base, self._nodes, self._last = validation, base, nodes, last
        self._scores: dict[int, dict[str, float]] = {}

    def after(self, record: RoundRecord) -> dict[str, float]:
        """Nats per token by label after a round that has just been done; empty where the coordinator is to say."""
        if record.validation or record.round == self._last:
            self._scores[record.round] = record.validation
        else:
            self._scores[record.round] = self._of_a_copy(record.adapter_hash)
        return self._scores[record.round]

    def filled(self, history: Sequence[RoundRecord]) -> tuple[RoundRecord, ...]:
        """The records with all scores in them."""
        return tuple(replace(r, validation=r.validation or self._scores.get(r.round, {})) for r in history)

    def _of_a_copy(self, model_hash: str) -> dict[str, float]:
        model = attach(load_model(self._base)).to(pick_device())
        like = adapter_state(model)
        copies = (SharedModel.load(node.model, like) for node in self._nodes.values())
        shared = next(copy for copy in copies if copy.hash == model_hash)
        apply_adapter(model, shared.state)
        scores = self._validation.score(model, load_tokenizer(self._base))
        return {label: score.per_token for label, score in scores.items()}
