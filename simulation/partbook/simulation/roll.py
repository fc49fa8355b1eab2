"""`python -m partbook.simulation.roll PIECE.mid ROLL.png`: the piano roll of a MIDI file as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from partbook.generator.prompts import score_of_midi
from partbook.music.tokens import notes_of
from partbook.simulation.pictures import piano_roll


def draw(
    midi: Annotated[Path, typer.Argument(help="A standard MIDI file.")],
    picture: Annotated[Path, typer.Argument(help="The PNG to write.")],
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
    subtitle: Annotated[str, typer.Option(help="Below the title.")] = "",
) -> None:
    """Draw a MIDI file's notes, pitch over time, harder strokes darker."""
    piano_roll(notes_of(score_of_midi(midi.read_bytes())), picture, title=title or midi.stem, subtitle=subtitle)


if __name__ == "__main__":
    typer.run(draw)
