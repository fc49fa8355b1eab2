"""Files of answers as listeners send them → who answered what. Spreadsheets may have been at them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from partbook.errors import InputError
from partbook.evaluation.listening.trials import ANSWERS, Key

COLUMNS: Final = ("kit", "session", "listener", "trial", "clips", "answer", "confidence", "seconds", "time")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        choice: one of the kind's `ANSWERS`.
        confidence: 1 to 5, or None.
        seconds: listened to each clip.
        time: when it was given, ISO 8601.
    """

    choice: str
    confidence: int | None
    seconds: tuple[float, ...]
    time: str


@dataclass(frozen=True, slots=True)
class Sitting:
    """One listener's answers, by number of trial; trials without an answer are not in it.

    Attributes:
        listener: as they call themselves; numbered where two sittings have one name.
        session: tells sittings apart.
        answers: by number of trial.
    """

    listener: str
    session: str
    answers: dict[int, Answer]


def read_answers(key: Key, paths: Sequence[Path]) -> tuple[tuple[Sitting, ...], tuple[str, ...]]:
    """Every sitting in the files, in order of appearance, and a warning for each thing that was passed over.

    Raises:
        InputError: a file cannot be read, is no file of answers, or answers another kit.
    """
    warnings: list[str] = []
    names: dict[str, str] = {}
    found: dict[str, dict[int, Answer]] = {}
    for path in paths:
        for line, row in _rows(path):
            if row["kit"] != key.kit:
                raise InputError(
                    f"{path}, line {line}, answers kit {row['kit'] or '(none)'}, and this key opens kit {key.kit}; "
                    "give the key.json that was made with the page this listener had."
                )
            session = row["session"] or f"{row['listener']} in {path}"
            names.setdefault(session, row["listener"] or "(no name)")
            answers = found.setdefault(session, {})
            where = f"{path}, line {line} ({names[session]})"
            number = int(row["trial"]) if row["trial"].isdecimal() and len(row["trial"]) < 7 else 0
            if not 1 <= number <= len(key.trials):
                warnings.append(f"{where}: the kit has no trial {row['trial'] or '(empty)'}; left out.")
                continue
            if (said := row["answer"].lower()) == "":
                continue
            if row["clips"].split() != [clip.id for clip in key.trials[number - 1].clips]:
                warnings.append(f"{where}: trial {number} has other clips than the kit's; left out.")
                continue
            if said not in ANSWERS[key.kind]:
                either = " or ".join(ANSWERS[key.kind])
                warnings.append(f"{where}: the answer {row['answer']!r} is not {either}; left out.")
                continue
            answer = Answer(said, _confidence(row["confidence"]), _seconds(row["seconds"]), row["time"])
            before = answers.get(number)
            if before is not None:
                kept = "the same twice" if before.choice == said else "two different answers; the later one counts"
                warnings.append(f"{where}: trial {number} is answered again, {kept}.")
                if before.time > answer.time:
                    continue
            answers[number] = answer
    return tuple(_named(found, names, warnings)), tuple(warnings)


def _named(found: dict[str, dict[int, Answer]], names: dict[str, str], warnings: list[str]) -> list[Sitting]:
    seen: dict[str, int] = {}
    sittings = []
    for session, answers in found.items():
        name = names[session]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] == 2:
            warnings.append(f"{name} sat more than once; if that is one person, give only one of the files.")
        sittings.append(Sitting(name if seen[name] == 1 else f"{name} ({seen[name]})", session, answers))
    return sittings


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; ask for the file as the page saved it.") from error
    head = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=head.count)  # spreadsheets of some countries write semicolons
    try:
        rows = list(csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is damaged ({error}); ask for the file as the page saved it.") from error
    names = [name.strip().lower() for name in rows[0]] if rows else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f"{path} is no file of answers (it has no column {', '.join(missing)}); give the CSV that the page saved."
        )
    places = {name: names.index(name) for name in COLUMNS}
    return [
        (line, {name: row[place].strip() if place < len(row) else "" for name, place in places.items()})
        for line, row in enumerate(rows[1:], 2)
        if any(cell.strip() for cell in row)
    ]


def _confidence(text: str) -> int | None:
    return int(text) if text in {"1", "2", "3", "4", "5"} else None


def _seconds(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part.replace(",", ".")) for part in text.split())
    except ValueError:
        return ()
