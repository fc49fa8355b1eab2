"""The page that listeners open: one HTML file with its sounds, style and script, which may fetch nothing.

It knows clips by their place alone. Its content security policy lets only its own script and style run, named by
their hashes, and lets sound come only out of the page itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from partbook.evaluation.listening.trials import ANSWERS, Kind, Trial

_ASSETS: Final = Path(__file__).parent / "assets"


@dataclass(frozen=True, slots=True)
class Wording:
    """What the page says: its title, the question, and the two answers in words."""

    name: str
    question: str
    choices: tuple[str, str]


def kit_id(kind: Kind, wording: Wording, seconds: float, hear: float, sounds: Sequence[bytes]) -> str:
    """Identifies a page by all it holds; it says nothing that the page does not."""
    digest = hashlib.sha256(
        json.dumps(
            [kind, wording.name, wording.question, *wording.choices, seconds, hear, len(sounds)], ensure_ascii=False
        ).encode()
    )
    for sound in sounds:
        digest.update(hashlib.sha256(sound).digest())
    return digest.hexdigest()[:12]


def page(
    kit: str,
    kind: Kind,
    wording: Wording,
    seconds: float,
    hear: float,
    trials: Sequence[Trial],
    sounds: Sequence[bytes],
) -> str:
    """The page as HTML.

    Args:
        kit: see `kit_id`.
        kind: of the trials.
        wording: what it says.
        seconds: length of every clip.
        hear: seconds of a clip that must be heard before an answer.
        trials: in order; only numbers and ids of their clips are used.
        sounds: an MP3 for each clip of each trial, in order.
    """
    following = iter(sounds)
    data = {
        "kit": kit,
        "kind": kind,
        "question": wording.question,
        "choices": wording.choices,
        "answers": ANSWERS[kind],
        "seconds": seconds,
        "hear": hear,
        "trials": [
            {
                "number": trial.number,
                "clips": [
                    {"id": clip.id, "audio": base64.b64encode(next(following)).decode("ascii")} for clip in trial.clips
                ],
            }
            for trial in trials
        ],
    }
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; media-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": escape(wording.name),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    }
    text = _asset("page.html")
    pieces = text.split("@")
    # Every second piece is a name: put in all at once, so that what is put in is never looked through.
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
