"""Which clip is heard when: fair, seeded, and not to be worked out from outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import ConfigError, InputError
from partbook.evaluation.listening.statistics import proportion
from partbook.evaluation.listening.trials import KINDS, Key, Kind, Source, laid_out, read_key, wanted

kinds = st.sampled_from(KINDS)


def sources(count: int, prefix: str, salt: int = 0) -> list[Source]:
    return [Source(f"{prefix}{i}.mid", f"{prefix}{i}-{salt}", 0.0) for i in range(count)]


def key_of(kind: Kind, count: int = 4) -> Key:
    trials = laid_out(kind, 1, sources(count, "a"), sources(count, "b"))
    return Key("0123456789ab", kind, "Test", "Which?", 1, 5.0, {"A": "a", "B": "b"}, trials)


@given(kinds, st.integers(1, 30), st.integers(0, 2**63))
def test_every_clip_is_heard_once_and_every_pair_is_one_of_each(kind: Kind, count: int, seed: int) -> None:
    trials = laid_out(kind, seed, sources(count, "a"), sources(count, "b"))
    clips = [clip for trial in trials for clip in trial.clips]
    assert sorted(clip.file for clip in clips) == sorted(s.file for p in "ab" for s in sources(count, p))
    assert all(clip.file[0].upper() == clip.origin for clip in clips)
    assert len({clip.id for clip in clips}) == len(clips)
    if kind == "ab":
        assert all({clip.origin for clip in trial.clips} == {"A", "B"} for trial in trials)
    else:
        assert {len(trial.clips) for trial in trials} == {1}


@given(kinds, st.integers(0, 2**63))
def test_one_seed_and_the_same_files_give_the_same_trials(kind: Kind, seed: int) -> None:
    assert laid_out(kind, seed, sources(6, "a"), sources(6, "b")) == laid_out(
        kind, seed, sources(6, "a"), sources(6, "b")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ids_say_nothing_but_the_place(kind: Kind) -> None:
    ids = [[c.id for t in laid_out(kind, seed, sources(6, "a"), sources(6, "b")) for c in t.clips] for seed in (1, 2)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_does_not_tell_what_other_files_hold(kind: Kind) -> None:
    def origins(salt: int) -> str:
        trials = laid_out(kind, 1, sources(20, "a", salt), sources(20, "b", salt))
        return "".join(trial.clips[0].origin for trial in trials)

    assert len({origins(salt) for salt in range(20)}) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_over_many_kits_no_place_favours_a(kind: Kind) -> None:
    kits = 300
    first = np.array(
        [
            [t.clips[0].origin == "A" for t in laid_out(kind, seed, sources(4, "a"), sources(4, "b"))]
            for seed in range(kits)
        ]
    )
    for place in first.T:
        assert proportion(int(place.sum()), kits).p > 1e-4
    beside = (first[:, :-1] == first[:, 1:]).sum()
    if kind == "ab":
        assert proportion(int(beside), first[:, 1:].size).p > 1e-4, "each side is a coin of its own"


def test_a_hit_is_the_clip_of_a_or_the_right_word() -> None:
    for trial in key_of("ab").trials:
        assert trial.hit("first") == (trial.clips[0].origin == "A")
        assert trial.hit("second") == (trial.clips[1].origin == "A")
    for trial in key_of("human").trials:
        assert trial.hit("human") == (trial.clips[0].origin == "A")
        assert trial.hit("not") == (trial.clips[0].origin == "B")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_read_as_it_was_written(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(key_of(kind).to_json(), encoding="utf-8")
    assert read_key(path) == key_of(kind)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.pop("format"),
        lambda key: key.pop("kit"),
        lambda key: key.update(kind="human"),
        lambda key: key.update(trials=3),
        lambda key: key["trials"].pop(0),
        lambda key: key["trials"][0]["clips"][0].update(origin="C"),
    ],
)
def test_a_damaged_key_is_refused(change, tmp_path: Path) -> None:
    raw = json.loads(key_of("ab").to_json())
    change(raw)
    path = tmp_path / "key.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(InputError, match=r"key\.json"):
        read_key(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_what_is_no_key_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_key(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_key(tmp_path / "none.json")


def test_each_kind_says_how_many_clips_it_wants() -> None:
    assert (wanted("ab", 20), wanted("human", 20)) == (20, 10)
    for kind, trials in (("ab", 0), ("human", 5), ("human", -2)):
        with pytest.raises(ConfigError, match="--trials"):
            wanted(kind, trials)
