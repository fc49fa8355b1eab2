"""From a training's state to a base: averaged weights in half precision, tokeniser, manifest and model card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from partbook.corpus.watching import Watcher
from partbook.errors import ConfigError
from partbook.model.checkpoint import base_manifest, load_model, save_base
from partbook.model.transformer import parameter_count
from partbook.music.tokens import Tokenizer
from partbook.pretraining.account import CARD, Account, card
from partbook.pretraining.measuring import held, nats_a_note
from partbook.pretraining.mixture import Piece
from partbook.training.run import kept

TOKENIZER: Final = "tokenizer.json"
LARGEST: Final = 16_000_000  # bytes of a small base's weights, which live in the repository


def export(state: Path, out: Path, heldout: Sequence[Piece], watch: Watcher) -> dict[str, Any]:
    """Write a training's last save as a base; it may go on meanwhile. Returns what the manifest says about it.

    Args:
        state: the training's folder.
        out: the base's; made if missing.
        heldout: pieces that it is measured by, as it is released: in half precision.
        watch: told each.

    Raises:
        ConfigError: the folder holds no training of a base, or a small one came out too large.
        AlteredFile: its state is torn or was altered.
    """
    account, found = Account.load(state), kept(state)
    if account is None or found is None or not (state / TOKENIZER).is_file():
        raise ConfigError(f"{state} holds no training of a base; name the folder of `partbook base train --state`.")
    tokenizer = Tokenizer.load(state / TOKENIZER)

    def about(figures: dict[str, float], works: dict[str, int]) -> dict[str, Any]:
        return account.manifest(
            recipe=found.recipe, step=found.step, tokens=found.tokens, parameters=parameter_count(found.model),
            figures=figures, works=works,
        )  # fmt: skip

    save_base(out, found.model, tokenizer, about({}, {}))
    size = (out / "model.safetensors").stat().st_size
    if account.size == "small" and size > LARGEST:
        raise ConfigError(f"{out} has {size:,} bytes of weights, more than {LARGEST:,}; ask for a smaller vocabulary.")
    released = load_model(out)
    figures: dict[str, float] = {}
    counted: Counter[str] = Counter()
    by_name: dict[str, list[Piece]] = {}
    for piece in heldout:
        by_name.setdefault(f"{piece.collection}/{piece.hand}", []).append(piece)
    watch.stage("Measuring the base", len(by_name))
    for name, pieces in by_name.items():
        works = held(pieces, tokenizer)
        figures |= nats_a_note(released, tokenizer, works)
        counted[name] += len(works)
        watch.step(name)
    said = about(figures, dict(counted))
    save_base(out, found.model, tokenizer, said)
    text = card(base_manifest(out), len(tokenizer), found.model.config.context)
    (out / CARD).write_text(text, encoding="utf-8")
    return said
