"""The main job on one machine: four labels, real audio files, rounds, a release, three pieces and a report.

Stages, each skipped where its result is already there: play the labels' recordings, the public validation set and a
control that no label plays;
ingest them, each label into its own vault under its own key; run the rounds, noised, masked and sealed; run them once
more without noise, to say what it cost; sign a release; write three pieces with it; report. Everything that belongs to
a label lies in that label's folder, and what its node may send is what `partbook.plan.wire` allows.

Vaults are kept between runs, so a label's policy and ledger lie with the run, under `nodes/`: each run begins with
nothing spent, as if its recordings were new. A real label has one ledger, in its vault, for all that is ever asked.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from partbook.coordinator.privacy import PrivacyStatement
from partbook.coordinator.releasing import summary
from partbook.coordinator.validation import ValidationSet, write_validation
from partbook.corpus.library import Library
from partbook.errors import InputError
from partbook.evaluation.brief import PIECES as PIECES_EVALUATED
from partbook.evaluation.brief import Brief, as_heard, brief, freely
from partbook.evaluation.language_model import Transformer
from partbook.generator.release import Release, pack_release, unreleased
from partbook.identity.keys import IdentityKey
from partbook.model.checkpoint import BASE, base_manifest, load_tokenizer
from partbook.node.policy import Noise
from partbook.plan.rounds import Mode, ServerStep
from partbook.plan.training import PlainTraining
from partbook.simulation.collections import COLLECTIONS, CONTROL, Work
from partbook.simulation.control import WORKS, Size, control_report, control_works
from partbook.simulation.demo_rounds import Course, DemoRounds, Ran, Watcher
from partbook.simulation.drops import Drop
from partbook.simulation.labels import Take, choose, record, takes, write_split
from partbook.simulation.noise import Asked
from partbook.simulation.parties import enrol
from partbook.simulation.pictures import loss_curves
from partbook.simulation.report import DemoReport, PieceReport, write_report
from partbook.simulation.results import (
    DemoLabel,
    exchange_reports,
    label_report,
    machine_facts,
    message_kinds,
    model_facts,
    round_reports,
)
from partbook.simulation.scoring import Losses
from partbook.simulation.three_pieces import PIECES, three_pieces
from partbook.study.human import mixed
from partbook.study.plans import openings
from partbook.threads import one_thread_within
from partbook.vault.ingest import Workers, ingest
from partbook.vault.store import Vault

FEDERATION: Final = "The Four Partbooks"
HUMAN: Final = 60  # held-out works that the release's pieces are held against
EPSILON: Final = 8.0
DELTA: Final = 1e-5  # for 80 recordings, well below one in 80
PLAIN: Final = PlainTraining(steps=8, batch=8, learning_rate=5e-3, clip=5.0)
AVERAGE: Final = ServerStep(learning_rate=1.0, momentum=0.5)
# With 80 recordings and an ε of 8, 5,632 numbers gain twice what all 95,744 do, since each carries noise. Adam at four
# times this rate loses what the base knows: nats at three labels of four, and its melodies' repeats (docs/figures.md).
COURSES: Final[dict[Noise, Course]] = {
    "distributed": Course(
        Asked("distributed", EPSILON, DELTA, clip=0.15),
        rounds=12,
        scope="norms",
        step=ServerStep(rule="adam", learning_rate=0.005, momentum=0.9, second=0.99),
        plain=PLAIN,
    ),
    "local": Course(
        Asked("local", EPSILON, DELTA, clip=0.15, steps=2, learning_rate=0.5, bound=1.0),
        rounds=10,
        scope="norms",
        step=AVERAGE,
        plain=PLAIN,
    ),
    "none": Course(Asked("none", delta=DELTA), rounds=8, scope="all", step=AVERAGE, plain=PLAIN),
}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How large the demo is.

    Attributes:
        home: where recordings and vaults are kept between runs.
        out: folder of this run's results; made, must not exist.
        seed: picks each label's works and the order of training.
        recordings: works a label plays.
        heldout: works of each collection in the public validation set.
        control: works of a style that no label plays, scored beside it.
        seconds: longest a recording may be.
        piece_seconds: how much music the pieces that go on from something gain, at most.
        evaluated: pieces that the release writes freely, to be held against human works.
        course: how it trains, and with which noise.
        base: the base model.
        mode: `masked` or `sealed`.
        drops: labels that fall away on purpose, as `Drop.parse` reads them.
    """

    home: Path
    out: Path
    seed: int = 1
    recordings: int = 20
    heldout: int = 5
    control: int = WORKS
    seconds: float = 45.0
    piece_seconds: float = 30.0
    evaluated: int = PIECES_EVALUATED
    course: Course = COURSES["distributed"]
    base: Path = BASE
    mode: Mode = "sealed"
    drops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where things are, and what they cost.

    Attributes:
        report: the HTML report.
        pieces: WAV files.
        release: the signed release.
        nll: by label; control: of music that no label plays.
        privacy: what the rounds cost each recording.
        recordings: behind that, of all labels.
        colluders: labels that distributed noise withstands; None where there is none.
        spent: ε of each of a label's recordings, as its ledger has it, by label.
    """

    report: Path
    pieces: tuple[Path, ...]
    release: Path
    nll: dict[str, Losses]
    control: Losses
    privacy: PrivacyStatement
    recordings: int
    colluders: int | None
    spent: dict[str, float]


class Demo:
    """One run of the demo. `run` does everything; the methods it calls are its stages."""

    def __init__(self, options: DemoOptions, watcher: Watcher) -> None:
        """Raises InputError if the results folder exists already, ConfigError if a drop is of nobody."""
        self._drops = tuple(Drop.parse(text, [c.label for c in COLLECTIONS]) for text in options.drops)
        if options.out.exists():
            raise InputError(f"{options.out} exists already; choose another folder for this run's results.")
        self._options, self._watch = options, watcher
        self._times: list[tuple[str, float]] = []
        self._base_hash: str = base_manifest(options.base)["files"]["model.safetensors"]
        self._tokenizer_path = options.base / "tokenizer.json"
        size = f"{options.recordings}x{options.seconds:g}s"
        # A vault is written with one tokeniser, so another base model has other vaults.
        vaults = options.home / f"base-{self._base_hash[:8]}"
        self._public = vaults / f"public-{options.heldout}x{options.seconds:g}s"
        home = vaults / f"seed-{options.seed}-{size}"
        self._labels = [DemoLabel(c, home) for c in COLLECTIONS]
        self._library = Library.open()
        self._control: list[Take] = []
        # A label is one party whatever it has recorded, so its keys do not lie with one seed's vault.
        self._parties = enrol(
            options.home, FEDERATION, {label.name: options.home / "labels" / label.folder for label in self._labels}
        )

    def run(self) -> DemoResult:
        """Do it all."""
        options = self._options
        options.out.mkdir(parents=True)
        self._play()
        with Workers() as workers:
            self._ingest(workers)
            validation = self._validate_set(workers)
        ran = self._rounds().run(self._watch, self._stage)
        music = self._music(validation)
        release = self._release(ran, music)
        pieces = self._compose(release, validation)
        return self._report(validation, ran, release, pieces, music)

    def _play(self) -> None:
        options = self._options
        members: dict[str, dict[str, Sequence[Work]]] = {}
        for label in self._labels:
            collection = label.collection
            own = choose(collection, "label", options.recordings, options.seed)
            held = choose(collection, "heldout", options.heldout, options.seed)
            label.takes = takes(own, collection, options.seconds, label.home / "recordings")
            label.heldout_takes = takes(
                held, collection, options.seconds, self._public / collection.name / "recordings"
            )
            members[label.name] = {"label": own, "heldout": held}
        control = control_works(self._library, options.control)
        self._control = takes(control, CONTROL, options.seconds, self._public / CONTROL.name / "recordings")
        write_split(options.out / "split.json", members, options.seed, control)
        planned = [take for label in self._labels for take in (*label.takes, *label.heldout_takes)] + self._control
        with self._stage("Playing scores into recordings", len(planned)):
            made = set(map(str, (t.path for t in record(planned, lambda take: self._watch.step(take.work.printed)))))
        for label in self._labels:
            label.takes = [t for t in label.takes if str(t.path) in made]
            label.heldout_takes = [t for t in label.heldout_takes if str(t.path) in made]
        self._control = [t for t in self._control if str(t.path) in made]

    def _ingest(self, workers: Workers) -> None:
        with self._stage("Ingesting: each node hears its own recordings", sum(len(x.takes) for x in self._labels)):
            for label in self._labels:
                with _vault(label.vault) as vault:
                    label.ingested = ingest(
                        [take.path for take in label.takes],
                        vault,
                        self._tokenizer_path,
                        program=label.collection.program,
                        workers=workers,
                        on_event=lambda event: self._watch.step(event.path.stem),
                    )
                    for refusal in label.ingested.refused:
                        self._watch.note(f"{label.name}: {refusal.path.name} left out: {refusal.reason}")
                    kept = vault.summary()
                    label.recordings, label.seconds, label.tokens = kept.recordings, kept.seconds, kept.tokens

    def _validate_set(self, workers: Workers) -> ValidationSet:
        kinds = [(label.collection, label.heldout_takes) for label in self._labels] + [(CONTROL, self._control)]
        folder = self._public / "validation"
        with self._stage("Ingesting the public validation set", sum(len(takes) for _, takes in kinds)):
            for collection, played in kinds:
                with _vault(self._public / collection.name / "vault") as vault:
                    ingest(
                        [take.path for take in played], vault, self._tokenizer_path, program=collection.program,
                        workers=workers, on_event=lambda event: self._watch.step(event.path.stem),
                    )  # fmt: skip
                    heard = sorted((vault.get(i) for i in vault.ids()), key=lambda recording: recording.title)
                write_validation(folder, collection.label, heard)
        return ValidationSet.read(folder)

    def _rounds(self) -> DemoRounds:
        options = self._options
        return DemoRounds(
            FEDERATION,
            self._labels,
            self._parties,
            options.course,
            options.mode,
            self._drops,
            options.base,
            self._public / "validation",
            options.out,
            options.seed,
        )

    def _music(self, validation: ValidationSet) -> Brief:
        options, watch = self._options, self._watch
        made = unreleased(options.base, self._adapter)
        library, held = self._library, []
        for label in self._labels:  # a work that is played is the work that it is among the scores
            families = {work.key: work.family for work in library.pool(label.collection.name, "heldout")}
            works = {take.path.stem: families[take.work.key] for take in label.heldout_takes}
            held += as_heard(validation.by_label[label.name], made.tokenizer, works)
        with self._stage("Is it music? Pieces against held-out works", options.evaluated + HUMAN + 5):
            human = mixed(library, "heldout", HUMAN, seed=options.seed, on_work=watch.step)
            model = Transformer("The release", made.model, made.tokenizer)
            with one_thread_within():
                pieces = freely(
                    model,
                    options.evaluated,
                    seed=options.seed,
                    prompts=openings(library, human.styles, options.evaluated, seed=options.seed),
                    on_piece=lambda count: watch.step(f"piece {count}"),
                )
            return brief(
                [
                    ("The release", "generator", pieces),
                    ("Held-out works as nodes hear them", "human", held),
                ],
                human.pieces,
                reference="held-out scores of the four collections",
                seed=options.seed,
                on_step=watch.step,
            )

    @property
    def _adapter(self) -> Path:
        return self._options.out / "coordinator" / "adapter.safetensors"

    def _release(self, ran: Ran, music: Brief) -> Release:
        options, history = self._options, ran.history
        with self._stage("Signing a release", 1):
            key = IdentityKey.load(self._parties.coordinator)
            about = {
                "name": f"{FEDERATION}, seed {options.seed}",
                **summary([label.name for label in self._labels], history, options.mode, ran.privacy),
                "sources": [f"{c.about}, played on {c.instrument}" for c in COLLECTIONS],
                "music": music.about(),
            }
            release = pack_release(options.base, self._adapter, options.out / "release", key, about)
            self._watch.step(release.id[:12])
        return release

    def _compose(self, release: Release, validation: ValidationSet) -> list[PieceReport]:
        options = self._options
        with self._stage("Writing three pieces", PIECES):
            return three_pieces(
                release,
                validation,
                load_tokenizer(options.base),
                options.out / "pieces",
                base=options.base,
                seed=options.seed,
                seconds=options.piece_seconds,
                on_piece=self._watch.step,
            )

    def _report(
        self,
        validation: ValidationSet,
        ran: Ran,
        release: Release,
        pieces: list[PieceReport],
        music: Brief,
    ) -> DemoResult:
        options, out, history, traffic = self._options, self._options.out, ran.history, ran.traffic
        first, last = history[0].validation, history[-1].validation
        tokenizer = load_tokenizer(options.base)
        size = {name: Size.of(held, tokenizer) for name, held in validation.by_label.items()}
        control = control_report(size[CONTROL.label], history, ran.noiseless.get(CONTROL.label))
        labels = tuple(
            label_report(
                label,
                size[label.name],
                traffic,
                history,
                ran.accounts[label.name],
                ran.noiseless.get(label.name),
                control,
            )
            for label in self._labels
        )
        custodian = self._parties.custodian.name
        sealed = options.mode == "sealed"
        parties = (
            "All four labels, the coordinator and the custodian" if sealed else "All four labels and the coordinator"
        )
        loss_curves(out / "loss-curves.png", [label.curve for label in labels])
        report = DemoReport(
            federation=FEDERATION,
            created=datetime.datetime.now(datetime.UTC).astimezone(),
            seed=options.seed,
            rounds=history[-1].round,
            labels=labels,
            control=control,
            stages=tuple(self._times),
            locks=ran.locks,
            messages=message_kinds(traffic, custodian, noise=ran.privacy.bounded),
            history=round_reports(history),
            exchanges=exchange_reports(traffic, (*(label.name for label in labels), custodian)),
            pieces=tuple(pieces),
            model=model_facts(release, options.base),
            music=music,
            machine=machine_facts(),
            limits=(
                f"{parties} ran in one process on this machine, each with its own keys; nothing here tests a network, "
                "and whoever sits at this machine can open everything on it.",
                "The recordings are scores from public-domain collections, played by a SoundFont: clean, and far "
                f"fewer than a label owns. Each label had {options.recordings} of at most {options.seconds:g} seconds.",
                "Notes are found by a small transcription network; what it mishears, the generator learns.",
                "The local loss in the curves is each node's own: the demo, which is every node at once, may draw it.",
            ),
        )
        path = write_report(report, out)
        losses = {name: Losses(first[name], last[name], ran.noiseless.get(name)) for name in last}
        control_losses = losses.pop(CONTROL.label)
        return DemoResult(
            path,
            tuple(piece.wav for piece in pieces),
            out / "release",
            losses,
            control_losses,
            ran.privacy,
            ran.recordings,
            ran.locks.colluders,
            {name: budget.total.committed for name, budget in ran.accounts.items()},
        )

    @contextmanager
    def _stage(self, name: str, total: int) -> Iterator[None]:
        self._watch.stage(name, total)
        began = time.monotonic()
        yield
        self._times.append((name, time.monotonic() - began))


def _vault(path: Path) -> Vault:
    return Vault.open(path, writable=True) if path.exists() else Vault.create(path)
