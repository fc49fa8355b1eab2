"""Trainers that many nodes of one process share: the model is loaded once, a vault's recordings are cut once.

A node is opened for nearly every test of a round, and most of these are not about training. What they get here is the
product's own `Learner`, and its very vectors: plain training under a seed has one answer to a question, so it is worked
out once and kept. Where anything is drawn from the system, nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from partbook.node.label import LabelNode, NodeConfig
from partbook.node.learning import Learned, Learner
from partbook.plan.rounds import RoundPlan
from partbook.plan.training import PlainTraining
from partbook.vault.store import Vault


@dataclass
class Shared:
    """A `Learner` on all of a vault's recordings, and what it has answered under its seed."""

    learner: Learner
    repeatable: bool
    answers: dict[str, Learned] = field(default_factory=dict)

    def learn(self, plan: RoundPlan, state: dict[str, Tensor]) -> Learned:
        if not self.repeatable or not isinstance(plan.training, PlainTraining):
            return self.learner.learn(plan, state)
        # The model's hash is part of the question, and `LabelNode` has compared it with the state.
        question = plan.question()
        if question not in self.answers:
            self.answers[question] = self.learner.learn(plan, state)
        learned = self.answers[question]
        return replace(learned, vector=learned.vector.copy())


class SharedTrainer:
    """One node's `Trainer`: what is withdrawn from it stays in the others."""

    def __init__(self, config: NodeConfig, shared: Shared) -> None:
        self._config, self._shared = config, shared
        self._own: Learner | None = None

    @property
    def like(self) -> dict[str, Tensor]:
        return self._shared.learner.like

    @property
    def recordings(self) -> tuple[str, ...]:
        return (self._own or self._shared.learner).recordings

    def keep(self, recordings: Sequence[str]) -> None:
        if set(recordings) != set(self.recordings):
            self._own = self._own or loaded(self._config)
            self._own.keep(recordings)

    def learn(self, plan: RoundPlan, state: dict[str, Tensor]) -> Learned:
        return self._shared.learn(plan, state) if self._own is None else self._own.learn(plan, state)

    def close(self) -> None:
        """The learner stays for the next node; on one device it holds no processes."""


_shared: dict[tuple[object, ...], Shared] = {}


def trainer(config: NodeConfig) -> SharedTrainer:
    """A trainer for this node, whose model and windows are there already if another node of its vault had one."""
    with Vault.open(config.vault, config.key) as vault:
        inside = tuple(vault.ids())
    found = (config.base, config.vault, config.key, config.training_seed, config.devices, config.style, inside)
    if found not in _shared:
        _shared[found] = Shared(loaded(config), config.training_seed is not None)
    return SharedTrainer(config, _shared[found])


def loaded(config: NodeConfig) -> Learner:
    """What the node would load for itself."""
    return Learner(
        config.base, config.vault, config.key, seed=config.training_seed, devices=config.devices, style=config.style
    )


def opened(config: NodeConfig) -> LabelNode:
    """A node that shares its trainer with the others of its vault."""
    return LabelNode(config, trainer(config))
