"""What the noise costs: held-out loss of one generator, trained in seven ways on more than 1,000 recordings.

    centralised            all recordings in one place, AdamW on batches of windows: what no federation can beat easily
    federated              four labels, plain training (6 local steps), no noise
    distributed ε = 2, 8   per-recording updates, the labels' noise added up
    local ε = 2, 8         the same updates, every label's own noise
    ε = ∞                  the same updates without noise, where distributed and local are one and the same sum

Recordings: the first 15 seconds of every work in the four label pools, played by a SoundFont, transcribed like any
recording: real audio through the real ingest. Held out: the public pools' works, as long. Every arm sees the same
number of windows. The labels' vectors are what `partbook.node.learning` hands to the masks, noise and all; the masks
are left out, because they cancel exactly (tests/secagg/test_exactness.py). Three seeds, of whatever no protection rests
on; noise and sampling are the system's.

    python -m benchmarks.utility                 everything: recordings (once), 21 runs, the plot, the claims
    python -m benchmarks.utility --arms local-8 --seeds 1      some of it; finished runs are kept and not repeated
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims import Claim, report
from partbook.model.adapter import apply_adapter, flatten, selection, trained_parameters, unflatten
from partbook.model.checkpoint import BASE, load_tokenizer
from partbook.model.likelihood import evaluate, to_tensors, token_losses
from partbook.music.recording import Recording
from partbook.node.learning import Learner
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import Motion, mean_update, step
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining, Training
from partbook.privacy.accounting import calibrate, epsilon
from partbook.privacy.events import events_of
from partbook.simulation.collections import COLLECTIONS
from partbook.simulation.labels import choose, record, takes
from partbook.training.per_recording import recording_updates
from partbook.vault.ingest import Workers, ingest
from partbook.vault.store import Vault

SECONDS: Final = 15.0
ROUNDS: Final = 16
BATCH: Final = 96  # recordings expected in a round, over all labels
CLIP: Final = 0.3
DELTA: Final = 1e-5
SEEDS: Final = (1, 2, 3)
THRESHOLD: Final = 3
COLLUDERS: Final = 1
PLAIN: Final = PlainTraining(steps=6, batch=4, learning_rate=5e-3, clip=5.0)  # 4 labels · 24 windows: BATCH of them
ARMS: Final = ("centralised", "federated", "exact-inf", "distributed-8", "local-8", "distributed-2", "local-2")
RATES: Final = {"inf": 0.007, "8": 0.02, "2": 0.012}
"""Adam's, by ε: the more noise, the smaller the steps; found on other draws, the same for both kinds of noise."""


@dataclass
class Labels:
    """Four labels' learners, and the public held-out recordings."""

    learners: list[Learner]
    held: dict[str, list[Recording]]
    like: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.like = self.learners[0].like

    @property
    def recordings(self) -> int:
        """How many stand behind a run."""
        return sum(len(learner.recordings) for learner in self.learners)


def make(home: Path) -> None:
    """Play and ingest what is missing."""
    with Workers() as workers:
        for collection in COLLECTIONS:
            for pool, count in (("label", collection.pool), ("heldout", collection.heldout)):
                folder = home / collection.name / pool
                planned = takes(choose(collection, pool, count, 0), collection, SECONDS, folder / "recordings")
                made = record(planned)
                path = folder / "vault"
                with Vault.open(path, writable=True) if path.exists() else Vault.create(path) as vault:
                    ingest(
                        [take.path for take in made],
                        vault,
                        BASE / "tokenizer.json",
                        program=collection.program,
                        workers=workers,
                    )
                    print(f"{collection.name}, {pool}: {len(vault)} recordings", file=sys.stderr, flush=True)


def load(home: Path, seed: int) -> Labels:
    """Everything in memory."""
    learners = [Learner(BASE, home / c.name / "label" / "vault", None, seed=f"{seed}/{c.label}") for c in COLLECTIONS]
    held = {}
    for collection in COLLECTIONS:
        with Vault.open(home / collection.name / "heldout" / "vault") as vault:
            held[collection.label] = [vault.get(identifier) for identifier in vault.ids()]
    return Labels(learners, held)


def training_of(arm: str, recordings: int) -> Training:
    """What the nodes of an arm are asked to do. ε = ∞ has the least noise a plan may name, and none is added."""
    kind, _, target = arm.partition("-")
    if not target:
        return PLAIN
    q = BATCH / recordings
    sigma = 1.0 if target == "inf" else calibrate(float(target), DELTA, q, ROUNDS)
    if kind != "local":
        return DistributedDp(noise_multiplier=sigma, sampling=q, batch=BATCH, colluders=COLLUDERS, clip=CLIP)
    # One step a round, so that both kinds see the same windows; the bound is above what one step can lead to.
    return LocalDp(
        noise_multiplier=sigma, sampling=q, batch=BATCH / len(COLLECTIONS), clip=CLIP, learning_rate=1.0, bound=1e3
    )


def plan_of(arm: str, number: int, labels: Labels) -> RoundPlan:
    """A round's plan: only the training, the threshold and the grid matter here."""
    return RoundPlan(
        federation="utility",
        roster="0" * 64,
        round=number,
        nonce="0" * 32,
        deadline=0,
        base_hash="0" * 64,
        model_hash="0" * 64,
        parameters=len(selection(labels.like, "all")),
        cohort=tuple(sorted(c.label for c in COLLECTIONS)),
        threshold=THRESHOLD,
        training=training_of(arm, labels.recordings),
        step=step_of(arm),
        mode="masked",
        bits=20,
    )


def step_of(arm: str) -> ServerStep:
    """The server's step."""
    _, _, target = arm.partition("-")
    if not target:
        return ServerStep(momentum=0.5)
    return ServerStep(rule="adam", learning_rate=RATES[target], momentum=0.9, second=0.99)


def run(arm: str, labels: Labels, seed: int) -> dict[str, Any]:
    """Train one arm; held-out nats per token by label, and what it cost."""
    began = time.monotonic()
    adapter, motion = flatten(labels.like), Motion.none(len(flatten(labels.like)))
    random = np.random.default_rng(seed)
    if arm == "centralised":
        adapter = centralised(labels, random)
    else:
        for number in range(1, ROUNDS + 1):
            plan = plan_of(arm, number, labels)
            state = unflatten(adapter, labels.like)
            if arm.endswith("-inf"):
                mean = without_noise(plan, labels, state, random)
            else:
                vectors = [learner.learn(plan, state).vector.astype(np.uint64) for learner in labels.learners]
                mean = mean_update(np.sum(vectors, axis=0, dtype=np.uint64), len(vectors), plan)
            adapter, motion = step(adapter, mean, motion, plan.step)
    scores = score(labels, adapter)
    spent = {}
    if arm.endswith(("-8", "-2")):
        plan = plan_of(arm, 1, labels)
        for who in ("colluders", "outsiders"):
            spent[who] = epsilon(events_of(plan, who) * ROUNDS, DELTA)
    training = training_of(arm, labels.recordings)
    return {
        "arm": arm,
        "seed": seed,
        "nll": scores,
        "mean": float(np.mean(list(scores.values()))),
        "epsilon": spent,
        "sigma": getattr(training, "noise_multiplier", 0.0) if spent else 0.0,
        "recordings": labels.recordings,
        "seconds": time.monotonic() - began,
    }


def without_noise(plan: RoundPlan, labels: Labels, state: dict[str, Tensor], random: np.random.Generator) -> Any:
    """The same clipped updates of as many recordings, added up as they are."""
    training = plan.training
    assert isinstance(training, DistributedDp)
    total = np.zeros(plan.parameters)
    for learner in labels.learners:
        drawn = np.flatnonzero(random.random(len(learner.recordings)) < training.sampling)
        for one in recording_updates(
            learner._model, state, learner._examples, drawn, training, learner._tokenizer.pad, random
        ):
            total += one.vector
    return total / training.batch


def centralised(labels: Labels, random: np.random.Generator) -> Any:
    """AdamW over everybody's windows in one place, as many of them as a federation's rounds draw."""
    model, pad = labels.learners[0]._model, labels.learners[0]._tokenizer.pad
    apply_adapter(model, labels.like)
    named = trained_parameters(model)
    optimiser = torch.optim.AdamW(named.values(), lr=PLAIN.learning_rate, weight_decay=0.0)
    sizes = np.array([len(learner.recordings) for learner in labels.learners], float)
    model.train()
    for _ in range(ROUNDS * BATCH // 24):
        learner = labels.learners[int(random.choice(len(sizes), p=sizes / sizes.sum()))]
        ids, mel, has_memory = to_tensors(learner._examples.batch(24, random), torch.device("cpu"))
        loss = token_losses(model, ids, mel, has_memory, pad).sum() / (ids[:, 1:] != pad).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    model.eval()
    return flatten(dict(named))


def score(labels: Labels, adapter: Any) -> dict[str, float]:
    """Held-out nats per token, by label."""
    model, tokenizer = labels.learners[0]._model, load_tokenizer(BASE)
    apply_adapter(model, unflatten(adapter, labels.like))
    return {label: evaluate(model, tokenizer, held).per_token for label, held in labels.held.items()}


def plot(results: Sequence[dict[str, Any]], base: float, path: Path) -> None:
    """Mean held-out loss against ε; a dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    places = {"2": 0, "8": 1, "inf": 2}
    for kind, name, colour, above in (
        ("local", "every label's own noise", "#c0562b", 10),
        ("distributed", "distributed noise", "#1b6ca8", -16),
    ):
        arms = {"2": f"{kind}-2", "8": f"{kind}-8", "inf": "exact-inf"}
        points = {t: [r["mean"] for r in results if r["arm"] == arms[t]] for t in places}
        shown = [t for t in places if points[t]]
        axes.plot([places[t] for t in shown], [np.mean(points[t]) for t in shown], color=colour, lw=2)
        for t in shown:
            axes.scatter([places[t]] * len(points[t]), points[t], color=colour, s=28, zorder=3)
        if points["8"]:
            axes.annotate(
                name, (1, np.mean(points["8"])), xytext=(8 if above > 0 else -8, above), textcoords="offset points",
                color=colour, ha="left" if above > 0 else "right",
            )  # fmt: skip
    lines = [("base model", base, "#777777")]
    for arm, name in (("federated", "federated, no noise, 6 local steps"), ("centralised", "centralised, no noise")):
        found = [r["mean"] for r in results if r["arm"] == arm]
        if found:
            lines.append((name, float(np.mean(found)), "#3c3c3c"))
    for name, value, colour in lines:
        axes.axhline(value, color=colour, lw=1, ls=(0, (4, 3)))
        axes.annotate(name, (-0.42, value), xytext=(0, 3), textcoords="offset points", color=colour, fontsize=9)
    axes.set_xlim(-0.45, 2.4)
    axes.set_xticks(list(places.values()), ["ε = 2", "ε = 8", "ε = ∞"])
    axes.set_ylabel("held-out nats per token, mean of four labels")
    axes.set_title(f"What noise costs: {results[0]['recordings']:,} recordings, δ = {DELTA:g}, lower is better")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".cache/utility"), help="recordings, and finished runs")
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--plot", type=Path, default=Path("docs/images/utility.png"))
    options = parser.parse_args(arguments)
    make(options.home)
    runs = options.home / "runs"
    runs.mkdir(exist_ok=True)
    results, base = [], runs / "base.json"
    for seed in options.seeds:
        missing = [arm for arm in options.arms if not (runs / f"{arm}-{seed}.json").exists()]
        labels = load(options.home, seed) if missing or not base.exists() else None
        if labels is not None and not base.exists():
            base.write_text(json.dumps(score(labels, flatten(labels.like))))
        for arm in options.arms:
            kept = runs / f"{arm}-{seed}.json"
            if not kept.exists():
                assert labels is not None, "something is missing"
                kept.write_text(json.dumps(run(arm, labels, seed)))
            results.append(json.loads(kept.read_text()))
            print(f"seed {seed}, {arm}: {results[-1]['mean']:.3f} nats/token", file=sys.stderr, flush=True)
    begun = json.loads(base.read_text())
    start = float(np.mean(list(begun.values())))
    _table(results, begun)
    plot(results, start, options.plot)
    means = {arm: float(np.mean([r["mean"] for r in results if r["arm"] == arm] or [math.nan])) for arm in ARMS}
    noisy, unit = means["distributed-8"], "nats/token"
    claims = [
        Claim("held-out loss, distributed noise at ε = 8", unit, noisy, start, "base model", 1.0, at_least=False),
        Claim("held-out loss, distributed noise at ε = 8", unit, noisy, means["local-8"], "local noise at ε = 8", 1.0,
              at_least=False),
    ]  # fmt: skip
    return 0 if report("utility", claims) else 1


def _table(results: Sequence[dict[str, Any]], base: dict[str, float]) -> None:
    labels = list(base)
    print(f"| Trained | ε colluders · outsiders | σ | {' | '.join(labels)} | Mean, seeds | Mean |")
    print(f"|---|---|---|{'---|' * len(labels)}---|---|")
    print(f"| base model | | | {' | '.join(f'{base[x]:.3f}' for x in labels)} | | {np.mean(list(base.values())):.3f} |")
    for arm in ARMS:
        found = [r for r in results if r["arm"] == arm]
        if found:
            spent = found[0]["epsilon"]
            cost = f"{spent['colluders']:.2f} · {spent['outsiders']:.2f}" if spent else "∞"
            sigma = f"{found[0]['sigma']:.3g}" if spent else ""
            cells = " | ".join(f"{np.mean([r['nll'][x] for r in found]):.3f}" for x in labels)
            each = " · ".join(f"{r['mean']:.3f}" for r in found)
            print(f"| {arm} | {cost} | {sigma} | {cells} | {each} | {np.mean([r['mean'] for r in found]):.3f} |")


if __name__ == "__main__":
    raise SystemExit(main())
