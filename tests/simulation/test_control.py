"""The control is music of nobody, always the same, and what it gains is taken off what a label gains."""

from __future__ import annotations

import pytest
from tunes import recording_of, tune

from partbook.coordinator.checkpoints import RoundRecord
from partbook.corpus.library import Library
from partbook.model.checkpoint import load_tokenizer
from partbook.simulation.collections import COLLECTIONS, CONTROL
from partbook.simulation.control import WORKS, Gain, Size, control_report, control_works
from partbook.simulation.labels import played


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.open()


def test_no_tune_of_the_control_is_a_labels_or_the_bases(library: Library) -> None:
    works = control_works(library)
    families = {work.key: work.family for work in library.pool(CONTROL.name, "heldout")}
    assert len({families[work.key] for work in works}) == len(works) == WORKS
    others = {
        work.family for name in (*(c.name for c in COLLECTIONS), CONTROL.name) for pool in ("base", "label")
        for work in library.pool(name, pool)
    }  # fmt: skip
    assert not others & {families[work.key] for work in works}


def test_fewer_works_are_the_first_of_more_and_can_be_played(library: Library) -> None:
    works = control_works(library)
    assert control_works(library, 3) == works[:3]
    assert control_works(library) == works
    score = works[0].score()
    assert [track.program for track in score.tracks] == [CONTROL.program]
    assert played(score, works[0].key, 20.0) is not None


def test_nats_a_note_are_nats_a_token_over_the_notes_that_tokens_spell() -> None:
    tokenizer = load_tokenizer()
    recordings = [recording_of(tune(seed), tokenizer, seed) for seed in (1, 2)]
    size = Size.of(recordings, tokenizer)
    assert size.recordings == 2
    assert size.tokens == sum(len(one.ids) + 1 for one in recordings)
    assert size.notes == sum(len(one.notes) for one in recordings)
    assert size.per_note(2.0) == pytest.approx(2.0 * size.tokens / size.notes)


def test_style_is_what_a_label_gains_beyond_the_control() -> None:
    history = (RoundRecord(0, "00", validation={"Control": 3.0}), RoundRecord(1, "11", validation={"Control": 2.75}))
    control = control_report(Size(8, 300, 100), history, 2.5)
    assert (control.nll_before, control.nll_after, control.nll_without_noise) == (3.0, 2.75, 2.5)
    assert (control.note_before, control.note_after, control.note_without_noise) == (9.0, 8.25, 7.5)
    gain = Gain.of(4.0, 3.5, control.nll_before - control.nll_after)
    assert (gain.gain, gain.hand, gain.style) == (0.5, 0.25, 0.25)
    assert control_report(Size(8, 300, 100), history, None).note_without_noise is None
