"""What is held out is heard by nobody: the shipped table is what works sound like, and no two pools share a tune."""

import itertools

import numpy as np
import pytest

from partbook.corpus.families import LATER, Link, Tune, families, installed_keys, installed_links, is_later, links, tune
from partbook.corpus.melody import Melody, melodies_of_musicxml
from partbook.corpus.table import TABLE, leaks, shipped, table_of
from partbook.simulation.collections import COLLECTIONS, Pool, corpus, split, works

pytestmark = pytest.mark.timeout(600)  # reads every work of the installed corpus, where others may want the cores
POOLS: tuple[Pool, ...] = ("base", "label", "heldout")


def line(seed: int, notes: int = 60, step: float = 0.5) -> Melody:
    """A walk of a tune's kind."""
    random = np.random.Generator(np.random.Philox(seed))
    pitch = 67 + np.cumsum(random.choice([-4, -2, -1, 1, 2, 3, 5, -5], notes)) % 12
    return Melody(np.arange(notes) * step, pitch.astype(np.int64))


def pairs(*tunes: Tune) -> set[tuple[int, int]]:
    return {(link.first, link.second) for link in links(tunes)}


@pytest.mark.slow
def test_the_shipped_table_is_what_works_sound_like() -> None:
    keys = installed_keys()
    read = [tune(key) for key in keys]
    assert not [key for key, melodies in zip(keys, read, strict=True) if not melodies]
    assert table_of(families(keys, installed_links(keys, read))) == TABLE.read_text(encoding="utf-8"), (
        "works are grouped otherwise now: run python -m partbook.corpus.families"
    )


def pooled() -> dict[str, list[str]]:
    """The keys of every pool, of all collections together."""
    return {pool: [w.key for c in COLLECTIONS for w in split(c.name)[pool]] for pool in POOLS}


def leaking(pools: dict[str, list[str]]) -> dict[str, set[str]]:
    return leaks({pool: [shipped().get(key, key) for key in keys] for pool, keys in pools.items()})


def test_no_two_pools_share_a_tune() -> None:
    assert not leaking(pooled())


def test_no_two_collections_withhold_the_same_tune() -> None:
    withheld = {
        c.name: [shipped().get(w.key, w.key) for p in ("label", "heldout") for w in split(c.name)[p]]  # type: ignore[index]
        for c in COLLECTIONS
    }
    assert not leaks(withheld)


def test_a_chorales_second_harmonisation_in_base_is_noticed() -> None:
    pools = pooled()
    members: dict[str, list[str]] = {}
    for key in pools["heldout"]:
        members.setdefault(shipped().get(key, key), []).append(key)
    chorales = [keys for keys in members.values() if len(keys) > 1 and keys[0].startswith("bach/")]
    assert chorales, "some held-out chorale is there in two settings"
    for keys in chorales:
        for moved in keys:
            mutant = {pool: [k for k in own if k != moved] for pool, own in pools.items()}
            mutant["base"].append(moved)
            assert leaking(mutant) == {shipped()[moved]: {"base", "heldout"}}


def test_every_work_moved_out_of_its_family_is_noticed() -> None:
    pools = pooled()
    sizes: dict[str, int] = {}
    for key in itertools.chain(*pools.values()):
        family = shipped().get(key, key)
        sizes[family] = sizes.get(family, 0) + 1
    together = [key for key in pools["label"] + pools["heldout"] if sizes[shipped().get(key, key)] > 1]
    assert len(together) > 20
    for moved in together:
        mutant = {pool: [k for k in own if k != moved] for pool, own in pools.items()}
        mutant["base"].append(moved)
        assert leaking(mutant)


@pytest.mark.parametrize(
    "tunes_of_one",
    [
        # O Haupt voll Blut und Wunden: four harmonies, three keys, four titles
        ("bach/bwv244.54.mxl", "bach/bwv244.62.mxl", "bach/bwv270.mxl", "bach/bwv135.6.mxl"),
        # Wer nur den lieben Gott, with passing notes and without
        ("bach/bwv434.mxl", "bach/bwv88.7.mxl", "bach/bwv84.5.mxl"),
        # Freu dich sehr in four quarters and in three
        ("bach/bwv19.7.mxl", "bach/bwv32.6.mxl"),
    ],
)
def test_harmonisations_of_one_chorale_are_one_family(tunes_of_one: tuple[str, ...]) -> None:
    assert len({shipped()[key] for key in tunes_of_one}) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("The Boyne Hunt", "THE BOYNE HUNT -- REEL"), ("Merry Blacksmith, The", "PADDY ON THE RAILROAD -- REEL")],
)
def test_settings_of_one_dance_tune_are_one_family_whatever_their_titles(first: str, second: str) -> None:
    mine = {shipped().get(w.key) for w in works("oneills1850") if w.title == first}
    theirs = {shipped().get(w.key) for w in works("ryansMammoth") if w.title == second}
    assert (mine & theirs) - {None}


def test_collections_that_came_later_join_families_and_change_none() -> None:
    """What they add would move the frequencies by which the others are compared, and works with them."""
    assert LATER == ("trecento",)
    keys = installed_keys()
    assert [is_later(key) for key in keys] == sorted(is_later(key) for key in keys)
    first, other = line(1), line(2)
    read = [(first,), (other,), (Melody(first.onset, first.pitch + 2),)]
    found = installed_links(["bach/a", "bach/b", "trecento/c"], read)
    assert [(link.first, link.second) for link in found] == [(0, 2)]


def test_links_since_a_work_are_those_that_it_or_a_later_one_has() -> None:
    read = [(line(k % 5),) for k in range(20)]
    every = links(read)
    assert len(every) == 5 * 6
    assert links(read, 12) == [link for link in every if link.second >= 12]


def test_two_chorales_under_one_title_are_two_families() -> None:
    """Befiehl du deine Wege has a tune of its own in BWV 272, and that of O Haupt in BWV 270."""
    assert shipped().get("bach/bwv272.mxl") != shipped()["bach/bwv270.mxl"]


def test_no_chain_of_likenesses_makes_one_family_of_many_tunes() -> None:
    sizes = sorted(np.unique(list(shipped().values()), return_counts=True)[1].tolist())
    assert sizes[-1] <= 16
    assert len(sizes) > 500


def test_one_tune_in_another_key_and_at_another_speed_is_linked() -> None:
    first = line(1)
    assert pairs((first,), (Melody(first.onset * 2 + 1.5, first.pitch - 5),)) == {(0, 1)}


def test_another_voice_above_or_below_hides_no_tune() -> None:
    first, above, below = line(1), line(2), line(3)
    assert pairs((above, above, first, below), (first,)) == {(0, 1)}


def test_unrelated_tunes_are_not_linked() -> None:
    assert not pairs(*((line(seed),) for seed in range(60)))


def test_a_drone_is_no_tune() -> None:
    onset = np.arange(64) * 0.5
    first = Melody(onset, np.where(np.arange(64) % 16 == 15, 65 + np.arange(64) // 16, 64))
    second = Melody(onset, np.where(np.arange(64) % 16 == 14, 60 + np.arange(64) // 16, 64))
    assert not pairs((first,), (second,))


def test_a_shared_phrase_of_two_bars_is_no_tune() -> None:
    first, second = line(4), line(5)
    shared = Melody(second.onset, np.concatenate([first.pitch[:14], second.pitch[14:]]))
    assert not pairs((first,), (shared,))


def test_works_without_a_melody_are_in_no_family() -> None:
    assert not pairs((), (line(1),), ())
    assert links([]) == []


def test_links_chain_and_a_family_is_called_like_its_first_member() -> None:
    found = families(["d", "c", "b", "a"], [Link(0, 1, 1, 1), Link(1, 3, 1, 1)])
    assert found == {"d": "a", "c": "a", "a": "a"}


def test_leaks_names_the_pools() -> None:
    assert leaks({"base": ["x", "x", "y"], "label": ["z"], "heldout": ["y"]}) == {"y": {"base", "heldout"}}


def test_a_chorale_that_is_read_anew_is_linked_to_its_other_harmonisation() -> None:
    """The whole way from two files, without the table."""
    read = [melodies_of_musicxml(corpus() / f"bach/bwv{n}.mxl") for n in ("244.54", "270", "66.6", "227.1")]
    assert pairs(*read) == {(0, 1)}
