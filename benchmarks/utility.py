"""What federated rounds teach of styles that the base has never seen, with noise and without.

    centralised            all recordings in one place, AdamW on batches of windows: what no federation can beat easily
    exact-inf              per-recording updates without noise, where distributed and local are one and the same sum
    distributed ε = 2, 8   the same updates, the labels' noise added up
    local ε = 2, 8         the same updates, every label's own noise

Four labels, each with one style that the base has never seen. Two questions, two bases (`--study`):

    far    three bodies of dance tunes and one of pop songs, on a base that was trained for this without any of them
           (`make study-base`): chorales, madrigals, lieder and quartets are all that it knows
    near   the four styles that the landed base never saw (`partbook.corpus.withheld`); their siblings it knows well

Recordings: the first half minute of each work, played by a SoundFont on the style's own instrument and written down by
a node's ears. Held out: works of the same styles, of other tune families, as long. **Hand and style**: a control is
measured beside them, held-out works of styles that the base knows, heard alike. What rounds gain there is the
transcriber's hand; what a label gains beyond it is style.

**Reference sound**: held-out windows without any note before them, with eight seconds of sound before them: what was
played before, another recording of the label, or one of another label.

The labels' vectors are what `partbook.node.learning` hands to the masks, noise and all; the masks are left out, because
they cancel exactly (tests/secagg/test_exactness.py). Three seeds, of whatever no protection rests on; noise and
sampling are the system's.

    python -m benchmarks.utility --data ../shared/data          everything: recordings (once), the runs, the plot
    python -m benchmarks.utility --data … --arms exact-inf --seeds 1    some; finished runs are kept and not repeated
    python -m benchmarks.utility --data … --study near --base …         the landed base, or another
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.claims import Claim, report
from partbook.corpus.heard import heard
from partbook.corpus.library import Library, default_cache
from partbook.corpus.withheld import STYLES
from partbook.heap import keep_freed_memory
from partbook.model.adapter import (
    adapter_state,
    apply_adapter,
    attach,
    flatten,
    selection,
    trained_parameters,
    unflatten,
)
from partbook.model.checkpoint import BASE, load_model, load_tokenizer
from partbook.model.likelihood import evaluate, to_tensors, token_losses
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel
from partbook.music.mel import memory_before
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import Windows, gather, spans
from partbook.node.learning import WINDOW
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import Motion, mean_update, step
from partbook.plan.training import DistributedDp, LocalDp
from partbook.pretraining.pieces import pooled
from partbook.privacy.accounting import calibrate, epsilon
from partbook.privacy.events import events_of
from partbook.privacy.mechanism import NoisyGrid
from partbook.secagg.grid import Grid
from partbook.simulation.collections import Pool
from partbook.simulation.control import Size
from partbook.training.examples import Examples
from partbook.training.per_recording import Observed, dp_sgd, drawn_sum, recording_updates

SECONDS: Final = 30.0
HELD: Final = 40  # works of a style, at most
CONTROLS: Final = 8  # held-out works of a style that the base knows
ROUNDS: Final = 24
CLIP: Final = 0.3
SCOPE: Final[Scope] = "all"
DELTA: Final = 1e-5
SEEDS: Final = (1, 2, 3)
THRESHOLD: Final = 3
COLLUDERS: Final = 1
ARMS: Final = ("centralised", "exact-inf", "distributed-8", "local-8", "distributed-2", "local-2")
RATES: Final = {"inf": 0.01, "8": 0.01, "2": 0.006}
"""Adam's, by ε: the more noise, the smaller the steps; found on other draws, the same for both kinds of noise."""
CENTRAL_RATE: Final = 5e-3
REFERENCE_WINDOW: Final = 192  # positions: some thirty notes
SOUNDS: Final = ("own", "label", "others", "none")
"""Whose sound is before a window: what was played before it, another recording of its label, one of another label."""


@dataclass(frozen=True, slots=True)
class Study:
    """Which styles, and a base that has not seen them.

    Attributes:
        base: the base's folder.
        styles: by name, the pool that the label's works are of and how many of them at most.
        control: styles that the base knows.
        sampling: the chance of a recording to take part in a round.
    """

    base: Path
    styles: Mapping[str, tuple[Pool, int]]
    control: tuple[str, ...]
    sampling: float


STUDIES: Final = {
    "far": Study(
        Path(".cache/study-base"),
        {
            "oneills1850": ("base", 300),
            "pop909": ("base", 300),
            "ryansMammoth": ("base", 300),
            "airdsAirs": ("label", 600),
        },
        ("bach", "monteverdi", "openscore-lieder", "openscore-quartets"),
        0.2,
    ),
    "near": Study(
        BASE,
        dict.fromkeys(STYLES, ("label", 1000)),
        ("oneills1850", "ryansMammoth", "bach", "openscore-lieder"),
        0.25,
    ),
}


@dataclass(frozen=True, slots=True)
class Label:
    """One style's recordings.

    Attributes:
        name: the style.
        examples: windows of the label's recordings.
        held: held-out recordings.
    """

    name: str
    examples: Examples
    held: list[Recording]


@dataclass(frozen=True, slots=True)
class World:
    """The base, the labels, and held-out recordings of styles that the base knows."""

    model: PartbookModel
    tokenizer: Tokenizer
    labels: tuple[Label, ...]
    control: list[Recording]
    like: Mapping[str, Tensor]
    sampling: float

    @property
    def recordings(self) -> int:
        """How many stand behind a run."""
        return sum(len(label.examples) for label in self.labels)

    @property
    def batch(self) -> float:
        """Recordings expected in a round."""
        return self.sampling * self.recordings

    def places(self) -> NDArray[np.int64]:
        """Where the trained numbers lie in the adapter."""
        return selection(self.like, SCOPE)


def opened(study: Study, data: Sequence[Path], cache: Path) -> World:
    """Hear what was not heard yet, and load everything."""
    base = study.base
    if not (base / "manifest.json").exists():
        raise SystemExit(f"{base} has no base model; `make study-base DATA=…` trains it, 45 minutes of a core.")
    seen = {source["collection"] for source in json.loads((base / "manifest.json").read_text())["about"]["sources"]}
    if known := sorted(seen & set(study.styles)):
        raise SystemExit(f"The base in {base} has learnt from {', '.join(known)}; no label may have a style of these.")
    library = Library.open(data)
    tokenizer = load_tokenizer(base)

    def recordings(style: str, pool: Pool, most: int) -> list[Recording]:
        works = pooled(library, [style], pool, most)
        print(f"{style}, {pool}: {len(works)} works", file=sys.stderr, flush=True)
        return heard(works, base / "tokenizer.json", cache, seconds=SECONDS)

    labels = []
    for style, (pool, most) in study.styles.items():
        if style not in library.collections:
            raise SystemExit(f"{style} is not here; name the folders with OpenScore's scores and POP909 (--data).")
        examples = Examples(recordings(style, pool, most), tokenizer, WINDOW)
        labels.append(Label(style, examples, recordings(style, "heldout", HELD)))
    control = [recording for name in study.control for recording in recordings(name, "heldout", CONTROLS)]
    model = attach(load_model(base))
    return World(model, tokenizer, tuple(labels), control, adapter_state(model), study.sampling)


def training_of(arm: str, world: World) -> DistributedDp | LocalDp:
    """What the nodes of an arm are asked to do. ε = ∞ has the least noise a plan may name, and none is added."""
    kind, _, target = arm.partition("-")
    sigma = 1.0 if target == "inf" else calibrate(float(target), DELTA, world.sampling, ROUNDS)
    if kind != "local":
        return DistributedDp(
            noise_multiplier=sigma, sampling=world.sampling, batch=world.batch, colluders=COLLUDERS, clip=CLIP
        )
    # One step a round, so that both kinds see the same windows; the bound is above what one step can lead to.
    batch = world.batch / len(world.labels)
    return LocalDp(
        noise_multiplier=sigma, sampling=world.sampling, batch=batch, clip=CLIP, learning_rate=1.0, bound=1e3
    )


def plan_of(arm: str, number: int, world: World) -> RoundPlan:
    """A round's plan: only the training, the threshold, the scope and the grid matter here."""
    _, _, target = arm.partition("-")
    return RoundPlan(
        federation="utility",
        roster="0" * 64,
        round=number,
        nonce="0" * 32,
        deadline=0,
        base_hash="0" * 64,
        model_hash="0" * 64,
        scope=SCOPE,
        parameters=len(world.places()),
        cohort=tuple(f"label-{n}" for n in range(len(world.labels))),
        threshold=THRESHOLD,
        training=training_of(arm, world),
        step=ServerStep(rule="adam", learning_rate=RATES[target], momentum=0.9, second=0.99),
        mode="masked",
        bits=20,
    )


def run(arm: str, world: World, seed: int) -> dict[str, Any]:
    """Train one arm; nats a note on everything held out, and what it cost."""
    began = time.monotonic()
    random = np.random.default_rng(seed)
    adapter = centralised(world, random) if arm == "centralised" else federated(arm, world, random)
    spent, sigma = {}, 0.0
    if arm.endswith(("-8", "-2")):
        plan = plan_of(arm, 1, world)
        sigma = getattr(plan.training, "noise_multiplier", 0.0)
        spent = {who: epsilon(events_of(plan, who) * ROUNDS, DELTA) for who in ("colluders", "outsiders")}
    return {
        "arm": arm,
        "seed": seed,
        "nats": score(world, adapter),
        "reference": reference(world, adapter),
        "epsilon": spent,
        "sigma": sigma,
        "recordings": world.recordings,
        "seconds": time.monotonic() - began,
    }


def federated(arm: str, world: World, random: np.random.Generator) -> NDArray[np.float32]:
    """The adapter after all rounds of an arm."""
    adapter = flatten(world.like)
    motion, places = Motion.none(len(adapter)), world.places()
    for number in range(1, ROUNDS + 1):
        plan = plan_of(arm, number, world)
        state = unflatten(adapter, world.like)
        if arm.endswith("-inf"):
            mean = without_noise(plan, world, state, random)
        else:
            vectors = [vector(label, plan, world, state, random) for label in world.labels]
            total: NDArray[np.uint64] = np.sum(vectors, axis=0, dtype=np.uint64)
            mean = mean_update(total, len(vectors), plan)
        adapter, motion = step(adapter, mean, motion, plan.step, places)
        print(f"{arm}: round {number} of {ROUNDS}", file=sys.stderr, flush=True)
    return adapter


def vector(
    label: Label, plan: RoundPlan, world: World, state: dict[str, Tensor], random: np.random.Generator
) -> NDArray[np.uint64]:
    """What a label's node hands to the masks."""
    training, grid, pad = plan.training, plan.grid, world.tokenizer.pad
    if isinstance(training, LocalDp):
        steps = dp_sgd(world.model, state, label.examples, training, pad, random, plan.local_grid, scope=plan.scope)
        assert isinstance(grid, Grid)
        return grid.quantise(steps.vector).astype(np.uint64)
    assert isinstance(training, DistributedDp)
    assert isinstance(grid, NoisyGrid)
    observed = Observed(training.clip)
    total = drawn_sum(world.model, state, label.examples, training, pad, random, grid, observed, scope=plan.scope)
    return grid.contribution(total).astype(np.uint64)


def without_noise(
    plan: RoundPlan, world: World, state: dict[str, Tensor], random: np.random.Generator
) -> NDArray[np.float64]:
    """The same clipped updates of as many recordings, added up as they are."""
    training = plan.training
    assert isinstance(training, DistributedDp)
    total = np.zeros(plan.parameters)
    for label in world.labels:
        drawn = np.flatnonzero(random.random(len(label.examples)) < training.sampling)
        for one in recording_updates(
            world.model, state, label.examples, drawn, training, world.tokenizer.pad, random, scope=plan.scope
        ):
            total += one.vector
    return total / training.batch


def centralised(world: World, random: np.random.Generator) -> NDArray[np.float32]:
    """AdamW over everybody's windows in one place, as many of them as a federation's rounds draw; the whole adapter."""
    model, pad = world.model, world.tokenizer.pad
    apply_adapter(model, world.like)
    named = trained_parameters(model)
    optimiser = torch.optim.AdamW(named.values(), lr=CENTRAL_RATE, weight_decay=0.0)
    sizes = np.array([len(label.examples) for label in world.labels], float)
    model.train()
    for _ in range(round(ROUNDS * world.batch / 24)):
        label = world.labels[int(random.choice(len(sizes), p=sizes / sizes.sum()))]
        ids, mel, has_memory = to_tensors(label.examples.batch(24, random), torch.device("cpu"))
        loss = token_losses(model, ids, mel, has_memory, pad).sum() / (ids[:, 1:] != pad).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    model.eval()
    return flatten(dict(named))


# ---------------------------------------------------------------------- what came of it


def score(world: World, adapter: NDArray[np.float32]) -> dict[str, float]:
    """Nats a note on held-out recordings of each style, and of the control."""
    apply_adapter(world.model, unflatten(adapter, world.like))
    sets = {label.name: label.held for label in world.labels} | {"control": world.control}
    return {
        name: evaluate(world.model, world.tokenizer, held).nats / Size.of(held, world.tokenizer).notes
        for name, held in sets.items()
    }


def reference(world: World, adapter: NDArray[np.float32]) -> dict[str, float]:
    """Nats a note of held-out windows with no note before them but eight seconds of sound: whose, by `SOUNDS`.

    Windows that have a past, and the last eight seconds of other recordings, each in turn.
    """
    apply_adapter(world.model, unflatten(adapter, world.like))
    ends = [[memory_before(r.mel, r.seconds) for r in label.held] for label in world.labels]
    nats = dict.fromkeys(SOUNDS, 0.0)
    notes = 0
    for place, label in enumerate(world.labels):
        others = [ends[other] for other in range(len(ends)) if other != place]
        items = [
            (number, recording, span)
            for number, recording in enumerate(label.held)
            for span in spans(recording, world.tokenizer, REFERENCE_WINDOW)
            if memory_before(recording.mel, span.second) is not None
        ]
        for start in range(0, len(items), 16):
            chunk = items[start : start + 16]
            windows = gather([(recording, span) for _, recording, span in chunk], world.tokenizer)
            names = world.tokenizer.names(windows.ids[windows.ids != world.tokenizer.pad].tolist())
            notes += sum(name.startswith("Pitch_") for name in names)
            numbers = [number for number, _, _ in chunk]
            foreign = [others[number % len(others)] for number in numbers]
            sounds: dict[str, Sequence[NDArray[np.float16] | None]] = {
                "own": list(windows.memory),
                "label": [ends[place][(number + 1) % len(ends[place])] for number in numbers],
                "others": [some[number % len(some)] for number, some in zip(numbers, foreign, strict=True)],
                "none": [None] * len(chunk),
            }
            for what, sound in sounds.items():
                nats[what] += after_sound(world, windows, sound)
    return {what: value / notes for what, value in nats.items()}


def after_sound(world: World, windows: Windows, sounds: Sequence[NDArray[Any] | None]) -> float:
    """Nats of windows, each after the sound of its place."""
    memory, has_memory = np.full_like(windows.memory, -1.0), np.zeros(len(windows), np.bool_)
    for row, sound in enumerate(sounds):
        if sound is not None:
            memory[row], has_memory[row] = sound, True
    asked = to_tensors(replace(windows, memory=memory, has_memory=has_memory), torch.device("cpu"))
    with torch.inference_mode():
        return float(token_losses(world.model, *asked, world.tokenizer.pad).double().sum())


def gain(found: Mapping[str, float], base: Mapping[str, float], name: str) -> float:
    """By which share of the base's nats a note something became likelier."""
    return 1.0 - found[name] / base[name]


def gains(found: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """The mean over labels, the control's, and what labels gain beyond it."""
    label = float(np.mean([gain(found, base, name) for name in base if name != "control"]))
    control = gain(found, base, "control")
    return {"labels": label, "hand": control, "style": label - control}


def plot(results: Sequence[dict[str, Any]], base: Mapping[str, float], path: Path) -> None:
    """Gain over the base against ε; a dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def percent(result: dict[str, Any]) -> float:
        return 100 * gains(result["nats"], base)["labels"]

    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    places = {"2": 0, "8": 1, "inf": 2}
    for kind, name, colour, below in (
        ("local", "every label's own noise", "#c0562b", True),
        ("distributed", "distributed noise", "#1b6ca8", False),
    ):
        arms = {"2": f"{kind}-2", "8": f"{kind}-8", "inf": "exact-inf"}
        points = {t: [percent(r) for r in results if r["arm"] == arms[t]] for t in places}
        shown = [t for t in places if points[t]]
        axes.plot([places[t] for t in shown], [np.mean(points[t]) for t in shown], color=colour, lw=2)
        for t in shown:
            axes.scatter([places[t]] * len(points[t]), points[t], color=colour, s=28, zorder=3)
        if points["8"]:
            axes.annotate(
                name, (1, np.mean(points["8"])), xytext=(8 if below else -8, -14 if below else 10),
                textcoords="offset points", color=colour, ha="left" if below else "right",
            )  # fmt: skip
    found = [percent(r) for r in results if r["arm"] == "centralised"]
    for name, value, colour in [
        ("base", 0.0, "#777777"), *([("centralised, whole adapter", float(np.mean(found)), "#3c3c3c")] if found else [])
    ]:  # fmt: skip
        axes.axhline(value, color=colour, lw=1, ls=(0, (4, 3)))
        axes.annotate(name, (-0.42, value), xytext=(0, 3), textcoords="offset points", color=colour, fontsize=9)
    axes.set_xlim(-0.45, 2.4)
    axes.set_xticks(list(places.values()), ["ε = 2", "ε = 8", "ε = ∞"])
    axes.set_ylabel("nats a note below the base, %")
    axes.set_title(f"Four styles that the base never saw: {results[0]['recordings']:,} recordings, δ = {DELTA:g}")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folders with OpenScore and POP909")
    parser.add_argument("--study", default="far", choices=STUDIES)
    parser.add_argument("--base", type=Path, help="another base than the study's own")
    parser.add_argument("--home", type=Path, help="finished runs; .cache/utility and the study's name where not given")
    parser.add_argument("--heard", type=Path, default=default_cache() / "heard", help="what was heard")
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--plot", type=Path, default=Path("docs/images/utility.png"))
    options = parser.parse_args(arguments)
    study: Study = STUDIES[options.study]
    study = replace(study, base=options.base or study.base)
    home = options.home or Path(".cache/utility") / options.study
    torch.set_num_threads(1)
    keep_freed_memory()
    home.mkdir(parents=True, exist_ok=True)
    world: World | None = None
    results = []
    kept = home / "base.json"
    missing = [(arm, seed) for seed in options.seeds for arm in options.arms]
    missing = [(arm, seed) for arm, seed in missing if not (home / f"{arm}-{seed}.json").exists()]
    if missing or not kept.exists():
        world = opened(study, options.data, options.heard)
        start = flatten(world.like)
        kept.write_text(json.dumps({"nats": score(world, start), "reference": reference(world, start)}))
    for seed in options.seeds:
        for arm in options.arms:
            path = home / f"{arm}-{seed}.json"
            if not path.exists():
                assert world is not None, "something is missing"
                path.write_text(json.dumps(run(arm, world, seed)))
            results.append(json.loads(path.read_text()))
            found = gains(results[-1]["nats"], json.loads(kept.read_text())["nats"])
            said = ", ".join(f"{name} {100 * value:.1f} %" for name, value in found.items())
            print(f"seed {seed}, {arm}: {said}", file=sys.stderr, flush=True)
    base = json.loads(kept.read_text())
    _table(results, base)
    plot(results, base["nats"], options.plot)
    return 0 if report("utility", _claims(results, base)) else 1


def _claims(results: Sequence[dict[str, Any]], base: dict[str, Any]) -> list[Claim]:
    """What the issue of the four styles asks for."""

    def of(arm: str) -> list[float]:
        return [gains(r["nats"], base["nats"])["labels"] for r in results if r["arm"] == arm]

    claims = []
    noisy, exact = of("distributed-8"), of("exact-inf")
    if noisy:
        claims.append(Claim("least gain of a seed, ε = 8", "share of nats", min(noisy), 0.10, "wanted", 1.0))
    if exact:
        claims.append(Claim("least gain of a seed, no noise", "share of nats", min(exact), 0.15, "wanted", 1.0))
    if noisy and exact:
        mean = float(np.mean(noisy)), float(np.mean(exact))
        claims.append(Claim("gain at ε = 8", "share of nats", *mean, "without noise", 0.6))
    differences = [r["reference"]["others"] - r["reference"]["own"] for r in results if r["arm"] == "distributed-8"]
    if differences:
        worth = float(np.mean(differences))
        claims.append(Claim("right label's sound before, ε = 8", "nats/note", worth, 0.05, "wanted", 1.0))
    return claims


def _table(results: Sequence[dict[str, Any]], base: dict[str, Any]) -> None:
    names = list(base["nats"])
    heads = ["Trained", "ε colluders · outsiders", "σ", *names, "gain, seeds", "gain", "style", " · ".join(SOUNDS)]
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    cells = " | ".join(f"{base['nats'][x]:.3f}" for x in names)
    print(f"| base | | | {cells} | | | | {_sound([base['reference']])} |")
    for arm in ARMS:
        found = [r for r in results if r["arm"] == arm]
        if found:
            spent = found[0]["epsilon"]
            cost = f"{spent['colluders']:.2f} · {spent['outsiders']:.2f}" if spent else "∞"
            sigma = f"{found[0]['sigma']:.3g}" if spent else ""
            cells = " | ".join(f"{np.mean([r['nats'][x] for r in found]):.3f}" for x in names)
            all_gains = [gains(r["nats"], base["nats"]) for r in found]
            each = " · ".join(f"{100 * g['labels']:.1f}" for g in all_gains)
            mean, style = (100 * np.mean([g[what] for g in all_gains]) for what in ("labels", "style"))
            sound = _sound([r["reference"] for r in found])
            print(f"| {arm} | {cost} | {sigma} | {cells} | {each} | {mean:.1f} % | {style:.1f} % | {sound} |")


def _sound(found: Sequence[Mapping[str, float]]) -> str:
    means = [np.mean([r[what] for r in found]) if found else math.nan for what in SOUNDS]
    return " · ".join(f"{value:.3f}" for value in means)


if __name__ == "__main__":
    raise SystemExit(main())
