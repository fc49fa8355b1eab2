"""One command, one baseline: counted or trained on public works, gone on with where it was interrupted.

All learn from what the base learns from: the same works of the same pools, as scores and as a node hears them
(`partbook.pretraining.pieces`). Networks see the base's own windows, batch by batch (`partbook.pretraining.mixture`),
and as many tokens of them; what is counted is counted once, in every key that fits (`token_corpus`).

A baseline's folder:

    manifest.json        what it is, from which works, by which command; hashes of the rest
    works.json           the keys of the works it has learnt from
    config.json          the network's shape (LSTM, VAE)
    model.safetensors    its weights, float16 (LSTM, VAE)
    model.npz            its counts (Kneser–Ney)
    unfinished.pt        while it trains: weights, optimiser and step
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from partbook.baselines.kneser_ney import ORDER, KneserNey
from partbook.baselines.lstm import LstmConfig, LstmNetwork
from partbook.baselines.token_corpus import MOST_TOKENS, in_keys
from partbook.baselines.vae import VaeConfig, VaeNetwork, evidence_bound, training_loss
from partbook.corpus.library import Library, PublicWork, default_cache
from partbook.errors import ConfigError
from partbook.model.checkpoint import BASE
from partbook.model.likelihood import token_losses
from partbook.model.precision import native, products
from partbook.model.transformer import parameter_count
from partbook.music.tokens import Tokenizer
from partbook.pretraining.making import HEARD_WORKS, STEP_TOKENS, TOKENS
from partbook.pretraining.mixture import Mixture
from partbook.pretraining.pieces import Pieces, heard, pooled, written
from partbook.simulation.collections import COLLECTIONS
from partbook.training.pretraining import Schedule, adamw, descend

Kind = Literal["kneser-ney", "lstm", "vae"]
KINDS: Final[tuple[Kind, ...]] = ("kneser-ney", "lstm", "vae")
FORMAT: Final = "partbook/v1/baseline"
MANIFEST: Final = "manifest.json"
COUNTS: Final = "model.npz"
CONFIG: Final = "config.json"
WORKS: Final = "works.json"
WEIGHTS: Final = "model.safetensors"
UNFINISHED: Final = "unfinished.pt"
_KEEP_EVERY: Final = 50  # steps: under a minute of work is lost
_DROPOUT: Final = 0.0  # the base's
_MICRO: Final = 8192  # positions of a micro-batch: a recurrent step is the faster the more windows share it


class Watcher(Protocol):
    """Who is told how far it is."""

    def stage(self, name: str, total: int) -> None:
        """A stage of so many steps begins."""

    def step(self, what: str) -> None:
        """One step is done."""

    def note(self, text: str) -> None:
        """Something to be read later."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be trained.

    Attributes:
        kind: which model.
        data: folders of further public works; none: the four collections of music21's corpus.
        collections: only these; none: all there are.
        tokens: to see in training; nothing to Kneser–Ney. The base's, unless said otherwise.
        batch: tokens of an optimiser step, about.
        takes: of each work that is heard; 0 for none.
        heard_works: at most so many of a collection.
        seed: of keys, windows and initialisation.
        most_tokens: to count; scores are written in fewer keys if twelve are more.
    """

    kind: Kind
    data: tuple[Path, ...] = ()
    collections: tuple[str, ...] = ()
    tokens: int = TOKENS
    batch: int = STEP_TOKENS
    takes: int = 1
    heard_works: int = HEARD_WORKS
    seed: int = 1
    most_tokens: int = MOST_TOKENS

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return math.ceil(self.tokens / self.batch)

    def command(self) -> str:
        """The command that asks for this."""
        words = [f"partbook baseline train {self.kind}"]
        words += [f"--data {folder}" for folder in self.data]
        words += [f"--collections {name}" for name in self.collections]
        if self.kind != "kneser-ney":
            words += [f"--tokens {self.tokens}", f"--batch {self.batch}"]
        elif self.most_tokens != MOST_TOKENS:
            words.append(f"--most-tokens {self.most_tokens}")
        words += [f"--takes {self.takes}", f"--heard-works {self.heard_works}"]
        return " ".join([*words, f"--seed {self.seed}"])


def train(
    order: Order, out: Path, watcher: Watcher, *, cache: Path | None = None, library: Library | None = None
) -> dict[str, Any]:
    """Train what is ordered into `out`; returns the manifest.

    A training that was interrupted is gone on with: the result is the one it would have been.

    Args:
        order: what.
        out: folder, made if missing.
        watcher: told how far it is.
        cache: where pieces and takes are kept, the base's; `$XDG_CACHE_HOME/partbook/corpus` where None.
        library: where works come from; opened from `order.data` where not given.

    Raises:
        ConfigError: `out` holds a finished baseline or another one's training, or a collection is unknown.
        InputError: a folder of works cannot be used.
    """
    cache = cache or default_cache()
    if (out / MANIFEST).exists():
        raise ConfigError(f"{out} holds a finished baseline already; choose another folder.")
    library = library or Library.open(order.data)
    works = chosen_works(order, library)
    scores, takes = corpus_of(order, library, works, watcher, cache)
    out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "command": order.command(),
        "sources": _sources(order, library, works),
        "works": len(works),
        "pieces": {"score": len(scores.pieces), "heard": len(takes.pieces)},
        "corpus_sha256": hashlib.sha256(f"{scores.sha256} {takes.sha256}".encode()).hexdigest(),
    }
    if order.kind == "kneser-ney":
        about |= _count(order, scores, takes, out, watcher)
        files: tuple[str, ...] = (COUNTS,)
    else:
        about |= _descend(order, scores, takes, about["corpus_sha256"], out, watcher)
        files = (CONFIG, WEIGHTS)
    write_json(out / WORKS, {"works": [work.key for work in works]})
    manifest = {
        "format": FORMAT,
        "kind": order.kind,
        "tokenizer_sha256": tokenizer_hash(),
        "files": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in (*files, WORKS)},
        "about": about,
    }
    write_json(out / MANIFEST, manifest)
    (out / UNFINISHED).unlink(missing_ok=True)
    return manifest


def chosen_works(order: Order, library: Library) -> tuple[PublicWork, ...]:
    """The works of the base pools that an order names, in the library's order.

    Raises:
        ConfigError: a collection is unknown, or the pools are empty.
    """
    names = chosen_collections(library, order.data, order.collections)
    works = tuple(work for name in names for work in library.pool(name, "base"))
    if not works:
        raise ConfigError("The collections have no works to train on; name others.")
    return works


def chosen_collections(library: Library, data: Sequence[Path], collections: Sequence[str]) -> tuple[str, ...]:
    """Those that are named; else the base's four, and with further data all there are; in the library's order.

    Raises:
        ConfigError: one is unknown.
    """
    for name in collections:
        if name not in library.collections:
            raise ConfigError(f"There is no collection {name!r}; there are {', '.join(library.collections)}.")
    wanted = collections or (library.collections if data else tuple(c.name for c in COLLECTIONS))
    return tuple(name for name in library.collections if name in wanted)


def corpus_of(
    order: Order, library: Library, works: Sequence[PublicWork], watcher: Watcher, cache: Path
) -> tuple[Pieces, Pieces]:
    """The works as scores, and some of them as heard: the base's own, from the cache if they are there.

    Raises:
        ConfigError: none of them can be read.
    """
    names = tuple(dict.fromkeys(work.collection for work in works))
    scores = written(library, works, cache, watcher)
    if not scores.pieces:
        raise ConfigError("None of the works can be read; choose other collections.")
    some = pooled(library, names, "base", order.heard_works) if order.takes else []
    return scores, heard(library, some, range(order.takes), cache, watcher)


def tokenizer_hash() -> str:
    """SHA-256 of the shipped base's tokeniser, which all baselines share."""
    return hashlib.sha256((BASE / "tokenizer.json").read_bytes()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; replaces the file whole."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _sources(order: Order, library: Library, works: Sequence[PublicWork]) -> list[str]:
    known = {c.name: f"{c.about}, as encoded in music21's corpus" for c in COLLECTIONS}
    found = dict.fromkeys(work.collection for work in works)
    return [
        f"{name}: {sum(w.collection == name for w in works)} works{': ' + known[name] if name in known else ''}"
        for name in found
    ]


def _count(order: Order, scores: Pieces, takes: Pieces, out: Path, watcher: Watcher) -> dict[str, Any]:
    tokenizer = Tokenizer.load(BASE / "tokenizer.json")
    pieces = [*scores.pieces, *takes.pieces]
    watcher.stage("Writing them down in several keys", len(pieces))
    counted = in_keys(pieces, tokenizer, order.seed, most_tokens=order.most_tokens, on_piece=watcher.step)
    watcher.stage("Counting", 2)
    never = {tokenizer.pad, tokenizer.cut}
    model = KneserNey.train(counted, vocabulary=len(tokenizer), bos=tokenizer.bos, eos=tokenizer.eos, never=never)
    watcher.step(f"{sum(model.sizes):,} n-grams")
    model.save(out / COUNTS)
    watcher.step("written")
    discounts = [[round(d, 6) for d in three] for three in model.discounts]
    seen = sum(len(ids) + 1 for ids in counted)
    return {"order": ORDER, "ngrams": list(model.sizes), "discounts": discounts, "tokens_seen": seen}


def network_of(
    kind: Kind, config: Mapping[str, Any] | None = None, *, dropout: float = 0.0
) -> LstmNetwork | VaeNetwork:
    """A network of a kind, untrained.

    Raises:
        ConfigError: the configuration is not one of this kind's.
    """
    try:
        if kind == "lstm":
            return LstmNetwork(LstmConfig(**(config or {})), dropout=dropout)
        return VaeNetwork(VaeConfig(**(config or {})), dropout=dropout)
    except TypeError as error:
        raise ConfigError(f"This is no configuration of a {kind} ({error}); restore {CONFIG}.") from error


def _descend(
    order: Order, scores: Pieces, takes: Pieces, corpus_sha256: str, out: Path, watcher: Watcher
) -> dict[str, Any]:
    tokenizer = Tokenizer.load(BASE / "tokenizer.json")
    torch.manual_seed(order.seed)
    network = network_of(order.kind, {"vocabulary": len(tokenizer)}, dropout=_DROPOUT)
    schedule = Schedule(order.steps)
    optimiser = adamw(network, schedule)
    fingerprint = json.dumps([order.kind, order.tokens, order.batch, order.seed, corpus_sha256, asdict(network.config)])
    done, seen, losses = 0, 0, []
    if (out / UNFINISHED).exists():
        kept = torch.load(out / UNFINISHED, weights_only=True)
        if kept["order"] != fingerprint:
            raise ConfigError(f"{out} holds another training's state; choose another folder, or delete {UNFINISHED}.")
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        done, seen, losses = int(kept["step"]), int(kept["seen"]), list(kept["losses"])
    watcher.stage(f"Training {parameter_count(network):,} parameters", order.steps)
    for _ in range(done):
        watcher.step("was done before")
    mixture = Mixture(
        [*scores.pieces, *takes.pieces],
        tokenizer,
        context=network.config.context,
        tokens=order.batch,
        seed=order.seed,
        micro=_MICRO,
    )
    loss_of = _loss_of(network, tokenizer.pad)
    network.train()
    for step in range(done, order.steps):
        # Of a seed and a step alone, so that going on is the same as not having stopped.
        torch.manual_seed(int(np.random.SeedSequence([order.seed, step]).generate_state(1)[0]))
        parts = [torch.from_numpy(windows.ids) for windows in mixture.batch(step)]
        tokens = sum(int((ids[:, 1:] != tokenizer.pad).sum()) for ids in parts)
        shown = 0.0
        for ids in parts:
            loss, found = loss_of(ids, tokens, step / order.steps)
            loss.backward()  # type: ignore[no-untyped-call]
            shown += found
        descend(network, optimiser, schedule.rate(step), schedule.clip)
        losses.append(round(shown, 4))
        seen += tokens
        watcher.step(f"{shown:.3f} nats/token")
        if (step + 1) % _KEEP_EVERY == 0:
            state = {"order": fingerprint, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
            temporary = out / f"{UNFINISHED}.part"
            torch.save({**state, "step": step + 1, "seen": seen, "losses": losses}, temporary)
            temporary.replace(out / UNFINISHED)
            watcher.note(f"step {step + 1}: {np.mean(losses[-_KEEP_EVERY:]):.4f} nats/token")
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in network.state_dict().items()}
    write_json(out / CONFIG, asdict(network.config))
    temporary = out / f"{WEIGHTS}.part"
    temporary.write_bytes(save_tensors(half))
    temporary.replace(out / WEIGHTS)
    every = max(1, order.steps // 32)
    return {
        "parameters": parameter_count(network),
        "tokens_seen": seen,
        "training_nats_per_token": {
            str(end): round(float(np.mean(losses[max(0, end - every) : end])), 4)
            for end in range(every, order.steps + 1, every)
        },
    }


def _loss_of(network: LstmNetwork | VaeNetwork, pad: int) -> Callable[[Tensor, int, float], tuple[Tensor, float]]:
    """Of ids, the step's tokens and progress: what ids add to the loss, and to the nats a token that are shown.

    What is shown of a VAE is the bound.
    """

    def of_lstm(ids: Tensor, tokens: int, progress: float) -> tuple[Tensor, float]:
        assert isinstance(network, LstmNetwork)
        nothing = torch.zeros(0)
        with products(ids.device, native(ids.device)):
            losses = token_losses(network, ids, nothing, nothing, pad)
        loss = losses.sum() / tokens
        return loss, float(loss.detach())

    def of_vae(ids: Tensor, tokens: int, progress: float) -> tuple[Tensor, float]:
        assert isinstance(network, VaeNetwork)
        noise = torch.randn(len(ids), network.config.latent)
        found = evidence_bound(network, ids, noise, pad)
        shown = (found.tokens.detach().sum() + found.divergence.detach().sum()) / tokens
        return training_loss(found, tokens, progress), float(shown)

    return of_lstm if isinstance(network, LstmNetwork) else of_vae
