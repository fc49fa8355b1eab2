"""Where a key's passphrase comes from: a file, else the environment, else whoever sits at the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import typer

from partbook.errors import UnusableKey

PASSPHRASE_VARIABLE: Final = "PARTBOOK_KEY_PASSPHRASE"  # noqa: S105 (its name, not one)


def given_passphrase(file: Path | None = None) -> bytes | None:
    """The passphrase in `file`, or else in the environment, or none.

    Raises:
        UnusableKey: the file is empty or cannot be read.
    """
    from partbook.identity.keyfiles import read_secret

    if file is not None:
        found = read_secret(file, "passphrase file").rstrip(b"\r\n")
        if not found:
            raise UnusableKey(f"The passphrase file {file} is empty; write the passphrase on its first line.")
        return found
    return os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None


def passphrase_of(path: Path, file: Path | None = None, *, remedy: str = f"set {PASSPHRASE_VARIABLE}") -> bytes | None:
    """What opens the key at `path`: nothing if it is not encrypted, else as given, else as typed.

    Raises:
        UnusableKey: it is encrypted, nothing was given, and nobody is at a terminal; the message names `remedy`.
    """
    try:
        with path.open("rb") as key:
            encrypted = b"ENCRYPTED" in key.read(64)
    except OSError:
        return None  # load says what is wrong with it
    if not encrypted:
        return None
    given = given_passphrase(file)
    if given is None:
        if not os.isatty(0):
            raise UnusableKey(f"The key {path} is encrypted and nobody is there to ask; {remedy}.")
        given = str(typer.prompt(f"Passphrase of {path}", hide_input=True, err=True)).encode()
    return given
