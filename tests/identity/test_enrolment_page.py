"""docs/enrolment.md, followed to the letter: the commands on it are run, in the order in which they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from typer.testing import CliRunner

from partbook.cli import _partbook
from partbook.identity.cli import keys, roster
from partbook.identity.federation_cli import app
from partbook.identity.passphrase import PASSPHRASE_VARIABLE
from partbook.identity.roster import Roster

PAGE = Path(__file__).parents[2] / "docs" / "enrolment.md"
GROUPS = {"keys": keys, "roster": roster, "federation": app}


def commands() -> list[list[str]]:
    """What stands in the page's shell blocks, word by word."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def ours() -> list[list[str]]:
    return [words[1:] for words in commands() if words[0] == "partbook" and words[1] in GROUPS]


def run(words: list[str]) -> str:
    done = CliRunner().invoke(GROUPS[words[0]], words[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def taken(name: str) -> list[str]:
    """The first command on the page that has not been run and begins so."""
    found = next(words for words in _left if words[: len(name.split())] == name.split())
    _left.remove(found)
    return found


_left: list[list[str]] = []


def sign_all(path: str, again: dict[str, str]) -> None:
    for name in Roster.read(Path(path), verify=False).parties:
        folder = again.get(name, name.lower().replace(" ", "-"))
        key = f"keys/{name}.pem" if name == "coordinator" else f"{folder}/keys/{name}.pem"
        run(["roster", "sign", path, "--name", name, "--key", key])


def test_the_page_can_be_followed_from_nothing_to_a_second_roster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    _left[:] = ours()
    run(taken("keys new"))
    run(taken("federation invite"))
    join = taken("federation join")
    for letter in "ABC":
        run([word.replace("Label A", f"Label {letter}").replace("label-a", f"label-{letter.lower()}") for word in join])
        shutil.copy(f"label-{letter.lower()}/Label {letter}.public.toml", ".")
    run(taken("federation join"))
    for ending in ("public.toml", "seal.public"):
        shutil.copy(f"notary/Notary.{ending}", ".")
    run(taken("federation propose"))
    run(taken("federation show"))
    signing, digits = taken("roster sign"), Roster.read(Path("roster.toml"), verify=False).fingerprint
    run([digits if word.startswith("12345") else word for word in signing])
    sign_all("roster.toml", {})
    run(taken("roster verify"))
    run(taken("federation join"))
    shutil.copy("label-b-2/Label B.public.toml", ".")
    run(taken("federation propose"))
    sign_all("roster.v2.toml", {"Label B": "label-b-2"})
    run(["roster", "verify", "roster.v2.toml", "--previous", "roster.toml"])
    Path("roster.v2.toml").unlink()
    run([word.replace("Label A", "Label D").replace("label-a", "label-d") for word in join])
    shutil.copy("label-d/Label D.public.toml", ".")
    run(taken("keys seal"))
    leaving, coming = taken("federation propose"), taken("federation propose")
    run(["federation", "propose", *(f"--roster roster.toml --seal-key {'0' * 64} --add".split()),
         "Label D.public.toml", "--out", "four.toml"])  # fmt: skip
    sign_all("four.toml", {})
    run([word.replace("roster.toml", "four.toml") for word in leaving])
    Path("roster.v2.toml").unlink()
    run(coming)
    run(["federation", "show", "roster.v2.toml", "--previous", "roster.toml"])
    assert _left == []


@pytest.mark.parametrize(
    "words", [words for words in commands() if words[1:2] and words[1] not in GROUPS], ids=" ".join
)
def test_commands_of_other_pages_exist(words: list[str]) -> None:
    command: click.Command | None = _partbook
    with click.Context(_partbook) as context:
        for word in words[1:]:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(context, word)
            assert command is not None, " ".join(words)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
