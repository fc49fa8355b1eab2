from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from music_pieces import music, score_in
from tunes import TUNES, tokenizer_of, tune

from partbook.errors import ScoreError
from partbook.model.clock import ClockState
from partbook.music.grammar import MOST_PROGRAMS, Grammar
from partbook.music.quantised import Quantised, quantised
from partbook.music.tokens import Header, Tokenizer, bars_of, symbols_of
from partbook.music.vocabulary import MOST_GAPS, NUMBER, metre_number

FULL = Header("heard", genre="dance", style=3, key="F#m", density=2, polyphony=1, bars=9)
LINE = quantised(score_in({4: [(12 * n, 12, 60 + n % 5, 80) for n in range(36)]}, [(0, (4, 4)), (96, (3, 4))]))


@pytest.fixture(scope="module")
def merging() -> Tokenizer:
    return tokenizer_of([tune(index) for index in range(len(TUNES))], 700)


@pytest.fixture(scope="module", params=["merged", "plain"])
def tokenizer(request: pytest.FixtureRequest, merging: Tokenizer) -> Tokenizer:
    return merging if request.param == "merged" else Tokenizer()


def refused(grammar: Grammar, ids: object) -> list[int]:
    """Places at which a token is not allowed."""
    places = []
    for place, token in enumerate(ids):  # type: ignore[var-annotated, arg-type]
        if not bool(grammar.allowed()[int(token)]):
            places.append(place)
        grammar.append(int(token))
    return places


def drawn(tokenizer: Tokenizer, grammar: Grammar, seed: int, most: int) -> list[int]:
    """Tokens drawn evenly among the allowed kinds of first symbols, then among their tokens; EOS ends them."""
    random, ids = np.random.default_rng(seed), []
    kinds = np.array([tokenizer.names([token])[0].partition("_")[0] for token in range(len(tokenizer))])
    while len(ids) < most:
        allowed = np.flatnonzero(grammar.allowed().numpy())
        allowed = allowed[~np.isin(allowed, [tokenizer.pad, tokenizer.bos, tokenizer.cut])]
        kind = random.choice(sorted(set(kinds[allowed])))
        token = int(random.choice(allowed[kinds[allowed] == kind]))
        if token == tokenizer.eos:
            break
        ids.append(token)
        grammar.append(token)
    return ids


@settings(max_examples=50)
@given(q=music(), header=st.sampled_from([Header(), Header("heard"), FULL]))
def test_what_the_tokeniser_writes_is_allowed(tokenizer: Tokenizer, q: Quantised, header: Header) -> None:
    ids = [tokenizer.bos, *tokenizer.write(q, header).tolist(), tokenizer.eos]
    assert refused(Grammar(tokenizer), ids) == []
    assert refused(Grammar(tokenizer, bars=len(q)), ids[1:]) == []
    starts = tokenizer.bar_starts(np.array(ids[1:-1], dtype=np.int16))
    begin = int(starts[len(starts) // 2])
    window = [*tokenizer.header_at(np.array(ids[1:-1], np.int16), begin), *ids[1 + begin :]]
    assert refused(Grammar(tokenizer), window) == []


@settings(max_examples=50)
@given(q=music(), data=st.data())
def test_gaps_are_allowed_where_they_may_be_drawn_and_must_be_filled(
    tokenizer: Tokenizer, q: Quantised, data: st.DataObject
) -> None:
    if len(q) < 2:
        return
    first = data.draw(st.integers(1, len(q) - 1))
    count = data.draw(st.integers(1, min(16, len(q) - first)))
    home = int(q.program[0])
    whole, body = symbols_of(q, Header()), bars_of(q, home, dynamics=False)
    left = q.cut(first, first + count)
    rest = bars_of(q.cut(first + count, len(q)), home, dynamics=False) if first + count < len(q) else []
    symbols = [
        *whole[: len(whole) - len(body)],
        *bars_of(q.cut(0, first), home, dynamics=False),
        NUMBER[f"Gap_{count}"],
        *rest,
        NUMBER["Fill"],
        metre_number(*left.metres[0]),
        *bars_of(left, home, dynamics=False),
    ]
    ids = tokenizer.merged(symbols).tolist()
    # A bar's place depends on its metre, which a gap may have changed: say it again, and all is well.
    if len(set(q.metres)) == 1:
        assert refused(Grammar(tokenizer, gaps=True), [tokenizer.cut, *ids, tokenizer.eos]) == []
        gap = ids.index(NUMBER[f"Gap_{count}"])
        assert gap in refused(Grammar(tokenizer), ids)
        unfilled = Grammar(tokenizer, gaps=True)
        refused(unfilled, [tokenizer.cut, *ids[: ids.index(NUMBER["Fill"])]])
        assert not unfilled.allowed()[tokenizer.eos]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), bars=st.integers(1, 5))
def test_whatever_is_drawn_is_music_that_ends_and_is_written_back_as_it_was(
    tokenizer: Tokenizer, seed: int, bars: int
) -> None:
    ids = drawn(tokenizer, Grammar(tokenizer, bars=bars), seed, 20_000)
    assert len(ids) < 20_000
    assert 1 <= len(tokenizer.bar_starts(np.array(ids, np.int16))) <= bars
    q = quantised(tokenizer.decode(ids))
    assert len(q.onset)
    expected = {
        (note.time // 40, note.pitch, track.program) for track in tokenizer.decode(ids).tracks for note in track.notes
    }
    assert {*zip(q.onset.tolist(), q.pitch.tolist(), q.program.tolist(), strict=True)} == expected
    again = tokenizer.write(q, Header("heard" if "Hand_heard" in tokenizer.names(ids) else "score"))
    assert refused(Grammar(tokenizer), again) == []
    back = quantised(tokenizer.decode(again, tempi=q.tempi))
    for name in ("onset", "length", "pitch", "program"):
        assert getattr(back, name).tolist() == getattr(q, name).tolist()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_gaps_that_are_drawn_are_filled_before_the_end(tokenizer: Tokenizer, seed: int) -> None:
    names = tokenizer.names(drawn(tokenizer, Grammar(tokenizer, bars=30, gaps=True), seed, 20_000))
    gaps = sum(name.startswith("Gap_") for name in names)
    assert names.count("Fill") == gaps <= MOST_GAPS == ClockState.beginning(1, torch.device("cpu")).gaps.shape[1] - 1
    assert "Fill" not in names or max(k for k, n in enumerate(names) if n.startswith("Gap_")) < names.index("Fill")


SAID = [NUMBER[name] for name in ("Hand_score", "Key_G", "Metre_6/8", "Bars_4", "Program_40")]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_a_header_says_what_it_was_asked_to(tokenizer: Tokenizer, seed: int) -> None:
    ids = drawn(tokenizer, Grammar(tokenizer, bars=2, said=SAID), seed, 5000)
    names = tokenizer.names(ids)
    header = names[: names.index("Bar")]
    assert set(tokenizer.names(SAID)) <= set(header)
    kinds = [name.partition("_")[0] for name in header]
    assert len(set(kinds)) == len(kinds)
    assert {name for name in names if name.startswith("Program_")} == {"Program_40"}
    assert not any(name.startswith("Level_") for name in names)


def test_a_prompts_header_stays_as_it_is(tokenizer: Tokenizer) -> None:
    grammar = Grammar(tokenizer, said=SAID)
    for token in tokenizer.write(LINE, Header()):
        grammar.append(int(token))
    assert grammar.allowed()[NUMBER["Bar"]]


def test_one_thing_of_a_kind_can_be_asked_for(merging: Tokenizer) -> None:
    with pytest.raises(AssertionError, match="one thing"):
        Grammar(merging, said=[NUMBER["Key_G"], NUMBER["Key_C"]])
    with pytest.raises(AssertionError, match="header"):
        Grammar(merging, said=[NUMBER["Pitch_60"]])


def test_a_header_names_no_program_twice_and_no_more_than_a_midi_file_has_channels(merging: Tokenizer) -> None:
    grammar = Grammar(merging)
    for name in ("Hand_score", "Metre_4/4", "Tempo_20"):
        grammar.append(NUMBER[name])
    for program in range(MOST_PROGRAMS):
        assert grammar.allowed()[NUMBER[f"Program_{program}"]]
        grammar.append(NUMBER[f"Program_{program}"])
        assert not grammar.allowed()[NUMBER[f"Program_{program}"]]
    assert torch.equal(grammar.allowed().nonzero().ravel(), torch.tensor([NUMBER["Bar"]]))


def allowed_after(tokenizer: Tokenizer, *names: str) -> set[str]:
    grammar = Grammar(tokenizer)
    for name in ("Hand_score", "Metre_3/4", "Tempo_20", "Program_0", *names):
        grammar.append(NUMBER[name])
    return {tokenizer.names([int(token)])[0] for token in grammar.allowed().nonzero().ravel()}


def test_a_bar_holds_no_more_than_its_metre() -> None:
    plain = Tokenizer()
    assert "Step_35" in allowed_after(plain, "Bar")
    assert "Step_36" not in allowed_after(plain, "Bar")
    assert "Step_12" not in allowed_after(plain, "Bar", "Step_24", "Pitch_60", "Length_12")
    assert not any(name.startswith("Step_") for name in allowed_after(plain, "Bar", "Step_24"))


def test_pitches_rise_in_a_chord_and_none_is_struck_twice_at_one_moment() -> None:
    plain = Tokenizer()
    assert allowed_after(plain, "Bar", "Pitch_106") == {"Pitch_107", "Pitch_108"} | {
        name for name in NUMBER if name.startswith("Length_")
    }
    after = allowed_after(plain, "Bar", "Pitch_60", "Pitch_64", "Length_12")
    assert {"Pitch_59", "Pitch_61"} <= after
    assert not {"Pitch_60", "Pitch_64"} & after
    assert "Pitch_60" in allowed_after(plain, "Bar", "Pitch_60", "Length_12", "Step_1")


def test_programs_rise_within_a_moment_so_that_none_goes_on_for_ever() -> None:
    grammar = Grammar(Tokenizer())

    def programs() -> set[str]:
        return {f"Program_{k}" for k in range(128) if grammar.allowed()[NUMBER[f"Program_{k}"]]}

    for name in ("Hand_score", "Metre_3/4", "Tempo_20", "Program_5", "Program_2", "Program_9", "Bar"):
        grammar.append(NUMBER[name])
    assert programs() == {"Program_2", "Program_9"}  # 5 plays already
    for name in ("Program_2", "Pitch_60", "Length_6"):
        grammar.append(NUMBER[name])
    assert programs() == {"Program_5", "Program_9"}
    for name in ("Program_9", "Pitch_60", "Length_6"):
        grammar.append(NUMBER[name])
    assert programs() == set()
    grammar.append(NUMBER["Step_6"])
    assert programs() == {"Program_2", "Program_5"}
    for name in ("Pitch_60", "Length_6", "Bar"):
        grammar.append(NUMBER[name])
    assert programs() == {"Program_2", "Program_9"}


def test_a_piece_without_a_note_does_not_end() -> None:
    plain = Tokenizer()
    assert "End" not in allowed_after(plain, "Bar")
    assert "End" in allowed_after(plain, "Bar", "Pitch_60", "Length_12")
    assert "End" in allowed_after(plain, "Bar", "Pitch_60", "Length_12", "Bar")
    with pytest.raises(ScoreError):
        quantised(plain.decode([NUMBER["Bar"]]))


def test_dynamics_stand_before_a_heard_bars_notes_and_nowhere_else(merging: Tokenizer) -> None:
    grammar = Grammar(merging)
    for name in ("Hand_heard", "Metre_3/4", "Tempo_20", "Program_0", "Bar"):
        grammar.append(NUMBER[name])
    names = {merging.names([int(token)])[0].partition("_")[0] for token in grammar.allowed().nonzero().ravel()}
    assert names == {"Level", "Bar", "Metre", "Tempo"}
    assert not any(name.startswith("Level") for name in allowed_after(merging, "Bar"))


def test_a_copy_goes_its_own_way(merging: Tokenizer) -> None:
    grammar = Grammar(merging, bars=1, said=SAID)
    other = grammar.copy()
    other.append(NUMBER["Hand_score"])
    assert grammar.allowed()[NUMBER["Hand_score"]]
    assert not grammar.allowed()[NUMBER["Key_G"]]
    assert other.allowed()[NUMBER["Key_G"]]
    assert not other.allowed()[NUMBER["Metre_6/8"]]
    assert (grammar.bars, other.bars) == (0, 0)
