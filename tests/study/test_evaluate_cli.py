"""`partbook evaluate`, as a person or a script calls it."""

import json
import re
import sys
from pathlib import Path

import pytest
from evaluated import tuneful
from typer.testing import CliRunner, Result

from partbook.cli import main
from partbook.errors import ConfigError, InputError
from partbook.study.cli import app
from partbook.study.study import Options, Study


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three pieces, one of four human works; what is kept is kept here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("partbook.evaluation.page_gallery.rate", lambda _: 0)  # players take seconds
    for name, first, count in (("pieces", 100, 3), ("human", 0, 4)):
        (tmp_path / name).mkdir()
        for number in range(count):
            tuneful(first + number, bars=8).score().dump_midi(tmp_path / name / f"{number}.mid")
    return tmp_path


def run(home: Path, *more: str) -> Result:
    call = [str(home / "pieces"), "--reference", str(home / "human"), "--out", str(home / "out"), "--no-sound"]
    return CliRunner().invoke(app, [*call, "--no-originality", *more], env={"COLUMNS": "80"}, catch_exceptions=False)


def test_few_pieces_still_have_a_table_with_dashes_for_the_tests(home: Path) -> None:
    done = run(home)
    assert done.exit_code == 0
    assert re.search(r"^pieces +3 +– +– +\d+ of \d+", done.stdout, re.MULTILINE)
    assert "Rhythm entropy" in done.stdout
    assert done.stdout.splitlines()[-1] == str(home / "out" / "evaluation.html")
    assert max(len(line) for line in done.stdout.splitlines()[:-1]) <= 80
    assert {path.name for path in (home / "out").iterdir()} == {
        "evaluation.html", "evaluation.json", "1-pieces-000.mid", "1-pieces-001.mid", "1-pieces-002.mid",
    }  # fmt: skip


def test_json_is_one_document_and_nothing_else(home: Path) -> None:
    done = run(home, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert done.stdout == (home / "out" / "evaluation.json").read_text()
    (subject,) = found["subjects"]  # no scale beside a reference of one's own
    assert (subject["title"], subject["comparison"]["pieces"], found["works"]) == ("pieces", 3, 4)
    assert subject["comparison"]["features"] == {"value": None, "low": None, "high": None}
    assert "Reading the reference" in done.stderr


def test_an_evaluation_is_never_written_over(home: Path) -> None:
    run(home)
    before = (home / "out" / "evaluation.json").read_bytes()
    with pytest.raises(ConfigError, match="holds an evaluation already"):
        run(home)
    assert (home / "out" / "evaluation.json").read_bytes() == before


def test_an_unknown_subject_ends_in_one_line_and_exit_code_2(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["partbook", "evaluate", "nonsense", "--out", str(home / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(r"^InputError: nonsense is no folder; give a release", told.err, re.MULTILINE)
    assert "Traceback" not in told.err
    assert not (home / "out").exists()


def test_a_folder_of_broken_files_is_refused_by_name(home: Path) -> None:
    for path in (home / "pieces").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no file that can be used"):
        run(home)
    assert not list((home / "out").iterdir())


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((), ("pieces", "human", "shuffled", "random")),
        (("--no-scale",), ("pieces",)),
        (("human",), ("pieces", "human", "shuffled", "random")),
        (("--reference", "works"), ("pieces",)),
        (("--reference", "works", "random"), ("pieces", "random")),
    ],
)
def test_a_scale_stands_beside_what_is_held_against_the_public_works(
    given: tuple[str, ...], wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert asked(monkeypatch, "pieces", *given, "--out", str(tmp_path)).names == wanted


def test_options_reach_the_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = asked(monkeypatch, "base", "--out", str(tmp_path))
    assert (plain.pieces, plain.seed, plain.heard, plain.sound, plain.originality) == (64, 1, False, True, True)
    assert (plain.data, plain.reference) == ((), None)
    call = ["base", "--out", str(tmp_path), "--pieces", "10", "--seed", "7", "--heard", "--no-sound"]
    found = asked(monkeypatch, *call, "--no-originality", "--data", "a", "--data", "b")
    assert (found.pieces, found.seed, found.heard, found.sound, found.originality) == (10, 7, True, False, False)
    assert found.data == (Path("a"), Path("b"))


def test_numbers_out_of_range_are_usage_errors(tmp_path: Path) -> None:
    for wrong in (("--pieces", "9"), ("--pieces", "1001"), ("--seed", "-1"), ("--seed", "20001")):
        done = CliRunner().invoke(app, ["base", "--out", str(tmp_path / "out"), *wrong])
        assert done.exit_code == 2
        assert wrong[0] in done.stderr


def asked(monkeypatch: pytest.MonkeyPatch, *call: str) -> Options:
    """What the study is asked for by a command line."""
    found: list[Options] = []

    def begin(self: Study, options: Options, watcher: object) -> None:
        found.append(options)
        raise InputError("That is enough.")

    monkeypatch.setattr(Study, "__init__", begin)
    with pytest.raises(InputError, match="enough"):
        CliRunner().invoke(app, list(call), catch_exceptions=False)
    return found[0]
