"""A MIDI file becomes a picture of its notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tunes import tune


def test_a_midi_file_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "air.mid").write_bytes(tune(1).dumps_midi())
    command = [sys.executable, "-m", "partbook.simulation.roll", "air.mid", "air.png", "--title", "An air"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "air.png").read_bytes().startswith(b"\x89PNG")
