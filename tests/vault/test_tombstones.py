import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import soundfile
from symusic import Score

from partbook.errors import VaultError, WithdrawnRecording
from partbook.music.recording import Recording
from partbook.music.rendering import synthesise
from partbook.vault.ingest import ingest
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

SHA = [hashlib.sha256(bytes([i])).hexdigest() for i in range(8)]
RATE = 44_100


@pytest.fixture
def vault(tmp_path: Path, recordings: list[Recording]) -> Vault:
    """A vault of two recordings, the first from two files."""
    with Vault.create(tmp_path / "vault") as opened:
        opened.add(recordings[0], SHA[0], file_sha256=SHA[1])
        opened.remember_file(SHA[2], opened.ids()[0])
        opened.add(recordings[1], SHA[3], file_sha256=SHA[4])
        yield opened


def as_format_one(path: Path) -> None:
    """Make a vault what the first Partbook wrote."""
    with sqlite3.connect(path / "index.sqlite") as index:
        index.execute("DROP TABLE tombstones")
        index.execute("UPDATE meta SET value = ? WHERE name = 'format'", (b"1",))
    index.close()


def test_what_is_withdrawn_is_gone_and_refused_from_then_on(vault: Vault, recordings: list[Recording]) -> None:
    gone, kept = vault.ids()
    vault.withdraw(gone)
    vault.withdraw(gone)
    assert vault.ids() == [kept]
    assert vault.tombstones() == [gone]
    assert vault.withdrawn(SHA[0]) == vault.withdrawn_file(SHA[1]) == vault.withdrawn_file(SHA[2]) == gone
    assert vault.withdrawn(SHA[3]) is vault.withdrawn_file(SHA[4]) is vault.withdrawn(SHA[1]) is None
    assert vault.known(SHA[0]) is vault.known_file(SHA[1]) is None
    with pytest.raises(WithdrawnRecording, match=gone[:12]):
        vault.add(recordings[2], SHA[0])
    assert [p.stem for p in (vault._path / "shards").iterdir()] == [kept]
    with pytest.raises(VaultError, match="no recording"):
        vault.withdraw("0" * 64)


def test_it_stays_withdrawn_when_the_vault_is_opened_again(vault: Vault) -> None:
    gone = vault.ids()[0]
    vault.withdraw(gone)
    vault.close()
    with Vault.open(vault._path) as reader:
        assert reader.withdrawn(SHA[0]) == gone
        with pytest.raises(VaultError, match="reading only"):
            reader.withdraw(reader.ids()[0])


def test_a_vault_of_the_first_format_is_read_as_it_is_and_brought_up_to_date_to_be_written(vault: Vault) -> None:
    ids = vault.ids()
    vault.close()
    as_format_one(vault._path)
    with Vault.open(vault._path) as reader:
        assert reader.ids() == ids
        assert reader.tombstones() == []
        assert reader.withdrawn(SHA[0]) is None
        with Vault.open(vault._path, writable=True) as writer:
            writer.withdraw(ids[0])
        assert reader.withdrawn(SHA[0]) == ids[0]
    with sqlite3.connect(vault._path / "index.sqlite") as index:
        index.execute("UPDATE meta SET value = ? WHERE name = 'format'", (b"3",))
    index.close()
    with pytest.raises(VaultError, match="format 3"):
        Vault.open(vault._path)


def test_the_ledgers_key_is_its_own(vault: Vault) -> None:
    assert len(vault.ledger_key) == 32
    assert vault.ledger_key != vault.rounds_key
    assert vault.ledger_key.hex() not in repr(vault._keys)


def test_ingest_refuses_withdrawn_audio_under_any_name_and_in_any_lossless_format(
    tmp_path: Path, tiny_base: Path, tunes: list[Path], recordings: list[Recording]
) -> None:
    from partbook.music.decode import read_audio

    samples = (synthesise(Score(tunes[1]))[: 7 * RATE] * 32767).astype(np.int16)
    original, folder = tmp_path / "one.wav", tmp_path / "again"
    folder.mkdir()
    soundfile.write(original, samples, RATE, subtype="PCM_16")
    soundfile.write(folder / "as flac.flac", samples, RATE, subtype="PCM_16")
    shutil.copy(original, folder / "renamed.wav")
    os.utime(folder / "renamed.wav")
    with Vault.create(tmp_path / "vault") as vault:
        file = hashlib.sha256(original.read_bytes()).hexdigest()
        gone = vault.add(recordings[0], read_audio(original).sha256, file_sha256=file)
        vault.withdraw(gone)
        report = ingest(folder, vault, tiny_base / "tokenizer.json", workers=1)
        assert (report.added, report.known, len(vault)) == ([], [], 0)
    assert {(refusal.path.name, refusal.error) for refusal in report.refused} == {
        ("as flac.flac", "WithdrawnRecording"),
        ("renamed.wav", "WithdrawnRecording"),
    }
    assert all(gone[:12] in refusal.reason for refusal in report.refused)
