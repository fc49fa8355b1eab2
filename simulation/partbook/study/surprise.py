"""How surprised a model is by held-out works, as scores and as recordings, collection by collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from partbook.baselines.loading import learnt_from
from partbook.baselines.scoring import CollectionScore, heard_works, heldout_works, score_model, written_works
from partbook.errors import ConfigError
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.results import Hand, Surprise

if TYPE_CHECKING:
    from partbook.corpus.library import Library
    from partbook.evaluation.language_model import LanguageModel
    from partbook.music.recording import Recording
    from partbook.music.tokens import Tokenizer

MOST: Final = 24  # works of a collection: more narrow the intervals, and take longer to hear


class HeldOut:
    """Held-out works by collection and hand, read or heard once for all models."""

    def __init__(self, library: Library, tokenizer: Tokenizer, *, heard: bool, on_work: Callable[[str], None]) -> None:
        """The first `MOST` held-out works of every collection, as scores and, if asked for, as recordings.

        Recordings are made and transcribed where they are not kept from an earlier run.
        """
        self._works: dict[Hand, dict[str, list[Recording]]] = {"score": {}}
        for name in library.collections:
            self._works["score"][name] = written_works(library, heldout_works(library, name, MOST), tokenizer, on_work)
        if heard:
            self._works["heard"] = {
                name: heard_works(heldout_works(library, name, MOST), None, on_work) for name in library.collections
            }

    @staticmethod
    def refuse_known(library: Library, called: str) -> None:
        """Refuse a baseline that has learnt from works which it would be surprised by.

        Raises:
            ConfigError: it has: pools depend on the collections that are opened together.
        """
        works = {work.key for name in library.collections for work in heldout_works(library, name, MOST)}
        if known := sorted(learnt_from(called) & works):
            raise ConfigError(
                f"{called} has learnt from {len(known)} of the held-out works ({known[0]} is one): they were in a base "
                "pool when it was trained. Name the same --data as then, or train it again."
            )

    @staticmethod
    def total(library: Library, *, heard: bool) -> int:
        """How many works `on_work` will be told of."""
        return (1 + heard) * sum(min(MOST, len(library.pool(name, "heldout"))) for name in library.collections)

    def __len__(self) -> int:
        return sum(len(works) for hand in self._works.values() for works in hand.values())

    def surprise(self, model: LanguageModel, on_work: Callable[[str], None]) -> Mapping[str, Mapping[Hand, Surprise]]:
        """How surprised a model is, by collection and hand; `on_work` is told of each work."""
        found: dict[str, dict[Hand, Surprise]] = {}
        for hand, works in self._works.items():
            scored = score_model(model, {name: some for name, some in works.items() if some}, on_work)
            for name, score in scored.collections.items():
                found.setdefault(name, {})[hand] = _surprise(score, bound=scored.bound)
        return found


def _surprise(score: CollectionScore, *, bound: bool) -> Surprise:
    return Surprise(
        works=score.works,
        per_note=score.per_note,
        per_token=score.per_token,
        repeated=score.repeated or Estimate.nothing(),
        new=score.fresh or Estimate.nothing(),
        bound=bound,
    )
