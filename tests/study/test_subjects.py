"""What a word names, and the pieces in a folder: what cannot be used is named and left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluated import tuneful
from symusic.core import ScoreTick

from partbook.errors import AlteredFile, ConfigError, InputError
from partbook.evaluation.reading import read
from partbook.model.checkpoint import BASE, load_tokenizer
from partbook.study.human import Works
from partbook.study.subjects import SCALE, count_of, named, of_folder, stable_seed, to_go_on_from, written_after

TOKENIZER = BASE / "tokenizer.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tunes, one of them deeper down, and what is none."""
    home = tmp_path / "pieces"
    (home / "more").mkdir(parents=True)
    for seed, name in enumerate(("a.mid", "B.MIDI", "more/a.mid")):
        tuneful(seed).score().dump_midi(home / name)
    (home / "notes.txt").write_text("no piece")
    return home


def pieces(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Titles, files that were told, and refusals."""
    told: list[str] = []
    refused: list[str] = []
    found = of_folder(folder, TOKENIZER, on_file=told.append, on_refusal=refused.append)
    return [piece.title for piece in found], told, refused


# ---------------------------------------------------------------------- words


def test_words_of_the_scale_name_human_works_and_noise() -> None:
    assert [(named(word).kind, named(word).model, named(word).folder) for word in SCALE] == [
        ("human", None, None),
        ("noise", None, None),
        ("noise", None, None),
    ]


def test_base_is_the_shipped_model_wherever_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    base = named("base")
    assert (base.title, base.kind) == ("Base model", "generator")
    assert base.model is not None
    assert len(base.model.tokenizer) == len(load_tokenizer())


def test_a_base_models_folder_is_a_generator() -> None:
    assert named(str(BASE)).kind == "generator"


def test_a_folder_is_called_by_its_name_and_may_be_called_like_a_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = named(str(folder))
    assert (found.title, found.kind, found.folder) == ("pieces", "folder", folder)
    folder.rename(folder.parent / "human")
    monkeypatch.chdir(folder.parent)
    assert named("human").folder is None
    assert named("./human").folder == Path("human")


def test_what_is_nothing_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nonsense is no folder; give a release.*base, human, shuffled, random"):
        named("nonsense")
    with pytest.raises(InputError, match="holds neither a release, a baseline, MIDI nor audio"):
        named(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises((ConfigError, AlteredFile)):
        named(str(tmp_path))


def test_subjects_have_seeds_of_their_own_that_never_change() -> None:
    assert stable_seed("base", 1) == 3_699_764_227
    assert len({stable_seed(name, seed) for name in ("base", "human") for seed in (1, 2)}) == 4


# ---------------------------------------------------------------------- folders


def test_a_folders_pieces_are_its_midi_files_each_a_work_of_its_own(folder: Path) -> None:
    found = of_folder(folder, TOKENIZER, on_file=lambda _: None, on_refusal=lambda _: None)
    assert sorted(piece.title for piece in found) == ["B", "a", "a"]
    assert len({piece.work for piece in found}) == 3
    assert count_of(folder) == 3
    by_work = {Path(piece.work).relative_to(folder).as_posix(): piece for piece in found}
    np.testing.assert_array_equal(by_work["more/a.mid"].onset, tuneful(2).onset)


def test_one_file_is_one_work_however_its_folder_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def works(written: Path) -> list[str]:
        found = of_folder(written, TOKENIZER, on_file=lambda _: None, on_refusal=lambda _: None)
        return [piece.work for piece in found]

    monkeypatch.chdir(folder)
    assert works(Path()) == works(folder) == works(folder / "more" / "..")


def test_what_cannot_be_used_is_named_and_left_out(folder: Path) -> None:
    (folder / "broken.mid").write_bytes(b"MThd and no more")
    (folder / "empty.mid").write_bytes(b"")
    ScoreTick(480).dump_midi(folder / "silent.mid")
    titles, told, refused = pieces(folder)
    assert sorted(titles) == ["B", "a", "a"]
    assert sorted(told) == ["B.MIDI", "a.mid", "a.mid", "broken.mid", "empty.mid", "silent.mid"]
    assert sorted(line.split()[0].rstrip(":") for line in refused) == ["broken.mid", "empty.mid", "silent.mid"]


def test_hidden_files_are_no_pieces(folder: Path) -> None:
    """A copy of a file that another system made beside it is no MIDI file."""
    (folder / "._a.mid").write_bytes(b"Mac OS X")
    (folder / ".trash").mkdir()
    tuneful(5).score().dump_midi(folder / ".trash" / "old.mid")
    titles, _, refused = pieces(folder)
    assert (len(titles), refused, count_of(folder)) == (3, [], 3)


def test_a_folder_without_a_usable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file that can be used"):
        pieces(tmp_path)
    (tmp_path / "broken.mid").write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no file that can be used"):
        pieces(tmp_path)


@pytest.mark.slow
def test_audio_is_heard_by_a_nodes_own_ears(tmp_path: Path) -> None:
    from partbook.music.rendering import render, write_wav

    tune = tuneful(3)
    write_wav(tmp_path / "played.wav", render(tune.score()))
    (tmp_path / "broken.wav").write_bytes(b"RIFF and no more")
    found_titles, told, refused = pieces(tmp_path)
    assert found_titles == ["played"]
    assert sorted(told) == ["broken.wav", "played.wav"]
    assert "broken.wav" in refused[0]
    (heard,) = of_folder(tmp_path, TOKENIZER, on_file=lambda _: None, on_refusal=lambda _: None)
    assert len(heard) == pytest.approx(len(tune), rel=0.2)
    assert heard.work == str(tmp_path.resolve() / "played.wav")


# ---------------------------------------------------------------------- going on


class Going:
    """Goes on from a prompt with a scale in its own bars, or not at all."""

    name, bound = "Going", False

    def __init__(self, silent: bool = False) -> None:
        self.tokenizer = load_tokenizer()
        self.silent = silent
        self.asked: tuple[list[int], float] = [], 0.0

    def sample_many(self, seeds, quarters, prompts, *, on_piece):  # type: ignore[no-untyped-def]
        self.asked = list(seeds), quarters
        written = []
        for number, prompt in enumerate(prompts, start=1):
            given = read(self.tokenizer.decode(prompt))
            after = tuneful(999, bars=8)
            shift = int(given.bars[-1])
            whole = replace(
                given,
                onset=np.r_[given.onset, after.onset + shift],
                duration=np.r_[given.duration, after.duration],
                pitch=np.r_[given.pitch, after.pitch],
                bars=np.r_[given.bars, after.bars[1:] + shift],
            )
            written.append(prompt if self.silent else self.tokenizer.encode(whole.score()))
            on_piece(number)
        return written


def works() -> Works:
    """Four tunes in one style, and three in another of which one is too short to go on from."""
    long = [tuneful(seed) for seed in range(6)]
    short = tuneful(6, bars=8).between(0, 7)
    return Works((*long, short), ("reel",) * 4 + ("jig",) * 3)


def test_pieces_go_on_from_as_many_works_of_each_style_without_what_they_were_given() -> None:
    model, told = Going(), []
    chosen = to_go_on_from(works(), 5)
    assert [(piece.title, style) for piece, style in chosen] == [
        ("Tune 0", "reel"), ("Tune 1", "reel"), ("Tune 2", "reel"), ("Tune 4", "jig"), ("Tune 5", "jig"),
    ]  # fmt: skip
    found, wanted = written_after(model, chosen, seed=2, on_piece=told.append)  # type: ignore[arg-type]
    assert wanted == ["reel"] * 3 + ["jig"] * 2  # three of each, where there are so many
    assert model.asked == ([250_000 + number for number in range(5)], 48.0)
    assert told == [1, 2, 3, 4, 5]
    for piece in found:
        np.testing.assert_array_equal(piece.onset, tuneful(999, bars=8).onset)
        np.testing.assert_array_equal(piece.pitch, tuneful(999, bars=8).pitch)


def test_where_nothing_sounds_after_the_prompt_there_is_no_piece() -> None:
    silent = Going(silent=True)
    found = written_after(silent, to_go_on_from(works(), 4), seed=1, on_piece=lambda _: None)  # type: ignore[arg-type]
    assert found == ([], [])
    assert to_go_on_from(Works((), ()), 4) == []
    assert written_after(silent, [], seed=1, on_piece=lambda _: None) == ([], [])  # type: ignore[arg-type]
