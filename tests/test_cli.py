"""The command line's manners: help for all, one red line for what was foreseen, exit codes that mean something."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from partbook.cli import COMMANDS, main

pytestmark = pytest.mark.timeout(300)  # processes that import everything


def partbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "partbook.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_command() -> None:
    done = partbook("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^  {name} ", done.stdout, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = partbook(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    for arguments in (("sing",), ("demo", "--louder")):
        done = partbook(*arguments)
        assert done.returncode == 2
        assert "No such" in done.stderr


def test_a_foreseen_error_is_one_line_with_its_name_and_no_traceback(tmp_path: Path) -> None:
    done = partbook("release", "verify", str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.match(r"\w+: ", done.stderr)


def test_the_demo_never_writes_over_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["partbook", "demo", "--out", str(tmp_path), "--home", str(tmp_path / "home")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
