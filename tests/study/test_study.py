"""An evaluation from end to end: a folder of pieces against a folder of human works."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluated import scattered, tuneful
from pieces import same
from symusic.core import ScoreTick

from partbook.corpus.library import Library
from partbook.errors import ConfigError, InputError
from partbook.evaluation import two_sample
from partbook.evaluation.comparison import WINDOW, MeasuredSet
from partbook.evaluation.measures import NAMES
from partbook.evaluation.page import write_page
from partbook.evaluation.reading import Reading, read
from partbook.evaluation.results import Evaluation
from partbook.study.study import GALLERY, Options, Study
from partbook.study.subjects import RANDOM, SHUFFLED


class Watching:
    """Writes down stages, their steps, and notes."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.steps: list[int] = []
        self.notes: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.stages.append((name, total))
        self.steps.append(0)

    def step(self, what: str) -> None:
        self.steps[-1] += 1

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> None:
    """Enough to tell tunes from noise."""
    patch = pytest.MonkeyPatch()
    patch.setattr(two_sample, "_TREES", 40)
    yield
    patch.undo()


def folder(home: Path, make: Callable[[int], Reading], first: int, count: int = 12) -> Path:
    """MIDI files called by number, whatever is in them."""
    home.mkdir(parents=True)
    for number in range(count):
        make(first + number).score().dump_midi(home / f"{number:02d}.mid")
    return home


def short(seed: int) -> Reading:
    return tuneful(seed, bars=8)


def options(home: Path, *names: str | Path, out: str = "out", reference: str | None = "human", **more: bool) -> Options:
    return Options(
        names=tuple(map(str, names)),
        out=home / out,
        reference=home / reference if reference else None,
        command="partbook evaluate",
        **{"surprise": False, "sound": False, "style": False, "originality": False, **more},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Human works, and files of the same names: other tunes, and noise."""
    made = tmp_path_factory.mktemp("study")
    folder(made / "human", short, 0)
    folder(made / "tunes", short, 100)
    folder(made / "Tunes!", scattered, 200, 13)
    return made


@pytest.fixture(scope="module")
def watched(home: Path) -> tuple[Evaluation, Watching]:
    watch = Watching()
    return Study(options(home, home / "tunes", home / "Tunes!"), watch).run(), watch


def test_every_folder_is_measured_and_held_against_the_reference(
    home: Path, watched: tuple[Evaluation, Watching]
) -> None:
    found, _ = watched
    assert (found.works, found.reference) == (12, f"the files of {home / 'human'}")
    tunes, noise = found.subjects
    assert (tunes.title, tunes.kind, noise.title) == ("tunes", "folder", "Tunes!")
    assert tunes.comparison is not None
    assert noise.comparison is not None
    assert (tunes.comparison.pieces, noise.comparison.pieces) == (12, 13)
    assert noise.comparison.features.value > 0.95
    assert tunes.comparison.features.value < 0.8
    assert np.isnan(tunes.comparison.training_run.value)
    assert (tunes.listening, tunes.style, dict(tunes.surprise)) == (None, None, {})
    assert all(len(tunes.values[name]) == 12 for name in NAMES)
    direct = MeasuredSet.of("tunes", [short(100 + number) for number in range(12)])
    assert tunes.values["density"] == tuple(direct.column("density").tolist())


def test_files_of_one_name_are_works_of_their_own(watched: tuple[Evaluation, Watching]) -> None:
    """Were they one work by their names, the run that each shares with the reference would pass over its namesake."""
    found, _ = watched
    comparison = found.subjects[0].comparison
    assert comparison is not None
    assert not np.isnan(comparison.features.value)
    assert not np.isnan(comparison.tokens.value)


def test_a_copy_of_a_reference_work_is_seen_under_its_own_name(home: Path, tmp_path: Path) -> None:
    copies = folder(tmp_path / "copies", short, 0, 2)  # called as the works that they are
    few = Study(options(home, copies, out=str(tmp_path / "out")), Watching()).run()
    comparison = few.subjects[0].comparison
    assert comparison is not None
    assert comparison.heldout_longest > 20
    assert np.isnan(comparison.features.value)  # two pieces are too few to say
    assert comparison.suspicion == ()
    assert {piece.why for piece in few.subjects[0].gallery} == {"drawn"}


def test_the_gallery_shows_twelve_pieces_and_three_of_each_other_that_lie_beside_the_page(
    home: Path, watched: tuple[Evaluation, Watching]
) -> None:
    found, _ = watched
    shown = [piece for subject in found.subjects for piece in subject.gallery]
    assert [len(subject.gallery) for subject in found.subjects] == [GALLERY, 3]
    assert sorted(piece.midi for piece in shown) == sorted((home / "out").glob("*.mid"))
    for subject, make, first in zip(found.subjects, (short, scattered), (100, 200), strict=True):
        assert [piece.why for piece in subject.gallery[:3]] == ["worst", "median", "best"]
        suspicion = [piece.suspicion for piece in subject.gallery]
        assert suspicion[0] == max(suspicion) >= suspicion[1] >= suspicion[2] == min(suspicion)
        for piece in subject.gallery:  # titles are the files' names, which are their numbers
            again = read(ScoreTick.from_file(piece.midi))
            assert same(again, read(make(first + int(piece.title)).score()).opening(WINDOW))


def test_stages_have_as_many_steps_as_they_say(watched: tuple[Evaluation, Watching]) -> None:
    _, watch = watched
    assert [total for _, total in watch.stages] == watch.steps
    assert watch.stages[0] == ("Reading the reference", 12)
    assert watch.notes == []


def test_the_page_is_written_of_it(home: Path, watched: tuple[Evaluation, Watching], monkeypatch) -> None:
    monkeypatch.setattr("partbook.evaluation.page_gallery.rate", lambda _: 0)  # players take seconds
    found, _ = watched
    page = write_page(found, home / "out").read_text()
    for piece in found.subjects[0].gallery:
        assert f'href="{piece.midi.name}"' in page
    data = json.loads((home / "out" / "evaluation.json").read_text())
    assert data["subjects"][0]["gallery"][0]["midi"] == found.subjects[0].gallery[0].midi.name


def test_two_runs_with_one_seed_write_the_same_bytes(home: Path, watched: tuple[Evaluation, Watching]) -> None:
    found, _ = watched
    again = Study(options(home, home / "tunes", home / "Tunes!", out="again"), Watching()).run()
    assert again.to_json() == found.to_json()
    for path in (home / "out").glob("*.mid"):
        assert path.read_bytes() == (home / "again" / path.name).read_bytes()


def test_two_folders_of_one_name_are_told_apart_by_their_paths(home: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "tunes", short, 300, 3)
    study = Study(options(home, home / "tunes", other), Watching())
    assert [one.title for one in study._named] == [f"tunes ({home / 'tunes'})", f"tunes ({other})"]


def test_what_is_left_out_is_told_and_kept(home: Path, tmp_path: Path) -> None:
    some = folder(tmp_path / "some", short, 400, 2)
    (some / "broken [1].mid").write_bytes(b"nothing")
    watch = Watching()
    found = Study(options(home, some, out=str(tmp_path / "out")), watch).run()
    assert len(found.notes) == 1
    assert "broken [1].mid" in found.notes[0]
    assert watch.notes == list(found.notes)


def test_noise_is_made_of_other_human_works_than_those_it_is_held_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = few_works(monkeypatch)
    found = Study(options(tmp_path, SHUFFLED, RANDOM, "human", reference=None), Watching()).run()
    assert asked == ["heldout", "label"]
    assert [(subject.name, subject.kind) for subject in found.subjects] == [
        ("shuffled", "noise"), ("random", "noise"), ("human", "human"),
    ]  # fmt: skip
    comparisons = [subject.comparison for subject in found.subjects]
    assert [comparison and comparison.pieces for comparison in comparisons] == [4, 4, 4]
    assert found.works == 5


def few_works(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five tunes stand for the held-out works, and four others for the labels'."""
    from partbook.study.human import Works

    asked: list[str] = []

    def mixed(library: Library, pool: str, count: int, *, seed: int, on_work: Callable[[str], None]) -> Works:
        asked.append(pool)
        first, many = (0, 5) if pool == "heldout" else (50, 4)
        return Works(tuple(short(first + number) for number in range(many)), ("bach",) * many)

    monkeypatch.setattr("partbook.study.study.mixed", mixed)
    return asked


# ---------------------------------------------------------------------- refusals


def test_results_in_a_folder_that_is_evaluated_are_refused(home: Path) -> None:
    """The gallery's files would be pieces of the next evaluation."""
    for out in ("tunes", "tunes/results", "human/results"):
        with pytest.raises(InputError, match="whose files are evaluated"):
            Study(options(home, home / "tunes", out=out), Watching())


def test_a_reference_without_pieces_is_refused_before_anything_is_read(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for reference in ("empty", "missing"):
        with pytest.raises(InputError):
            Study(options(tmp_path, home / "tunes", reference=reference), Watching())


def test_a_folder_that_cannot_be_made_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be made"):
        Study(options(home, home / "tunes", out=str(tmp_path / "file" / "out")), Watching()).run()


def test_nothing_to_evaluate_is_refused(home: Path) -> None:
    with pytest.raises(InputError, match="nothing to evaluate"):
        Study(options(home), Watching())


def test_a_baseline_is_not_surprised_by_works_that_it_has_learnt_from(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Library.open(cache=tmp_path).pool("bach", "heldout")[0].key
    monkeypatch.setattr("partbook.study.surprise.learnt_from", lambda called: frozenset({held, "mine/a.mid"}))
    made = options(home, home / "tunes", surprise=True)
    study = Study(replace(made, out=tmp_path / "out"), Watching())
    (one,) = study._named
    study._named = [replace(one, model=object(), folder=None)]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"has learnt from 1 of the held-out works .{held} is one"):
        study.run()
