import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from music_pieces import music, score_in, scores
from symusic import Score, Tempo
from tunes import TUNES, tokenizer_of, tune

from partbook.errors import ScoreError
from partbook.music.quantised import Quantised, quantised
from partbook.music.tokens import (
    TICKS_PER_QUARTER,
    Header,
    Tokenizer,
    bar_seconds,
    bars_of,
    exact_tempi,
    notes_of,
    seconds_at,
    symbols_of,
)
from partbook.music.vocabulary import (
    FIRST_MERGEABLE,
    KINDS,
    LEVELS,
    NUMBER,
    SYMBOLS,
    TEMPI,
    metre_number,
    nearest_length,
    tempo_number,
)

FULL = Header("heard", genre="dance", style=3, key="F#m", density=2, polyphony=1, bars=9)
LINE = score_in({4: [(12 * n, 12, 60 + n % 5, 80) for n in range(36)]}, [(0, (4, 4)), (96, (3, 4))], [(0, 97.0)])


@pytest.fixture(scope="module")
def merging() -> Tokenizer:
    """A tokeniser with some two hundred merges."""
    return tokenizer_of([tune(index) for index in range(len(TUNES))], 800)


@pytest.fixture(scope="module", params=["merged", "plain"])
def tokenizer(request: pytest.FixtureRequest, merging: Tokenizer) -> Tokenizer:
    return merging if request.param == "merged" else Tokenizer()


def said_lengths(q: Quantised) -> list[int]:
    return [nearest_length(min(length, 511)) for length in q.length.tolist()]


def of(tokenizer: Tokenizer, ids: object, kind: str) -> list[str]:
    return [name for name in tokenizer.names(list(ids)) if name.startswith(f"{kind}_")]  # type: ignore[call-overload]


@given(score=scores())
def test_decoding_gives_back_what_was_encoded(tokenizer: Tokenizer, score: Score) -> None:
    q, tempi = quantised(score), exact_tempi(score)
    again = quantised(tokenizer.decode(tokenizer.encode(score), tempi=tempi))
    for name in ("onset", "pitch", "program"):
        assert getattr(again, name).tolist() == getattr(q, name).tolist()
    assert again.length.tolist() == said_lengths(q)
    assert again.bars.tolist() == q.bars.tolist()
    assert again.metres == q.metres
    assert again.tempi == pytest.approx(q.tempi, rel=1e-4)


@given(q=music())
def test_merging_changes_no_symbol_and_joins_none_across_a_bar(merging: Tokenizer, q: Quantised) -> None:
    symbols = symbols_of(q, FULL)
    ids = merging.merged(symbols)
    assert merging.expand(ids) == symbols
    assert len(ids) <= len(symbols)
    starts = merging.bar_starts(ids)
    assert len(starts) == len(q)
    for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        names = merging.names(list(ids[begin:end]))
        assert names[0] == "Bar"
        assert names.count("Bar") == 1
    for token in range(len(SYMBOLS), len(merging)):
        assert min(merging.expand([token])) >= FIRST_MERGEABLE


def test_without_exact_tempi_the_nearest_step_is_read(tokenizer: Tokenizer) -> None:
    (tempo,) = tokenizer.decode(tokenizer.encode(LINE)).tempos
    assert tempo.qpm == pytest.approx(97.0, rel=0.03)
    assert any(tempo.qpm == pytest.approx(known) for known in TEMPI)


def test_a_piece_begins_with_its_header_in_the_grammars_order(tokenizer: Tokenizer) -> None:
    ids = tokenizer.write(quantised(LINE), FULL)
    first = int(tokenizer.bar_starts(ids)[0])
    assert tokenizer.names(list(ids[:first])) == [
        "Hand_heard", "Genre_dance", "Style_3", "Key_F#m", "Metre_4/4", SYMBOLS[tempo_number(97.0)], "Density_2",
        "Polyphony_1", "Bars_9", "Program_4",
    ]  # fmt: skip


def test_dynamics_are_said_once_a_bar_and_of_heard_music_alone(tokenizer: Tokenizer) -> None:
    rows = [(48 * bar + 12 * beat, 12, 60, level) for bar, level in enumerate(LEVELS) for beat in range(4)]
    score = score_in({0: rows}, [(0, (4, 4))])
    ids = tokenizer.encode(score, hand="heard")
    assert of(tokenizer, ids, "Level") == [f"Level_{n}" for n in range(len(LEVELS))]
    assert quantised(tokenizer.decode(ids)).velocity.tolist() == [level for level in LEVELS for _ in range(4)]
    assert of(tokenizer, tokenizer.encode(score), "Level") == []


def test_metre_and_tempo_stand_before_the_bar_that_they_hold_for(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(LINE)
    names = tokenizer.names(list(ids))
    place = names.index("Metre_3/4")
    assert names[place + 1] == "Bar"
    assert names[:place].count("Bar") == 2


def test_a_window_inside_a_piece_says_what_holds_there(tokenizer: Tokenizer) -> None:
    ids = tokenizer.write(quantised(LINE), FULL)
    starts = tokenizer.bar_starts(ids)
    assert tokenizer.header_at(ids, 0) == [tokenizer.bos]
    assert tokenizer.names(tokenizer.header_at(ids, int(starts[4]))) == [
        "Cut", "Hand_heard", "Genre_dance", "Style_3", "Key_F#m", "Metre_3/4", SYMBOLS[tempo_number(97.0)],
        "Density_2", "Polyphony_1", "Bars_5", "Program_4",
    ]  # fmt: skip
    assert "Metre_4/4" in tokenizer.names(tokenizer.header_at(ids, int(starts[1])))


def test_bars_left_are_not_said_inside_a_piece_where_there_is_no_such_number(tokenizer: Tokenizer) -> None:
    ids = tokenizer.write(quantised(LINE), replace(FULL, bars=20))
    starts = tokenizer.bar_starts(ids)
    said = [
        [name for name in tokenizer.names(tokenizer.header_at(ids, int(starts[gone]))) if name.startswith("Bars_")]
        for gone in (1, 3, 4)
    ]
    assert said == [[], [], ["Bars_16"]]


@given(q=music(), data=st.data())
def test_a_window_with_its_header_decodes_to_those_bars(merging: Tokenizer, q: Quantised, data: st.DataObject) -> None:
    ids = merging.write(q, Header())
    starts = merging.bar_starts(ids)
    bar = data.draw(st.integers(0, len(q) - 1))
    begin = int(starts[bar])
    window = [*merging.header_at(ids, begin), *ids[begin:].tolist()] if bar else [merging.bos, *ids.tolist()]
    again, part = quantised_or_none(merging, window), q.cut(bar, len(q))
    if not len(part.onset):
        assert again is None
        return
    assert again is not None
    assert again.onset.tolist() == part.onset.tolist()
    assert again.pitch.tolist() == part.pitch.tolist()
    assert again.program.tolist() == part.program.tolist()
    assert again.metres == part.metres


def quantised_or_none(tokenizer: Tokenizer, ids: list[int]) -> Quantised | None:
    try:
        return quantised(tokenizer.decode(ids))
    except ScoreError:
        return None


@pytest.mark.parametrize("header", [Header(), Header(genre="song"), Header(style=2), FULL])
def test_a_style_is_said_behind_hand_and_genre_in_place_of_another(tokenizer: Tokenizer, header: Header) -> None:
    ids = tokenizer.write(quantised(LINE), header)
    styled = tokenizer.styled(ids, 7)
    assert of(tokenizer, styled, "Style") == ["Style_7"]
    expected = Header(header.hand, header.genre, 7, header.key, header.density, header.polyphony, header.bars)
    assert styled.tolist() == tokenizer.write(quantised(LINE), expected).tolist()
    assert styled.dtype == np.int16


def with_gap(q: Quantised, first: int, count: int, dynamics: bool) -> list[int]:
    """Symbols of a piece with some bars left out and written at its end, metres and tempi said where they turn."""
    programs = list(dict.fromkeys(q.program.tolist())) or [0]
    header = Header("heard" if dynamics else "score").symbols(q.metres[0], q.tempi[0], programs)

    def said(begin: int, end: int) -> list[int]:
        return [
            metre_number(*q.metres[begin]),
            tempo_number(q.tempi[begin]),
            *bars_of(q.cut(begin, end), programs[0], dynamics=dynamics),
        ]

    left = said(first + count, len(q)) if first + count < len(q) else []
    before = bars_of(q.cut(0, first), programs[0], dynamics=dynamics)
    return [*header, *before, NUMBER[f"Gap_{count}"], *left, NUMBER["Fill"], *said(first, first + count)]


@given(q=music(), data=st.data(), dynamics=st.booleans())
def test_gaps_that_are_filled_decode_to_the_same_score(
    tokenizer: Tokenizer, q: Quantised, data: st.DataObject, dynamics: bool
) -> None:
    runs = [
        (first, count)
        for first in range(1, len(q))
        for count in range(1, len(q) - first + 1)
        if len(set(q.metres[first - 1 : first + count])) == 1
    ]
    if not runs:
        return
    first, count = data.draw(st.sampled_from(runs))
    hand = "heard" if dynamics else "score"
    whole = tokenizer.decode(tokenizer.write(q, Header(hand)), tempi=q.tempi)  # type: ignore[arg-type]
    filled = tokenizer.decode(tokenizer.merged(with_gap(q, first, count, dynamics)), tempi=q.tempi)
    a, b = quantised(whole), quantised(filled)
    for name in ("onset", "length", "pitch", "program", "velocity", "bars"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    assert (a.metres, a.tempi) == (b.metres, b.tempi)


def test_a_saved_tokeniser_comes_back_and_writes_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert len(again) == len(tokenizer)
    ids = tokenizer.write(quantised(LINE), FULL)
    assert again.write(quantised(LINE), FULL).tolist() == ids.tolist()
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_merges_are_learnt_deterministically_up_to_the_wanted_size(merging: Tokenizer, tmp_path: Path) -> None:
    assert len(SYMBOLS) < len(merging) <= 800
    tokenizer_of([tune(index) for index in range(len(TUNES))], 800).save(tmp_path / "a")
    merging.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(Tokenizer.train([], 10)) == len(SYMBOLS)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"symbols_sha256": "0" * 64, "version": 7}, "version 7"), ({"format": "other"}, "format is 'other'")],
)
def test_another_version_of_the_vocabulary_is_refused_by_name(
    merging: Tokenizer, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = tmp_path / "tokenizer.json"
    merging.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ScoreError, match=rf"tokenizer\.json.*{said}"):
        Tokenizer.load(path)


@pytest.mark.parametrize("text", ["{}", "", "[]", "null"])
def test_a_broken_tokeniser_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ScoreError, match=r"tokenizer\.json"):
        Tokenizer.load(path)
    with pytest.raises(ScoreError, match="nowhere"):
        Tokenizer.load(tmp_path / "nowhere")


@given(ids=st.lists(st.integers(0, len(SYMBOLS) - 1), max_size=60))
def test_any_ids_decode_to_some_score(ids: list[int]) -> None:
    score = Tokenizer().decode(ids)
    assert all(note.time >= 0 and note.duration > 0 for track in score.tracks for note in track.notes)


def test_ill_formed_stretches_are_skipped() -> None:
    symbols = [
        "Pitch_50",
        "Length_6",
        "Bar",
        "Pitch_60",
        "Step_12",
        "Pitch_62",
        "Length_12",
        "Step_48",
        "Pitch_64",
        "Length_1",
    ]
    score = Tokenizer().decode([NUMBER[name] for name in symbols])
    notes = [(n.time // 40, n.pitch) for track in score.tracks for n in track.notes]
    assert notes == [(12, 62), (47, 64)]  # no bar yet; no length; past the bar's end


def test_bars_are_found_where_they_begin(tokenizer: Tokenizer) -> None:
    score = score_in({0: [(48 * bar + 12 * beat, 12, 60 + beat, 80) for bar in range(5) for beat in range(4)]})
    ids = tokenizer.encode(score)
    starts = tokenizer.bar_starts(ids)
    assert len(starts) == 5
    assert all(KINDS[int(ids[start])] == "Bar" for start in starts)
    assert bar_seconds(score, 5).tolist() == pytest.approx([0, 2, 4, 6, 8])


def test_a_score_without_pitched_notes_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ScoreError, match="no pitched notes"):
        tokenizer.encode(Score(TICKS_PER_QUARTER))


def test_notes_beyond_the_piano_are_left_out(tokenizer: Tokenizer) -> None:
    score = score_in({0: [(0, 12, 60, 80), (0, 12, 5, 80)]})
    assert [n.pitch for n in tokenizer.decode(tokenizer.encode(score)).tracks[0].notes] == [60]


def test_seconds_follow_tempo_changes() -> None:
    score = Score(TICKS_PER_QUARTER)
    score.tempos.append(Tempo(0, 60))
    score.tempos.append(Tempo(2 * TICKS_PER_QUARTER, 120))
    ticks = np.array([0, 1, 2, 3, 4], dtype=np.float64) * TICKS_PER_QUARTER
    assert seconds_at(score, ticks).tolist() == pytest.approx([0, 1, 2, 2.5, 3])


def test_seconds_and_ticks_agree_with_symusic() -> None:
    score = score_in({0: [(0, 12, 60, 80), (30, 6, 62, 80)]}, [(0, (4, 4))], [(0, 120.0)])
    assert notes_of(score).onset.tolist() == pytest.approx([0.0, 30 / 24])
