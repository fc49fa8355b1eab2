"""Was this recording trained on? Asked of the released model alone, by how much better it knows the recording.

The score is the recording's loss under the public base model less its loss under the released one (the base takes away
how hard a recording is: Carlini et al. 2022, arXiv 2112.03570, §IV, difficulty calibration). An (ε, δ)-private model
lets no score tell more than TPR ≤ e^ε FPR + δ (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776, Theorem 2.1).
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import InputError, ScoreError
from partbook.simulation.audit.results import AuditResult

if TYPE_CHECKING:
    from torch import Tensor

    from partbook.model.transformer import PartbookModel
    from partbook.music.recording import Recording
    from partbook.music.tokens import Tokenizer

_NOISY, _BARE = "with noise", "without noise"
_LENGTH: Final = 64  # positions of an excerpt: short, so that a little training learns it by heart
_RESAMPLES: Final = 2000
DELTA: Final = 1e-5  # of the small federations
HOME: Final = Path(".cache/demo")
_FEW_FALSE: Final = (0.01, 0.1)  # false positive rates at which TPR is told


@dataclass(frozen=True, slots=True)
class Told:
    """How well members and others are told apart.

    Attributes:
        members, others: scores, higher where the model seems to know a recording, (a,) and (b,).
        claim, delta: (ε, δ) that bound it; ε is infinite where none is claimed.
        seed: of the resampling behind the interval.
    """

    members: NDArray[np.float64] = field(repr=False)
    others: NDArray[np.float64] = field(repr=False)
    claim: float = math.inf
    delta: float = DELTA
    seed: int = 0

    @property
    def auc(self) -> float:
        """The chance that a member scores above another; a tie counts half."""
        return area(self.members, self.others)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile bootstrap of the AUC, members and others drawn anew each by themselves."""
        random = np.random.default_rng(self.seed)
        found = [
            area(random.choice(self.members, len(self.members)), random.choice(self.others, len(self.others)))
            for _ in range(_RESAMPLES)
        ]
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    def tpr(self, fpr: float) -> float:
        """Members found where at most this share of others is taken for members."""
        false, true = curve(self.members, self.others)
        return float(true[false <= fpr + 1e-12].max())

    @property
    def most(self) -> float:
        """The AUC that the claim allows."""
        return most_area(self.claim, self.delta)

    @property
    def within(self) -> bool:
        """Whether the claim survives: the AUC is not above what it allows, beyond chance."""
        return self.interval[0] <= self.most

    def to_json(self) -> dict[str, Any]:
        """Rounded for people."""
        low, high = self.interval
        return {
            "members": len(self.members),
            "others": len(self.others),
            "auc": round(self.auc, 4),
            "auc_95": [round(low, 4), round(high, 4)],
            "auc_allowed": round(self.most, 4),
            "tpr_at_fpr": {str(fpr): round(self.tpr(fpr), 4) for fpr in _FEW_FALSE},
            "gained_more_by_members": round(float(self.members.mean() - self.others.mean()), 4),
        }


def area(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Area under the ROC curve, by ranks (Mann and Whitney 1947)."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return float(below.sum() / (2 * len(members) * len(others)))


def curve(members: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of every threshold, from none taken to all."""
    at = np.concatenate([[np.inf], np.unique(np.concatenate([members, others]))[::-1]])
    return (others >= at[:, None]).mean(1), (members >= at[:, None]).mean(1)


def allowed(fpr: NDArray[np.float64], epsilon: float, delta: float) -> NDArray[np.float64]:
    """The largest TPR at each FPR that (ε, δ)-privacy allows, both ways round: (n,)."""
    if epsilon == math.inf:
        return np.ones_like(fpr)
    grown = math.exp(epsilon)
    return np.clip(np.minimum(grown * fpr + delta, 1 - (1 - delta - fpr) / grown), 0.0, 1.0)


def most_area(epsilon: float, delta: float) -> float:
    """The area under `allowed`."""
    fpr = np.linspace(0.0, 1.0, 20_001)
    return float(np.trapezoid(allowed(fpr, epsilon, delta), fpr))


def gains(
    model: PartbookModel,
    tokenizer: Tokenizer,
    base: dict[str, Tensor],
    released: dict[str, Tensor],
    recordings: Sequence[Recording],
    on_progress: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Each recording's loss under the base less that under the released adapter, nats per token: (n,)."""
    from partbook.model.adapter import apply_adapter
    from partbook.model.likelihood import evaluate

    losses = []
    for state in (base, released):
        apply_adapter(model, state)
        of_state = []
        for recording in recordings:
            of_state.append(evaluate(model, tokenizer, [recording]).per_token)
            on_progress()
        losses.append(of_state)
    before, after = np.array(losses)
    found: NDArray[np.float64] = before - after
    return found


def centred(gained: NDArray[np.float64], groups: Sequence[str] | NDArray[np.str_]) -> NDArray[np.float64]:
    """Gains less the mean of their group's: some kinds of music gain more, whoever was trained on. The adversary knows
    of what kind a recording is, and none of them for a member. (n,)."""
    found = gained.copy()
    for group in set(groups):
        own = np.array([each == group for each in groups])
        found[own] -= gained[own].mean()
    return found


def run(
    out: Path,
    *,
    quick: bool,
    seed: int,
    on_progress: Callable[[str], None],
    epsilon: float = 1.0,
    finished: Path | None = None,
    home: Path = HOME,
    base: Path | None = None,
) -> AuditResult:
    """Attack the released model of a finished demo run, or of two small federations, with noise and without.

    Args:
        out: folder for the plot.
        quick: a smaller federation.
        seed: of who is a member; noise is the system's.
        on_progress: told what is being done.
        epsilon: what the small federation with noise claims, at δ = 1e-5.
        finished: folder of the demo's run.
        home: where the demo keeps vaults between runs.
        base: the base model of the small federations; the shipped one where None.

    Raises:
        InputError: `finished` is not finished, or its vaults are not in `home`.
    """
    if finished is not None:
        told = {"the run": _of_demo(finished, home, seed, on_progress)}
    else:
        told = _of_small(quick, seed, on_progress, epsilon, base)
    sentences = []
    for name, one in told.items():
        low, high = one.interval
        sentence = f"{name}: AUC {one.auc:.2f} (95 %: {low:.2f} to {high:.2f}; chance is 0.50"
        if one.claim < math.inf:
            sentence += f", ε = {one.claim:.2f} allows {one.most:.2f}"
        sentences.append(sentence + ")")
    first = next(iter(told.values()))
    finding = (
        f"Told by loss alone which of {len(first.members)} members and {len(first.others)} others were trained on; "
        + "; ".join(sentences)
    )
    control = told.get(_BARE)
    if control is not None and control.interval[0] <= 0.5:
        finding += "; even without noise that is not clearly more than chance, so that little follows from it"
    finding += "."
    path = out / "membership.png"
    _draw(path, told)
    figures = {name: one.to_json() | {"claimed_epsilon": _finite(one.claim)} for name, one in told.items()}
    title = "Does the released model know whom it learnt from?"
    facts = tuple(fact for name, one in told.items() for fact in _facts(name, one))
    if finished is not None:
        facts += (("Drawn", "not by a coin: should the works held out differ from the labels', that would show too"),)
    return AuditResult(title, finding, figures, path, all(one.within for one in told.values()), facts)


def excerpts(count: int, tokenizer: Tokenizer, length: int, collections: Sequence[str], seed: int) -> list[Recording]:
    """The beginnings, one window long, of `count` works of each of some collections: collection by collection.

    Raises:
        InputError: a collection has too few works that can be read.
    """
    from partbook.corpus.scores import written
    from partbook.simulation.collections import by_name
    from partbook.simulation.labels import choose

    found = []
    for name in collections:
        own: list[Recording] = []
        for work in choose(by_name(name), "label", 2 * count, seed):
            try:
                whole = written(work.score(), tokenizer, hand="heard")
            except ScoreError:
                continue  # a few works of the corpus are malformed
            starts = whole.bar_starts[whole.bar_starts < length - 1]
            own.append(
                dataclasses.replace(
                    whole, ids=whole.ids[: length - 1], bar_starts=starts, bar_seconds=whole.bar_seconds[: len(starts)]
                )
            )
            if len(own) == count:
                break
        if len(own) < count:
            raise InputError(f"The collection {name} has only {len(own)} readable works, not {count}.")
        found.extend(own)
    return found


def _of_small(
    quick: bool, seed: int, on_progress: Callable[[str], None], epsilon: float, base: Path | None
) -> dict[str, Told]:
    from partbook.model.adapter import unflatten
    from partbook.model.checkpoint import BASE, load_tokenizer
    from partbook.plan.rounds import ServerStep
    from partbook.simulation.audit.canaries import Federation, Setting

    setting = Setting(
        epsilon=epsilon,
        labels=3,
        each=6 if quick else 26,
        rounds=3 if quick else 20,
        clip=1.0,
        step=ServerStep(rule="adam", learning_rate=0.02, momentum=0.9),
        base=base or BASE,
    )
    on_progress("reading scores")
    random = np.random.default_rng(seed)
    collections = ("bach", "oneills1850", "ryansMammoth")
    recordings = excerpts(setting.each, load_tokenizer(setting.base), _LENGTH, collections, seed)
    federation = Federation(setting, random, recordings)
    coins, told = federation.coins(random), {}
    for protected in (True, False):
        name = _NOISY if protected else _BARE
        on_progress(f"training {name}")
        adapter = unflatten(federation.play(coins, protected=protected).adapter, federation.like)
        gained = gains(federation.model, federation.tokenizer, federation.like, adapter, recordings)
        found = centred(gained, np.repeat(collections, setting.each))
        told[name] = Told(
            found[coins], found[~coins], federation.claimed if protected else math.inf, setting.delta, seed
        )
    return told


def _of_demo(run: Path, home: Path, seed: int, on_progress: Callable[[str], None]) -> Told:
    """The demo's members are what its labels' vaults hold, the others its public validation set."""
    from safetensors.torch import load

    from partbook.generator.release import ADAPTER, open_release
    from partbook.model.adapter import adapter_state, attach
    from partbook.model.checkpoint import model_from_bytes
    from partbook.model.transformer import pick_device
    from partbook.music.tokens import Tokenizer
    from partbook.simulation.audit.copying import trained_by_demo

    trained = trained_by_demo(run, home)
    release = open_release(trained.release, signer=None)
    members = [(recording, label) for label, own in trained.private.items() for recording in own]
    others = [(recording, label) for label, own in trained.heldout.items() for recording in own]
    recordings, labels = zip(*members, *others, strict=True)
    on_progress(f"scoring {len(recordings)} recordings")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(release.files["tokenizer.json"])
        tokenizer = Tokenizer.load(path)
    model = attach(model_from_bytes(release.files["config.json"].decode(), release.files["model.safetensors"]))
    model = model.to(pick_device())
    found = centred(gains(model, tokenizer, adapter_state(model), load(release.files[ADAPTER]), recordings), labels)
    privacy = release.about.get("privacy") or {}
    claim, delta = privacy.get("epsilon_outsiders"), privacy.get("delta", DELTA)
    count = len(members)
    return Told(found[:count], found[count:], math.inf if claim is None else float(claim), float(delta), seed)


def _facts(name: str, one: Told) -> tuple[tuple[str, str], ...]:
    low, high = one.interval
    found = ", ".join(f"{one.tpr(fpr):.0%} of members at {fpr:.0%} of others taken for them" for fpr in _FEW_FALSE)
    named = name[0].upper() + name[1:]
    return (
        (
            f"{named}: AUC",
            f"{one.auc:.3f}, 95 % from {low:.3f} to {high:.3f}; {len(one.members)} members, {len(one.others)} others",
        ),
        (f"{named}: found", found),
        (
            f"{named}: training gained",
            f"{one.members.mean() - one.others.mean():.3f} nats a token more on members than on others of their kind",
        ),
        (
            f"{named}: allowed",
            "anything; no ε is claimed"
            if one.claim == math.inf
            else f"AUC {one.most:.3f} at ε = {one.claim:.2f}, δ = {one.delta:g}",
        ),
    )


def _finite(value: float) -> float | None:
    return round(value, 4) if value < math.inf else None


def _draw(path: Path, told: dict[str, Told]) -> None:
    from partbook.simulation.audit.drawing import INK, QUIET, SOFT, label_colour, new_figure, plain, save

    figure = new_figure(
        "Members, told by the released model", "score: loss(base) − loss(released), less its collection’s mean", 4.8
    )
    fpr = np.linspace(0.0, 1.0, 501)
    left, right = figure.add_axes((0.07, 0.115, 0.44, 0.69)), figure.add_axes((0.64, 0.115, 0.34, 0.69))
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=1.0, linestyle=(0, (2, 3)))
    left.annotate("chance", (0.5, 0.5), xytext=(-40, 2), textcoords="offset points", fontsize=8.5, color=SOFT)
    for index, (name, one) in enumerate(told.items()):
        colour = label_colour(index)
        false, true = curve(one.members, one.others)
        left.plot(false, true, color=colour, linewidth=2.0, drawstyle="steps-post", label=f"{name}: AUC {one.auc:.2f}")
        if one.claim < math.inf:
            left.plot(
                fpr, allowed(fpr, one.claim, one.delta), color=QUIET, linewidth=1.2, linestyle=(0, (4, 3)),
                label=f"most that ε = {one.claim:.2f} allows",
            )  # fmt: skip
    left.set_xlim(0, 1)
    left.set_ylim(0, 1.01)
    left.set_xlabel("others taken for members", fontsize=9.5, color=SOFT)
    left.set_ylabel("members found", fontsize=9.5, color=SOFT)
    left.legend(loc="lower right", fontsize=8.5, frameon=False, labelcolor=INK)
    plain(left)
    ticks = []
    for index, (name, one) in enumerate(told.items()):
        for row, (who, scores) in enumerate((("members", one.members), ("others", one.others))):
            y = -(3 * index + row)
            jitter = np.random.default_rng(row).uniform(-0.22, 0.22, len(scores))
            colour = label_colour(index) if row == 0 else SOFT
            right.scatter(scores, y + jitter, s=12, color=colour, alpha=0.6, linewidths=0)
            right.plot([scores.mean()] * 2, [y - 0.34, y + 0.34], color=INK, linewidth=1.4)
            ticks.append((y, f"{who},\n{name}"))
    right.set_yticks([y for y, _ in ticks], [text for _, text in ticks])
    right.set_xlabel("nats a token gained, less the mean", fontsize=9.5, color=SOFT)
    plain(right)
    right.grid(visible=False)
    right.grid(axis="x", color="#D9D3C7", linewidth=0.6)
    save(figure, path)
