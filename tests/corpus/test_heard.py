"""Works as a node hears them: kept one by one, so that nothing is heard twice."""

from pathlib import Path

import pytest

from partbook.corpus import heard as module
from partbook.corpus.heard import heard
from partbook.corpus.library import PublicWork
from partbook.errors import ScoreError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # workers import everything, where others want the cores


def test_works_are_heard_once_and_damaged_entries_again(
    tunes: list[Path], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [PublicWork("tunes", f"tunes/{k}.mid", f"Tune {k}", f"tunes/{k}.mid", 6, tunes[k]) for k in (0, 1, 2)]
    tokenizer, cache = tiny_base / "tokenizer.json", tmp_path / "cache"
    told: list[str] = []
    first = heard(works, tokenizer, cache, seconds=15.0, on_work=told.append, workers=1)
    assert sorted(told) == ["Tune 0", "Tune 1", "Tune 2"]
    assert len(list(cache.iterdir())) == 3
    long_enough = [recording.title for recording in first]
    assert long_enough == sorted(long_enough)
    assert "Tune 2" in long_enough
    for recording in first:
        assert 12 < recording.seconds < 20
        assert len(recording.notes) > 10
        assert recording.mel.shape[1] == 128

    files = {path: path.read_bytes() for path in cache.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(module, "ProcessPoolExecutor", None)  # nobody may start a worker
        again = heard(works, tokenizer, cache, seconds=15.0)
    assert [recording.to_bytes() for recording in again] == [recording.to_bytes() for recording in first]

    damaged = next(path for path, data in files.items() if not data.startswith(b"refused"))
    damaged.write_bytes(files[damaged][:200])
    mended = heard(works, tokenizer, cache, seconds=15.0, workers=1)
    assert [recording.to_bytes() for recording in mended] == [recording.to_bytes() for recording in first]
    assert {path: path.read_bytes() for path in cache.iterdir()} == files


def test_breaking_off_keeps_what_is_done(tunes: list[Path], tiny_base: Path, tmp_path: Path) -> None:
    works = [PublicWork("tunes", f"tunes/{k}.mid", f"Tune {k}", f"tunes/{k}.mid", 6, tunes[2]) for k in range(40)]

    def stop(title: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heard(works, tiny_base / "tokenizer.json", tmp_path / "cache", seconds=15.0, on_work=stop, workers=1)
    kept = list((tmp_path / "cache").iterdir())
    assert 1 <= len(kept) < 10
    assert all(path.suffix == ".heard" for path in kept)


def test_a_missing_tokeniser_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"missing\.json"):
        heard([], tmp_path / "missing.json", tmp_path)
