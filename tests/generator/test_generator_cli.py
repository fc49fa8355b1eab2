from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys

import pytest
import soundfile
from walks import ENVIRONMENT, PARTBOOK, tune

from partbook.cli import main
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.model.checkpoint import BASE

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

SHORT = ("--seconds", "4", "--max-tokens", "400", "--seed", "5")


@pytest.fixture
def partbook(capsys, monkeypatch):
    """The command line, run in this process (what starts, loads and stops is tested in real ones below)."""

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["partbook", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        out, errors = capsys.readouterr()
        assert ended.value.code == code, errors
        return out, errors

    return run


@pytest.mark.parametrize("command", [["release"], ["release", "pack"], ["serve"], ["generate"]])
def test_help_loads_nothing_heavy(command):
    probe = (
        "import sys\nfrom partbook.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'grpc', 'librosa', 'numpy', 'symusic', 'flwr'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", probe, *command, "--help"]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_pack_makes_a_key_signs_and_verify_agrees(partbook, base_folder, adapter_file, tmp_path):
    about, key, out = tmp_path / "about.json", tmp_path / "id.pem", tmp_path / "release"
    about.write_text(json.dumps({"locks": {"masks": True, "noise": False}, "sources": ["tunes"]}))
    packing = (
        "release",
        "pack",
        "--base",
        base_folder,
        "--adapter",
        adapter_file,
        "--key",
        key,
        "--out",
        out,
    )
    packed = json.loads(partbook(*packing, "--new-key", "--name", "First", "--about", about, "--json")[0])
    public = IdentityKey.load(key).public
    assert packed["signer"] == public.fingerprint
    assert packed["about"]["name"] == "First"
    assert packed["about"]["sources"] == ["tunes"]

    signer = tmp_path / "public.pem"
    signer.write_bytes((out / "signer.pem").read_bytes())
    assert PublicIdentity.load(signer) == public
    shown = partbook("release", "verify", out, "--signer", signer)[0]
    for expected in (packed["release"], public.fingerprint, "masks on, noise off", "the signer you expect"):
        assert expected in shown
    assert "compare this fingerprint" in partbook("release", "verify", out)[0]

    again = partbook(*packing, code=2)  # the folder is there already, and stays
    assert "never overwritten" in again[1]
    blob = (out / "release.json").read_bytes()
    (out / "release.json").write_bytes(blob.replace(b"true", b"null"))
    assert "release.json was altered" in partbook("release", "verify", out, code=2)[1]
    told = json.loads(partbook("release", "verify", out, "--json", code=2)[0])
    assert (told["verified"], told["error"]) == (False, "AlteredFile")


def test_an_encrypted_key_needs_its_passphrase(partbook, base_folder, adapter_file, tmp_path, monkeypatch):
    key = tmp_path / "id.pem"
    IdentityKey.generate().save(key, b"open sesame")
    packing = (
        "release",
        "pack",
        "--base",
        base_folder,
        "--adapter",
        adapter_file,
        "--key",
        key,
        "--out",
        tmp_path / "r",
    )
    assert "PARTBOOK_KEY_PASSPHRASE" in partbook(*packing, code=2)[1]
    monkeypatch.setenv("PARTBOOK_KEY_PASSPHRASE", "wrong")
    assert "does not open" in partbook(*packing, code=2)[1]
    monkeypatch.setenv("PARTBOOK_KEY_PASSPHRASE", "open sesame")
    partbook(*packing)


def test_generate_writes_midi_wav_and_provenance_that_agree(partbook, release, tmp_path):
    told = json.loads(
        partbook("generate", "--release", release.path, "--out", tmp_path, *SHORT, "--name", "a b", "--json")[0]
    )
    provenance = json.loads((tmp_path / "a b.json").read_text())
    assert provenance["release"] == release.id
    assert provenance["signer"] == release.signer.fingerprint
    assert (provenance["seed"], told["seed"]) == (5, 5)
    assert provenance["sampling"] == {"temperature": 1.0, "top_p": 0.98, "max_tokens": 400, "seconds": 4.0}
    for name in ("a b.mid", "a b.wav"):
        assert provenance["sha256"][name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    sound, rate = soundfile.read(tmp_path / "a b.wav")
    assert rate == 44_100
    assert len(sound) / rate > 3.5
    assert 0.1 < abs(sound).max() < 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.json", "a b.mid", "a b.wav"]


def test_the_shipped_base_writes_without_a_release(partbook, tmp_path):
    partbook("generate", "--base", "--bars", "2", "--genre", "dance", "--seed", "5", "--out", tmp_path, "--name", "air")
    provenance = json.loads((tmp_path / "air.json").read_text())
    weights = json.loads((BASE / "manifest.json").read_text())["files"]["model.safetensors"]
    assert provenance["release"] == f"base-{weights[:12]}"
    assert provenance["asked"] == {"bars": 2, "genre": "dance"}
    assert "signer" not in provenance
    assert "server" not in provenance


def test_controls_that_are_switched_on_are_recorded_with_the_piece(partbook, release, tmp_path):
    here = ("generate", "--release", release.path, "--out", tmp_path, *SHORT)
    partbook(*here, "--name", "drawn", "--top-k", 30, "--min-p", 0.02, "--repetition-penalty", 1.2)
    partbook(*here, "--name", "searched", "--beam", 3)
    plain = {"temperature": 1.0, "top_p": 0.98, "max_tokens": 400, "seconds": 4.0}
    drawn, searched = (
        json.loads((tmp_path / f"{name}.json").read_text())["sampling"] for name in ("drawn", "searched")
    )
    assert drawn == plain | {"top_k": 30, "min_p": 0.02, "repetition_penalty": 1.2, "repetition_window": 64}
    assert searched == plain | {"beam_width": 3}


def test_generate_through_a_server_writes_the_same_music(partbook, release, server, tmp_path):
    prompt = tmp_path / "opening.mid"
    prompt.write_bytes(tune(4, bars=2).dumps_midi())
    for name, who in (("here", ("--release", release.path)), ("there", ("--server", server["address"]))):
        partbook("generate", *who, "--out", tmp_path, *SHORT, "--continue", prompt, "--name", name)
    for ending in (".mid", ".wav"):
        assert (tmp_path / f"here{ending}").read_bytes() == (tmp_path / f"there{ending}").read_bytes()
    here, there = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "there"))
    assert here["release"] == there["release"]
    assert here["continues_at"] == there["continues_at"] > 3.5
    assert here["continues"] == hashlib.sha256(prompt.read_bytes()).hexdigest()
    assert there["server"] == server["address"]


def test_generating_from_a_release_loads_no_grpc(release, tmp_path):
    probe = (
        "import sys\nfrom partbook.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        "print('grpc' in sys.modules, 'torch' in sys.modules)"
    )
    arguments = ["generate", "--release", str(release.path), "--out", str(tmp_path), *SHORT]
    command = [sys.executable, "-c", probe, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "False True"
    assert (tmp_path / "piece-5.mid").exists()


def test_a_recording_primes_a_piece_here_and_there(partbook, release, server, tmp_path):
    from partbook.music.rendering import render, write_wav

    clip = tmp_path / "clip.wav"
    write_wav(clip, render(tune(8, bars=3)))
    for name, who in (("here", ("--release", release.path)), ("there", ("--server", server["address"]))):
        partbook("generate", *who, "--out", tmp_path, *SHORT, "--prime", clip, "--name", name)
    assert (tmp_path / "here.mid").read_bytes() == (tmp_path / "there.mid").read_bytes()
    provenance = json.loads((tmp_path / "here.json").read_text())
    assert provenance["primed_by"] == hashlib.sha256(clip.read_bytes()).hexdigest()


def test_mistakes_end_in_one_clear_line_and_write_nothing(partbook, release, tmp_path):
    (tmp_path / "taken.mid").write_text("mine")
    (tmp_path / "text.mid").write_text("no midi")
    (tmp_path / "text.wav").write_text("no audio")
    here = ("--release", release.path, "--out", tmp_path)
    for arguments, reason in [
        (("--out", tmp_path), "give one of --release"),
        ((*here, "--server", "127.0.0.1:1"), "give one of --release"),
        ((*here, "--base"), "give one of --release"),
        (("--base", "--signer", release.path / "signer.pem", "--out", tmp_path), "give it with --release"),
        (("--server", "127.0.0.1:1", "--out", tmp_path, *SHORT), "No generator answers at 127.0.0.1:1"),
        ((*here, "--name", "taken"), "exists already"),
        ((*here, "--name", "../x"), "not a file name"),
        ((*here, "--seconds", "0"), "seconds is 0.0"),
        ((*here, "--seed", "-1"), "seed is -1"),
        ((*here, "--beam", "17"), "beam_width is 17"),
        ((*here, "--continue", tmp_path / "text.mid"), "not a standard MIDI file"),
        ((*here, "--continue", tmp_path / "none.mid"), "cannot be read"),
        ((*here, "--prime", tmp_path / "text.wav"), "text.wav"),
        (("--release", tmp_path, "--out", tmp_path), "manifest.json cannot be read"),
    ]:
        assert reason in partbook("generate", *arguments, code=2)[1]
    assert (tmp_path / "taken.mid").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.mid", "text.mid", "text.wav"]


def test_ctrl_c_while_writing_leaves_nothing_behind(release, tmp_path):
    arguments = (
        "generate",
        "--release",
        release.path,
        "--out",
        tmp_path,
        "--seconds",
        "600",
        "--max-tokens",
        "16384",
    )
    process = subprocess.Popen(
        [*PARTBOOK, *map(str, arguments)],
        env={**ENVIRONMENT, "FORCE_COLOR": "1"},  # shows progress although nobody watches
        stderr=subprocess.PIPE,
    )
    shown = b""
    while b"Writing" not in shown:
        chunk = os.read(process.stderr.fileno(), 4096)
        assert chunk, shown
        shown += chunk
    process.send_signal(signal.SIGINT)
    shown += process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert not list(tmp_path.iterdir())
