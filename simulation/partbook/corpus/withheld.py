"""Four styles that the base model never sees, so that a federation has something to learn.

    airdsAirs            Aird's airs, 1778 to 1801
    trecento             polyphony of the fourteenth century
    openscore-melodies   French mélodies of the folder `openscore-lieder`
    openscore-songs      English songs of the same folder, which keeps the others (most of them German)

Which of the folder's files are of which style is in `withheld.json`: OpenScore's numbers, with which the files' names
end (`…__lc6994174.mid`). Where the folder is not there, neither are its two styles.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

AIRS: Final = "airdsAirs"
TRECENTO: Final = "trecento"
MELODIES: Final = "openscore-melodies"
SONGS: Final = "openscore-songs"
STYLES: Final = (AIRS, TRECENTO, MELODIES, SONGS)
TABLE: Final = Path(__file__).with_name("withheld.json")
_NUMBER: Final = re.compile(r"lc(\d+)$")


def collection_of(folder: str, stem: str) -> str:
    """The collection of a file: the folder's own, or one of the styles that are taken out of it.

    Args:
        folder: the folder's name, such as `openscore-lieder`.
        stem: the file's name without suffix.
    """
    number = _NUMBER.search(stem)
    return _styles().get(folder, {}).get(int(number[1]), folder) if number else folder


def taken_out_of(folder: str) -> tuple[str, ...]:
    """The styles that are taken out of a folder of this name."""
    return tuple(dict.fromkeys(_styles().get(folder, {}).values()))


@functools.lru_cache
def _styles() -> Mapping[str, Mapping[int, str]]:
    """By folder, OpenScore's number → style."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        folder: {number: style for style, numbers in styles.items() for number in numbers}
        for folder, styles in table.items()
    }
