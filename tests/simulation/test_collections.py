import itertools

import pytest

from partbook.errors import ScoreError
from partbook.simulation.collections import COLLECTIONS, _tune_name, by_name, split, works
from partbook.simulation.labels import choose, excerpt, takes

NAMES = [collection.name for collection in COLLECTIONS]


def test_no_work_and_no_tune_is_in_two_pools_of_any_collections() -> None:
    pools = {(name, pool): split(name)[pool] for name in NAMES for pool in ("heldout", "label", "base")}
    for (first, a), (second, b) in itertools.combinations(pools.items(), 2):
        assert not {w.key for w in a} & {w.key for w in b}, (first, second)
        if "base" in (first[1], second[1]) and first[1] != second[1]:
            shared = {_tune_name(w) for w in a} & {_tune_name(w) for w in b}
            assert not shared, f"{first} and {second} share {sorted(shared)[:3]}"


@pytest.mark.parametrize("name", NAMES)
def test_pools_are_large_enough_and_the_same_every_time(name: str) -> None:
    pools = split(name)
    collection = by_name(name)
    assert len(pools["heldout"]) >= collection.heldout
    assert len(pools["label"]) >= collection.pool
    assert pools["base"]
    split.cache_clear()
    assert split(name) == pools


def test_the_split_has_not_moved_since_the_base_was_trained() -> None:
    """Known answer: the shipped base has seen the base pools, and must never have seen these."""
    first = {name: split(name)["heldout"][0].key for name in NAMES}
    assert first["bach"] == "bach/bwv289.mxl"
    assert first["monteverdi"] == "monteverdi/madrigal.3.13.mxl"
    assert {name: len(split(name)["base"]) for name in NAMES} == {
        "bach": 234, "oneills1850": 1485, "ryansMammoth": 611, "monteverdi": 19,
    }  # fmt: skip


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
