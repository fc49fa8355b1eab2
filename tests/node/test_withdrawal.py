import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from partbook.errors import BadSignature, ConfigError, CorruptMessage, InputError, VaultError
from partbook.identity.canonical import canonical
from partbook.identity.keys import IdentityKey
from partbook.music.decode import read_audio
from partbook.music.recording import Recording
from partbook.node.cli import app
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.node.withdrawal import DOMAIN, certify, find, keep_certificate, verify_certificate, withdraw
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import NoisySum, Repeated
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(400)  # a process for every write there is, and librosa's kernels are compiled

EVENTS = (Repeated(NoisySum(2.0, 0.5)),)
RATE = 44_100


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Three seconds of a siren."""
    path = tmp_path / "siren.wav"
    phase = np.cumsum(440 + 200 * np.sin(np.arange(6 * RATE) / RATE))
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * phase / RATE), RATE, subtype="PCM_16")
    return path


@pytest.fixture
def vault(tmp_path: Path, audio: Path, recordings: list[Recording]) -> Iterator[Vault]:
    """Two recordings; the first is the siren's."""
    with Vault.create(tmp_path / "vault") as opened:
        opened.add(recordings[0], read_audio(audio).sha256)
        opened.add(recordings[1], "2" * 64)
        yield opened


@pytest.fixture
def ledger(vault: Vault, tmp_path: Path) -> Iterator[Ledger]:
    """Rounds in two federations, one of them only reserved, one released."""
    with Ledger.open(tmp_path / "vault" / "ledger.sqlite", vault.ledger_key) as opened:
        opened.join(vault.ids())
        for round, federation in enumerate(["folk", "folk", "jazz", "jazz"], 1):
            opened.reserve(federation, "key of " + federation, round, f"q{round}", "p", EVENTS, policy=Policy())
        opened.commit("q1")
        opened.commit("q2")
        opened.release("q4")
        yield opened


@pytest.fixture
def key() -> IdentityKey:
    return IdentityKey.generate()


def test_a_withdrawal_killed_at_any_write_is_finished_by_the_next(memory: Path, script: Callable[..., str]) -> None:
    ends = json.loads(script("withdrawal_life.py", memory))
    assert ends["pwrite64"] == ends["pwrite64 torn"] > 5, ends
    assert ends["os.unlink"] == 1, "the shard"
    assert ends["os.replace"] == 2, "the ledger's head and the certificate"


@pytest.mark.long
def test_a_withdrawal_whose_files_are_torn_at_any_write_is_finished_by_the_next(
    memory: Path, script: Callable[..., str]
) -> None:
    ends = json.loads(script("withdrawal_life.py", memory, "everything"))
    assert ends["pwrite64"] == ends["pwrite64 torn"] > 5, ends
    assert ends["os.fsync of a file"] == ends["os.fsync of a file torn"] == 2, "the ledger's head and the certificate"


def test_a_recording_is_found_by_id_file_audio_and_title(vault: Vault, audio: Path, tmp_path: Path) -> None:
    first, second = vault.ids()
    copy = tmp_path / "other name.flac"
    soundfile.write(copy, *soundfile.read(audio, dtype="int16"), subtype="PCM_16")
    for wanted in (first, first[:6], str(audio), str(copy), "tune 0", "TUNE 0"):
        assert find(vault, wanted) == first
    assert find(vault, "tune 1") == second
    vault.withdraw(first)
    for wanted in (first[:8], str(audio), str(copy)):
        assert find(vault, wanted) == first
    with pytest.raises(InputError, match=f"known by their ids only: {first[:12]}"):
        find(vault, "tune 0")


def test_what_is_meant_must_be_clear(vault: Vault, recordings: list[Recording], tmp_path: Path) -> None:
    vault.add(recordings[1], "3" * 64)
    with pytest.raises(InputError, match="means 2 recordings"):
        find(vault, "tune 1")
    with pytest.raises(InputError, match="Check the spelling"):
        find(vault, "tune 9")
    stranger = tmp_path / "stranger.wav"
    soundfile.write(stranger, np.sin(np.arange(6 * RATE) / 30), RATE)
    with pytest.raises(InputError, match="is not in the vault"):
        find(vault, str(stranger))


def test_a_certificate_says_what_was_spent_where_and_verifies(vault: Vault, ledger: Ledger, key: IdentityKey) -> None:
    gone = vault.ids()[0]
    withdraw(gone, vault, ledger)
    data = certify(gone, ledger, member="Alto", key=key, delta=1e-5)
    said = verify_certificate(data, key.public)
    assert (said.member, said.recording, said.title, said.delta) == ("Alto", gone, None, "1e-05")
    assert float(said.epsilon) == pytest.approx(epsilon([Repeated(EVENTS[0].event, 3)], 1e-5))
    folk, jazz = said.federations
    assert [(each.round, each.state) for each in folk.rounds] == [(1, "committed"), (2, "committed")]
    assert [(each.round, each.state) for each in jazz.rounds] == [(3, "reserved")]
    assert float(folk.epsilon) == pytest.approx(epsilon([Repeated(EVENTS[0].event, 2)], 1e-5))
    assert (said.rows, said.ledger) == ledger.head
    assert said.joined <= said.withdrawn
    assert b"tune 0" not in data, "a signature's base64 has no spaces, so chance does not write the title"


def test_a_title_is_in_it_only_if_it_was_asked_for(vault: Vault, ledger: Ledger, key: IdentityKey) -> None:
    gone = vault.ids()[0]
    withdraw(gone, vault, ledger)
    data = certify(gone, ledger, member="Alto", key=key, delta=1e-6, title="Für Élise")
    assert verify_certificate(data, key.public).title == "Für Élise"


def test_an_altered_certificate_or_another_signer_is_refused(vault: Vault, ledger: Ledger, key: IdentityKey) -> None:
    gone = vault.ids()[0]
    withdraw(gone, vault, ledger)
    data = certify(gone, ledger, member="Alto", key=key, delta=1e-6)
    with pytest.raises(BadSignature):
        verify_certificate(data.replace(b'"Alto"', b'"Bass"'), key.public)
    with pytest.raises(BadSignature):
        verify_certificate(data, IdentityKey.generate().public)
    for broken in (b"", b"{}", data[:-1], data + b"\n", data.replace(b'"rows":', b'"lines":')):
        with pytest.raises(CorruptMessage):
            verify_certificate(broken, key.public)
    body = json.loads(data)["certificate"]
    body["signer"] = IdentityKey.generate().public.fingerprint
    import base64

    forged = canonical({"certificate": body, "signature": base64.b64encode(key.sign(canonical(body), DOMAIN)).decode()})
    with pytest.raises(BadSignature, match="names"):
        verify_certificate(forged, key.public)


def test_what_the_vault_never_held_is_not_withdrawn(vault: Vault, ledger: Ledger) -> None:
    with pytest.raises(VaultError, match="no recording"):
        withdraw("0" * 64, vault, ledger)
    assert not ledger.withdrawn


def test_a_certificate_replaces_none_but_its_own(
    vault: Vault, ledger: Ledger, key: IdentityKey, tmp_path: Path
) -> None:
    one, two = vault.ids()
    path = tmp_path / "certificate.json"
    for gone in (one, two):
        withdraw(gone, vault, ledger)
    for _ in range(2):
        keep_certificate(path, certify(one, ledger, member="Alto", key=key, delta=1e-6))
    with pytest.raises(ConfigError, match="not overwritten"):
        keep_certificate(path, certify(two, ledger, member="Alto", key=key, delta=1e-6))
    with pytest.raises(ConfigError, match="no folder"):
        keep_certificate(tmp_path / "no" / "certificate", path.read_bytes())


def test_the_command_withdraws_once_and_may_be_repeated(
    vault: Vault, ledger: Ledger, key: IdentityKey, tmp_path: Path, audio: Path
) -> None:
    first, second = vault.ids()
    vault.close()
    ledger.close()
    key.save(tmp_path / "alto.pem")
    command = ["--vault", str(tmp_path / "vault"), "--identity", str(tmp_path / "alto.pem"), "--member", "Alto"]
    runner = CliRunner()
    done = runner.invoke(app, ["withdraw", str(audio), *command, "--title"], catch_exceptions=False)
    assert done.exit_code == 0
    assert first in done.stdout
    assert "in 3 rounds" in done.stdout
    path = tmp_path / "vault" / "certificates" / f"{first}.json"
    assert verify_certificate(path.read_bytes(), key.public).title == "tune 0"
    again = runner.invoke(app, ["withdraw", first[:10], *command], catch_exceptions=False)
    assert "Withdrawn already" in again.stdout
    with pytest.raises(InputError, match="without --title"):
        runner.invoke(app, ["withdraw", first[:10], *command, "--title"], catch_exceptions=False)
    wrong = shutil.copy(audio, tmp_path / "taken")
    with pytest.raises(ConfigError, match="not overwritten"):
        runner.invoke(app, ["withdraw", "tune 1", *command, "--certificate", str(wrong)], catch_exceptions=False)
    with Vault.open(tmp_path / "vault") as opened:
        assert opened.ids() == [second], "what cannot be certified is not withdrawn"
