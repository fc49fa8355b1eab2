import dataclasses
import fcntl
import hashlib
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from flushes import watched

from partbook.errors import InsecureKeyFile, VaultBusy, VaultError, WrongVaultKey
from partbook.music.recording import Recording
from partbook.vault.store import Vault

SHA = [hashlib.sha256(bytes([i])).hexdigest() for i in range(8)]


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """An empty vault, open for writing."""
    with Vault.create(tmp_path / "vault") as opened:
        yield opened


def assert_same(one: Recording, other: Recording) -> None:
    assert one.title == other.title
    assert one.seconds == other.seconds
    for name in ("ids", "bar_starts", "bar_seconds", "mel"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.notes.onset, other.notes.onset)


def test_what_goes_in_comes_out(vault: Vault, recordings: list[Recording]) -> None:
    ids = [vault.add(recording, sha) for recording, sha in zip(recordings, SHA, strict=False)]
    assert vault.ids() == ids
    for identifier, recording in zip(ids, recordings, strict=True):
        assert_same(vault.get(identifier), recording)
    summary = vault.summary()
    assert summary.recordings == len(vault) == len(recordings)
    assert summary.seconds == pytest.approx(sum(r.seconds for r in recordings))
    assert summary.tokens == sum(len(r.ids) for r in recordings)
    assert summary.bytes == sum(p.stat().st_size for p in (vault._path / "shards").iterdir())


def test_adding_the_same_audio_twice_keeps_one(vault: Vault, recordings: list[Recording]) -> None:
    first = vault.add(recordings[0], SHA[0])
    assert vault.add(recordings[1], SHA[0]) == first
    assert len(vault) == 1
    assert_same(vault.get(first), recordings[0])


def test_known_audio_and_files_are_recognised(vault: Vault, recordings: list[Recording]) -> None:
    assert vault.known(SHA[0]) is None
    identifier = vault.add(recordings[0], SHA[0], file_sha256=SHA[1])
    vault.remember_file(SHA[2], identifier)
    assert vault.known(SHA[0]) == vault.known_file(SHA[1]) == vault.known_file(SHA[2]) == identifier
    assert vault.known(SHA[1]) is None
    assert vault.known_file(SHA[0]) is None


def test_a_vault_is_read_by_others_while_one_writes(vault: Vault, recordings: list[Recording]) -> None:
    with Vault.open(vault._path) as reader:
        identifier = vault.add(recordings[0], SHA[0])
        assert reader.ids() == [identifier]
        assert_same(reader.get(identifier), recordings[0])
        with pytest.raises(VaultError, match="reading only"):
            reader.add(recordings[1], SHA[1])
    with pytest.raises(VaultBusy):
        Vault.open(vault._path, writable=True)


def test_removal_leaves_no_trace_of_the_recording(vault: Vault, recordings: list[Recording]) -> None:
    gone = vault.add(recordings[0], SHA[0], file_sha256=SHA[1])
    kept = vault.add(recordings[1], SHA[2])
    vault.remove(gone)
    assert vault.ids() == [kept]
    assert vault.known(SHA[0]) is None
    assert vault.known_file(SHA[1]) is None
    on_disk = b"".join(p.read_bytes() for p in vault._path.rglob("*") if p.is_file())
    assert gone.encode() not in on_disk
    assert not (vault._path / "shards" / f"{gone}.pbv").exists()
    with pytest.raises(VaultError, match="holds no recording"):
        vault.remove(gone)
    with pytest.raises(VaultError, match="holds no recording"):
        vault.get(gone)


def test_the_disk_tells_neither_titles_nor_hashes_nor_figures(vault: Vault, recordings: list[Recording]) -> None:
    secret = dataclasses.replace(recordings[0], title="Unreleased Symphony", seconds=1234.567890123)
    vault.add(secret, SHA[0], file_sha256=SHA[1])
    vault.close()
    key = (vault._path / "vault.key").read_bytes()
    on_disk = [p.read_bytes() for p in vault._path.rglob("*") if p.is_file() and p.name != "vault.key"]
    for content in on_disk:
        for needle in (
            b"Unreleased",
            b"1234.567890",
            np.float64(secret.seconds).tobytes(),
            SHA[0].encode(),
            bytes.fromhex(SHA[0])[-8:],
            SHA[1].encode(),
        ):
            assert needle not in content
        assert key.split(b":")[1].strip() not in content


def test_ids_of_one_recording_differ_between_vaults(tmp_path: Path, recordings: list[Recording]) -> None:
    with Vault.create(tmp_path / "a") as a, Vault.create(tmp_path / "b") as b:
        assert a.add(recordings[0], SHA[0]) != b.add(recordings[0], SHA[0])


def test_two_writes_of_one_recording_never_share_a_nonce(tmp_path: Path, recordings: list[Recording]) -> None:
    with Vault.create(tmp_path / "a") as vault:
        shards = []
        for _ in range(2):
            identifier = vault.add(recordings[0], SHA[0])
            shards.append((tmp_path / "a" / "shards" / f"{identifier}.pbv").read_bytes())
            vault.remove(identifier)
    assert shards[0][4:16] != shards[1][4:16]
    assert shards[0][16:64] != shards[1][16:64]


@pytest.mark.parametrize("where", [0, 3, 8, 40, -1])
def test_an_altered_shard_is_refused(vault: Vault, recordings: list[Recording], where: int) -> None:
    identifier = vault.add(recordings[0], SHA[0])
    shard = vault._path / "shards" / f"{identifier}.pbv"
    data = bytearray(shard.read_bytes())
    data[where] ^= 1
    shard.write_bytes(data)
    with pytest.raises(WrongVaultKey, match="altered"):
        vault.get(identifier)


def test_shards_cannot_be_swapped_or_cut(vault: Vault, recordings: list[Recording]) -> None:
    one, other = vault.add(recordings[0], SHA[0]), vault.add(recordings[1], SHA[1])
    shards = vault._path / "shards"
    (shards / f"{one}.pbv").write_bytes((shards / f"{other}.pbv").read_bytes())
    with pytest.raises(WrongVaultKey):
        vault.get(one)
    (shards / f"{other}.pbv").write_bytes(b"PBV1")
    with pytest.raises(WrongVaultKey):
        vault.get(other)
    (shards / f"{other}.pbv").unlink()
    with pytest.raises(VaultError, match="cannot be read"):
        vault.get(other)


def test_another_vaults_key_does_not_open_it(tmp_path: Path) -> None:
    Vault.create(tmp_path / "a").close()
    Vault.create(tmp_path / "b").close()
    with pytest.raises(WrongVaultKey, match="not this vault's"):
        Vault.open(tmp_path / "a", tmp_path / "b" / "vault.key")
    noise = tmp_path / "noise"
    noise.write_text("partbook/v1/vault-key:zz")
    noise.chmod(0o600)
    with pytest.raises(WrongVaultKey, match="not a vault key"):
        Vault.open(tmp_path / "a", noise)
    with pytest.raises(VaultError, match="cannot be read"):
        Vault.open(tmp_path / "a", tmp_path / "missing")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    Vault.create(tmp_path / "vault").close()
    key = tmp_path / "vault" / "vault.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(mode)
    with pytest.raises(InsecureKeyFile, match="chmod 600"):
        Vault.open(tmp_path / "vault")


def test_a_key_kept_elsewhere_opens_the_vault_and_is_never_overwritten(tmp_path: Path) -> None:
    key = tmp_path / "safe" / "key"
    Vault.create(tmp_path / "a", key).close()
    assert not (tmp_path / "a" / "vault.key").exists()
    before = key.read_bytes()
    with pytest.raises(VaultError, match="never overwritten"):
        Vault.create(tmp_path / "b", key)
    assert key.read_bytes() == before
    with Vault.open(tmp_path / "a", key) as vault:
        assert len(vault) == 0
    Vault.create(tmp_path / "b", tmp_path / "other").close()  # what the failed attempt left is no hindrance


def test_a_folder_with_other_things_in_it_does_not_become_a_vault(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(VaultError, match="not an empty folder"):
        Vault.create(tmp_path)
    with pytest.raises(VaultError, match="no vault"):
        Vault.open(tmp_path)


def test_key_material_is_in_no_repr(vault: Vault) -> None:
    key = (vault._path / "vault.key").read_text().split(":")[1].strip()
    for text in (repr(vault), repr(vault._keys), str(vault._keys)):
        assert key not in text
        assert vault._keys.shards.hex() not in text
        assert repr(vault._keys.shards) not in text


def test_leftovers_of_an_interrupted_write_are_removed_at_the_next_open(
    vault: Vault, recordings: list[Recording]
) -> None:
    identifier = vault.add(recordings[0], SHA[0])
    vault.close()
    shards = vault._path / "shards"
    (shards / ".tmp-0123").write_bytes(b"half")
    (shards / f"{'ab' * 32}.pbv").write_bytes(b"whole, but never indexed")
    with Vault.open(vault._path):
        assert len(list(shards.iterdir())) == 3  # a reader cleans nothing: the writer may be at work
    with Vault.open(vault._path, writable=True) as again:
        assert [p.name for p in shards.iterdir()] == [f"{identifier}.pbv"]
        assert_same(again.get(identifier), recordings[0])


def test_a_vault_keeps_to_one_tokeniser(vault: Vault) -> None:
    assert vault.tokenizer_sha256 is None
    vault.bind_tokenizer(SHA[0])
    vault.bind_tokenizer(SHA[0])
    with pytest.raises(VaultError, match="tokeniser"):
        vault.bind_tokenizer(SHA[1])
    assert vault.tokenizer_sha256 == SHA[0]


WRITER = """
    import sys, numpy as np
    from pathlib import Path
    from partbook.music.notes import Notes
    from partbook.music.recording import Recording
    from partbook.vault.store import Vault
    notes = Notes.from_rows([(0.0, 1.0, 60, 80)])
    array = np.arange(3)
    with Vault.open(Path(sys.argv[1]), writable=True) as vault:
        for number in range(int(sys.argv[2]), 10**6):
            mel = np.zeros((2000, 128), np.float16)
            recording = Recording(f"{number}", 1.0, notes, array.astype(np.int16), array,
                                  array.astype(np.float32), mel)
            vault.add(recording, f"{number:064x}")
            print(number, flush=True)
"""


def test_a_killed_writer_leaves_every_recording_it_reported(tmp_path: Path) -> None:
    Vault.create(tmp_path / "vault").close()
    reported = -1
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "vault"), str(reported + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(5):
                reported = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            reported = max([reported, *(int(line) for line in process.stdout if line.endswith("\n"))])
    with Vault.open(tmp_path / "vault", writable=True) as vault:
        titles = [int(vault.get(identifier).title) for identifier in vault.ids()]
        assert titles[: reported + 1] == list(range(reported + 1))
        assert len(titles) <= reported + 2  # the last may have been stored and not yet reported
        assert len(list((tmp_path / "vault" / "shards").iterdir())) == len(titles)


def test_a_disk_that_refuses_leaves_the_vault_as_it_was(vault: Vault, recordings: list[Recording]) -> None:
    kept = vault.add(recordings[0], SHA[0])
    big = dataclasses.replace(recordings[1], mel=np.zeros((8000, 128), np.float16))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the kernel refuses to let any file grow past 1 MB, as it does where a quota is used up
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        with pytest.raises(VaultError, match="no room is left"):
            vault.add(big, SHA[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert vault.ids() == [kept]
    assert len(list((vault._path / "shards").iterdir())) == 1
    assert vault.known(SHA[1]) is None
    assert_same(vault.get(vault.add(big, SHA[1])), big)


def test_an_index_that_is_no_database_is_reported(tmp_path: Path) -> None:
    Vault.create(tmp_path / "vault").close()
    (tmp_path / "vault" / "index.sqlite").write_bytes(b"scribble" * 100)
    with pytest.raises(VaultError, match="index"):
        Vault.open(tmp_path / "vault")


def test_the_index_survives_a_crash_by_its_settings(vault: Vault) -> None:
    assert vault._index.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert vault._index.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert isinstance(vault._index, sqlite3.Connection)


def test_a_recording_is_on_the_disk_with_its_name_before_the_index_names_it(
    vault: Vault, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        seen = watched(patch)
        identifier = vault.add(recordings[0], SHA[0])
        size = (vault._path / "shards" / f"{identifier}.pbv").stat().st_size
        assert seen == [f"{size} bytes", f"named {identifier}.pbv", "folder shards"]
        vault.withdraw(identifier)
        assert seen[3:] == ["folder shards"], "a withdrawn recording does not come back"


def test_the_lock_goes_with_the_process_that_held_it(vault: Vault) -> None:
    vault.close()
    descriptor = os.open(vault._path / "vault.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(VaultBusy):
        Vault.open(vault._path, writable=True)
    os.close(descriptor)
    Vault.open(vault._path, writable=True).close()
