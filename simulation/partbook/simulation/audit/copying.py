"""Does the released model recite what it was trained on?

The generator writes pieces out of nothing. In each, the longest run of notes is looked for that it shares with a
private recording: the same intervals and the same rhythm on the beat's grid of twelve, in any key and at any tempo.
Tunes of one style share figures anyway, so the same is measured against held-out works of the same collections,
which trained nothing.

Which works of a collection are private and which are held out was decided by a hash. So if the model copies nothing,
the two kinds are exchangeable within each collection, and shuffling them there is an exact test (Fisher's; with
randomly drawn shuffles, as Phipson and Smyth 2010, "Permutation p-values should never be zero", count them).

What is compared are transcriptions, the private ones being what a label's node trains on. A copy with one note
changed counts as two shorter runs, so a finding of no excess does not rule out likeness.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick

from partbook.coordinator.validation import ValidationSet
from partbook.corpus.scores import written
from partbook.errors import ConfigError, GenerationError, InputError, ScoreError
from partbook.generator.composing import Generator, Piece, PieceRequest, compose
from partbook.generator.release import load_generator, open_release, pack_release
from partbook.identity.keys import IdentityKey
from partbook.model.checkpoint import BASE, base_manifest, load_tokenizer
from partbook.music.metrics import copied_span
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import POSITIONS_PER_BEAT, Tokenizer
from partbook.plan.training import PlainTraining
from partbook.simulation.audit.results import AuditResult
from partbook.simulation.collections import COLLECTIONS, Work, split
from partbook.simulation.labels import excerpt
from partbook.simulation.performance import perform
from partbook.simulation.trial import Trial, TrialOptions
from partbook.vault.store import Vault

HOME: Final = Path(".cache/demo")
RUNS: Final = Path("runs")
SECONDS: Final = 30.0  # of each piece
SHUFFLES: Final = 9_999
SURE: Final = 0.01  # a p-value above which nothing is claimed

# Half a position apart, onsets in beats are different ones; anything less is a float's rounding.
_SAME_POSITION: Final = 0.5 / POSITIONS_PER_BEAT


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished federation, and what it did and did not train on.

    Attributes:
        what: in words.
        release: the folder of the release.
        private: the labels' recordings, by collection or label.
        heldout: works of the same kinds that trained nothing, under the same names.
    """

    what: str
    release: Path
    private: Mapping[str, tuple[Recording, ...]]
    heldout: Mapping[str, tuple[Recording, ...]]


@dataclass(frozen=True, slots=True)
class Shared:
    """The longest runs that pieces share with works, in notes.

    Attributes:
        runs: int64 (pieces, works).
        private: which works are private, bool (works,).
        stratum: number of each work's collection, int64 (works,).
    """

    runs: NDArray[np.int64]
    private: NDArray[np.bool_]
    stratum: NDArray[np.int64]

    def longest(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each piece: the longest run with any private work, and with any held-out one; both (pieces,)."""
        return self.runs[:, self.private].max(1), self.runs[:, ~self.private].max(1)

    def longest_of_as_many(self) -> NDArray[np.float64]:
        """Of each piece, the longest run with as many private works of each collection as are held out: (pieces,).

        There are more private works, and of more works the longest run is longer. This is the exact expectation over
        all ways of choosing.
        """
        found = []
        for row in self.runs:
            expected, below = 0.0, 0.0
            for value in range(int(row.max()) + 1):
                at_most = 1.0
                for number in np.unique(self.stratum):
                    here = self.stratum == number
                    own = row[here & self.private]
                    take = min(int((here & ~self.private).sum()), len(own))
                    at_most *= math.comb(int((own <= value).sum()), take) / math.comb(len(own), take)
                expected += value * (at_most - below)
                below = at_most
            found.append(expected)
        return np.array(found)

    def excess(self, private: NDArray[np.bool_] | None = None) -> float:
        """Notes that the mean private work shares beyond the mean held-out one, mean over collections.

        A work's figure is the longest run it shares with any piece.
        """
        private = self.private if private is None else private
        best = self.runs.max(0)
        strata = [self.stratum == number for number in np.unique(self.stratum)]
        return float(np.mean([best[s & private].mean() - best[s & ~private].mean() for s in strata]))

    def p_value(self, shuffles: int, seed: int) -> float:
        """How likely an excess as large as this is, if nothing was copied: one-sided, shuffled within collections."""
        random = np.random.Generator(np.random.Philox(seed))
        seen, as_large = self.excess(), 0
        strata = [np.flatnonzero(self.stratum == number) for number in np.unique(self.stratum)]
        shuffled = self.private.copy()
        for _ in range(shuffles):
            for places in strata:
                shuffled[places] = random.permutation(self.private[places])
            as_large += self.excess(shuffled) >= seen - 1e-12
        return (1 + as_large) / (1 + shuffles)


def in_beats(score: ScoreTick) -> Notes:
    """The pitched notes of a score with times in quarter notes, on the grid of twelve: the same at any tempo."""
    beat = score.ticks_per_quarter
    return Notes.from_rows(
        [
            (
                round(n.time * POSITIONS_PER_BEAT / beat) / POSITIONS_PER_BEAT,
                max(n.duration, 1) / beat,
                int(n.pitch),
                max(1, int(n.velocity)),
            )
            for track in score.tracks
            if not track.is_drum
            for n in track.notes
        ]
    )


def longest_shared(first: Notes, second: Notes) -> int:
    """Notes of the longest run that two pieces share in any key: times are in beats, and equal on the grid of twelve.

    Notes are in order of onset, then pitch. See `copied_span`.
    """
    return copied_span(first, second, tolerance=_SAME_POSITION).notes


def compare(pieces: Sequence[Notes], trained: Trained, tokenizer: Tokenizer) -> Shared:
    """The longest run that each piece shares with each work.

    Raises:
        InputError: a collection has no private or no held-out work.
    """
    names = sorted(set(trained.private) & set(trained.heldout))
    if not names:
        raise InputError("No collection has both private and held-out works; there is nothing to compare.")
    works: list[Notes] = []
    private, stratum = [], []
    for number, name in enumerate(names):
        for recordings, own in ((trained.private[name], True), (trained.heldout[name], False)):
            if not recordings:
                raise InputError(f"{name} has no {'private' if own else 'held-out'} work; there is nothing to compare.")
            works.extend(in_beats(tokenizer.decode(r.ids)) for r in recordings)
            private.extend([own] * len(recordings))
            stratum.extend([number] * len(recordings))
    runs = np.array([[longest_shared(piece, work) for work in works] for piece in pieces], dtype=np.int64)
    return Shared(runs, np.array(private), np.array(stratum))


def write_pieces(
    generator: Generator, count: int, seconds: float, seed: int, on_piece: Callable[[int], None] = lambda _: None
) -> list[Notes]:
    """Pieces out of nothing, in beats; where a seed writes no note, the next is taken.

    Raises:
        GenerationError: ten seeds in a row wrote no note.
    """
    found = []
    for number in range(count):
        for attempt in range(10):
            try:
                *_, piece = compose(generator, PieceRequest(seed * 1000 + 10 * number + attempt, seconds))
            except GenerationError:
                continue
            assert isinstance(piece, Piece), "compose ends with the piece"
            found.append(in_beats(piece.score))
            break
        else:
            raise GenerationError(f"Ten seeds from {seed * 1000 + 10 * number} wrote no note; train for more rounds.")
        on_piece(number + 1)
    return found


def trained_by_demo(demo: Path, home: Path) -> Trained:
    """What a finished run of the demo released, trained on and held out.

    Args:
        demo: the run's folder.
        home: where the demo keeps vaults between runs.

    Raises:
        InputError: the run is not finished, or its vaults are not in `home`.
    """
    try:
        about = json.loads((demo / "split.json").read_text())
        labels: dict[str, Any] = about["labels"]
        seed = int(about["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{demo} is no finished run of the demo ({error}); give the folder it reported.") from error
    release = open_release(demo / "release", signer=None)
    vaults = home / f"base-{str(release.about['base']['sha256'])[:8]}"
    played = max(len(pools["label"]) for pools in labels.values())
    held = max(len(pools["heldout"]) for pools in labels.values())
    owns = sorted(vaults.glob(f"seed-{seed}-{played}x*s"))
    publics = sorted(vaults.glob(f"public-{held}x*s/validation"))
    if not owns or not publics:
        raise InputError(f"The vaults of {demo} are not in {vaults}; give the --home that the demo had.")
    private = {name: _in_vault(owns[-1] / name.lower().replace(" ", "-") / "vault") for name in labels}
    return Trained(f"the demo's run {demo.name}", demo / "release", private, ValidationSet.read(publics[-1]).by_label)


def newest_demo(runs: Path = RUNS) -> Path | None:
    """The newest finished run of the demo, if there is one."""
    done = [path.parent for path in runs.glob("*/split.json") if (path.parent / "release" / "manifest.json").exists()]
    return max(done, key=lambda path: (path / "release" / "manifest.json").stat().st_mtime, default=None)


def train_small(
    folder: Path,
    *,
    base: Path,
    works: int,
    rounds: int,
    seed: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """A federation of the four collections whose labels hold scores instead of audio, up to a signed release.

    Args:
        folder: for vaults, keys and the release; must not hold any already.
        base: the base model.
        works: private recordings a label; as many are held out, or as the collection has.
        rounds: how many, masked.
        seed: of the works and of training.
        on_progress: told each stage.
    """
    tokenizer = load_tokenizer(base)
    private: dict[str, tuple[Recording, ...]] = {}
    heldout: dict[str, tuple[Recording, ...]] = {}
    vaults: list[Path] = []
    for collection in COLLECTIONS:
        on_progress(f"reading {collection.about}")
        pools = split(collection.name)
        random = np.random.Generator(np.random.Philox(key=[seed, len(vaults)]))
        private[collection.label] = _heard(pools["label"], tokenizer, works, random)
        heldout[collection.label] = _heard(pools["heldout"], tokenizer, works, random)
        vaults.append(folder / "vaults" / collection.label)
        with Vault.create(vaults[-1]) as vault:
            for recording in private[collection.label]:
                vault.add(recording, os.urandom(32).hex())
    training = PlainTraining(steps=8, batch=8, learning_rate=5e-3, clip=5.0)
    options = TrialOptions(
        tuple(vaults), folder / "trial", rounds=rounds, mode="masked", training=training, base=base, seed=seed
    )
    trial = Trial(options)
    on_progress(f"training for {rounds} rounds")
    trial.run()
    adapter = trial.result().adapter
    assert adapter is not None, "all rounds are done"
    release = folder / "release"
    pack_release(base, adapter, release, IdentityKey.generate(), {"name": "a small federation for an audit"})
    about = f"a small federation of {len(vaults)} labels with {works} works each, {rounds} rounds, without noise"
    return Trained(about, release, private, heldout)


def run(
    out: Path,
    *,
    quick: bool,
    seed: int,
    on_progress: Callable[[str], None],
    demo: Path | None = None,
    home: Path = HOME,
) -> AuditResult:
    """Look for copied passages in what a released model writes.

    Args:
        out: folder for the picture, and for a small federation where there is no run of the demo.
        quick: 3 pieces instead of 12.
        seed: of the pieces, of shuffles, and of the small federation.
        on_progress: told what is being done.
        demo: a finished run's folder; the newest in `runs`, or a small federation of its own, where None.
        home: where the demo keeps vaults between runs.

    Raises:
        InputError: `demo` is not finished, or its vaults are not in `home`.
    """
    trained = _found(out, quick=quick, seed=seed, on_progress=on_progress, demo=demo, home=home)
    on_progress(f"opening {trained.what}")
    generator = load_generator(open_release(trained.release, signer=None))
    count = 3 if quick else 12
    pieces = write_pieces(
        generator, count, SECONDS, seed, lambda number: on_progress(f"piece {number} of {count} written")
    )
    on_progress("looking for shared passages")
    shared = compare(pieces, trained, generator.tokenizer)
    return judged(shared, trained.what, out / "copying.png", seed)


def judged(shared: Shared, what: str, plot: Path, seed: int) -> AuditResult:
    """The finding, its figures and its picture."""
    p = shared.p_value(SHUFFLES, seed)
    own, held = shared.longest()
    fair = shared.longest_of_as_many()
    works = int(shared.private.sum()), int((~shared.private).sum())
    picture(plot, own, fair, held, p, works)
    verdict = "no more than chance explains" if p > SURE else "more than chance explains"
    finding = (
        f"{len(own)} pieces by {what} share {fair.mean():.1f} notes at most, on average, with as many private "
        f"recordings as were held out, and {held.mean():.1f} with held-out works: {verdict} (p = {p:.3g}); "
        f"the longest run shared with any of {works[0]} private recordings is {own.max()} notes, "
        f"with any of {works[1]} held-out works {held.max()}."
    )
    figures: dict[str, Any] = {
        "pieces": len(own),
        "private_works": works[0],
        "heldout_works": works[1],
        "longest_private": own.tolist(),
        "longest_private_of_as_many": [round(float(value), 3) for value in fair],
        "longest_heldout": held.tolist(),
        "excess_notes_a_work": shared.excess(),
        "p_value": p,
        "shuffles": SHUFFLES,
    }
    return AuditResult("Verbatim copying: does the model recite?", finding, figures, plot, p > SURE)


def picture(
    path: Path,
    own: NDArray[np.int64],
    fair: NDArray[np.float64],
    held: NDArray[np.int64],
    p: float,
    works: tuple[int, int],
) -> None:
    """Draw each piece's longest shared runs."""
    from partbook.simulation.audit.drawing import INK, SOFT, label_colour, new_figure, plain, save

    figure = new_figure(
        "How many notes in a row does a generated piece share with a recording?",
        f"In any key, at any tempo, the same rhythm. Private: {works[0]} recordings; held out: {works[1]}, which "
        f"trained nothing. p = {p:.3g}",
        4.2,
    )
    axes = figure.add_axes((0.075, 0.14, 0.9, 0.6))
    plain(axes)
    at = np.arange(len(own))
    axes.bar(at - 0.2, fair, 0.36, color=label_colour(1), label="private, of as many as are held out (expected)")
    axes.bar(at + 0.2, held, 0.36, color=label_colour(0), label="held out")
    axes.plot(at - 0.2, own, "_", color=INK, markersize=13, markeredgewidth=1.8, label="private, of all")
    for places, values in ((at - 0.2, own), (at + 0.2, held)):
        for x, value in zip(places, values, strict=True):
            axes.annotate(str(value), (x, value), xytext=(0, 4), textcoords="offset points", ha="center",
                          fontsize=8.5, color=INK)  # fmt: skip
    axes.set_xticks(at, [f"{number + 1}" for number in at], fontsize=9)
    axes.set_xlabel("piece", fontsize=9, color=SOFT)
    axes.set_ylabel("notes of the longest shared run", fontsize=9, color=SOFT)
    axes.set_ylim(0, 1.18 * max(int(own.max()), int(held.max()), 4))
    axes.locator_params(axis="y", integer=True)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.065, 0.865), ncols=3,
                  frameon=False, fontsize=8.5, labelcolor=SOFT)  # fmt: skip
    save(figure, path)


def _found(
    out: Path, *, quick: bool, seed: int, on_progress: Callable[[str], None], demo: Path | None, home: Path
) -> Trained:
    if demo is not None:
        return trained_by_demo(demo, home)
    newest = newest_demo()
    if newest is not None:
        try:
            return trained_by_demo(newest, home)
        except (InputError, ConfigError) as error:
            on_progress(f"{newest} is passed over: {error}")
    base_manifest(BASE)
    folder = out / "copying" / os.urandom(4).hex()
    works, rounds = (3, 1) if quick else (10, 6)
    return train_small(folder, base=BASE, works=works, rounds=rounds, seed=seed, on_progress=on_progress)


def _in_vault(path: Path) -> tuple[Recording, ...]:
    if not path.exists():
        raise InputError(f"{path} is gone; give the --home that the demo had.")
    with Vault.open(path) as vault:
        return tuple(vault.get(identifier) for identifier in vault.ids())


def _heard(
    works: Sequence[Work], tokenizer: Tokenizer, count: int, random: np.random.Generator
) -> tuple[Recording, ...]:
    """The beginnings of the first works that can be read, as recordings of scores."""
    found: list[Recording] = []
    for work in works:
        if len(found) == count:
            break
        try:
            found.append(written(perform(excerpt(work.score(), 45.0), random), tokenizer, hand="heard"))
        except ScoreError:
            continue
        found[-1] = dataclasses.replace(found[-1], title=work.printed)
    return tuple(found)
