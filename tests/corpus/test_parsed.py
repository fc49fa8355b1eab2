from dataclasses import dataclass
from pathlib import Path

import pytest
from symusic.core import ScoreTick

from partbook.corpus.parsed import ParsedScores, write_whole
from partbook.errors import ScoreError
from partbook.simulation.collections import score_at


@dataclass
class Counted:
    """A work of the corpus that counts how often it is parsed."""

    key: str = "oneills1850/0001-0050.abc#12"
    program: int = 73
    source: Path | None = None
    parsed: int = 0

    def score(self) -> ScoreTick:
        self.parsed += 1
        return score_at(self.key, self.program, 120)


def contents(score: ScoreTick) -> list[object]:
    return [
        score.ticks_per_quarter,
        [(t.program, [(n.time, n.duration, n.pitch, n.velocity) for n in t.notes]) for t in score.tracks],
        [(t.time, t.mspq) for t in score.tempos],
        [(m.time, m.numerator, m.denominator) for m in score.time_signatures],
    ]


def test_a_kept_score_is_the_parsed_one_to_the_tick(tmp_path: Path) -> None:
    work, parsed = Counted(), ParsedScores(tmp_path)
    first, second = parsed.score(work), parsed.score(work)
    assert work.parsed == 1
    assert first is not None
    assert second is not None
    assert contents(first) == contents(second) == contents(work.score())


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    work, parsed = Counted(), ParsedScores(tmp_path)
    first = parsed.score(work)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-7], b"nonsense" * 20):
        path.write_bytes(damaged)
        again = parsed.score(work)
        assert again is not None
        assert first is not None
        assert contents(again) == contents(first)
        assert path.read_bytes() == whole


def test_another_instrument_is_another_file(tmp_path: Path) -> None:
    parsed = ParsedScores(tmp_path)
    for program in (6, 73):
        score = parsed.score(Counted(program=program))
        assert score is not None
        assert [track.program for track in score.tracks] == [program]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_work_that_cannot_be_read_is_none_and_leaves_no_file(tmp_path: Path) -> None:
    class Broken(Counted):
        def score(self) -> ScoreTick:
            raise ScoreError("no notes")

    assert ParsedScores(tmp_path).score(Broken()) is None
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "taken", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
