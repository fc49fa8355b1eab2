from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from walks import tune

from partbook.errors import GenerationError
from partbook.generator.composing import (
    Bar,
    Generator,
    Piece,
    PieceRequest,
    PlayedNote,
    compose,
    played_notes,
)
from partbook.generator.prompts import score_of_midi
from partbook.music.quantised import quantised

REQUEST = PieceRequest(seed=5, seconds=6.0, max_tokens=600)


def piece_of(generator: Generator, request: PieceRequest) -> tuple[list[Bar], Piece]:
    *bars, piece = compose(generator, request)
    assert isinstance(piece, Piece)
    assert all(isinstance(bar, Bar) for bar in bars)
    return bars, piece


def test_the_bars_add_up_to_the_piece(generator):
    bars, piece = piece_of(generator, REQUEST)
    streamed = sorted(note for bar in bars for note in bar.notes)
    written = sorted(played_notes(piece.score).elements())
    assert len(bars) >= 3
    assert streamed
    assert [(n.pitch, n.program, n.velocity) for n in streamed] == [(n.pitch, n.program, n.velocity) for n in written]
    np.testing.assert_allclose([n.onset for n in streamed], [n.onset for n in written], atol=0.01)
    for before, after in pairwise(bars):
        assert before.end == after.start
        assert after.number == before.number + 1
    for bar in bars:
        assert all(bar.start - 0.01 <= n.onset < bar.end + 0.01 for n in bar.notes)


def test_the_piece_ends_at_the_first_bar_line_at_or_after_the_wanted_seconds(generator):
    bars, piece = piece_of(generator, REQUEST)
    assert bars[-2].end < REQUEST.seconds <= piece.seconds == bars[-1].end


def test_one_seed_gives_one_midi_file_and_another_seed_another(generator):
    first, again = piece_of(generator, REQUEST)[1], piece_of(generator, REQUEST)[1]
    other = piece_of(generator, replace(REQUEST, seed=6))[1]
    assert first.midi == again.midi
    assert first.midi_sha256 == again.midi_sha256 != other.midi_sha256


def test_a_continuation_begins_with_the_prompt_and_says_where_it_goes_on(generator):
    prompt = tune(99, bars=3)
    bars, piece = piece_of(generator, replace(REQUEST, prompt=prompt))
    assert bars[0].given
    assert not any(bar.given for bar in bars[1:])
    assert piece.continues_at == bars[0].end == pytest.approx(6.0, rel=0.02)  # tempi are kept on a grid
    given = sorted(played_notes(prompt).elements())
    assert [n.pitch for n in bars[0].notes] == [n.pitch for n in given]
    np.testing.assert_allclose([n.onset for n in bars[0].notes], [n.onset for n in given], rtol=0.02, atol=0.01)
    assert piece.seconds >= piece.continues_at + REQUEST.seconds
    assert any(n.onset >= piece.continues_at - 0.01 for n in played_notes(piece.score))


def test_a_prompt_that_was_heard_goes_on_in_that_hand(generator):
    tokenizer, prompt = generator.tokenizer, tune(99, bars=3)
    heard = tokenizer.names(tokenizer.write(quantised(prompt), PieceRequest(5, hand="heard").header()))
    assert heard[0] == "Hand_heard"
    assert sum(name.startswith("Level_") for name in heard) == 3
    pieces = [piece_of(generator, replace(REQUEST, prompt=prompt, hand=hand))[1] for hand in ("score", "heard")]
    assert pieces[0].midi != pieces[1].midi
    with pytest.raises(GenerationError, match="hand is 'left'"):
        PieceRequest(5, hand="left")


def test_a_memory_changes_what_is_written(generator):
    heard = np.random.default_rng(0).uniform(-1, 1, (688, 128)).astype(np.float16)
    primed = piece_of(generator, replace(REQUEST, memory=heard))[1]
    assert primed.midi == piece_of(generator, replace(REQUEST, memory=heard))[1].midi
    assert primed.midi != piece_of(generator, REQUEST)[1].midi


def test_the_midi_names_the_release_and_the_seed(generator, release):
    _, piece = piece_of(generator, REQUEST)
    assert release.id.encode() in piece.midi
    assert b"seed 5" in piece.midi


def test_max_tokens_ends_a_piece_early(generator):
    _, piece = piece_of(generator, replace(REQUEST, max_tokens=12))
    assert piece.tokens == 12
    assert piece.seconds < REQUEST.seconds


def test_a_cancelled_piece_stops_at_the_next_token(generator):
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 10

    assert not any(isinstance(event, Piece) for event in compose(generator, REQUEST, cancelled=cancelled))
    assert asked == 11


def test_every_control_changes_what_is_written(generator):
    plain = replace(REQUEST, temperature=2.0)  # the generator knows its tunes by heart
    pieces = {
        name: list(compose(generator, replace(plain, **{name: value})))[-1].midi
        for name, value in [("top_k", 1), ("min_p", 0.9), ("repetition_penalty", 3.0), ("beam_width", 2), ("seed", 5)]
    }
    same = pieces.pop("seed")
    assert same == list(compose(generator, plain))[-1].midi
    assert same not in pieces.values()


def test_beams_write_bars_that_add_up_to_a_piece_which_no_seed_changes(generator):
    *bars, piece = compose(generator, replace(REQUEST, beam_width=3))
    assert [bar.number for bar in bars] == list(range(len(bars)))
    assert piece.seconds == bars[-1].end
    assert sum(len(bar.notes) for bar in bars) == played_notes(piece.score).total()
    other = list(compose(generator, replace(REQUEST, beam_width=3, seed=6)))[-1]
    assert played_notes(other.score) == played_notes(piece.score)


def test_a_cancelled_search_ends_without_a_piece(generator):
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 10

    request = replace(REQUEST, beam_width=3)
    assert not any(isinstance(event, Piece) for event in compose(generator, request, cancelled=cancelled))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**53),
        ("seconds", 0.0),
        ("seconds", float("nan")),
        ("seconds", 601.0),
        ("max_tokens", 0),
        ("max_tokens", 16_385),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.5),
        ("repetition_window", 0),
        ("beam_width", -1),
        ("beam_width", 17),
    ],
)
def test_a_request_out_of_range_is_refused_by_its_fields_name(field, value):
    with pytest.raises(GenerationError, match=field):
        replace(REQUEST, **{field: value})


def test_the_midi_parser_reads_back_what_was_written(generator):
    score = tune(3)
    found, expected = played_notes(score_of_midi(score.dumps_midi())), played_notes(score)
    assert [n.pitch for n in sorted(found.elements())] == [n.pitch for n in sorted(expected.elements())]
    assert max(found) == PlayedNote(
        *(getattr(max(expected), f) for f in ("onset", "pitch", "program", "duration", "velocity"))
    )
