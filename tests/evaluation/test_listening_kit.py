"""From two folders to a kit: clips alike in all but their music, a page that knows nothing, and every bad folder."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
from symusic import Note, Score, Tempo, Track
from typer.testing import CliRunner

from partbook.errors import ConfigError, InputError
from partbook.evaluation.listening.cli import app
from partbook.evaluation.listening.clips import files_in, gather, levelled
from partbook.evaluation.listening.kit import Wanted, make, steps
from partbook.evaluation.listening.page import Wording, page
from partbook.evaluation.listening.scores import Playing
from partbook.evaluation.listening.trials import KINDS, read_key
from partbook.simulation import palette
from partbook.simulation.diagram import SANS, SERIF

SECONDS = 1.5
SECRETS = ("written by people", "written by nobody")  # names of folders, which a page must not hold


def score_of(pitches: list[int], program: int = 40, velocity: int = 90) -> Score:
    score, track = Score(480), Track(program=program, is_drum=False, name="violin")
    for place, pitch in enumerate(pitches):
        track.notes.append(Note(place * 240, 230, pitch, velocity))
    score.tracks.append(track)
    score.tempos.append(Tempo(0, 120))
    return score


def tone(path: Path, frequency: float, *, rate: int = 22_050, channels: int = 1, seconds: float = 3.0, level=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    wave = level * np.sin(2 * np.pi * frequency * time) * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))
    wave = np.stack([np.roll(wave, 9 * channel) for channel in range(channels)], axis=1)
    soundfile.write(path, wave, rate)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three recordings in each, of many levels."""
    for place, name in enumerate(SECRETS):
        for piece in range(3):
            tone(tmp_path / name / f"piece {place}{piece}.wav", 220 + 60 * place + 35 * piece, level=0.02 + 0.1 * piece)
    return tmp_path / SECRETS[0], tmp_path / SECRETS[1]


def quick(**changes) -> Wanted:
    return Wanted(**({"trials": 2, "seconds": SECONDS, "hear": 1.0} | changes))


def text_of(folder: Path) -> str:
    return (folder / "send" / "listen.html").read_text(encoding="utf-8")


def data_of(html: str) -> dict:
    (found,) = re.findall(r'<script id="kit" type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def sounds_of(html: str) -> list[bytes]:
    return [base64.b64decode(clip["audio"]) for trial in data_of(html)["trials"] for clip in trial["clips"]]


class Outline(HTMLParser):
    """Every tag, attribute and address of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kit_is_a_page_a_text_and_a_key_apart(folders, tmp_path: Path, kind) -> None:
    done = []
    want = quick(kind=kind, name="Émile's <test>")
    made = make(*folders, tmp_path / "kit", want, done.append)
    assert sorted(p.relative_to(tmp_path / "kit").as_posix() for p in (tmp_path / "kit").rglob("*.*")) == [
        "key.json", "send/README.txt", "send/listen.html",
    ]  # fmt: skip
    assert len(done) == steps(want)
    assert read_key(tmp_path / "kit" / "key.json") == made.key
    assert made.key.kit in text_of(made.folder)
    assert not made.warnings


@pytest.mark.parametrize("kind", KINDS)
def test_all_clips_are_as_long_as_loud_and_as_large(folders, tmp_path: Path, kind) -> None:
    sounds = sounds_of(text_of(make(*folders, tmp_path / "kit", quick(kind=kind)).folder))
    assert len({len(sound) for sound in sounds}) == 1
    assert len(set(sounds)) == len(sounds)
    assert not any(tag in sound for sound in sounds for tag in (b"ID3", b"TAG", b"piece"))
    heard = [soundfile.read(io.BytesIO(sound), always_2d=True) for sound in sounds]
    assert {(len(samples), rate, samples.shape[1]) for samples, rate in heard} == {(SECONDS * 48_000, 48_000, 1)}
    levels = [pyloudnorm.Meter(48_000).integrated_loudness(samples) for samples, _ in heard]
    assert max(levels) - min(levels) < 0.3
    assert max(np.abs(samples).max() for samples, _ in heard) <= 1.0
    assert all(np.abs(samples[-20:]).max() < 0.01 for samples, _ in heard), "faded out"


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_a_and_b_changes_nothing_in_the_page_but_its_sound(folders, tmp_path: Path, kind) -> None:
    a, b = folders
    pages = []
    for place, pair in enumerate(((a, b), (b, a))):
        html = text_of(make(*pair, tmp_path / f"kit{place}", quick(kind=kind, seed=3)).folder)
        data = data_of(html)
        for trial in data["trials"]:
            for clip in trial["clips"]:
                html = html.replace(clip["audio"], f"{len(clip['audio'])} letters")
        pages.append(html.replace(data["kit"], "kit"))  # a digest of the sound
    assert pages[0] == pages[1]


def test_two_runs_make_the_same_bytes_and_another_seed_does_not(folders, tmp_path: Path) -> None:
    texts = [
        text_of(make(*folders, tmp_path / name, quick(seed=seed)).folder)
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    ]
    assert texts[0] == texts[1] != texts[2]
    assert (tmp_path / "one" / "key.json").read_bytes() == (tmp_path / "two" / "key.json").read_bytes()


def test_the_page_names_no_file_no_folder_and_no_side(folders, tmp_path: Path) -> None:
    made = make(*folders, tmp_path / "kit", quick(kind="human"))
    html = text_of(made.folder)
    readme = (made.folder / "send" / "README.txt").read_text(encoding="utf-8")
    for secret in (*SECRETS, "piece", ".wav", "origin", *(c.sha256 for t in made.key.trials for c in t.clips)):
        assert secret not in html
        assert secret not in readme
    assert set(data_of(html)) == {"kit", "kind", "question", "choices", "answers", "seconds", "hear", "trials"}
    assert all(set(clip) == {"id", "audio"} for trial in data_of(html)["trials"] for clip in trial["clips"])


def test_the_page_fetches_nothing_and_runs_only_its_own_script(folders, tmp_path: Path) -> None:
    html = text_of(make(*folders, tmp_path / "kit", quick()).folder)
    tags = Outline(html).tags
    (policy,) = (a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [a for _, a in tags if {"src", "href", "style", "onclick", "action"} & set(a)]
    assert not [tag for tag, _ in tags if tag in ("link", "img", "iframe", "object", "audio")]
    outside = re.sub(r'"audio": "[^"]*"', "", html)
    assert set(re.findall(r"https?://[^\s\"'<]+", outside)) == {"http://www.w3.org/2000/svg"}, "a name, not an address"
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|importScripts|EventSource)\b", outside)


def test_every_control_has_a_label(folders, tmp_path: Path) -> None:
    html = text_of(make(*folders, tmp_path / "kit", quick()).folder)
    tags = Outline(html).tags
    labelled = {a["for"] for tag, a in tags if tag == "label"}
    for tag, attributes in tags:
        if tag in ("input", "textarea"):
            assert attributes.get("aria-label") or attributes["id"] in labelled
    assert ("html", {"lang": "en"}) in tags


def test_what_a_researcher_writes_cannot_break_out_of_the_page() -> None:
    wording = Wording("</title><script>alert(1)</script>@DATA@", "</script><b>'\"@STYLE@", ("x", "y"))
    html = page("kit", "ab", wording, 1.0, 1.0, [], [])
    assert [tag for tag, _ in Outline(html).tags].count("script") == 2
    assert data_of(html)["question"] == wording.question


def test_the_page_looks_like_the_house() -> None:
    html = page("kit", "ab", Wording("n", "q", ("x", "y")), 1.0, 1.0, [], [])
    for colour in (palette.INK, palette.SOFT_INK, palette.RULE, palette.PAPER, palette.CARD, palette.ACCENT):
        assert colour in html
    assert SERIF in html
    assert SANS in html


def test_midi_becomes_clips(tmp_path: Path) -> None:
    for name, pitches in (("a", [60, 64, 67, 72]), ("b", [50, 71, 43, 66])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mid").write_bytes(score_of(pitches * 3).dumps_midi())
    made = make(tmp_path / "a", tmp_path / "b", tmp_path / "kit", quick(trials=1))
    first, second = sounds_of(text_of(made.folder))
    assert len(first) == len(second)
    assert first != second
    assert make(tmp_path / "a", tmp_path / "b", tmp_path / "other", quick(trials=1, playing=Playing(None))).warnings


def test_silence_before_the_music_does_not_tell(tmp_path: Path) -> None:
    for lead, name in ((0.0, "a"), (1.0, "b")):
        path = tone(tmp_path / name / "x.wav", 300)
        samples, rate = soundfile.read(path)
        soundfile.write(path, np.concatenate([np.zeros(int(lead * rate)), samples]), rate)
    clips = [gather(tmp_path / name, 1, seed=1, seconds=SECONDS).excerpts[0].samples for name in "ab"]
    assert np.abs(clips[0] - clips[1]).max() < 0.01


def test_the_widest_and_brightest_clip_gives_way_to_the_narrowest(tmp_path: Path) -> None:
    tone(tmp_path / "a" / "x.wav", 300, rate=44_100, channels=2)
    noise = np.random.default_rng(1).normal(0, 0.1, (3 * 44_100, 2))
    soundfile.write(tmp_path / "a" / "y.wav", noise, 44_100)
    tone(tmp_path / "b" / "x.wav", 350, rate=16_000)
    excerpts = [*gather(tmp_path / "a", 2, seed=1, seconds=SECONDS).excerpts]
    excerpts += gather(tmp_path / "b", 1, seed=1, seconds=SECONDS).excerpts
    for sound in levelled(excerpts, SECONDS):
        samples, rate = soundfile.read(io.BytesIO(sound), always_2d=True)
        assert samples.shape[1] == 1
        spectrum = np.abs(np.fft.rfft(samples[:, 0])) ** 2
        frequency = np.fft.rfftfreq(len(samples), 1 / rate)
        assert spectrum[frequency > 8_500].sum() < 1e-4 * spectrum.sum()


def test_a_clip_may_begin_anywhere_and_the_key_says_where(folders, tmp_path: Path) -> None:
    made = make(*folders, tmp_path / "kit", quick(begin="anywhere"))
    begins = [clip.begins for trial in made.key.trials for clip in trial.clips]
    assert len(set(begins)) == len(begins)
    assert all(0 <= each <= 1.6 for each in begins)


def test_files_that_cannot_be_used_are_named_and_passed_over(folders, tmp_path: Path) -> None:
    a, _ = folders
    (a / "broken.mid").write_bytes(b"no score")
    (a / "empty.wav").write_bytes(b"")
    (a / "words.flac").write_text("words")
    (a / "notes.mid").write_bytes(score_of([]).dumps_midi())
    soundfile.write(a / "silent.wav", np.zeros(60_000), 22_050)
    tone(a / "short.wav", 300, seconds=1.0)
    (a / "twin.wav").write_bytes((a / "piece 00.wav").read_bytes())
    found = gather(a, 3, seed=1, seconds=SECONDS)
    assert len(found.excerpts) == 3
    with pytest.raises(InputError) as raised:
        gather(a, 4, seed=1, seconds=SECONDS)
    said = str(raised.value)
    assert "gives 3 usable clips" in said
    for name in ("broken.mid", "empty.wav", "words.flac", "notes.mid", "silent.wav", "short.wav"):
        assert name in said
    assert "is the same as" in said
    assert "1.0 s of the 1.5 s" in said


def test_a_file_in_both_folders_is_used_once(folders) -> None:
    a, b = folders
    (b / "copy.wav").write_bytes((a / "piece 00.wav").read_bytes())
    taken = frozenset(excerpt.sha256 for excerpt in gather(a, 3, seed=1, seconds=SECONDS).excerpts)
    with pytest.raises(InputError, match="a file of the other folder"):
        gather(b, 4, seed=1, seconds=SECONDS, taken=taken)


def test_folders_that_are_none_empty_or_one_are_refused(folders, tmp_path: Path) -> None:
    a, b = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.wav").write_bytes(b"x")
    for folder, word in ((tmp_path / "none", "is no folder"), (tmp_path / "empty", "holds no MIDI and no audio")):
        with pytest.raises(InputError, match=word):
            files_in(folder)
    with pytest.raises(InputError, match="same folder"):
        make(a, a, tmp_path / "kit", quick())
    with pytest.raises(InputError, match="fewer --trials"):
        make(a, b, tmp_path / "kit", quick(trials=4))
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        make(a, b, tmp_path / "there", quick())
    assert not (tmp_path / "kit").exists()
    assert not list(tmp_path.glob(".kit*"))


def test_recordings_beside_scores_are_warned_of(folders, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    for piece in range(2):
        (tmp_path / "scores" / f"{piece}.mid").write_bytes(score_of([60 + piece, 64, 67] * 4).dumps_midi())
    made = make(folders[0], tmp_path / "scores", tmp_path / "kit", quick())
    assert "the sound alone may tell" in made.warnings[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"kind": "abx"}, "--kind"), ({"trials": 0}, "--trials"), ({"kind": "human", "trials": 3}, "--trials"),
        ({"seconds": 0.5}, "--seconds"), ({"seconds": float("nan")}, "--seconds"), ({"hear": 9.0}, "--hear"),
        ({"seed": -1}, "--seed"), ({"name": " "}, "--name"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(changes: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        quick(**changes)


def test_the_commands_make_and_score_a_kit(folders, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = tmp_path / "kit"
    arguments = ["make", *map(str, folders), "--out", str(out), "--trials", "2", "--seconds", "1.5", "--json"]
    done = run(app, arguments)
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    key = read_key(Path(made["key"]))
    rows = ["kit,session,listener,trial,clips,answer,confidence,seconds,time"]
    for trial in key.trials:
        answer = "first" if trial.clips[0].origin == "A" else "second"
        rows.append(f"{key.kit},s,Ann,{trial.number},{' '.join(c.id for c in trial.clips)},{answer},,1.5 1.5,")
    (tmp_path / "ann.csv").write_text("\n".join(rows))
    told = json.loads(run(app, ["score", made["key"], str(tmp_path / "ann.csv"), "--json"]).stdout)
    assert (told["together"]["hits"], told["together"]["of"]) == (2, 2)
    assert any("Too few" in line for line in told["warnings"])
    words = run(app, ["score", made["key"], str(tmp_path / "ann.csv")]).stdout
    assert "A was preferred in 2 of 2" in words
    assert "Warning: Too few answers" in words


@pytest.mark.parametrize(
    "option", [("--begin", "middle"), ("--instrument", "128"), ("--instrument", "kazoo"), ("--dynamics", "loud")]
)
def test_unknown_words_of_the_command_line_are_refused(folders, tmp_path: Path, option: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["make", *map(str, folders), "--out", str(tmp_path / "kit"), *option])
    assert isinstance(done.exception, ConfigError)
    assert option[0] in str(done.exception)
