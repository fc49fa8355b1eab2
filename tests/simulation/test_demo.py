"""The demo, small: real scores, real audio files, real transcription, the shipped base, a signed release."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tunes import recording_of, tune

from partbook.coordinator.validation import ValidationSet
from partbook.generator.composing import PieceRequest, compose
from partbook.generator.prompts import score_of_midi
from partbook.generator.release import Release, load_generator, open_release
from partbook.model.adapter import adapter_state, attach, selection
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.music.mel import memory_before
from partbook.music.quantised import quantised
from partbook.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, Tokenizer, notes_of
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.plan.training import PlainTraining
from partbook.simulation import demo
from partbook.simulation.collections import COLLECTIONS, CONTROL
from partbook.simulation.demo import COURSES, EPSILON, Demo, DemoOptions
from partbook.simulation.labels import Take
from partbook.simulation.report import PieceReport
from partbook.simulation.three_pieces import heard_clip
from partbook.vault.analysis import Analysis
from partbook.vault.ingest import Refusal, TokenizerFile, Workers
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(1800)  # the demo itself runs in the first test that looks at it

ROOT = Path(__file__).parent.parent.parent
CODE = """
from dataclasses import asdict, replace
from pathlib import Path
from rich.console import Console
from partbook.plan.training import PlainTraining
from partbook.simulation.demo import COURSES, Demo, DemoOptions
from partbook.simulation.watching import RichWatcher
import json, sys
if __name__ == "__main__":
    home, out = map(Path, sys.argv[1:3])
    plain = PlainTraining(steps=4, batch=3, learning_rate=5e-3, clip=5.0)
    course = replace(COURSES["distributed"], rounds=2, plain=plain)
    options = DemoOptions(
        home=home, out=out, recordings=3, heldout=1, control=2, seconds=20, course=course, piece_seconds=20,
        evaluated=3, drops=("Cremona@confirm:1",),
    )
    with RichWatcher(Console()) as watcher:
        result = Demo(options, watcher).run()
    Path(sys.argv[2], "result.json").write_text(json.dumps(asdict(result), default=str))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "small_demo.py"
    path.write_text(CODE)
    return path


@pytest.fixture(scope="module")
def folder(script: Path) -> Path:
    """The results of a run in which a label fell away on purpose, after its update had arrived."""
    out = script.parent / "run"
    command = [sys.executable, str(script), str(script.parent / "home"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


PIECES = ("free", "continuation", "from-audio")


@pytest.mark.parametrize("name", PIECES)
def test_pieces_are_music_not_noise(folder: Path, name: str) -> None:
    samples, rate = soundfile.read(folder / "pieces" / f"{name}.wav", always_2d=True)
    assert rate == 44_100
    assert len(samples) / rate >= 10, "a piece may end itself, but not at once"
    assert 0.5 < np.abs(samples).max() < 1.0
    assert 20 * np.log10(np.sqrt(np.mean(samples**2))) > -40
    loudest = [np.abs(part).max() for part in np.array_split(samples, 10)]
    assert sum(peak > 0.01 for peak in loudest) >= 8, "silent for long"
    notes = notes_of(score_of_midi((folder / "pieces" / f"{name}.mid").read_bytes()))
    assert len(notes) >= 20
    assert notes.pitch.min() >= LOWEST_PITCH
    assert notes.pitch.max() <= HIGHEST_PITCH


def test_everything_that_was_promised_is_there(folder: Path) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {f"pieces/{piece}.{kind}" for piece in PIECES for kind in ("mid", "wav", "png", "json")}
    expected |= {"report.html", "report.json", "loss-curves.png", "split.json", "pieces/free-base.png"}
    expected |= {"coordinator/adapter.safetensors", "coordinator/manifest.json", "release/manifest.sig"}
    assert expected <= names


def test_the_report_holds_every_label_and_says_which_locks_were_on(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert [label["name"] for label in report["labels"]] == [c.label for c in COLLECTIONS]
    for label in report["labels"]:
        assert label["recordings"] == 3
        assert label["nll_before"] > 0
        assert label["bytes_sent"] > 0
    locks = report["locks"]
    assert (locks["masks"], locks["seal"], locks["noise"], locks["threshold"]) == (True, True, True, 3)
    assert open_release(folder / "release", signer=None).about["locks"] == {"masks": True, "seal": True, "noise": True}
    html = (folder / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["']https?:""", html)
    for collection in COLLECTIONS:
        assert collection.label in html


def test_both_epsilons_are_stated_and_every_labels_ledger_agrees(folder: Path, script: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    locks = report["locks"]
    model = attach(load_model())
    trained = len(selection(adapter_state(model), COURSES["distributed"].scope))
    assert (locks["recordings"], locks["colluders"], locks["delta"], locks["dimension"]) == (12, 1, 1e-5, trained)
    assert 7.9 < locks["epsilon_colluders"] <= EPSILON
    assert 0 < locks["epsilon_outsiders"] < locks["epsilon_colluders"]
    assert [number for number, _, _ in locks["epsilon_curve"]] == [0, 1, 2]
    assert locks["epsilon_curve"][-1] == [2, locks["epsilon_colluders"], locks["epsilon_outsiders"]]
    stated = open_release(folder / "release", signer=None).about["privacy"]
    assert (stated["epsilon_colluders"], stated["epsilon_outsiders"]) == tuple(locks["epsilon_curve"][-1][1:])
    assert "recordings" not in stated, "how many a federation's labels have is theirs to know"
    for label in report["labels"]:
        own = folder / "nodes" / label["name"].lower().replace(" ", "-")
        vault = next((script.parent / "home").glob(f"*/seed-1-*/{own.name}/vault"))
        with Vault.open(vault) as opened, Ledger.open(own / "ledger.sqlite", opened.ledger_key) as ledger:
            spent = ledger.spent(1e-5)
            assert spent.epsilon_committed == spent.epsilon_reserved_too == locks["epsilon_colluders"]
            assert (spent.rounds, len(ledger.stays())) == (2, 3)
        assert not (vault / "ledger.sqlite").exists()
        assert label["epsilon_spent"] == spent.epsilon_committed
        assert Policy.read(own / "policy.toml").epsilon_recording == pytest.approx(EPSILON)
    html = (folder / "report.html").read_text()
    assert f"ε = {locks['epsilon_colluders']:.2f}" in html
    assert f"ε = {locks['epsilon_outsiders']:.2f}" in html


def test_what_the_noise_cost_is_said_for_every_label_and_stays_in_the_report(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    for label in report["labels"]:
        assert label["nll_without_noise"] not in (label["nll_before"], label["nll_after"])
    figures = [repr(label["nll_without_noise"]).encode() for label in report["labels"]]
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path.name not in ("report.json", "result.json"):
            assert not any(figure in path.read_bytes() for figure in figures), path


def test_style_is_what_a_label_gained_beyond_the_control(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    control = report["control"]
    assert control["recordings"] == 2
    assert control["nll_before"] != control["nll_after"]
    for label in report["labels"]:
        for unit, of_control in (("per_token", "nll"), ("per_note", "note")):
            gain = label[unit]
            assert gain["gain"] == pytest.approx(gain["base"] - gain["release"])
            assert gain["hand"] == pytest.approx(control[f"{of_control}_before"] - control[f"{of_control}_after"])
            assert gain["style"] == pytest.approx(gain["gain"] - gain["hand"])
        assert (label["per_token"]["base"], label["per_token"]["release"]) == (label["nll_before"], label["nll_after"])
        a_note = label["heldout_tokens"] / label["heldout_notes"]
        assert label["per_note"]["release"] == pytest.approx(label["nll_after"] * a_note)
        without = label["per_note_without_noise"]
        assert without["release"] == pytest.approx(label["nll_without_noise"] * a_note)
        assert without["hand"] == pytest.approx(control["note_before"] - control["note_without_noise"])


def test_the_free_piece_is_a_score_of_32_bars_at_most_and_the_others_go_on_as_heard(folder: Path) -> None:
    about = {name: json.loads((folder / "pieces" / f"{name}.json").read_text()) for name in PIECES}
    assert about["free"]["asked"] == {"bars": 32}
    assert len(quantised(score_of_midi((folder / "pieces" / "free.mid").read_bytes()))) <= 32
    for name in ("continuation", "from-audio"):
        assert about[name]["asked"]["hand"] == "heard"
        metres = score_of_midi((folder / "pieces" / f"{name}.mid").read_bytes()).time_signatures
        assert (metres[0].numerator, metres[0].denominator) == (4, 4)


def test_every_round_is_scored_although_the_coordinator_knows_the_model_only_at_the_end(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    kept = json.loads((folder / "coordinator" / "state.json").read_text())["history"]
    assert [bool(record["validation"]) for record in kept] == [True, False, True]
    for label in report["labels"]:
        curve = label["curve"]["held_out"]
        assert [number for number, _ in curve] == [0, 1, 2]
        assert (curve[0][1], curve[-1][1]) == (label["nll_before"], label["nll_after"])
        assert curve[1][1] != curve[0][1]


def test_every_exchange_is_counted_and_timed_for_every_party(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    labels = {label["name"] for label in report["labels"]}
    parties: dict[str, set[str]] = {}
    for entry in report["exchanges"]:
        parties.setdefault(entry["kind"], set()).add(entry["party"])
        assert min(entry["messages"], entry["bytes_sent"], entry["bytes_received"], entry["seconds"]) > 0
    assert parties.pop("query.open") == {"Custodian"}
    assert len(parties.pop("query.publish")) == 1
    assert all(party == labels for party in parties.values())
    for record in report["history"]:
        assert set(record["exchanges"]) == {*parties, "query.open"} - {"query.endorse"}
        assert sum(record["exchanges"].values()) <= record["seconds"]
    sent = {(kind["kind"], kind["from_party"]): kind["total_bytes"] for kind in report["messages"]}
    for kind in (*parties, "query.open"):
        entries = [entry for entry in report["exchanges"] if entry["kind"] == kind]
        assert sum(entry["bytes_sent"] for entry in entries) == sent[kind, True]
        assert sum(entry["bytes_received"] for entry in entries) == sent[kind, False]


def test_every_party_keeps_its_keys_in_its_own_folder(folder: Path, script: Path) -> None:
    home = script.parent / "home"
    keys = [home / "coordinator.pem", home / "custodian" / "identity.pem", home / "custodian" / "seal.secret"]
    for collection in COLLECTIONS:
        own = home / "labels" / collection.label.lower().replace(" ", "-")
        keys += [own / "identity.pem", own / "receiving.pem"]
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)
    assert (folder / "custodian" / "opened.json").exists()
    assert len({key.read_bytes() for key in keys}) == len(keys)


def test_the_split_keeps_private_and_public_works_apart(folder: Path) -> None:
    split = json.loads((folder / "split.json").read_text())
    labels = split["labels"]
    private = {work["key"] for pools in labels.values() for work in pools["label"]}
    public = {work["key"] for pools in labels.values() for work in pools["heldout"]}
    assert private
    assert public
    assert not private & public
    assert len(split["control"]) == 2
    assert not {work["key"] for work in split["control"]} & (private | public)


def test_no_label_keeps_or_sends_audio_in_the_clear(folder: Path, script: Path) -> None:
    for vault in (script.parent / "home").rglob("vault"):
        for shard in vault.rglob("*.pbv"):
            # How a recording begins and describes itself, in lengths that chance does not write into ciphertext.
            for spelt in (b'{"__metadata__"', b'"bar_starts"', b'"bar_seconds"', b"safetensors"):
                assert spelt not in shard.read_bytes()
    assert not list(folder.rglob("*.flac"))


def test_the_release_opens_and_writes_again_what_it_wrote(folder: Path) -> None:
    release = open_release(folder / "release", signer=None)
    about = json.loads((folder / "pieces" / "free.json").read_text())
    assert about["release"] == release.id
    request = PieceRequest(seed=about["seed"], seconds=about["sampling"]["seconds"], **about["asked"])
    *_, piece = compose(load_generator(release), request)
    assert piece.midi == (folder / "pieces" / "free.mid").read_bytes()


def test_the_demos_release_is_served_to_the_ten_line_client(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "partbook.cli", "serve", str(folder / "release"), "--address", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                break
        else:
            pytest.fail("".join(lines))
        midi = tmp_path / "piece.mid"
        client = [sys.executable, str(ROOT / "docs/clients/generate.py"), f"127.0.0.1:{found[1]}", str(midi)]
        done = subprocess.run(client, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) > 5
        assert len(notes_of(score_of_midi(midi.read_bytes()))) > 5
    finally:
        server.terminate()
        server.wait(10)


def test_a_clip_is_the_notes_heard_from_a_bar_on_and_the_sound_before_it(folder: Path, script: Path) -> None:
    assert (folder / "report.html").exists()
    validation = next((script.parent / "home").glob("*/public-*/validation"))
    tokenizer = load_tokenizer()
    for label, (recording, *_) in ValidationSet.read(validation).by_label.items():
        score, memory = heard_clip(recording, tokenizer, seconds=5.0)
        first = int(np.searchsorted(recording.bar_seconds, 8.0))
        begin = float(recording.bar_seconds[first])
        given = notes_of(score)
        in_clip = (recording.notes.onset >= begin - 0.06) & (recording.notes.onset < begin + 4.9)
        heard = list(zip(recording.notes.onset[in_clip] - begin, recording.notes.pitch[in_clip], strict=True))
        # Tempi are written in steps of 5.9 %, so the clip may run 3 % off, and beats found in it vary a little.
        close = [
            any(abs(o - t) < 0.06 + 0.055 * t and p == q for o, p in zip(given.onset, given.pitch, strict=True))
            for t, q in heard
        ]
        assert np.mean(close) > 0.9, label
        (program,) = (c.program for c in (*COLLECTIONS, CONTROL) if c.label == label)
        assert [track.program for track in score.tracks] == [program]
        assert memory is not None
        assert np.array_equal(memory, memory_before(recording.mel, begin))


def test_a_label_that_fell_away_is_in_the_report_with_how_the_round_went_on(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    (dropped,) = report["history"][0]["dropped"]
    assert (dropped["member"], dropped["kind"], dropped["in_sum"]) == ("Cremona", "query.confirm", True)
    assert len(report["history"][0]["members"]) == 4
    assert report["history"][1]["dropped"] == []
    assert dropped["recovered"] in (folder / "report.html").read_text()


class Unplayed(Demo):
    """Writes no pieces."""

    def _compose(self, release: Release, validation: ValidationSet) -> list[PieceReport]:
        return []


class Quiet:
    """Nobody watches."""

    def stage(self, name: str, total: int) -> None: ...

    def now(self, what: str) -> None: ...

    def step(self, what: str) -> None: ...

    def note(self, text: str) -> None: ...


def test_a_second_run_hears_nothing_twice_and_ends_with_the_same_model(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Down at `confirm`: its update has arrived by then, so the sum is the same as with nobody down. Noise is drawn anew
    # whatever the seed, so only plain rounds end with the same model.
    heard: list[str] = []

    class Ear(Workers):
        """Knows a tune by its file's name; what transcription hears is the other run's matter."""

        def submit(self, path: Path, tokenizer: TokenizerFile, program: int) -> Future[Analysis | Refusal]:
            heard.append(path.name)
            seed = int.from_bytes(hashlib.sha256(path.read_bytes()).digest()[:2], "little")
            done: Future[Analysis | Refusal] = Future()
            recording = recording_of(tune(len(heard)), Tokenizer.load(tokenizer.path), seed)
            done.set_result(Analysis(recording, hashlib.sha256(path.read_bytes()).hexdigest()))
            return done

    def play(planned: Sequence[Take], on_take: Callable[[Take], None]) -> list[Take]:
        for take in planned:
            take.path.parent.mkdir(parents=True, exist_ok=True)
            take.path.write_text(take.work.key)
            on_take(take)
        return list(planned)

    monkeypatch.setattr(demo, "Workers", Ear)
    monkeypatch.setattr(demo, "record", play)

    def run(kind: type[Demo], name: str, *drops: str) -> Path:
        course = replace(COURSES["none"], rounds=2, plain=PlainTraining(steps=2, batch=2, learning_rate=5e-3, clip=5.0))
        options = DemoOptions(
            tmp_path / "home", tmp_path / name, recordings=1, heldout=1, control=1, seconds=20, piece_seconds=1,
            evaluated=2, course=course, base=tiny_base, drops=drops,
        )  # fmt: skip
        kind(options, Quiet()).run()
        return tmp_path / name

    before = run(Unplayed, "before")
    assert len(heard) == len(set(heard)) == 2 * len(COLLECTIONS) + 1
    again = run(Demo, "again", "Cremona@confirm:1")
    assert len(heard) == 2 * len(COLLECTIONS) + 1
    first, second = ((f / "coordinator" / "adapter.safetensors").read_bytes() for f in (before, again))
    assert first == second
    report = json.loads((again / "report.json").read_text())
    assert report["locks"]["noise"] is False
    assert report["labels"][0]["nll_without_noise"] is None
    assert "There was no noise" in (again / "report.html").read_text()
    assert open_release(again / "release", signer=None).about["privacy"]["epsilon_colluders"] is None
    (dropped,) = report["history"][0]["dropped"]
    assert (dropped["member"], dropped["kind"], dropped["in_sum"]) == ("Cremona", "query.confirm", True)
    assert len(report["history"][0]["members"]) == 4
    assert report["history"][1]["dropped"] == []
    assert dropped["recovered"] in (again / "report.html").read_text()
