"""Holds the command lines that files under deploy/ name against the command line there is."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import yaml

from partbook.cli import COMMANDS, _partbook

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "deploy.md"
_NAMED = re.compile(rf"(?<![\w/.-])(?:/opt/partbook/bin/)?partbook (({'|'.join(COMMANDS)})\b[^`\n;&|)]*)")


def files(*suffixes: str) -> list[Path]:
    """Every file under deploy/, or those that end in one of `suffixes`."""
    found = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in found if not suffixes or path.suffix in suffixes]


def parse(words: list[str], *, mentioned: bool = False) -> click.Context:
    """Parse `partbook WORDS` down to its last option, without running it.

    A command that is only `mentioned`, with nothing after its name, need not be complete.
    """
    context = click.Context(_partbook, info_name="partbook")
    command: click.Command = _partbook
    words = [re.sub(r"\{\{.*?\}\}|[$…]", "x", word) for word in words]
    while isinstance(command, click.Group):
        if words == ["--help"] or (mentioned and not words):
            return context
        assert words, f"{context.command_path} wants a sub-command"
        found = command.get_command(context, words[0])
        assert found is not None, f"`{context.command_path} {words[0]}` does not exist"
        command = found
        context = click.Context(command, parent=context, info_name=words.pop(0))
    if "--help" in words or (mentioned and not words):
        return context
    return command.make_context(context.info_name or "", words, parent=context.parent)


def named_in(text: str) -> list[list[str]]:
    """The `partbook …` command lines that a text names: in backticks, in shell lines, in comments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = []
    for match in _NAMED.finditer(joined):
        line = re.split(r"\s{2,}|\s#|\s--\s|\.\s|\.$|,\s| says | writes ", match.group(1))[0].strip().rstrip('".,:')
        found.append(shlex.split(line.replace("'", "")))
    return found


def lists_in(document: Any) -> list[list[str]]:
    """Every list of plain words in a parsed YAML or JSON document."""
    if isinstance(document, dict):
        return [words for value in document.values() for words in lists_in(value)]
    if isinstance(document, list):
        own = [document] if document and all(isinstance(item, str) for item in document) else []
        return own + [words for item in document for words in lists_in(item)]
    return []


def as_command(words: list[str]) -> list[str] | None:
    """What a container would hand to `partbook`, whose image has it for an entry point; None for another list."""
    words = words[1:] if words and words[0] in ("CMD", "CMD-SHELL") else words
    if words and words[0] == "partbook":
        return words[1:]
    # `node` alone is a name as well: of a list of secrets, say.
    return words if len(words) > 1 and words[0] in COMMANDS and not words[1].startswith("/") else None


def documents(path: Path) -> list[Any]:
    """A YAML or JSON file's documents."""
    if path.suffix == ".json":
        return [json.loads(path.read_text())]
    return list(yaml.safe_load_all(path.read_text()))
