import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import CorruptMessage
from partbook.music.mel import BANDS, FRAMES_PER_SECOND, MEMORY_FRAMES, SAMPLE_RATE, log_mel, memory_before
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.vocabulary import NUMBER
from partbook.music.windows import gather, spans

PLAIN = Tokenizer()
HEADER = [NUMBER[name] for name in ("Hand_score", "Key_G", "Metre_4/4", "Tempo_20", "Bars_12", "Program_3")]
BAR, NOTE = NUMBER["Bar"], NUMBER["Pitch_60"]
SPARE = len(HEADER) + 2  # a window's header, CUT and a token


def recording(bars: list[int], seconds_a_bar: float = 2.0) -> Recording:
    """A recording whose bars hold the given numbers of tokens, its header before them, and whose mel counts frames."""
    ids = [*HEADER]
    starts = []
    for tokens in bars:
        starts.append(len(ids))
        ids += [BAR, *[NOTE + k % 40 for k in range(tokens - 1)]]
    frames = int(len(bars) * seconds_a_bar * FRAMES_PER_SECOND)
    mel = np.repeat(np.linspace(0, 1, max(frames, 1), dtype=np.float16)[:, None], BANDS, axis=1)
    times = (np.arange(len(bars)) * seconds_a_bar).astype(np.float32)
    return Recording(
        "t", len(bars) * seconds_a_bar, Notes.from_rows([]), np.array(ids, np.int16), np.array(starts), times, mel
    )


@given(bars=st.lists(st.integers(1, 30), min_size=1, max_size=20), length=st.integers(SPARE, 64))
def test_end_to_end_windows_hold_every_token_once_behind_a_header(bars: list[int], length: int) -> None:
    item = recording(bars)
    cut = spans(item, PLAIN, length)
    assert [s.start for s in cut] == [0, *(s.stop for s in cut[:-1])]
    assert cut[-1].stop == len(item.ids)
    assert all(s.stop - s.start > 0 for s in cut)
    assert all(len(s.prefix) + s.stop - s.start <= length for s in cut)
    assert [s.last for s in cut] == [False] * (len(cut) - 1) + [True]
    assert cut[0].prefix == (PLAIN.bos,)
    for s in cut[1:]:
        assert s.prefix == tuple(PLAIN.header_at(item.ids, s.start))
        assert s.prefix[0] == PLAIN.cut
        assert len(s.prefix) == 1 + len(HEADER)
    assert sum(s.tokens for s in cut) == len(item.ids) + 1 + len(HEADER) * (len(cut) - 1)


@given(bars=st.lists(st.integers(1, 12), min_size=1, max_size=30))
def test_windows_begin_on_bars_where_bars_fit(bars: list[int]) -> None:
    item = recording(bars)
    for stride in (0.25, 0.5, 1.0):
        cut = spans(item, PLAIN, 24, stride=stride)
        assert cut[0].start == 0
        assert all(s.start in item.bar_starts for s in cut[1:])
        assert cut[-1].stop == len(item.ids)
        for s in cut:
            bar = max(int(np.searchsorted(item.bar_starts, s.start, side="right")) - 1, 0)
            assert s.second == pytest.approx(float(item.bar_seconds[bar]))


def test_a_batch_is_what_stands_in_front_then_tokens_then_eos_then_padding() -> None:
    item = recording([3, 3])
    first, second = spans(item, PLAIN, 11)
    windows = gather([(item, first), (item, second)], PLAIN, 12)
    bar = [BAR, NOTE, NOTE + 1]
    again = [NUMBER["Bars_11"] if symbol == NUMBER["Bars_12"] else symbol for symbol in HEADER]
    assert windows.ids.tolist() == [
        [PLAIN.bos, *HEADER, *bar, 0, 0, 0],
        [PLAIN.cut, *again, *bar, PLAIN.eos, 0, 0],
    ]
    assert windows.has_memory.tolist() == [False, True]
    assert gather([(item, first), (item, second)], PLAIN).ids.tolist() == windows.ids[:, :11].tolist()


def test_memory_is_only_what_was_heard_before() -> None:
    item = recording([1] * 20)
    window = memory_before(item.mel, 12.0)
    assert window is not None
    assert window.shape == (MEMORY_FRAMES, BANDS)
    end = round(12.0 * FRAMES_PER_SECOND)
    assert np.array_equal(window, item.mel[end - MEMORY_FRAMES : end])


def test_a_short_past_is_padded_in_front_and_none_is_none() -> None:
    item = recording([1] * 20)
    window = memory_before(item.mel, 2.0)
    assert window is not None
    heard = round(2.0 * FRAMES_PER_SECOND)
    assert (window[:-heard] == -1).all()
    assert np.array_equal(window[-heard:], item.mel[:heard])
    assert memory_before(item.mel, 0.5) is None


def test_mel_of_silence_is_the_floor_and_of_a_tone_is_in_its_band() -> None:
    assert (log_mel(np.zeros(SAMPLE_RATE, np.float32)) == -1).all()
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    mel = log_mel(tone)
    assert mel.shape == (87, BANDS)
    assert mel.dtype == np.float16
    import librosa

    centre = librosa.mel_frequencies(BANDS + 2, fmin=0.0, fmax=SAMPLE_RATE / 2)[1:-1]
    loudest = int(np.median(mel.argmax(axis=1)))
    assert abs(centre[loudest] - 1000) < 60
    assert 0.5 < mel.max() <= 1.0


def test_a_recording_survives_its_bytes() -> None:
    item = recording([2, 3])
    again = Recording.from_bytes(item.to_bytes())
    assert again.title == item.title
    assert again.seconds == item.seconds
    for name in ("ids", "bar_starts", "bar_seconds", "mel"):
        assert np.array_equal(getattr(again, name), getattr(item, name))


@pytest.mark.parametrize("blob", [b"", b"\x00" * 7, b"\xff" * 64, b"\x08" + b"\x00" * 7 + b"{}      "])
def test_other_bytes_are_not_a_recording(blob: bytes) -> None:
    with pytest.raises(CorruptMessage):
        Recording.from_bytes(blob)
