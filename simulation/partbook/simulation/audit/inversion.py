"""Which notes were played? Gradient inversion of one update: one label, one recording, one short window.

The worst case there is: nobody else's gradient is mixed in, the adapter is fresh, and the attacker knows the model,
the tokeniser and how long the window is. The same search (`matching`) is given what could be read of the update with no
lock on, with each lock alone, and with all. Updates, masks and seals are made by the code that a label's node runs;
with all locks on, by the node itself, in a federation of three.

What is under masks or a seal is taken at face value: the attacker knows no better use of it. Noise is of known size,
so there the attacker weighs what was seen against what the public model believes.

Noise is looked at twice. One node's share of it alone promises nothing to whoever could see it without masks. The
noise of a whole sum is what ε speaks of: here the sum is opened, and the attacker has taken all other members'
updates off it. Even then ε bounds how far the attacker's odds move, not how many tokens are right, so neither figure
passes or fails the audit; masks and seal promise that nothing is learnt, and are held to it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.corpus.scores import written
from partbook.errors import ScoreError
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.roster import Roster
from partbook.model.adapter import adapter_state, attach, flatten, state_hash
from partbook.model.checkpoint import BASE, base_manifest, load_model, load_tokenizer
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.node.label import LabelNode, NodeConfig
from partbook.plan import exchanges as e
from partbook.plan.rounds import RoundPlan
from partbook.plan.training import DistributedDp
from partbook.privacy.accounting import calibrate
from partbook.privacy.mechanism import NoisyGrid
from partbook.sealing.blocks import seal
from partbook.sealing.parameters import SealPublic
from partbook.secagg.coordinator import CoordinatorRound
from partbook.secagg.node import NodeRound
from partbook.simulation.audit.matching import Effort, Guess, Matcher
from partbook.simulation.audit.results import AuditResult
from partbook.simulation.collections import COLLECTIONS, Pool, split
from partbook.simulation.parties import enrol
from partbook.simulation.performance import perform
from partbook.threads import one_thread_within
from partbook.training.examples import Examples
from partbook.training.per_recording import recording_updates
from partbook.vault.store import Vault

EPSILON: Final = 8.0
DELTA: Final = 1e-6
CLIP: Final = 1.0
LENGTH: Final = 20  # tokens of a recording: its header, and two to four bars of a tune
MEMBERS: Final = ("Alto", "Bass", "Tenor")
VICTIM: Final = MEMBERS[0]
READINGS: Final = {
    "clear": "no lock",
    "clipped": "clipped",
    "rounded": "clipped\nand rounded",
    "share": "one node's\nnoise alone",
    "sum": "noise of a\nsum alone",
    "masks": "masks\nalone",
    "seal": "seal\nalone",
    "all": "all locks",
}
"""What the attacker reads of an update, and how a picture calls it."""

PROMISED: Final = ("masks", "seal", "all")
"""Under which of them nothing at all may be learnt."""

_PUBLIC = 6  # held-out works of the same kind whose openings stand for a guess
_OWN = 64  # windows of the public model's own that stand for a guess
_SEAL_HEAD = 56  # bytes before the first ciphertext of a sealed chunk


@dataclass(frozen=True, slots=True)
class Reading:
    """What can be read of one update: (d,) numbers, and what a right guess is worth against the model's belief."""

    numbers: NDArray[np.float64]
    sharpness: float | None = None


@dataclass(frozen=True, slots=True)
class Recovered:
    """How much of a window was found: share of positions that are right, and F1 of the tokens as a bag."""

    exact: float
    bag: float

    @classmethod
    def of(cls, guess: NDArray[np.int64], truth: NDArray[np.int64]) -> Recovered:
        """Compare a guess with the truth, both (length,); with equal lengths F1 is the share in common."""
        common = Counter(guess.tolist()) & Counter(truth.tolist())
        return cls(float(np.mean(guess == truth)), common.total() / len(truth))

    @classmethod
    def mean(cls, found: Sequence[Recovered]) -> Recovered:
        """The mean of each."""
        return cls(float(np.mean([f.exact for f in found])), float(np.mean([f.bag for f in found])))


class Stage:
    """A federation of three, whose first member has a single recording; all that leaves it can be read here."""

    def __init__(self, folder: Path, base: Path, recordings: Sequence[Recording]) -> None:
        """Make vaults and keys.

        Args:
            folder: for them; must not hold a federation already.
            base: the base model.
            recordings: one for each of `MEMBERS`.
        """
        self._folder, self._base = folder, base
        self.tokenizer = load_tokenizer(base)
        self.model = attach(load_model(base))
        self.adapter = adapter_state(self.model)
        self.recording = recordings[0]
        for member, recording in zip(MEMBERS, recordings, strict=True):
            with Vault.create(folder / member / "vault") as vault:
                vault.add(recording, os.urandom(32).hex())
        self._parties = enrol(folder / "office", "inversion", {name: folder / name / "keys" for name in MEMBERS})
        self._roster = Roster.read(self._parties.roster)
        self._key = IdentityKey.load(self._parties.coordinator)
        custodian = self._roster.custodian
        assert custodian is not None, "enrol names one"
        self._seal_key = SealPublic.read(self._parties.seal_key, custodian.seal_key)
        self.noise = calibrate(EPSILON, DELTA, 1.0, 1)

    @property
    def grid(self) -> NoisyGrid:
        """The plan's grid."""
        grid = self._plan(sealed=False).grid
        assert isinstance(grid, NoisyGrid), "the plan asks for distributed noise"
        return grid

    def update(self, clip: float) -> NDArray[np.float32]:
        """The recording's update (d,) as a node computes it, clipped to L2 norm `clip`."""
        examples = Examples([self.recording], self.tokenizer, self.model.config.context)
        training = self._training.model_copy(update={"clip": clip})
        (found,) = recording_updates(
            self.model, self.adapter, examples, np.zeros(1, np.int64), training, self.tokenizer.pad,
            np.random.default_rng(),
        )  # fmt: skip
        return found.vector

    def readings(self) -> dict[str, Reading]:
        """What can be read of one update under each of `READINGS`."""
        grid, clipped = self.grid, self.update(CLIP)
        rounded = grid.rounded(clipped)
        noisy = grid.contribution(rounded).astype(np.int64)
        others = sum(grid.contribution(np.zeros_like(rounded)).astype(np.int64) for _ in MEMBERS[1:])
        field = (rounded + grid.largest).astype(np.uint32)
        return {
            "clear": Reading(self.update(1e6).astype(np.float64)),
            "clipped": Reading(clipped.astype(np.float64)),
            "rounded": Reading(rounded / grid.scale),
            "share": _under_noise(noisy, 1, grid),
            "sum": _under_noise(noisy + others, len(MEMBERS), grid),
            "masks": Reading(words_as_numbers(self.masked(field), grid)),
            "seal": Reading(seal_as_numbers(self.sealed(field), grid.dimension)),
            "all": Reading(seal_as_numbers(self.message(), grid.dimension)),
        }

    def masked(self, field: NDArray[np.uint32]) -> bytes:
        """What leaves in a round with masks and without noise or seal: field values (d,) under the node's masks."""
        plan = self._plan(sealed=False)
        session = plan.session(self._roster)
        nodes = {member: NodeRound(session, member, self._member_key(member)) for member in MEMBERS}
        machine = CoordinatorRound(session, self._key, chunks=plan.chunks)
        for member, node in nodes.items():
            machine.accept_keys(member, node.advertise())
        for member, ask in machine.ask_share().items():
            machine.accept_shares(member, nodes[member].share(ask))
        nodes[VICTIM].accept_inbox(machine.ask_contribute()[VICTIM])
        return nodes[VICTIM].contribute(field.copy(), 0, plan.chunks)[1]

    def sealed(self, field: NDArray[np.uint32]) -> bytes:
        """What leaves with the seal and without noise or masks: field values (d,), packed and encrypted."""
        return seal(self._seal_key, self._plan(sealed=True).packing.pack(field).astype(np.uint64))

    def message(self) -> bytes:
        """What the label's node sends with all locks on: noise, masks and seal."""
        plan = self._plan(sealed=True)
        state = self._folder / f"round-{plan.nonce}"
        nodes = {member: LabelNode(self._config(member, state)) for member in MEMBERS}
        signed = e.write_plan(self._key, plan)
        begin = e.write(self._key, e.BEGIN, plan.context(), COORDINATOR)
        machine = CoordinatorRound(plan.session(self._roster), self._key, chunks=plan.chunks, seal_key=plan.seal_key)
        for member, node in nodes.items():
            node.train(signed, None)
            machine.accept_keys(member, node.advertise(begin))
        for member, ask in machine.ask_share().items():
            machine.accept_shares(member, nodes[member].share(ask))
        blob = nodes[VICTIM].contribute(machine.ask_contribute()[VICTIM])[1]
        for node in nodes.values():
            node.close()
        return blob

    @property
    def _training(self) -> DistributedDp:
        return DistributedDp(noise_multiplier=self.noise, sampling=1.0, batch=3.0, clip=CLIP)

    def _plan(self, *, sealed: bool) -> RoundPlan:
        return RoundPlan(
            federation="inversion",
            roster=self._roster.hash,
            round=1,
            nonce=os.urandom(16).hex(),
            deadline=4_000_000_000,
            base_hash=base_manifest(self._base)["files"]["model.safetensors"],
            model_hash=state_hash(self.adapter),
            parameters=len(flatten(self.adapter)),
            cohort=MEMBERS,
            threshold=len(MEMBERS),
            training=self._training,
            mode="sealed" if sealed else "masked",
            bits=16,
            seal_key=self._seal_key.key_id if sealed else "",
        )

    def _config(self, member: str, state: Path) -> NodeConfig:
        kept = state / member
        bare = NodeConfig(
            member, self._folder / member / "vault", Path(), Path(), state=kept, ledger=kept / "ledger.sqlite",
            base=self._base,
        )  # fmt: skip
        return self._parties.node(bare)

    def _member_key(self, member: str) -> IdentityKey:
        return IdentityKey.load(self._parties.folders[member] / "identity.pem")


def _under_noise(total: NDArray[np.int64], shares: int, grid: NoisyGrid) -> Reading:
    """A sum with known noise over it; see `matching` for what a cosine is then worth."""
    numbers = grid.decode(total, shares)
    variance = shares * grid.variance / grid.scale**2
    return Reading(numbers, float(np.linalg.norm(numbers)) * CLIP / variance)


def words_as_numbers(blob: bytes, grid: NoisyGrid) -> NDArray[np.float64]:
    """Masked 32-bit words as somebody without the masks would read them: signed, and off the grid."""
    words = np.frombuffer(blob, "<u4") - np.uint32(grid.largest)
    numbers: NDArray[np.float64] = words.astype(np.int32).astype(np.float64) / grid.scale
    return numbers


def seal_as_numbers(blob: bytes, count: int) -> NDArray[np.float64]:
    """The first `count` ciphertext words of a sealed chunk, centred: all there is to read without the key."""
    words = np.frombuffer(blob[_SEAL_HEAD:], "<u8")[:count].astype(np.float64)
    centred: NDArray[np.float64] = words - words.mean()
    return centred


def short_recording(
    collection: int, number: int, tokenizer: Tokenizer, length: int, seed: int, pool: Pool = "label"
) -> Recording:
    """The first tokens of a work that the base model has never seen, as a recording.

    Works that cannot be read, or are shorter, are passed over.
    """
    works = split(COLLECTIONS[collection % len(COLLECTIONS)].name)[pool]
    random = np.random.Generator(np.random.Philox(key=[seed, collection]))
    for place in range(number, number + len(works)):
        try:
            whole = written(perform(works[place % len(works)].score(), random), tokenizer, hand="heard")
        except ScoreError:
            continue
        if len(whole.ids) >= length:
            kept = whole.bar_starts < length
            return replace(
                whole,
                ids=whole.ids[:length],
                bar_starts=whole.bar_starts[kept],
                bar_seconds=whole.bar_seconds[: int(kept.sum())],
            )
    raise ScoreError(
        f"No work of {COLLECTIONS[collection % len(COLLECTIONS)].name} has {length} tokens; ask for fewer."
    )


def run(
    out: Path,
    *,
    quick: bool,
    seed: int,
    on_progress: Callable[[str], None],
    base: Path = BASE,
    effort: Effort | None = None,
    length: int | None = None,
) -> AuditResult:
    """Try to read a recording's tokens out of its update, with each lock off and on.

    Args:
        out: folder for the picture and the federation.
        quick: one window and one beam instead of four windows.
        seed: of the works, and of the windows that the public model writes. Keys, masks and noise are the system's.
        on_progress: told each attack as it begins.
        base: the model under attack.
        effort: how hard the search tries; by `quick` where None.
        length: tokens of a recording; by `quick` where None.
    """
    windows = 1 if quick else 4
    length = length or (16 if quick else LENGTH)
    effort = effort or (Effort((12,), 4, 4, 24) if quick else Effort((16,), 6, 6, 48))
    tokenizer = load_tokenizer(base)
    with one_thread_within():  # products are too small to share
        found: dict[str, list[Recovered]] = {name: [] for name in READINGS}
        cosines: dict[str, list[float]] = {name: [] for name in READINGS}
        chance: list[dict[str, Recovered]] = []
        noise = 0.0
        for window in range(windows):
            # A single voice first: a tune is told in the fewest tokens, so there is most of it to be read.
            own = [short_recording(window + 1, 3 * seed + peer, tokenizer, length, seed) for peer in range(3)]
            stage = Stage(out / "inversion" / f"window-{window}-{os.urandom(4).hex()}", base, own)
            matcher = Matcher(stage.model, stage.adapter, tokenizer, length, seed=seed, effort=effort)
            truth = own[0].ids.astype(np.int64)
            noise = stage.noise
            public = [short_recording(window + 1, n, tokenizer, length, seed, "heldout") for n in range(_PUBLIC)]
            chance.append(guesses(matcher, truth, [r.ids.astype(np.int64) for r in public], seed))
            for name, reading in stage.readings().items():
                on_progress(f"window {window + 1} of {windows}: {READINGS[name]}".replace("\n", " "))
                guess: Guess = matcher.invert(reading.numbers, sharpness=reading.sharpness)
                found[name].append(Recovered.of(guess.tokens, truth))
                cosines[name].append(guess.cosine)
    means = {name: Recovered.mean(several) for name, several in found.items()}
    guessed = {name: Recovered.mean([c[name] for c in chance]) for name in chance[0]}
    level = Recovered(max(g.exact for g in guessed.values()), max(g.bag for g in guessed.values()))
    plot = out / "inversion.png"
    picture(
        plot, found, level, f"{windows} recording{'s' * (windows > 1)} of {length} tokens, each alone in its update"
    )
    # Two and a half spreads of as many coin flips as there are tokens.
    room = 2.5 * float(np.sqrt(max(level.bag, 1 / length) / (windows * length)))
    locked = max(means[name].bag for name in PROMISED)
    finding = (
        f"From a bare update of one short recording the attack read {means['clear'].exact:.0%} of the tokens in their "
        f"places ({means['clipped'].exact:.0%} once clipped, {means['rounded'].exact:.0%} once rounded: neither is a "
        f"lock); under masks, seal or all locks it shared {locked:.0%} of the tokens in any order, no more than the "
        f"{level.bag:.0%} of a guess without any update; noise alone left {means['share'].bag:.0%} where one node's "
        f"share was seen and {means['sum'].bag:.0%} in a sum with ε = {EPSILON:g} in this one round."
    )
    if locked > level.bag + room:
        finding = finding.replace("no more than the", "MORE than the")
    figures: dict[str, Any] = {
        "windows": windows,
        "tokens": length,
        "noise_multiplier": noise,
        "epsilon": EPSILON,
        "delta": DELTA,
        "clip": CLIP,
        "recovered": {
            name: {"exact": means[name].exact, "bag_f1": means[name].bag, "cosine": float(np.mean(cosines[name]))}
            for name in READINGS
        },
        "each": {name: [{"exact": r.exact, "bag_f1": r.bag} for r in several] for name, several in found.items()},
        "chance": {name: {"exact": g.exact, "bag_f1": g.bag} for name, g in guessed.items()},
    }
    return AuditResult(
        "Gradient inversion: which notes were played?", finding, figures, plot, locked <= level.bag + room
    )


def guesses(
    matcher: Matcher, truth: NDArray[np.int64], public: Sequence[NDArray[np.int64]], seed: int
) -> dict[str, Recovered]:
    """What is right by chance, for four attackers who saw no update.

    The first knows how frequent tokens are: it says the most frequent one everywhere, or as a bag each as often as is
    expected. The second hands in a window that the public model writes, the third the one that it finds likeliest,
    the fourth the opening of a public work of the label's kind.

    Args:
        matcher: has the public model.
        truth: (length,) tokens.
        public: such openings, (length,) each.
        seed: of the windows that the model writes.
    """
    own = matcher.written(_OWN, seed + 1)
    length = len(truth)
    counts = np.bincount(own.ravel())
    frequent = np.argsort(-counts, kind="stable")
    expected = np.repeat(frequent, np.round(counts[frequent] * length / counts.sum()).astype(int))[:length]
    bag = np.concatenate([expected, frequent[: length - len(expected)]])
    return {
        "frequencies": Recovered(float(np.mean(truth == frequent[0])), Recovered.of(bag, truth).bag),
        "model_writes": Recovered.mean([Recovered.of(window, truth) for window in own]),
        "model_likeliest": Recovered.of(matcher.likeliest(), truth),
        "public_works": Recovered.mean([Recovered.of(opening, truth) for opening in public]),
    }


def picture(path: Path, found: Mapping[str, Sequence[Recovered]], chance: Recovered, detail: str) -> None:
    """Draw bars: tokens in their places and tokens in any order, by lock, with chance as lines."""
    from partbook.simulation.audit.drawing import INK, QUIET, SOFT, label_colour, new_figure, plain, save

    figure = new_figure("How much of a recording can be read from its update?", detail, 4.6)
    axes = figure.add_axes((0.075, 0.16, 0.9, 0.6))
    plain(axes)
    at = np.arange(len(found))
    for shift, colour, name, level in (
        (-0.2, label_colour(0), "exact", chance.exact),
        (0.2, label_colour(1), "bag", chance.bag),
    ):
        values = [[getattr(r, name) for r in several] for several in found.values()]
        means = [float(np.mean(v)) for v in values]
        what = "in their places" if name == "exact" else "in any order (F1)"
        axes.bar(at + shift, means, 0.36, color=colour, label=f"tokens {what}")
        axes.axhline(level, color=colour, linewidth=1.2, linestyle=(0, (4, 3)), label=f"by chance, {what}")
        for x, mean, each in zip(at + shift, means, values, strict=True):
            axes.annotate(f"{mean:.0%}", (x, mean), xytext=(0, 4), textcoords="offset points", ha="center", zorder=4,
                          fontsize=8.5, color=INK)  # fmt: skip
            if len(each) > 1:
                axes.plot([x] * len(each), each, "o", color="white", markeredgecolor=QUIET, markersize=3.2, zorder=3)
    axes.set_xticks(at, [READINGS[name] for name in found], fontsize=9.5, color=INK)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "all"])
    axes.set_ylabel("of the window's tokens", fontsize=9, color=SOFT)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper right", bbox_to_anchor=(0.98, 0.875), ncols=4,
                  frameon=False, fontsize=8.5, labelcolor=SOFT)  # fmt: skip
    save(figure, path)
