"""What each part of the base's recipe is worth: tiny trainings that differ in one thing, at equal compute or tokens.

    vocabulary   2,000 tokens, beside 640 and 10,000
    heard        with a quarter of heard music, beside none
    context      1,024 positions, beside 256
    optimiser    Muon for matrices, beside AdamW for everything
    clock        heads that know musical time, beside heads whose clock stands still

Every variant has the same pieces, seed, width and depth, and is measured on openings of the same held-out works: nats a
note, as written and as heard, the mean over collections. Compute is seconds of the training thread's core (batches are
made in another), which hardly depend on who else is at work; the rate warms up over the first 5 % and falls to zero
over the last 40 %.

A variant's figures are kept in --cache, so that the same command goes on. The closing line holds the recipe's figure
against each alternative's: a ratio below 1 is what the recipe gains.

python -m benchmarks.ablation [--data FOLDER] [--seconds N | --tokens N] [--only NAME] [--works N] [--size SIZE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from benchmarks.claims import Claim, report
from partbook.corpus.library import Library, default_cache
from partbook.model.config import SIZES
from partbook.model.transformer import PartbookModel
from partbook.music.rendering import soundfonts
from partbook.music.tokens import Tokenizer
from partbook.pretraining.making import Corpus, Order, read
from partbook.pretraining.measuring import OPENING, held, mean, nats_a_note
from partbook.pretraining.merges import learnt
from partbook.pretraining.mixture import HEARD, Mixture, hearing_loss
from partbook.simulation.watching import RichWatcher
from partbook.threads import exactly
from partbook.training.muon import Optimiser
from partbook.training.prefetch import Prefetch

STEP_TOKENS = 8192
WARMUP, DECAY = 0.05, 0.4  # shares of the budget
CLIP = 1.0
RATES = {"muon": (0.02, 3e-3), "adamw": (0.0, 3e-3)}
TARGET = 1.0  # the recipe's nats a note over an alternative's, at most


@dataclass(frozen=True, slots=True)
class Variant:
    """One training."""

    vocabulary: int = 2000
    heard: bool = True
    context: int = 1024
    optimiser: str = "muon"
    clock: bool = True


@dataclass(frozen=True, slots=True)
class Budget:
    """How long it is: seconds of a core, or tokens."""

    seconds: float | None
    tokens: int | None
    step_tokens: int = STEP_TOKENS

    def share(self, seconds: float, tokens: int) -> float:
        """How much of it is gone, from 0."""
        return seconds / self.seconds if self.seconds else tokens / (self.tokens or 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it: nats a note, and how far it got."""

    scores: float
    heard: float
    tokens: int
    steps: int
    seconds: float
    collections: dict[str, float]


RECIPE = Variant()
ALTERNATIVES: dict[str, tuple[str, Variant]] = {
    "vocabulary-640": ("640 tokens", replace(RECIPE, vocabulary=640)),
    "vocabulary-10000": ("10,000 tokens", replace(RECIPE, vocabulary=10_000)),
    "unheard": ("scores alone", replace(RECIPE, heard=False)),
    "context-256": ("256 positions", replace(RECIPE, context=256)),
    "adamw": ("AdamW", replace(RECIPE, optimiser="adamw")),
    "clockless": ("no musical time", replace(RECIPE, clock=False)),
}


class AdamW:
    """`Optimiser`'s interface, with AdamW for every parameter."""

    def __init__(self, model: nn.Module, rate: float, weight_decay: float) -> None:
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._rate, self._adamw = rate, torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))

    def step(self, share: float) -> None:
        """Move by the gradients there are, at a share of the peak rate, and drop them."""
        for group in self._adamw.param_groups:
            group["lr"] = self._rate * share
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)


def rate(done: float) -> float:
    """Share of the peak rates where a share of the budget is gone."""
    return min(1.0, max(done, 0.001) / WARMUP, max(1.0 - done, 0.0) / DECAY)


def trained(
    variant: Variant, size: str, corpus: Corpus, tokenizer: Tokenizer, budget: Budget, say: Callable[[str], None]
) -> Measured:
    """Train a variant, and measure it."""
    torch.manual_seed(1)
    model = PartbookModel(replace(SIZES[size](len(tokenizer)), context=variant.context))
    if variant.clock:
        model.clock.set(tokenizer)
    muon, adamw = RATES[variant.optimiser]
    optimiser = Optimiser(model, muon, adamw, 0.05) if variant.optimiser == "muon" else AdamW(model, adamw, 0.05)
    share = HEARD if variant.heard else 0.0
    mixture = Mixture(corpus.pieces, tokenizer, context=variant.context, tokens=budget.step_tokens, seed=1, heard=share)
    hearing = hearing_loss(model)
    seen = steps = 0
    smooth: float | None = None
    began, pad = time.thread_time(), tokenizer.pad
    model.train()
    with Prefetch(mixture.batch, 0, pad, pinned=False) as prefetch:
        while (done := budget.share(time.thread_time() - began, seen)) < 1:
            batch = prefetch.take()
            windows = sum(map(len, batch.windows))
            loss = 0.0
            for one, (ids, mel, has_memory) in zip(batch.windows, batch.tensors, strict=True):
                memory, audible = model.encode(mel, has_memory)
                logits = model.decode(ids[:, :-1], memory, audible).flatten(0, 1)
                nats = F.cross_entropy(logits, ids[:, 1:].flatten(), ignore_index=pad, reduction="sum") / batch.tokens
                (nats + hearing(one, memory).sum() / windows).backward()
                loss += float(nats.detach())
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step(rate(done))
            seen, steps = seen + batch.tokens, steps + 1
            smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
            if steps % 50 == 0:
                say(f"  step {steps}, {seen:,} tokens, {smooth:.3f} nats a token, {done:.0%}")
    took = time.thread_time() - began
    figures = nats_a_note(model, tokenizer, held(corpus.heldout, tokenizer, bars=OPENING))
    return Measured(
        mean(figures, "score"), mean(figures, "heard"), seen, steps, round(took, 1),
        {name: round(value, 3) for name, value in sorted(figures.items())},
    )  # fmt: skip


def claims(found: dict[str, Measured]) -> list[Claim]:
    """The recipe's figures over each alternative's."""
    ours = found["recipe"]
    result = []
    for name, (called, _) in ALTERNATIVES.items():
        if name not in found:
            continue
        for hand, mine, its in (("written", ours.scores, found[name].scores), ("heard", ours.heard, found[name].heard)):
            if math.isfinite(mine) and math.isfinite(its):
                what = f"held-out works as {hand}"
                result.append(Claim(what, "nats a note", mine, its, called, TARGET, at_least=False))
    return result


def main(argv: Sequence[str] | None = None, library: Library | None = None) -> int:
    """Train what is not kept, print the table, and say whether the recipe holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folders of further works")
    parser.add_argument("--seconds", type=float, default=1200.0, help="of a core, each variant")
    parser.add_argument("--tokens", type=int, help="each variant, in place of seconds")
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS)
    parser.add_argument("--only", action="append", choices=list(ALTERNATIVES), help="this alternative; repeatable")
    parser.add_argument("--works", type=int, default=100, help="of a collection that are heard, at most")
    parser.add_argument("--heldout", type=int, default=10, help="works of a collection to measure by")
    parser.add_argument("--size", default="small", choices=list(SIZES))
    parser.add_argument("--cache", type=Path, default=default_cache(), help="works, takes and figures")
    asked = parser.parse_args(argv)
    exactly(1)
    budget = Budget(None if asked.tokens else asked.seconds, asked.tokens, asked.step_tokens)
    order = Order(
        asked.cache, asked.cache, data=tuple(asked.data), heard_works=asked.works, heldout=asked.heldout,
        soundfonts=tuple(soundfonts()),
    )  # fmt: skip
    with RichWatcher(Console(stderr=True)) as watch:
        corpus = read(order, library or Library.open(order.data, asked.cache, watch), watch)
    chosen = {"recipe": ("the recipe", RECIPE)}
    chosen |= {name: variant for name, variant in ALTERNATIVES.items() if not asked.only or name in asked.only}
    tokenizers: dict[int, Tokenizer] = {}
    found: dict[str, Measured] = {}
    for name, (called, variant) in chosen.items():
        said = json.dumps([asdict(variant), asdict(budget), asked.size, corpus.sha256, asked.heldout, RATES])
        kept = asked.cache / "ablation" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.json"
        if not kept.exists():
            if variant.vocabulary not in tokenizers:
                tokenizers[variant.vocabulary] = learnt(corpus.pieces, variant.vocabulary)
            print(f"{called} …", flush=True)
            tokens = tokenizers[variant.vocabulary]
            result = trained(variant, asked.size, corpus, tokens, budget, lambda text: print(text, flush=True))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(asdict(result)))
        found[name] = Measured(**json.loads(kept.read_text()))
    print(f"\n{'':20} {'as written':>10} {'as heard':>10} {'tokens':>12} {'core s':>8}   nats a note, openings")
    for name, one in found.items():
        print(f"{chosen[name][0]:20} {one.scores:10.3f} {one.heard:10.3f} {one.tokens:12,} {one.seconds:8.0f}")
    return 0 if report("ablation", claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
