"""Pools of withheld styles: no base, one work in five held out, and no tune that anybody else has."""

from dataclasses import dataclass

from partbook.corpus.dealing import POOLS, dealt, only, withheld
from partbook.corpus.table import leaks
from partbook.simulation.collections import Pool


@dataclass(frozen=True)
class Tune:
    collection: str
    number: int
    family: str


def tunes(collection: str, count: int, *, settings: int = 1) -> list[Tune]:
    return [Tune(collection, k, f"{collection}/{k // settings}") for k in range(count)]


def pools(**own: list[Tune]) -> dict[Pool, tuple[Tune, ...]]:
    return {pool: tuple(own.get(pool, ())) for pool in POOLS}


def test_one_work_in_five_is_held_out_and_the_others_are_the_labels() -> None:
    found = withheld({"airs": tunes("airs", 300)}, {})["airs"]
    assert [len(found[pool]) for pool in POOLS] == [0, 240, 60]
    few = withheld({"airs": tunes("airs", 60)}, {})["airs"]
    assert [len(few[pool]) for pool in POOLS] == [0, 36, 24]
    assert [len(pool) for pool in withheld({"airs": tunes("airs", 5)}, {})["airs"].values()] == [5, 0, 0]


def test_settings_of_one_tune_stay_together() -> None:
    found = withheld({"airs": tunes("airs", 300, settings=3)}, {})["airs"]
    assert not leaks({pool: [work.family for work in found[pool]] for pool in POOLS})
    assert len(found["heldout"]) == 60


def test_a_tune_that_others_use_is_in_no_pool_of_a_style_and_the_others_keep_it() -> None:
    for pool in POOLS:
        other = pools(**{pool: [Tune("dances", 0, "airs/7")]})
        found = withheld({"airs": tunes("airs", 100)}, {"dances": other})["airs"]
        assert 7 not in {work.number for pool in POOLS for work in found[pool]}
        assert sum(len(found[pool]) for pool in POOLS) == 99


def test_a_tune_of_two_styles_is_the_first_ones() -> None:
    second = [*tunes("songs", 50), Tune("songs", 50, "airs/3")]
    found = withheld({"airs": tunes("airs", 50), "songs": second}, {})
    assert 50 not in {work.number for pool in POOLS for work in found["songs"][pool]}
    assert 3 in {work.number for pool in POOLS for work in found["airs"][pool]}


def test_who_is_held_out_first_stays_so_where_more_are() -> None:
    """Joined collections hold out one in ten by the same hash: an air held out when they were among them is still."""
    airs = tunes("airs", 400)
    before = {work.number for work in dealt({"airs": airs}, {})["airs"]["heldout"]}
    after = {work.number for work in withheld({"airs": airs}, {})["airs"]["heldout"]}
    assert len(before) == 40
    assert before < after


def test_only_those_that_are_wanted_are_left() -> None:
    own = pools(base=tunes("a", 4), heldout=tunes("b", 2))
    assert only(own, lambda work: work.collection == "a") == pools(base=tunes("a", 4))
