"""One evaluation: subjects' pieces, held against human works in everything that is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from partbook.corpus.library import Library
from partbook.errors import InputError
from partbook.evaluation import noise
from partbook.evaluation.brief import freely
from partbook.evaluation.comparison import Comparison, MeasuredSet, Reference
from partbook.evaluation.measures import NAMES
from partbook.evaluation.reading import Reading
from partbook.evaluation.results import Evaluation, Hand, Shown, StyleTest, Subject, Surprise
from partbook.evaluation.styles import Styles
from partbook.model.checkpoint import BASE
from partbook.simulation.results import machine_facts
from partbook.study import subjects
from partbook.study.human import STYLES, Works, mixed, readings
from partbook.study.plans import openings
from partbook.study.subjects import HUMAN, RANDOM, SCALE, SHUFFLED, Named

if TYPE_CHECKING:
    from partbook.study.sound import Ears
    from partbook.study.surprise import HeldOut

GALLERY: Final = 12  # pieces of the first subject that are shown
_BESIDE: Final = 3  # of each other


class Watcher(Protocol):
    """Who is told how far it is."""

    def stage(self, name: str, total: int) -> None:
        """A stage of so many steps begins."""

    def step(self, what: str) -> None:
        """One step is done."""

    def note(self, text: str) -> None:
        """Something a person should know."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be evaluated, and how.

    Attributes:
        names: subjects, as `subjects.named` reads them.
        out: folder for the results; the galleries' MIDI files go there. In no folder that is evaluated.
        reference: a folder of human works; the held-out works of the public collections where None.
        data: folders of further public works, whose held-out works count in the surprise.
        pieces: that a model writes.
        human: works that pieces are held against at most, and as many others that `human`, `shuffled`, `random` are.
        seed: of everything that is drawn.
        surprise, heard, sound, style, originality: what to measure beside the notes: nats on held-out works, the same
            as recordings, how it sounds to the embedder, whose style conditioned pieces are in, copies.
        command: that makes it again.
    """

    names: tuple[str, ...]
    out: Path
    reference: Path | None = None
    data: tuple[Path, ...] = ()
    pieces: int = 64
    human: int = 200
    seed: int = 1
    surprise: bool = True
    heard: bool = True
    sound: bool = True
    style: bool = True
    originality: bool = True
    command: str = "partbook evaluate"


class Study:
    """One evaluation. `run` does everything."""

    def __init__(self, options: Options, watcher: Watcher) -> None:
        """Open what is to be evaluated.

        Raises:
            InputError: there is nothing to evaluate, a folder holds no pieces, or `out` lies in one that does.
            PartbookError: what `subjects.named` raises of a subject.
        """
        self._options, self._watch = options, watcher
        self._notes: list[str] = []
        self._openings: list[NDArray[np.int16]] = []
        self._files: dict[Path, bytes] = {}  # of the galleries, written when all is done
        if not options.names:
            raise InputError("There is nothing to evaluate; name a model or a folder.")
        self._named = [subjects.named(name) for name in options.names]
        if options.reference is not None and not (options.reference.is_dir() and subjects.count_of(options.reference)):
            raise InputError(
                f"{options.reference} holds neither MIDI nor audio to hold pieces against; check the path."
            )
        for folder in (options.reference, *(one.folder for one in self._named)):
            if folder is not None and options.out.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{options.out} lies in {folder}, whose files are evaluated; choose another folder.")
        titles = [one.title for one in self._named]
        # Two releases of one name are told apart by their folders.
        self._named = [
            replace(one, title=f"{one.title} ({one.name})") if titles.count(one.title) > 1 else one
            for one in self._named
        ]

    def run(self) -> Evaluation:
        """Do it all.

        Raises:
            InputError: `out` cannot be made, or no file of a folder can be used.
            ConfigError: a baseline has learnt from works which it would be surprised by.
            GenerationError: a model writes silence.
        """
        options, watch = self._options, self._watch
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{options.out} cannot be made ({error.strerror}); choose another folder.") from error
        library = Library.open(options.data, watch=watch)
        self._refuse_known(library)
        works = self._reference_works(library)
        watch.stage("Measuring the reference", len(works))
        measured = MeasuredSet.of("reference", works.pieces, watch.step)
        reference = Reference(measured, self._training(library) if options.originality else ())
        others = self._other_works(library)
        styles = self._styles(works, measured)
        ears = self._ears(measured)
        held_out = self._held_out(library)
        if any(one.model is not None for one in self._named):
            self._openings = openings(library, works.styles, options.pieces, seed=options.seed)
        found = [
            self._subject(number, one, works, reference, others, styles, ears, held_out)
            for number, one in enumerate(self._named, start=1)
        ]
        for path, blob in self._files.items():
            path.write_bytes(blob)
        columns = {name: measured.column(name) for name in NAMES}
        return Evaluation(
            command=options.command,
            seed=options.seed,
            reference=self._about_reference(),
            works=len(measured),
            bands={name: reference.quantiles(name) for name in NAMES},
            reference_values={name: tuple(column.tolist()) for name, column in columns.items()},
            subjects=tuple(found),
            machine=machine_facts(),
            notes=tuple(self._notes),
        )

    def _about_reference(self) -> str:
        if self._options.reference:
            return f"the files of {self._options.reference}"
        return "held-out works of four public collections (Bach, O'Neill, Ryan, Monteverdi), whole tune families apart"

    def _reference_works(self, library: Library) -> Works:
        options, watch = self._options, self._watch
        if options.reference is None:
            watch.stage("Reading held-out works", options.human)
            return mixed(library, "heldout", options.human, seed=options.seed, on_work=watch.step)
        watch.stage("Reading the reference", subjects.count_of(options.reference))
        pieces = self._of_folder(options.reference)
        return Works(tuple(pieces), ("",) * len(pieces))

    def _training(self, library: Library) -> tuple[Reading, ...]:
        works = [work for name in STYLES for work in library.pool(name, "base")]
        self._watch.stage("Reading what trained the base", len(works))
        return readings(library, works, self._watch.step).pieces

    def _other_works(self, library: Library) -> Works:
        if not any(one.name in SCALE for one in self._named):
            return Works((), ())
        self._watch.stage("Reading other human works", self._options.human)
        return mixed(library, "label", self._options.human, seed=self._options.seed, on_work=self._watch.step)

    def _styles(self, works: Works, measured: MeasuredSet) -> Styles | None:
        if not self._options.style or self._options.reference or not any(one.model for one in self._named):
            return None
        names = [piece.work for piece in works.pieces]
        try:
            return Styles(measured.rows, works.styles, names, seed=self._options.seed)
        except InputError as error:
            self._note(str(error))
            return None

    def _ears(self, measured: MeasuredSet) -> Ears | None:
        if not self._options.sound:
            return None
        from partbook.study.sound import CLIPS, Ears

        self._watch.stage("Listening to the reference", min(CLIPS, len(measured)))
        return Ears(measured.openings, seed=self._options.seed, on_clip=self._watch.step)

    def _held_out(self, library: Library) -> HeldOut | None:
        models = [one.model for one in self._named if one.model is not None]
        if not models or not self._options.surprise:
            return None
        from partbook.study.surprise import HeldOut

        self._watch.stage("Reading works to be surprised by", HeldOut.total(library, heard=self._options.heard))
        return HeldOut(library, models[0].tokenizer, heard=self._options.heard, on_work=self._watch.step)

    def _refuse_known(self, library: Library) -> None:
        if not self._options.surprise:
            return
        for one in self._named:
            if one.model is not None and one.name != subjects.BASE_MODEL:
                from partbook.study.surprise import HeldOut

                HeldOut.refuse_known(library, one.name)

    def _subject(
        self,
        number: int,
        one: Named,
        works: Works,
        reference: Reference,
        others: Works,
        styles: Styles | None,
        ears: Ears | None,
        held_out: HeldOut | None,
    ) -> Subject:
        began, options, watch = time.monotonic(), self._options, self._watch
        pieces = self._pieces(one, works, others)
        watch.stage(f"{one.title}: measuring", len(pieces))
        measured = MeasuredSet.of(one.title, pieces, watch.step)
        watch.stage(f"{one.title}: comparing", 1)
        comparison = reference.compare(measured, seed=options.seed)
        watch.step(one.title)
        listening = None
        if ears is not None:
            watch.stage(f"{one.title}: listening", ears.clips_of(len(measured)))
            listening = ears.hear(measured.openings, on_clip=watch.step)
        surprise: Mapping[str, Mapping[Hand, Surprise]] = {}
        if one.model is not None and held_out is not None:
            watch.stage(f"{one.title}: surprise", len(held_out))
            surprise = held_out.surprise(one.model, watch.step)
        return Subject(
            name=one.name,
            title=one.title,
            kind=one.kind,
            about=one.about,
            comparison=comparison,
            values={name: tuple(measured.column(name).tolist()) for name in NAMES},
            surprise=surprise,
            listening=listening,
            style=self._style(one, works, styles),
            gallery=self._gallery(number, one, measured, comparison),
            seconds=time.monotonic() - began,
        )

    def _pieces(self, one: Named, works: Works, others: Works) -> Sequence[Reading]:
        options, watch = self._options, self._watch
        if one.name == HUMAN:
            return others.pieces
        if one.name in (SHUFFLED, RANDOM):
            make = noise.shuffled_bars if one.name == SHUFFLED else noise.random_notes
            return noise.readings(others.pieces, make, options.seed)
        if one.model is not None:
            watch.stage(f"{one.title}: writing", options.pieces)
            return freely(
                one.model,
                options.pieces,
                seed=options.seed,
                prompts=self._openings,
                on_piece=lambda _: watch.step("a piece"),
            )
        assert one.folder is not None, "what is neither a word nor a model is a folder"
        watch.stage(f"{one.title}: reading", subjects.count_of(one.folder))
        return self._of_folder(one.folder)

    def _of_folder(self, folder: Path) -> list[Reading]:
        return subjects.of_folder(
            folder,
            BASE / "tokenizer.json",
            on_file=self._watch.step,
            on_refusal=lambda why: self._note(f"Not used: {why}"),
        )

    def _note(self, text: str) -> None:
        """Tell whoever watches now, and whoever reads the page later."""
        self._notes.append(text)
        self._watch.note(text)

    def _style(self, one: Named, works: Works, styles: Styles | None) -> StyleTest | None:
        if styles is None or one.model is None:
            return None
        chosen = subjects.to_go_on_from(works, max(self._options.pieces // 2, len(styles.names)))
        self._watch.stage(f"{one.title}: going on in a style", len(chosen))
        pieces, wanted = subjects.written_after(
            one.model, chosen, seed=self._options.seed, on_piece=lambda _: self._watch.step("a piece")
        )
        if not pieces:
            return None
        rows = MeasuredSet.of(one.title, pieces).rows
        return StyleTest(styles.right(rows, wanted), styles.human, 1 / len(styles.names), len(pieces))

    def _gallery(self, number: int, one: Named, measured: MeasuredSet, comparison: Comparison) -> tuple[Shown, ...]:
        """Pieces to look at: the least and the most human and the one in the middle, the others drawn by the seed."""
        most = min(GALLERY if one is self._named[0] else _BESIDE, len(measured))
        suspicion = np.array(comparison.suspicion or [float("nan")] * len(measured))
        order = np.argsort(suspicion, kind="stable")
        marked: dict[int, Literal["worst", "median", "best", "drawn"]] = {}
        if comparison.suspicion:
            for index, why in ((order[-1], "worst"), (order[len(order) // 2], "median"), (order[0], "best")):
                marked.setdefault(int(index), why)  # type: ignore[arg-type]  # mypy widens the literals
        random = np.random.Generator(np.random.Philox(subjects.stable_seed(one.name, self._options.seed)))
        for index in random.permutation(len(measured)):
            if len(marked) >= most:
                break
            marked.setdefault(int(index), "drawn")
        shown = []
        for index, why in sorted(marked.items(), key=lambda item: ("worst", "median", "best", "drawn").index(item[1])):
            # Numbered, since two titles may be spelt alike in a file's name.
            path = self._options.out / f"{number}-{_file_name(one.title)}-{index:03d}.mid"
            self._files[path] = measured.openings[index].score().dumps_midi()
            shown.append(Shown(measured.pieces[index].title, why, float(suspicion[index]), path))
        return tuple(shown)


def _file_name(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())[:40].strip("-") or "subject"
