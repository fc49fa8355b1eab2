from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from music_pieces import music
from tunes import TUNES, tokenizer_of, tune

from partbook.model.clock import Clock, ClockState, Moments
from partbook.music.quantised import Quantised
from partbook.music.tokens import Header, Tokenizer, bars_of, symbols_of
from partbook.music.vocabulary import MOST_GAPS, NUMBER, SYMBOLS, metre_number


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_of([tune(index) for index in range(len(TUNES))], 700)


@pytest.fixture(scope="module")
def clock(tokenizer: Tokenizer) -> Clock:
    found = Clock(len(tokenizer))
    found.set(tokenizer)
    return found


@pytest.fixture(scope="module")
def plain() -> tuple[Tokenizer, Clock]:
    tokenizer = Tokenizer()
    clock = Clock(len(tokenizer))
    clock.set(tokenizer)
    return tokenizer, clock


def gap_of(n: int) -> int:
    return NUMBER["Gap_1"] + n


def advanced(clock: Clock, ids: torch.Tensor) -> tuple[Moments, ClockState]:
    """What `read` says, token by token."""
    state, moments = ClockState.beginning(len(ids), ids.device), []
    for column in ids.unbind(1):
        state = clock.advance(state, column)
        moments.append(state.moment)
    return Moments(*(torch.stack(each, 1) for each in zip(*moments, strict=True))), state


def agree(clock: Clock, rows: list[list[int]]) -> None:
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    now, state = clock.read(ids)
    one_by_one, stepped = advanced(clock, ids)
    for at_once, each in zip(now, one_by_one, strict=True):
        assert at_once.tolist() == each.tolist()
    for one, other in zip(state.fields()[:4], stepped.fields()[:4], strict=True):
        assert one.tolist() == other.tolist()
    assert state.left.tolist() == stepped.left.tolist()
    assert state.opened.tolist() == stepped.opened.tolist()
    assert state.filled.tolist() == stepped.filled.tolist()
    for row in range(len(ids)):
        known = slice(1, int(state.opened[row].clamp(max=MOST_GAPS)) + 1)
        assert state.gaps[row, known].tolist() == stepped.gaps[row, known].tolist()


def gapped(q: Quantised, first: int, count: int) -> list[int]:
    """Symbols of a piece with bars left out and written at its end."""
    home = int(q.program[0]) if len(q.program) else 0
    whole = symbols_of(q, Header())
    head = whole[: len(whole) - len(bars_of(q, home, dynamics=False))]
    rest = [NUMBER["Gap_1"] + count - 1]
    if first + count < len(q):
        rest += [metre_number(*q.metres[first + count]), *bars_of(q.cut(first + count, len(q)), home, dynamics=False)]
    filling = [metre_number(*q.metres[first]), *bars_of(q.cut(first, first + count), home, dynamics=False)]
    return [*head, *bars_of(q.cut(0, first), home, dynamics=False), *rest, NUMBER["Fill"], *filling]


@given(q=music(), data=st.data())
def test_reading_at_once_and_token_by_token_tell_the_same_time(
    tokenizer: Tokenizer, clock: Clock, q: Quantised, data: st.DataObject
) -> None:
    rows = [[tokenizer.bos, *map(int, tokenizer.write(q, Header())), tokenizer.eos]]
    for _ in range(2 if len(q) > 1 else 0):
        first = data.draw(st.integers(1, len(q) - 1))
        count = data.draw(st.integers(1, len(q) - first))
        rows.append([tokenizer.cut, *map(int, tokenizer.merged(gapped(q, first, count)))])
    agree(clock, rows)


_FREE = [number for number, symbol in enumerate(SYMBOLS) if not symbol.startswith(("Gap", "Fill"))]
_FEW = [NUMBER[symbol] for symbol in ("Bar", "Step_5", "Metre_3/8", "Pitch_60")]


@given(
    begun=st.lists(
        st.one_of(st.sampled_from(_FREE), st.sampled_from(_FEW), st.integers(0, MOST_GAPS - 1).map(gap_of)), max_size=60
    ),
    ended=st.lists(st.one_of(st.sampled_from(_FREE), st.sampled_from(_FEW), st.just(NUMBER["Fill"])), max_size=60),
)
def test_whatever_the_tokens_both_readings_agree(
    plain: tuple[Tokenizer, Clock], begun: list[int], ended: list[int]
) -> None:
    left = MOST_GAPS
    ids = [plain[0].cut]
    for token in begun:
        left -= SYMBOLS[token].startswith("Gap")
        if left >= 0:
            ids.append(token)
    gaps = sum(SYMBOLS[token].startswith("Gap") for token in ids)
    for token in ended:  # no gap is opened once one is filled, and none filled that is not there
        gaps -= token == NUMBER["Fill"]
        if gaps >= 0:
            ids.append(token)
    agree(plain[1], [ids])


@given(q=music())
def test_time_is_that_of_the_grid(plain: tuple[Tokenizer, Clock], q: Quantised) -> None:
    _, clock = plain
    symbols = symbols_of(q, Header())
    (time, place, _), _ = clock.read(torch.tensor([symbols]))
    pitched = [k for k, symbol in enumerate(symbols) if SYMBOLS[symbol].startswith("Pitch_")]
    assert time[0, pitched].tolist() == q.onset.tolist()
    bars = [k for k, symbol in enumerate(symbols) if symbol == NUMBER["Bar"]]
    assert time[0, bars].tolist() == q.bars[:-1].tolist()
    assert not place[0, bars].any()
    begun = q.bars[(q.bars[None, :-1] <= q.onset[:, None]).sum(1) - 1]
    assert place[0, pitched].tolist() == (q.onset - begun).tolist()


@given(q=music(), data=st.data())
def test_filled_bars_sound_when_they_would_have(
    plain: tuple[Tokenizer, Clock], q: Quantised, data: st.DataObject
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
    symbols = gapped(q, first, count)
    (time, _, _), _ = plain[1].read(torch.tensor([symbols]))
    pitched = [k for k, symbol in enumerate(symbols) if SYMBOLS[symbol].startswith("Pitch_")]
    assert sorted(time[0, pitched].tolist()) == q.onset.tolist()


def test_rows_may_stand_where_others_do(plain: tuple[Tokenizer, Clock]) -> None:
    _, clock = plain
    ids = torch.tensor([[NUMBER["Bar"], NUMBER["Step_7"]], [NUMBER["Metre_3/4"], NUMBER["Bar"]]])
    _, state = clock.read(ids)
    start = ClockState.beginning(2, ids.device)
    mixed = state.where(torch.tensor([True, False]), start)
    assert mixed.time.tolist() == [7, 0]
    assert mixed.end.tolist() == [48, 0]
    start.put(slice(1, 2), ClockState(*(field[:1] for field in state.fields())))
    assert start.time.tolist() == [0, 7]


def test_without_a_tokenisers_tables_the_clock_stands_still() -> None:
    now, _ = Clock(50).read(torch.arange(50)[None])
    assert not any(each.any() for each in now)


def test_bars_left_are_those_that_the_header_says_and_fewer_with_every_bar(plain: tuple[Tokenizer, Clock]) -> None:
    _, clock = plain
    bar, gap, fill = NUMBER["Bar"], NUMBER["Gap_2"], NUMBER["Fill"]
    rows = {
        (NUMBER["Hand_score"], NUMBER["Bars_3"], bar, NUMBER["Step_7"], bar, bar, bar): [0, 4, 3, 3, 2, 1, 1],
        (bar, bar, NUMBER["Step_5"]): [0, 0, 0],
        (NUMBER["Bars_5"], bar, gap, bar, bar, fill, bar): [6, 5, 3, 2, 1, 0, 0],
    }
    for ids, left in rows.items():
        now, _ = clock.read(torch.tensor([ids]))
        assert now.left[0].tolist() == left
