import contextlib
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from support.workers import workers_of
from symusic import Score

from partbook.errors import InputError, ScoreError, VaultError
from partbook.music.rendering import synthesise
from partbook.vault.ingest import IngestEvent, Workers, audio_files, ingest
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

RATE = 44_100


@pytest.fixture(scope="module")
def sound(tunes: list[Path]) -> np.ndarray:
    """Seven seconds of guitar, stereo."""
    score = Score(tunes[1])
    for track in score.tracks:
        track.program = 24
    return synthesise(score)[: 7 * RATE]


@pytest.fixture
def folder(tmp_path: Path, sound: np.ndarray) -> Path:
    """Three different recordings."""
    place = tmp_path / "recordings"
    place.mkdir()
    for index, start in enumerate((0, 44_100, 88_200)):
        soundfile.write(place / f"{index}.wav", sound[start:], RATE)
    return place


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """An empty vault, open for writing."""
    with Vault.create(tmp_path / "vault") as opened:
        yield opened


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Path:
    """The tiny base's tokeniser file."""
    return tiny_base / "tokenizer.json"


def gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    """Whether all processes end in time."""
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_files_are_found_in_order_through_links_and_without_hidden_ones(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "b" / "deep").mkdir(parents=True)
    (outside / "album").mkdir(parents=True)
    for name in ("b/2.flac", "b/deep/Ünïcode ré.WAV", "a 1.mp3", ".hidden.wav", "b/cover.jpg", ".trash"):
        (inside / name).touch()
    (inside / ".git").mkdir()
    (inside / ".git" / "x.wav").touch()
    (outside / "album" / "far.ogg").touch()
    (inside / "c-link").symlink_to(outside / "album")
    (inside / "c-loop").symlink_to(inside)
    (inside / "d-link.wav").symlink_to(outside / "album" / "far.ogg")
    found, others = audio_files([inside])
    assert [str(p.relative_to(inside)) for p in found] == [
        "a 1.mp3",
        "b/2.flac",
        "b/deep/Ünïcode ré.WAV",
        "c-link/far.ogg",
        "d-link.wav",
    ]
    assert [p.name for p in others] == ["cover.jpg"]
    assert audio_files([inside / "b" / "cover.jpg"])[0] == [inside / "b" / "cover.jpg"]
    with pytest.raises(InputError, match="nowhere"):
        audio_files([tmp_path / "nowhere"])


def test_recordings_go_in_by_file_name_and_are_known_the_second_time(
    folder: Path, vault: Vault, tokenizer: Path
) -> None:
    events: list[IngestEvent] = []
    (folder / "dangling.wav").symlink_to(folder / "not there")
    report = ingest(folder, vault, tokenizer, workers=1, on_event=events.append)
    assert [path.name for path, _ in report.added] == ["0.wav", "1.wav", "2.wav"]
    assert [identifier for _, identifier in report.added] == vault.ids()
    assert [(r.path.name, r.error) for r in report.refused] == [("dangling.wav", "UnreadableAudio")]
    assert report.audio_seconds == pytest.approx(7 + 6 + 5, abs=0.1)
    assert sorted(e.done for e in events) == [1, 2, 3, 4]
    assert {e.total for e in events} == {4}
    before = vault.summary()
    shutil.copy(folder / "0.wav", folder / "copy of 0.wav")
    with Workers(1) as workers:
        again = ingest(folder, vault, tokenizer, workers=workers)
        assert not workers_of(os.getpid())
    assert not again.added
    assert [p.name for p in again.known] == ["0.wav", "1.wav", "2.wav", "copy of 0.wav"]
    assert again.seconds < 0.5  # by the hash of the file: nothing is decoded
    assert vault.summary() == before


def test_a_worker_killed_once_costs_nothing_and_a_file_that_always_ends_it_is_named(
    folder: Path, vault: Vault, tokenizer: Path
) -> None:
    once, always = folder / "0.wav", folder / "1.wav"
    noise = np.random.default_rng(0).integers(-9000, 9000, (90 * RATE, 2), dtype=np.int16)
    # Slow enough to decode for their readers to be caught at it; only the first goes in.
    tune, _ = soundfile.read(once, dtype="int16")
    soundfile.write(once, np.concatenate([noise[: 30 * RATE], tune]), RATE, format="FLAC")
    soundfile.write(always, noise, RATE, format="FLAC")
    finished = threading.Event()
    killed: dict[Path, set[int]] = {once: set(), always: set()}

    def kill_whoever_reads_them() -> None:
        while not finished.is_set():
            for process in multiprocessing.active_children():  # a look at all processes there are would take too long
                with contextlib.suppress(psutil.Error, ProcessLookupError):
                    reading = {Path(f.path) for f in psutil.Process(process.pid).open_files()} & set(killed)
                    if reading and (always in reading or not killed[once]):
                        process.kill()
                        killed[reading.pop()].add(process.pid)
            time.sleep(0.005)

    threading.Thread(target=kill_whoever_reads_them, daemon=True).start()
    report = ingest(folder, vault, tokenizer, workers=1)
    finished.set()
    assert len(killed[once]) == 1
    assert len(killed[always]) >= 2  # once in the pool, once alone
    assert [path.name for path, _ in report.added] == ["0.wav", "2.wav"]
    assert [(r.path, r.error) for r in report.refused] == [(always, "AnalysisCrashed")]
    assert "1.wav" in report.refused[0].reason


def test_the_same_workers_serve_one_vault_after_another_and_change_nothing(
    folder: Path, vault: Vault, tokenizer: Path, tmp_path: Path
) -> None:
    place = tmp_path / "tokenizer.json"
    shutil.copy(tokenizer, place)
    with contextlib.ExitStack() as stack:
        second, third, fourth = (stack.enter_context(Vault.create(tmp_path / name)) for name in ("2", "3", "4"))
        with Workers(1) as workers:
            ingest(folder, vault, place, workers=workers)
            (worker,) = workers_of(os.getpid())
            ingest(folder, second, place, program=24, workers=workers)
            assert workers_of(os.getpid()) == [worker]
            place.write_text("{}")
            with pytest.raises(ScoreError, match=re.escape(str(place))):  # not the one that the worker has in memory
                ingest(folder, third, place, workers=workers)
            assert gone([worker])
        ingest(folder / "1.wav", fourth, tokenizer, program=24, workers=1)
        one, another = (v.get(v.ids()[1]) for v in (vault, second))
        assert one.title == another.title == "1"
        assert one.mel.tobytes() == another.mel.tobytes()
        assert one.ids.tobytes() != another.ids.tobytes()  # the instrument is another
        assert another.to_bytes() == fourth.get(fourth.ids()[0]).to_bytes()


def test_an_ingest_broken_off_ends_its_workers_and_the_next_has_new_ones(
    folder: Path, vault: Vault, tokenizer: Path
) -> None:
    before: list[psutil.Process] = []

    def break_off(event: IngestEvent) -> None:
        before.extend(workers_of(os.getpid()))
        raise KeyboardInterrupt

    with Workers(1) as workers:
        with pytest.raises(KeyboardInterrupt):
            ingest(folder, vault, tokenizer, workers=workers, on_event=break_off)
        assert before
        assert gone(before)
        assert not workers_of(os.getpid())
        stored = vault.ids()
        assert stored
        report = ingest(folder, vault, tokenizer, workers=workers)
        after = workers_of(os.getpid())
        assert len(after) == 1
    assert gone(after, 0.1)
    assert len(report.known) == len(stored)
    assert len(vault) == 3


def test_a_wrong_tokeniser_is_refused_before_anything_is_read(
    folder: Path, vault: Vault, tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(ScoreError, match="no tokeniser"):
        ingest(folder, vault, tmp_path / "none.json")
    vault.bind_tokenizer(hashlib.sha256(tokenizer.read_bytes()).hexdigest())
    other = tmp_path / "other.json"
    other.write_bytes(tokenizer.read_bytes() + b"\n")
    with pytest.raises(VaultError, match="tokeniser"):
        ingest(folder, vault, other)
    assert len(vault) == 0


SCRIPT = """
    import sys
    from pathlib import Path
    from partbook.vault.ingest import ingest
    from partbook.vault.store import Vault
    if __name__ == "__main__":
        with Vault.open(Path(sys.argv[1]), writable=True) as vault:
            ingest(Path(sys.argv[2]), vault, Path(sys.argv[3]), workers=1,
                   on_event=lambda event: print(event.outcome, flush=True))
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, folder: Path, vault: Vault, tokenizer: Path) -> None:
    vault.close()
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(vault._path), str(folder), str(tokenizer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "added\n"
        workers = workers_of(process.pid)
        assert workers
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    assert gone(workers)
    with Vault.open(vault._path, writable=True) as again:
        assert 1 <= len(again) <= 2
        assert [again.get(i).title for i in again.ids()] == ["0", "1"][: len(again)]
