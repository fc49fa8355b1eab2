"""Sixty digits for two people to read to each other, and the comparison with what was heard.

Why digits, and why so many, stands at `Roster.fingerprint`, which is spelt the same way. They are taken of a hash under
a domain label, so those of an entry are never those of an invitation or a roster.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from partbook.errors import AlteredFile, ConfigError
from partbook.identity.canonical import Json, canonical

DIGITS: Final = 60
_GROUP: Final = 5


def spoken(domain: str, value: Json) -> str:
    """60 digits in 12 groups of five, out of SHA-256 of the domain label and the value's canonical form."""
    number = int(hashlib.sha256(domain.encode("ascii") + canonical(value)).hexdigest(), 16)
    digits = str(number % 10**DIGITS).zfill(DIGITS)
    return " ".join(digits[i : i + _GROUP] for i in range(0, DIGITS, _GROUP))


def in_two_lines(digits: str, margin: str = "  ") -> str:
    """Six groups a line, for the screen and for the breath."""
    groups = digits.split()
    half = len(groups) // 2
    return "\n".join(margin + " ".join(part) for part in (groups[:half], groups[half:]))


def compare(heard: str, shown: str, what: str) -> None:
    """Return if somebody read the same digits from their copy; spaces and dashes do not count.

    Args:
        heard: what they read.
        shown: the digits here.
        what: they are of, as messages name it: "the invitation".

    Raises:
        ConfigError: `heard` is not 60 digits.
        AlteredFile: they are others.
    """
    digits = re.sub(r"[\s-]", "", heard)
    if not re.fullmatch(rf"[0-9]{{{DIGITS}}}", digits):
        raise ConfigError(f"--fingerprint has to be {DIGITS} digits; spaces and dashes do not count.")
    if digits != shown.replace(" ", ""):
        raise AlteredFile(
            f"The fingerprint of {what} is another than the one read to you: you two hold different files. Go no "
            "further, and find out who sent which."
        )
