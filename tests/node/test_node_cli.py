import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from symusic import Score

from partbook.errors import InputError
from partbook.music.rendering import synthesise
from partbook.node.cli import program_number
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

RATE = 44_100
BAD = {
    "cut.flac": "TruncatedAudio",
    "text.wav": "UnreadableAudio",
    "silence.wav": "SilentAudio",
    "empty.wav": "UnreadableAudio",
}
GOOD = ["five channels.wav", "good.flac", "good.mp3", "good.wav", "Für Élise – n° 2.wav"]


def partbook(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would, without an ffmpeg on PATH."""
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent), "COLUMNS": "200"}
    command = [sys.executable, "-m", "partbook.cli", *map(str, arguments)]
    if not shutil.which("partbook", path=environment["PATH"]):
        command[1:3] = ["-c", "from partbook.cli import main; main()"]
    else:
        command[:3] = [str(Path(sys.executable).parent / "partbook")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="session")
def piece(tunes: list[Path]) -> np.ndarray:
    """Ten seconds of piano, stereo."""
    return synthesise(Score(tunes[0]))[: 10 * RATE]


@pytest.fixture(scope="session")
def tokenizer(tiny_base: Path) -> Path:
    """The tiny base's tokeniser file."""
    return tiny_base / "tokenizer.json"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, piece: np.ndarray) -> Path:
    """The folder that the house must cope with: good files and every kind of bad one."""
    place = tmp_path_factory.mktemp("label") / "Recordings of ours"
    place.mkdir()

    def part(index: int) -> np.ndarray:  # different audio, so that none is known from another
        return piece[index * RATE // 2 : (index + 12) * RATE // 2]

    soundfile.write(place / "good.wav", part(0), RATE)
    soundfile.write(place / "good.flac", part(1), RATE)
    soundfile.write(place / "good.mp3", part(2), RATE)
    soundfile.write(place / "Für Élise – n° 2.wav", part(3), RATE, subtype="PCM_24")
    five = part(4).mean(axis=1, keepdims=True) * np.array([[1, 0.9, 0.7, 0.3, 0.3]])
    soundfile.write(place / "five channels.wav", five, RATE)
    soundfile.write(place / "cut.flac", part(5), RATE)
    whole = (place / "cut.flac").read_bytes()
    (place / "cut.flac").write_bytes(whole[: len(whole) * 2 // 3])
    (place / "text.wav").write_text("These are the liner notes of the record.\n" * 50)
    soundfile.write(place / "silence.wav", np.zeros((10 * RATE, 2)), RATE)
    (place / "empty.wav").touch()
    (place / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    return place


@pytest.fixture(scope="session")
def first(
    folder: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The vault made from the folder, and what the command said."""
    vault = tmp_path_factory.mktemp("vaults") / "vault"
    done = partbook(
        "node", "ingest", folder, "--vault", vault, "--tokenizer", tokenizer, "--program", "harpsichord",
        "--workers", 2,
    )  # fmt: skip
    return vault, done


def test_good_files_go_in_and_each_bad_one_is_named_with_its_reason(
    first: tuple[Path, subprocess.CompletedProcess[str]], folder: Path
) -> None:
    vault, done = first
    assert done.returncode == 0, done.stderr
    for name, error in BAD.items():
        assert name in done.stdout
        assert error in done.stdout
    for reason in ("cut off or damaged", "not audio", "silent", "0 bytes"):
        assert reason in done.stdout
    assert "5 added, 0 already known, 4 refused, 1 other files passed over" in done.stdout
    assert "Traceback" not in done.stderr
    with Vault.open(vault) as opened:
        titles = {opened.get(identifier).title for identifier in opened.ids()}
    assert titles == {Path(name).stem for name in GOOD}


def test_a_second_ingest_recognises_files_and_audio_under_other_names(
    first: tuple[Path, subprocess.CompletedProcess[str]], folder: Path, tokenizer: Path, tmp_path: Path
) -> None:
    vault, _ = first
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(folder / "good.mp3", more / "renamed.mp3")
    samples, rate = soundfile.read(folder / "good.wav", dtype="int16")
    soundfile.write(more / "as flac.flac", samples, rate, subtype="PCM_16")
    done = partbook(
        "node",
        "ingest",
        folder,
        more,
        "--vault",
        vault,
        "--tokenizer",
        tokenizer,
        "--json",
        "--strict",
        "--workers",
        1,
    )
    assert done.returncode == 1  # strict, and the bad files are still bad
    report = json.loads(done.stdout)
    assert report["added"] == []
    assert sorted(Path(p).name for p in report["known"]) == sorted([*GOOD, "renamed.mp3", "as flac.flac"])
    assert {Path(r["path"]).name: r["error"] for r in report["refused"]} == BAD
    assert all(r["reason"] for r in report["refused"])
    assert report["vault"]["recordings"] == len(GOOD)


def test_strict_is_content_when_all_is_well(
    first: tuple[Path, subprocess.CompletedProcess[str]], folder: Path, tokenizer: Path
) -> None:
    vault, _ = first
    done = partbook("node", "ingest", folder / "good.wav", "--vault", vault, "--tokenizer", tokenizer, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 already known, 0 refused" in done.stdout


def test_status_says_what_is_inside(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    vault, _ = first
    said = json.loads(partbook("node", "status", "--vault", vault, "--json").stdout)
    assert said["recordings"] == len(GOOD)
    assert said["seconds"] == pytest.approx(6.0 * len(GOOD), abs=0.3)
    assert said["tokens"] > 50
    assert len(said["tokenizer_sha256"]) == 64
    assert "5 recordings" in partbook("node", "status", "--vault", vault).stdout


def test_wrong_keys_open_keys_and_missing_vaults_end_in_one_clear_line(
    first: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    vault, _ = first
    Vault.create(tmp_path / "other").close()
    copy = tmp_path / "copy"
    shutil.copy(vault / "vault.key", copy)
    copy.chmod(0o644)
    cases = {
        "WrongVaultKey": ("--vault", vault, "--key", tmp_path / "other" / "vault.key"),
        "InsecureKeyFile": ("--vault", vault, "--key", copy),
        "VaultError": ("--vault", tmp_path / "nowhere"),
    }
    for error, arguments in cases.items():
        done = partbook("node", "status", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(error)
        assert "Traceback" not in done.stderr


def test_ctrl_c_leaves_a_valid_vault_that_the_next_run_completes(
    folder: Path, piece: np.ndarray, tokenizer: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for index in range(5):
        soundfile.write(many / f"{index}.wav", piece[index * 4000 : 7 * RATE], RATE)
    arguments = [many, "--vault", tmp_path / "vault", "--tokenizer", tokenizer, "--workers", 1]
    program = "from partbook.cli import main; main()"
    command = [sys.executable, "-c", program, "node", "ingest", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "vault").glob("shards/*.pbv")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, output + errors
    assert "Interrupted" in output
    assert "Traceback" not in errors
    with Vault.open(tmp_path / "vault", writable=True) as vault:
        stored = len(vault)
        assert 1 <= stored < 5
        assert all(vault.get(identifier) for identifier in vault.ids())
    done = partbook("node", "ingest", *arguments, "--json")
    report = json.loads(done.stdout)
    assert len(report["known"]) == stored
    assert len(report["added"]) == 5 - stored


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['partbook', 'node', 'ingest', '--help']\n"
        "from partbook.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'librosa', 'numpy', 'onnxruntime', 'flwr', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_programs_have_numbers_and_names() -> None:
    assert program_number("0") == 0
    assert program_number(" 127 ") == 127
    assert program_number("Harpsichord") == 6
    assert program_number("violin") == 40
    assert program_number("orchestral harp") == 46
    wrongs = {"128": "between 0 and 127", "-1": "between", "piano": "may mean", "zither": "no General"}
    for wrong, message in wrongs.items():
        with pytest.raises(InputError, match=message):
            program_number(wrong)
