"""What can be evaluated, by the word that names it.

`base`, a release's folder, a baseline's folder   models: they write pieces, and say how surprised they are by others'
a folder of MIDI or audio                          pieces as they are; audio is transcribed by a node's own ears
`human`, `shuffled`, `random`                      human works that no model has seen, their bars in random order, and
                                                   random notes as dense and wide as they: what the scale begins with
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from symusic.core import ScoreTick

from partbook.errors import InputError, ScoreError
from partbook.evaluation.reading import Reading, read
from partbook.evaluation.results import Kind
from partbook.model.checkpoint import BASE
from partbook.music.quantised import quantised
from partbook.music.tokens import Header, Tokenizer
from partbook.pretraining.pieces import GENRES
from partbook.study.human import Works

if TYPE_CHECKING:
    from partbook.evaluation.language_model import LanguageModel

HUMAN, SHUFFLED, RANDOM, BASE_MODEL = "human", "shuffled", "random", "base"
SCALE: Final = (HUMAN, SHUFFLED, RANDOM)
"""What every evaluation shows beside its subject, so that its numbers have a scale."""
MIDI_SUFFIXES: Final = (".mid", ".midi")
PROMPT_QUARTERS: Final = 16.0  # given of a held-out work when a piece is to go on in its style
_QUARTERS: Final = 64.0


@dataclass(frozen=True, slots=True)
class Named:
    """One thing to evaluate.

    Attributes:
        name: as it was given.
        title: as a table calls it.
        kind: what it is.
        about: one sentence.
        model: what writes and is surprised; None where there is none.
        folder: of the pieces; None where there is none.
    """

    name: str
    title: str
    kind: Kind
    about: str
    model: LanguageModel | None = None
    folder: Path | None = None


def named(name: str) -> Named:
    """What a word of the command line names; a folder that is called like a word is named by its path, as `./human`.

    Raises:
        InputError: it is neither a known word nor a folder with something to evaluate.
        ConfigError: a folder with a manifest holds no model that can be compared with the base.
        IntegrityError: a model's files are not what they should be.
    """
    if name == HUMAN:
        return Named(name, "Human works", "human", "Works of other families than the reference, and in no training.")
    if name == SHUFFLED:
        return Named(name, "Shuffled bars", "noise", "The same human works, the bars of each in random order.")
    if name == RANDOM:
        return Named(name, "Random notes", "noise", "Uniform notes as many, as wide and as long as the human works.")
    if name == BASE_MODEL:  # by its own folder: there may be another `base` where the command is given
        return Named(name, "Base model", "generator", "The shipped base model, writing freely.", _model(BASE))
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(
            f"{name} is no folder; give a release, a baseline, a folder of MIDI or audio, or one of "
            f"{BASE_MODEL}, {', '.join(SCALE)}."
        )
    if (folder / "manifest.json").exists():
        model = _model(folder)
        kind: Kind = "generator" if _is_generator(model) else "baseline"
        return Named(name, model.name, kind, f"The model in {folder}, writing freely.", model)
    if not _files(folder):
        raise InputError(f"{folder} holds neither a release, a baseline, MIDI nor audio; check the path.")
    return Named(name, folder.resolve().name, "folder", f"The files of {folder}.", folder=folder)


def _model(folder: Path) -> LanguageModel:
    from partbook.baselines.loading import load_language_model

    return load_language_model(folder.resolve())  # not by a name that a relative path may spell


def _is_generator(model: LanguageModel) -> bool:
    from partbook.evaluation.language_model import Transformer

    return isinstance(model, Transformer)


def to_go_on_from(works: Works, count: int) -> list[tuple[Reading, str]]:
    """`count` works or a few more, as many of each style as there are long ones for, and the style of each."""
    chosen: list[tuple[Reading, str]] = []
    styles = list(dict.fromkeys(works.styles))
    for style in styles:
        own = [piece for piece, s in zip(works.pieces, works.styles, strict=True) if s == style]
        long = [piece for piece in own if piece.quarters >= 2 * PROMPT_QUARTERS]
        chosen += [(piece, style) for piece in long[: -(-count // len(styles))]]
    return chosen


def written_after(
    model: LanguageModel, chosen: Sequence[tuple[Reading, str]], *, seed: int, on_piece: Callable[[int], None]
) -> tuple[list[Reading], list[str]]:
    """Pieces that go on from the opening of works, without what they were given, and the style of each.

    Continuations in which nothing sounds are left out.
    """
    given = [piece.opening(PROMPT_QUARTERS) for piece, _ in chosen]
    prompts = [
        model.tokenizer.write(quantised(opening.score()), Header(genre=GENRES.get(style)))
        for opening, (_, style) in zip(given, chosen, strict=True)
    ]
    seeds = [seed * 100_000 + 50_000 + number for number in range(len(chosen))]
    longest = max((opening.quarters for opening in given), default=0.0) + _QUARTERS / 2
    written = model.sample_many(seeds, longest, prompts, on_piece=on_piece)
    pieces, wanted = [], []
    for ids, opening, (source, style) in zip(written, given, chosen, strict=True):
        try:
            whole = read(model.tokenizer.decode(ids), source.title, source.work)
            pieces.append(whole.between(len(opening.bars) - 1, len(whole.bars) - 1))
        except ScoreError:
            continue
        wanted.append(style)
    return pieces, wanted


def of_folder(
    folder: Path, tokenizer_path: Path, *, on_file: Callable[[str], None], on_refusal: Callable[[str], None]
) -> list[Reading]:
    """The pieces in a folder: MIDI files as they are, audio as a node hears it. Each file is a work, by its path.

    Args:
        folder: searched through; hidden names are skipped.
        tokenizer_path: of the base, in whose grid a transcription is written.
        on_file: told each file.
        on_refusal: told why a file is left out.

    Raises:
        InputError: no file of it can be used.
    """
    pieces = []
    files = _files(folder)
    audio = [path for path in files if path.suffix.lower() not in MIDI_SUFFIXES]
    for path in files:
        if path in audio:
            continue
        try:
            pieces.append(read(ScoreTick.from_file(path), path.stem, str(path.resolve())))
        except ScoreError as error:
            on_refusal(f"{path.name}: {error}")
        except Exception as error:  # symusic's parser raises whatever its C++ threw
            on_refusal(f"{path.name} cannot be read as MIDI ({error}); export it again.")
        on_file(path.name)
    for path, score in _transcribed(audio, tokenizer_path, on_refusal):
        if score is not None:
            try:
                pieces.append(read(score, path.stem, str(path.resolve())))
            except ScoreError as error:
                on_refusal(f"{path.name}: {error}")
        on_file(path.name)
    if not pieces:
        raise InputError(f"{folder} holds no file that can be used; see what was said of each.")
    return pieces


def count_of(folder: Path) -> int:
    """How many files a folder has that may be pieces."""
    return len(_files(folder))


def _files(folder: Path) -> list[Path]:
    from partbook.vault.ingest import audio_files

    audio, others = audio_files([folder])
    return [*(path for path in others if path.suffix.lower() in MIDI_SUFFIXES), *audio]


def _transcribed(
    files: Sequence[Path], tokenizer_path: Path, on_refusal: Callable[[str], None]
) -> Iterator[tuple[Path, ScoreTick | None]]:
    if not files:
        return
    import hashlib
    from concurrent.futures.process import BrokenProcessPool

    from partbook.vault.ingest import Refusal, TokenizerFile, Workers

    tokenizer = Tokenizer.load(tokenizer_path)
    named_file = TokenizerFile(tokenizer_path, hashlib.sha256(tokenizer_path.read_bytes()).hexdigest())
    with Workers() as workers:
        waiting = [(path, workers.submit(path, named_file, 0)) for path in files]
        for path, future in waiting:
            try:
                heard = future.result()
            except BrokenProcessPool:  # a decoder crashed, on this file or on another
                heard = workers.alone(path, named_file, 0)
            if isinstance(heard, Refusal):
                on_refusal(heard.reason)
                yield path, None
            else:
                yield path, tokenizer.decode(heard.recording.ids)


def stable_seed(name: str, seed: int) -> int:
    """A seed of its own for each subject, the same on every machine."""
    return zlib.crc32(f"{seed}/{name}".encode())
