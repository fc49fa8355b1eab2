"""What was spent, what is left and who asked: the ledger held against the policy, for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from partbook.errors import ConfigError
from partbook.node.debits import NEVER, Debit, price
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy

NEWEST: Final = 20  # rounds that are listed
_POINTS: Final = 80  # of a curve; each is a computation of ε


@dataclass(frozen=True, slots=True)
class Account:
    """One limit and what stands against it, for the recording that has spent most.

    Attributes:
        name: the federation, or empty for all together.
        coordinators: fingerprints of those who asked.
        rounds: questions behind it.
        committed: ε of what left the node.
        spent: ε of that and of what is reserved.
        limit: largest ε allowed.
    """

    name: str
    coordinators: tuple[str, ...]
    rounds: int
    committed: float
    spent: float
    limit: float

    @property
    def left(self) -> float:
        """ε that is left, never below 0. ε does not add up: a round may use more or less of it than it costs alone."""
        return math.inf if self.limit == math.inf else max(0.0, self.limit - self.spent)


@dataclass(frozen=True, slots=True)
class Budget:
    """A label's spending.

    Attributes:
        delta: the δ of every ε here.
        recording: id of the recording that has spent most of those that may be trained on; empty if there is none.
        recordings: how many may be trained on.
        withdrawn: how many may not any more.
        total: over all federations.
        federations: each by itself.
        debits: every question, oldest first.
        paid: those that `recording` pays for, oldest first.
    """

    delta: float
    recording: str
    recordings: int
    withdrawn: int
    total: Account
    federations: tuple[Account, ...]
    debits: tuple[Debit, ...]
    paid: tuple[Debit, ...]

    @classmethod
    def of(cls, ledger: Ledger, policy: Policy) -> Self:
        """The budget as it stands.

        Raises:
            UnsupportedEvent: the accountant does not know something in the ledger.
        """
        delta, debits = policy.delta, tuple(sorted(ledger.debits(), key=lambda debit: debit.reserved))

        def account(name: str | None, limit: float) -> Account:
            spent = ledger.spent(delta, federation=name)
            asked = {debit.coordinator: None for debit in debits if name in (None, debit.federation)}
            both = spent.epsilon_committed, spent.epsilon_reserved_too
            return Account(name or "", tuple(asked), spent.rounds, *both, limit)

        stays, dearest = ledger.stays(), ledger.spent(delta).recording
        staying = [stay for stay in stays if stay.withdrawn == NEVER]
        paid = {debit.question for debit in ledger.charged(dearest)}
        return cls(
            delta=delta,
            recording=dearest,
            recordings=len(staying),
            withdrawn=len(stays) - len(staying),
            total=account(None, policy.epsilon_recording),
            federations=tuple(
                account(name, policy.epsilon_federation) for name in dict.fromkeys(debit.federation for debit in debits)
            ),
            debits=debits,
            paid=tuple(debit for debit in debits if debit.question in paid),
        )

    @property
    def newest(self) -> tuple[Debit, ...]:
        """The last questions, newest first."""
        return self.debits[::-1][:NEWEST]

    def as_json(self) -> dict[str, object]:
        """All of it as JSON has words for; an infinite figure is the string "inf"."""
        return {
            "delta": self.delta,
            "recording": self.recording,
            "recordings": self.recordings,
            "withdrawn": self.withdrawn,
            "total": _account_json(self.total),
            "federations": [{"federation": one.name, **_account_json(one)} for one in self.federations],
            "newest": [
                {
                    "at": debit.reserved_at,
                    "federation": debit.federation,
                    "coordinator": debit.coordinator,
                    "round": debit.round,
                    "plan": debit.plan,
                    "note": debit.note,
                    "asked": asked(debit),
                    "epsilon_alone": _figure(price([debit], self.delta)),
                    "state": debit.state,
                }
                for debit in self.newest
            ],
        }

    def plot(self, path: Path) -> None:
        """Draw ε of the recording that has spent most, over its rounds, with both limits, as a PNG.

        Raises:
            ConfigError: the file cannot be written.
        """
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
        from matplotlib.ticker import MaxNLocator

        figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
        curves = [("all federations", list(enumerate(self.paid, 1)))]
        if len(self.federations) > 1:
            numbered = list(enumerate(self.paid, 1))
            curves += [(one.name, [at for at in numbered if at[1].federation == one.name]) for one in self.federations]
        for index, (label, points) in enumerate(curves):
            wide, dots = 2.2 if index == 0 else 1.3, "." if len(self.paid) <= _POINTS // 2 else ""
            at, epsilon = self._curve(points)
            finite = [(x, y) for x, y in zip(at, epsilon, strict=True) if y < math.inf]
            if len(finite) < len(at):
                label += " (infinite where it ends)"
            axes.plot(*(zip(*finite, strict=True) if finite else ([], [])), label=label, linewidth=wide, marker=dots)
        limits = {"epsilon_recording": self.total.limit}
        if self.federations:
            limits["epsilon_federation"] = self.federations[0].limit
        for (name, limit), style in zip(limits.items(), ("--", ":"), strict=False):
            if limit < math.inf:
                axes.axhline(limit, color="tab:red", linestyle=style, linewidth=1.2, label=f"{name} = {limit:g}")
        axes.set(
            title=f"ε of recording {self.recording[:12] or '–'}…, which has spent most (δ = {self.delta:g})",
            xlabel="rounds it has paid for or reserved, in order",
            ylabel="ε",
        )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(loc="best", frameon=False)
        try:
            figure.savefig(path, dpi=120, format="png")
        except OSError as error:
            raise ConfigError(f"The picture {path} cannot be written: {error.strerror}.") from error
        finally:
            plt.close(figure)

    def _curve(self, points: list[tuple[int, Debit]]) -> tuple[list[int], list[float]]:
        """Places among all rounds and the ε up to each, thinned out to what a picture shows."""
        count = len(points)
        chosen = sorted({round(k * (count - 1) / max(_POINTS - 1, 1)) for k in range(_POINTS)} if count else set())
        debits = [debit for _, debit in points]
        return [points[k][0] for k in chosen], [price(debits[: k + 1], self.delta) for k in chosen]


def asked(debit: Debit) -> str:
    """What a question does to a recording, in a few words: σ, q and how often."""
    from partbook.privacy.events import NoisySum, from_json

    parts = []
    for item in from_json(debit.events):
        times = f"{item.times} x " if item.times > 1 else ""
        if isinstance(item.event, NoisySum):
            parts.append(f"{times}σ = {item.event.noise_multiplier:g}, q = {item.event.sampling:g}")
        else:
            parts.append(f"{times}no noise")
    return "; ".join(parts)


def _account_json(account: Account) -> dict[str, object]:
    return {
        "coordinators": list(account.coordinators),
        "rounds": account.rounds,
        "epsilon_committed": _figure(account.committed),
        "epsilon_spent": _figure(account.spent),
        "epsilon_limit": _figure(account.limit),
        "epsilon_left": _figure(account.left),
    }


def _figure(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"
