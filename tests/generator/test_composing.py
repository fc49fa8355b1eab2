from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from walks import tune

from partbook.errors import GenerationError
from partbook.generator.asking import controls_of, metre_of, seconds_of
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
from partbook.music.grammar import Grammar
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
    assert piece.continues_at == bars[0].end == pytest.approx(6.0)
    given = sorted(played_notes(prompt).elements())
    assert [n.pitch for n in bars[0].notes] == [n.pitch for n in given]
    np.testing.assert_allclose([n.onset for n in bars[0].notes], [n.onset for n in given], atol=0.001)
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
    plain = replace(REQUEST, temperature=2.0)  # the generator knows its tunes by heart
    primed = piece_of(generator, replace(plain, memory=heard))[1]
    assert primed.midi == piece_of(generator, replace(plain, memory=heard))[1].midi
    assert primed.midi != piece_of(generator, plain)[1].midi


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


@pytest.mark.parametrize("beams", [0, 2])
def test_a_piece_is_what_was_asked_for_and_ends_after_its_bars_at_the_latest(generator, beams):
    wanted = replace(
        REQUEST, seconds=600.0, temperature=2.0, bars=4, metre=(3, 4), tempo=97.0, program=40, key="G", genre="dance",
        density=2.0, polyphony=1.0, beam_width=beams,
    )  # fmt: skip
    bars, piece = piece_of(generator, wanted)
    assert 1 <= len(bars) <= 4
    assert {track.program for track in piece.score.tracks} == {40}
    first, tempo = piece.score.time_signatures[0], piece.score.tempos[0]
    assert (first.time, first.numerator, first.denominator) == (0, 3, 4)
    assert (tempo.time, tempo.qpm) == (0, pytest.approx(97.0, rel=1e-4))
    said = generator.tokenizer.names(wanted.asked())
    assert {"Hand_score", "Genre_dance", "Key_G", "Metre_3/4", "Density_4", "Polyphony_0", "Bars_4"} < set(said)
    assert controls_of(wanted) == {
        "bars": 4, "genre": "dance", "key": "G", "metre": "3/4", "tempo": 97.0, "program": 40, "density": 2.0,
        "polyphony": 1.0,
    }  # fmt: skip


def test_nothing_is_asked_of_a_plain_piece_but_that_it_be_written(generator):
    assert generator.tokenizer.names(REQUEST.asked()) == ["Hand_score"]
    assert controls_of(REQUEST) == {}


def test_bars_of_a_continuation_are_counted_behind_its_prompt(generator):
    prompt = tune(98, bars=3)
    for name, value in (("metre", (3, 4)), ("tempo", 90.0), ("program", 3)):
        with pytest.raises(GenerationError, match=f"{name} cannot be asked for with a prompt"):
            replace(REQUEST, prompt=prompt, **{name: value})
    bars, piece = piece_of(generator, replace(REQUEST, seconds=600.0, prompt=prompt, bars=2))
    assert len(quantised(piece.score)) <= 5
    assert sum(len(bar.notes) for bar in bars) == played_notes(piece.score).total()


def test_a_prompt_keeps_its_tempi_exactly_and_the_piece_goes_on_in_them(generator):
    prompt = tune(97, bars=2)
    prompt.tempos[0].qpm = 101.0
    _, piece = piece_of(generator, replace(REQUEST, prompt=prompt, max_tokens=60))
    assert piece.score.tempos[0].qpm == pytest.approx(101.0, rel=1e-4)
    assert piece.continues_at == pytest.approx(8 * 60 / 101.0, rel=1e-4)


def test_a_length_in_seconds_is_half_a_minute_unless_bars_are_given():
    assert [seconds_of(*given) for given in ((None, None), (None, 8), (5.0, 8))] == [30.0, 600.0, 5.0]
    assert metre_of("6/8") == (6, 8)
    assert metre_of(None) is None
    for wrong in ("6", "six/8", "6/8/2", "-3/4"):
        with pytest.raises(GenerationError, match="metre"):
            metre_of(wrong)


def test_every_piece_is_as_the_grammar_has_it(generator):
    for seed in range(3):
        _, piece = piece_of(generator, replace(REQUEST, seed=seed, temperature=3.0, seconds=20.0))
        grammar = Grammar(generator.tokenizer)
        for token in generator.tokenizer.encode(piece.score):
            assert grammar.allowed()[int(token)]
            grammar.append(int(token))


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
        ("bars", 0),
        ("bars", 1001),
        ("genre", "polka"),
        ("key", "H"),
        ("metre", (4, 5)),
        ("tempo", 29.0),
        ("tempo", float("nan")),
        ("program", 128),
        ("density", 0.0),
        ("polyphony", 0.5),
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


@pytest.mark.parametrize(("before", "bars", "said"), [(0, 17, 17), (4, 12, 16), (5, 12, None), (30, 16, None)])
def test_bars_after_a_prompt_are_said_where_the_vocabulary_can_say_all_of_them(
    before: int, bars: int, said: int | None
) -> None:
    assert PieceRequest(1, bars=bars).header(before=before).bars == said
