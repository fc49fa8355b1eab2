"""The base model from public works to a training that goes on: the stages behind `partbook base train`.

1. Works of the base pools are read and written on the grid; some are heard. Held-out works likewise.
2. A tokeniser is learnt from excerpts of them, or taken from a file, or from the base that is gone on from.
3. The long run (`partbook.training.run`) draws windows by number from the mixture, until it is done or ended.

Everything is kept where the same command finds it: pieces in the cache, and in the state's folder

    state.pt, previous.pt, lock    the run's own
    tokenizer.json                 what its windows are written in
    account.json                   what it is made of
    heldout.jsonl                  nats a note on openings of a few held-out works, as it went

The recipe is a stable one (warm-up, peak, and a decay over the last fifth), so that a run may be prolonged.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from partbook.corpus.heard import SECONDS
from partbook.corpus.library import Library
from partbook.errors import ConfigError
from partbook.model.checkpoint import base_manifest, load_model
from partbook.model.config import SIZES
from partbook.model.precision import native
from partbook.model.transformer import PartbookModel, pick_device
from partbook.music.tokens import Tokenizer
from partbook.pretraining.account import Account, sources
from partbook.pretraining.exporting import TOKENIZER
from partbook.pretraining.measuring import OPENING, held
from partbook.pretraining.merges import learnt
from partbook.pretraining.mixture import Mixture, Piece, hearing_loss
from partbook.pretraining.pieces import Pieces, heard, pooled, written
from partbook.pretraining.watching import UNIT, Onlooker, Watching
from partbook.simulation.collections import Pool
from partbook.training.recipe import Recipe
from partbook.training.run import Ending, Run
from partbook.training.saved_state import PREVIOUS, STATE

if TYPE_CHECKING:
    from partbook.training.board import Board

TOKENS: Final = 60_000_000
STEP_TOKENS: Final = 8192
VOCABULARY: Final = 2000
HEARD_WORKS: Final = 150  # of a collection, at most: ten minutes of a core
HELDOUT: Final = 40  # works of a collection that a finished base is measured by …
WATCHED: Final = 4  # … and that a curve shows openings of; as many are heard


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        state: folder of the training.
        cache: folder of pieces and takes.
        data: folders of further works.
        collections: these alone; all that have a base pool where there are none.
        size: as in `partbook.model.config.SIZES`.
        vocabulary: tokens that the tokeniser may learn.
        tokenizer: the tokeniser's file, in place of learning one.
        start: folder of the base that weights and tokeniser are taken from.
        tokens: to train on, in all.
        step_tokens: of a step.
        takes: of each work that is heard; 0 for none.
        heard_works: at most so many of a collection.
        seconds: of a take.
        soundfonts: for takes.
        heldout: works of a collection that the finished base is measured by.
        seed: of weights and windows.
        prolong: whether a run that is there may get another number of tokens, and draw from other works.
        workers: processes that hear; one a processor where None.
    """

    state: Path
    cache: Path
    data: tuple[Path, ...] = ()
    collections: tuple[str, ...] = ()
    size: str = "small"
    vocabulary: int = VOCABULARY
    tokenizer: Path | None = None
    start: Path | None = None
    tokens: int = TOKENS
    step_tokens: int = STEP_TOKENS
    takes: int = 1
    heard_works: int = HEARD_WORKS
    seconds: float = SECONDS
    soundfonts: tuple[Path, ...] = ()
    heldout: int = HELDOUT
    seed: int = 1
    prolong: bool = False
    workers: int | None = None

    def command(self) -> str:
        """What makes the same base elsewhere: folders and files by name, nothing of where they are."""
        said: list[str] = ["partbook", "base", "train"]
        options: list[tuple[str, object, object]] = [
            *(("--data", folder.name, None) for folder in self.data),
            *(("--collection", name, None) for name in self.collections),
            ("--size", self.size, None),
            ("--tokens", self.tokens, None),
            ("--takes", self.takes, None),
            ("--works", self.heard_works, HEARD_WORKS),
            ("--vocabulary", self.vocabulary, VOCABULARY),
            ("--tokenizer", self.tokenizer and self.tokenizer.name, None),
            ("--from", self.start and self.start.name, None),
            ("--step-tokens", self.step_tokens, STEP_TOKENS),
            ("--seed", self.seed, 1),
        ]
        for name, value, usual in options:
            if value != usual:
                said += [name, str(value)]
        return shlex.join(said)

    def recipe(self) -> Recipe:
        """The long run's."""
        return Recipe(
            tokens=self.tokens, step_tokens=self.step_tokens, warmup=400_000, schedule="stable", decay=0.2,
            dropout=0.0, average=0.998, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Corpus:
    """Works as the training has them.

    Attributes:
        library: that they are of.
        names: collections with a base pool.
        written, heard: what is learnt from.
        held_written, held_heard: what is measured by.
    """

    library: Library
    names: tuple[str, ...]
    written: Pieces
    heard: Pieces
    held_written: Pieces
    held_heard: Pieces

    @property
    def pieces(self) -> list[Piece]:
        """What is learnt from."""
        return [*self.written.pieces, *self.heard.pieces]

    @property
    def heldout(self) -> list[Piece]:
        """What is measured by."""
        return [*self.held_written.pieces, *self.held_heard.pieces]

    @property
    def sha256(self) -> str:
        """Of what is learnt from."""
        return hashlib.sha256(f"{self.written.sha256} {self.heard.sha256}".encode()).hexdigest()


def read(order: Order, library: Library, watch: Onlooker, *, heldout_only: bool = False) -> Corpus:
    """The works of an order, from the cache where they are there.

    Raises:
        ConfigError: no collection has a work to learn from, or a SoundFont cannot be used.
        InputError: there is no such collection.
    """
    names = tuple(name for name in order.collections or library.collections if library.pool(name, "base"))
    if not names:
        raise ConfigError("None of these collections has a base pool; name others, or none for all.")

    def pieces(pool: Pool, most: int | None, most_heard: int, takes: Sequence[int | None]) -> tuple[Pieces, Pieces]:
        found = written(library, pooled(library, names, pool, most), order.cache, watch)
        some = pooled(library, names, pool, most_heard) if takes else []
        as_heard = heard(
            library, some, takes, order.cache, watch,
            soundfonts=order.soundfonts, seconds=order.seconds, workers=order.workers,
        )  # fmt: skip
        return found, as_heard

    nothing = Pieces((), "")
    own = (nothing, nothing) if heldout_only else pieces("base", None, order.heard_works, range(order.takes))
    others = pieces("heldout", order.heldout, min(WATCHED, order.heldout), (None,) if order.takes else ())
    if not heldout_only and not own[0].pieces:
        raise ConfigError(f"None of the works of {', '.join(names)} can be read; see `partbook corpus show`.")
    return Corpus(library, names, *own, *others)


def train(
    order: Order,
    corpus: Corpus,
    watch: Onlooker,
    *,
    board: Path | None = None,
    curve_every: int = 10,
    measure_every: float = 1800.0,
) -> Ending:
    """Train to the last token of an order, or until SIGINT or SIGTERM; the same order goes on.

    Args:
        order: what is asked for.
        corpus: its works.
        watch: told how far it is.
        board: folder of TensorBoard's events; none are written where None.
        curve_every: steps from one point of the training's curves to the next.
        measure_every: seconds from one look at held-out works, and at a sampled piece, to the next.

    Raises:
        ConfigError: the folder holds another run; the message says how it differs. Or the base that is gone on from is
            of another size or tokeniser.
        AlteredFile: the base or the state was altered.
        AlreadyRunning: another process trains in it.
        TrainingDiverged: a loss is not finite.
    """
    before = _before(order, corpus)
    tokenizer = _tokenizer(order, corpus, watch)
    device = pick_device()
    model = _model(order, tokenizer).to(device)
    mixture = Mixture(corpus.pieces, tokenizer, context=model.config.context, tokens=order.step_tokens, seed=order.seed)
    openings = held(_some(corpus.heldout, WATCHED), tokenizer, bars=OPENING)
    with Run.open(order.state, model, order.recipe(), prolong=order.prolong, precision=native(device)) as run:
        tokenizer.save(order.state / TOKENIZER)
        _account(order, corpus, before).save(order.state)
        with _opened(board, run.step) as drawn:
            watching = Watching(run, tokenizer, openings, watch, drawn, curve_every, measure_every)
            watch.stage(f"Training, {order.size}", -(-order.tokens // UNIT))
            ending = run.go(mixture.batch, tokenizer.pad, on_step=watching.step, auxiliary=hearing_loss(model))
            if ending.signal is None:
                watching.look()
    watch.note(ending.message)
    return ending


class _NoBoard:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _opened(folder: Path | None, step: int) -> Board | _NoBoard:
    if folder is None:
        return _NoBoard()
    from partbook.training.board import Board

    return Board(folder, step)


def _some(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """At most so many of each collection and hand, the first ones."""
    found: dict[tuple[str, str], list[Piece]] = {}
    for piece in pieces:
        own = found.setdefault((piece.collection, piece.hand), [])
        if len(own) < most:
            own.append(piece)
    return [piece for own in found.values() for piece in own]


def _before(order: Order, corpus: Corpus) -> Account | None:
    """The account of the run that is there, after checking that this order may go on with it."""
    before = Account.load(order.state)
    started = any((order.state / name).exists() for name in (STATE, PREVIOUS))
    if not started or order.prolong:
        if started and before is None and order.tokenizer is None:
            raise ConfigError(
                f"{order.state} does not say what its run's windows are written in; name its tokeniser (--tokenizer)."
            )
        return before if started else None
    if before is None:
        raise ConfigError(
            f"{order.state} holds a run that does not say what it is made of; go on with it by --prolong and "
            "--tokenizer, or choose another folder."
        )
    if before.vocabulary != order.vocabulary:
        raise ConfigError(
            f"{order.state} holds a run with a vocabulary of {before.vocabulary:,}, asked for {order.vocabulary:,}. "
            "Ask for what it has, or choose another folder."
        )
    if before.corpus != corpus.sha256:
        raise ConfigError(
            f"{order.state} holds a run that learns from other works or takes ({_counted(before)}; now "
            f"{_counted(_account(order, corpus, before))}). Give it the same folders and numbers, or --prolong it with "
            "these."
        )
    return before


def _counted(account: Account) -> str:
    works, takes = (sum(getattr(s, name) for s in account.sources) for name in ("works", "takes"))
    return f"{works:,} works and {takes:,} takes"


def _account(order: Order, corpus: Corpus, before: Account | None) -> Account:
    account = Account(
        command=order.command(),
        size=order.size,
        vocabulary=order.vocabulary,
        corpus=corpus.sha256,
        sources=sources(corpus.library, corpus.names, corpus.written, corpus.heard),
        data=tuple(str(folder.resolve()) for folder in order.data),
        heard_works=order.heard_works,
        takes=order.takes,
    )
    if before is not None:
        return replace(account, started_from=before.started_from, tokens_before=before.tokens_before)
    if order.start is not None:
        manifest = base_manifest(order.start)
        seen = int(manifest.get("about", {}).get("tokens_seen", 0))
        return replace(
            account,
            started_from=manifest["files"]["model.safetensors"],
            tokens_before=seen if isinstance(seen, int) else 0,
        )
    return account


def _tokenizer(order: Order, corpus: Corpus, watch: Onlooker) -> Tokenizer:
    """What the run that is there has; else the file that is named, the base's, or one that is learnt."""
    kept = order.state / TOKENIZER
    started = any((order.state / name).exists() for name in (STATE, PREVIOUS))
    named = [path for path in (order.tokenizer, order.start and order.start / TOKENIZER) if path is not None]
    if order.start is not None:
        base_manifest(order.start)
    if started and kept.is_file():
        named = [kept, *([order.tokenizer] if order.tokenizer else [])]
    found = [Tokenizer.load(path) for path in named]
    for path, other in zip(named[1:], found[1:], strict=True):
        if _same(found[0], other):
            continue
        raise ConfigError(f"{named[0]} and {path} are different tokenisers; name one that the weights know.")
    if found:
        return found[0]
    watch.stage(f"Learning {order.vocabulary:,} tokens", 1)
    result = learnt(corpus.pieces, order.vocabulary)
    watch.step(f"{len(result):,} tokens")
    return result


def _same(one: Tokenizer, other: Tokenizer) -> bool:
    return len(one) == len(other) and all(one.expand([i]) == other.expand([i]) for i in range(len(one)))


def _model(order: Order, tokenizer: Tokenizer) -> PartbookModel:
    if order.size not in SIZES:
        raise ConfigError(f"There is no size {order.size!r}; there are {', '.join(SIZES)}.")
    config = SIZES[order.size](len(tokenizer))
    if order.start is not None:
        model = load_model(order.start)
        if model.config != config:
            raise ConfigError(f"{order.start} is no base of the size {order.size}; ask for the size that it has.")
        return model
    torch.manual_seed(order.seed)
    model = PartbookModel(config)
    model.clock.set(tokenizer)
    return model
