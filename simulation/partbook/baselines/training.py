"""One command, one baseline: counted or trained on public works, gone on with where it was interrupted.

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
import os
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
from partbook.baselines.token_corpus import MOST_TOKENS, TokenCorpus, TokenWindows
from partbook.baselines.vae import VaeConfig, VaeNetwork, evidence_bound, training_loss
from partbook.corpus.library import Library, PublicWork
from partbook.errors import ConfigError
from partbook.model.checkpoint import BASE
from partbook.model.likelihood import to_tensors, token_losses
from partbook.model.transformer import parameter_count
from partbook.music.tokens import Tokenizer
from partbook.simulation.base import PublicScore
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
_DROPOUT: Final = 0.1  # the base's
_RECIPE: Final = "1"  # changes whenever the same works would be written down otherwise


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
        data: folders of further public works; none: the four collections that the base learns from.
        collections: only these; none: all there are.
        steps: optimiser steps; nothing to Kneser–Ney.
        batch: windows a step, of 256 tokens.
        seed: of keys, performances, initialisation and order.
        most_tokens: of the corpus; works are written in fewer keys if twelve are more.
    """

    kind: Kind
    data: tuple[Path, ...] = ()
    collections: tuple[str, ...] = ()
    steps: int = 1600
    batch: int = 8
    seed: int = 1
    most_tokens: int = MOST_TOKENS

    def command(self) -> str:
        """The command that asks for this."""
        words = [f"partbook baseline train {self.kind}"]
        words += [f"--data {folder}" for folder in self.data]
        words += [f"--collections {name}" for name in self.collections]
        if self.kind != "kneser-ney":
            words += [f"--steps {self.steps}", f"--batch {self.batch}"]
        if self.most_tokens != MOST_TOKENS:
            words.append(f"--most-tokens {self.most_tokens}")
        return " ".join([*words, f"--seed {self.seed}"])


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/partbook/baselines`, under `~/.cache` where the variable is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partbook" / "baselines"


def train(
    order: Order, out: Path, watcher: Watcher, *, cache: Path | None = None, library: Library | None = None
) -> dict[str, Any]:
    """Train what is ordered into `out`; returns the manifest.

    A training that was interrupted is gone on with: the result is the one it would have been.

    Args:
        order: what.
        out: folder, made if missing.
        watcher: told how far it is.
        cache: where works are kept as tokens, for the next baseline.
        library: where works come from; opened from `order.data` where not given.

    Raises:
        ConfigError: `out` holds a finished baseline or another one's training, or a collection is unknown.
        InputError: a folder of works cannot be used.
    """
    if (out / MANIFEST).exists():
        raise ConfigError(f"{out} holds a finished baseline already; choose another folder.")
    library = library or Library.open(order.data)
    works = chosen_works(order, library)
    tokens = corpus_of(order, library, works, watcher, cache or default_cache())
    out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "command": order.command(),
        "sources": _sources(order, library, works),
        "works": len(works),
        "pieces": len(tokens),
        "corpus_tokens": len(tokens.ids),
        "corpus_sha256": tokens.sha256,
    }
    if order.kind == "kneser-ney":
        about |= _count(order, tokens, out, watcher)
        files: tuple[str, ...] = (COUNTS,)
    else:
        about |= _descend(order, tokens, out, watcher)
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
) -> TokenCorpus:
    """The works as tokens, from the cache if they are there."""
    said = [_RECIPE, tokenizer_hash(), order.seed, order.most_tokens]
    said += [[w.key, [w.source.stat().st_size, w.source.stat().st_mtime_ns] if w.source else None] for w in works]
    path = cache / f"{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]}.npz"
    if path.exists():
        return TokenCorpus.load(path)
    watcher.stage("Reading works", len(works))
    read = library.each_score(works, watcher.step)
    scores = [PublicScore(w.collection, score) for w, score in zip(works, read, strict=True) if score is not None]
    watcher.stage("Writing them down in several keys", len(scores))
    tokens = TokenCorpus.write(
        scores, BASE / "tokenizer.json", order.seed, most_tokens=order.most_tokens, on_work=lambda n: watcher.step("")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    tokens.save(path)
    return tokens


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


def _count(order: Order, tokens: TokenCorpus, out: Path, watcher: Watcher) -> dict[str, Any]:
    tokenizer = Tokenizer.load(BASE / "tokenizer.json")
    watcher.stage("Counting", 2)
    model = KneserNey.train(
        tokens.pieces(), vocabulary=len(tokenizer), bos=tokenizer.bos, eos=tokenizer.eos, never={tokenizer.pad}
    )
    watcher.step(f"{sum(model.sizes):,} n-grams")
    model.save(out / COUNTS)
    watcher.step("written")
    discounts = [[round(d, 6) for d in three] for three in model.discounts]
    return {"order": ORDER, "ngrams": list(model.sizes), "discounts": discounts, "tokens_seen": len(tokens.ids)}


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


def _descend(order: Order, tokens: TokenCorpus, out: Path, watcher: Watcher) -> dict[str, Any]:
    tokenizer = Tokenizer.load(BASE / "tokenizer.json")
    torch.manual_seed(order.seed)
    network = network_of(order.kind, {"vocabulary": len(tokenizer)}, dropout=_DROPOUT)
    schedule = Schedule(order.steps)
    optimiser = adamw(network, schedule)
    fingerprint = json.dumps([order.kind, order.steps, order.batch, order.seed, tokens.sha256, asdict(network.config)])
    done, losses = 0, []
    if (out / UNFINISHED).exists():
        kept = torch.load(out / UNFINISHED, weights_only=True)
        if kept["order"] != fingerprint:
            raise ConfigError(f"{out} holds another training's state; choose another folder, or delete {UNFINISHED}.")
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        done, losses = int(kept["step"]), list(kept["losses"])
    watcher.stage(f"Training {parameter_count(network):,} parameters", order.steps)
    for _ in range(done):
        watcher.step("was done before")
    windows = TokenWindows(tokens, tokenizer, network.config.context, order.batch, order.seed)
    loss_of = _loss_of(network, tokenizer.pad)
    network.train()
    for step in range(done, order.steps):
        # Of a seed and a step alone, so that going on is the same as not having stopped.
        torch.manual_seed(int(np.random.SeedSequence([order.seed, step]).generate_state(1)[0]))
        ids, _, _ = to_tensors(windows.batch(step), torch.device("cpu"))
        loss, shown = loss_of(ids, step / order.steps)
        descend(network, optimiser, loss, schedule.rate(step), schedule.clip)
        losses.append(round(shown, 4))
        watcher.step(f"{shown:.3f} nats/token")
        if (step + 1) % _KEEP_EVERY == 0:
            state = {"order": fingerprint, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
            temporary = out / f"{UNFINISHED}.part"
            torch.save({**state, "step": step + 1, "losses": losses}, temporary)
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
        "tokens_seen": order.steps * order.batch * network.config.context,
        "training_nats_per_token": {
            str(end): round(float(np.mean(losses[max(0, end - every) : end])), 4)
            for end in range(every, order.steps + 1, every)
        },
    }


def _loss_of(network: LstmNetwork | VaeNetwork, pad: int) -> Callable[[Tensor, float], tuple[Tensor, float]]:
    """Of ids and progress: the loss to descend, and nats a token to show (the bound, for a VAE)."""

    def of_lstm(ids: Tensor, progress: float) -> tuple[Tensor, float]:
        assert isinstance(network, LstmNetwork)
        nothing = torch.zeros(0)
        loss = token_losses(network, ids, nothing, nothing, pad).sum() / (ids[:, 1:] != pad).sum()
        return loss, float(loss.detach())

    def of_vae(ids: Tensor, progress: float) -> tuple[Tensor, float]:
        assert isinstance(network, VaeNetwork)
        noise = torch.randn(len(ids), network.config.latent)
        found, tokens = evidence_bound(network, ids, noise, pad), (ids[:, 1:] != pad).sum()
        shown = (found.tokens.detach().sum() + found.divergence.detach().sum()) / tokens
        return training_loss(found, tokens, progress), float(shown)

    return of_lstm if isinstance(network, LstmNetwork) else of_vae
