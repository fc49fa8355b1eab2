import hashlib
import itertools
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import ScoreError
from partbook.simulation.collections import COLLECTIONS, Work, _by_title, _tied, _tune_name, by_name, split, works
from partbook.simulation.labels import choose, excerpt, takes

NAMES = [collection.name for collection in COLLECTIONS]
BASE_POOLS = {
    "bach": (234, "11c8275457844cf7"),
    "oneills1850": (1485, "847ce684fc38d4bf"),
    "ryansMammoth": (611, "b34dbd2d1b26fb16"),
    "monteverdi": (19, "8e3eb8371fef4685"),
}  # works, and the first digits of the SHA-256 of their keys


def test_no_work_and_no_tune_is_in_two_pools_of_any_collections() -> None:
    """By title; by melody, see tests/corpus/test_families.py."""
    pools = {(name, pool): split(name)[pool] for name in NAMES for pool in ("heldout", "label", "base")}
    for (first, a), (second, b) in itertools.combinations(pools.items(), 2):
        assert not {w.key for w in a} & {w.key for w in b}, (first, second)
        if not first[1] == second[1] == "base":
            shared = {_tune_name(w) for w in a} & {_tune_name(w) for w in b}
            assert not shared, f"{first} and {second} share {sorted(shared)[:3]}"


@pytest.mark.parametrize("name", NAMES)
def test_pools_are_large_enough_and_the_same_every_time(name: str) -> None:
    pools = split(name)
    collection = by_name(name)
    assert len(pools["heldout"]) >= collection.heldout
    assert len(pools["label"]) >= collection.pool
    assert pools["base"]
    for cached in (split, _by_title):
        cached.cache_clear()
    assert split(name) == pools


def test_base_has_not_moved_since_the_base_was_trained() -> None:
    """Known answer: the shipped base has learnt from these works, and from no others."""
    digests = {}
    for name in NAMES:
        keys = "\n".join(sorted(work.key for work in split(name)["base"]))
        digests[name] = (len(split(name)["base"]), hashlib.sha256(keys.encode()).hexdigest()[:16])
    assert digests == BASE_POOLS


def test_the_split_has_not_moved() -> None:
    first = {name: split(name)["heldout"][0].key for name in NAMES}
    assert first["bach"] == "bach/bwv298.mxl"
    assert first["monteverdi"] == "monteverdi/madrigal.3.13.mxl"
    assert {name: tuple(len(split(name)[pool]) for pool in ("heldout", "label")) for name in NAMES} == {
        "bach": (30, 29), "oneills1850": (150, 294), "ryansMammoth": (100, 157), "monteverdi": (6, 20),
    }  # fmt: skip


def test_what_is_withheld_now_was_withheld_from_the_base() -> None:
    for name in NAMES:
        base, withheld = _by_title(name)
        assert tuple(base) == split(name)["base"]
        known = {work for group in withheld for work in group}
        assert {*split(name)["heldout"], *split(name)["label"]} < known


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=20),
    st.lists(st.integers(0, 12), min_size=31, max_size=31),
)
def test_works_of_one_title_or_of_one_family_stay_together(titles: list[list[int]], families: list[int]) -> None:
    of = {str(key): str(family) for key, family in enumerate(families)}
    seen: set[int] = set()
    groups = []
    for title in titles:
        groups.append([Work("made", str(key), "") for key in dict.fromkeys(title) if key not in seen])
        seen |= set(title)
    with mock.patch("partbook.simulation.collections.shipped", return_value=of):
        tied = _tied(groups)
    assert sorted(w.key for each in tied for w in each) == sorted(str(key) for key in seen)
    where = {w.key: place for place, each in enumerate(tied) for w in each}
    for group in groups:
        assert len({where[w.key] for w in group}) <= 1
    for a, b in itertools.combinations(where, 2):
        if of[a] == of[b]:
            assert where[a] == where[b]
    assert all(tied)


def test_encodings_with_a_rights_statement_are_left_out() -> None:
    keys = {work.key for work in works("monteverdi")}
    assert 40 <= len(keys) <= 47


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_one_track_on_the_collections_instrument(name: str) -> None:
    work = split(name)["heldout"][0]
    score = work.score()
    assert score.ticks_per_quarter == 480
    assert [track.program for track in score.tracks] == [by_name(name).program]
    assert len(score.tracks[0].notes) > 30
    assert work.printed
    assert ".mxl" not in work.printed


def test_a_seed_picks_a_labels_works_but_not_the_held_out_ones() -> None:
    bach = by_name("bach")
    assert choose(bach, "label", 10, 1) != choose(bach, "label", 10, 2)
    assert choose(bach, "heldout", 5, 1) == choose(bach, "heldout", 5, 2)


def test_an_excerpt_ends_within_a_beat_of_its_length(tmp_path) -> None:
    work = split("oneills1850")["heldout"][0]
    score = excerpt(work.score(), 10.0)
    from partbook.music.tokens import notes_of

    notes = notes_of(score)
    assert 8.0 < notes.onset.max() <= 10.0
    assert (notes.onset + notes.duration).max() <= 11.5


def test_file_names_can_be_read_and_written_everywhere(tmp_path) -> None:
    bach = by_name("bach")
    for take in takes(choose(bach, "heldout", 5, 1), bach, 10.0, tmp_path):
        assert take.path.suffix == ".flac"
        assert not set(take.path.name) & set('/\\:*?"<>|')


def test_an_unknown_collection_is_named() -> None:
    with pytest.raises(ScoreError, match="essenFolksong"):
        by_name("essenFolksong")
