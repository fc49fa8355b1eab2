"""Human works: mixed by the square roots of the collections, drawn by a seed, no tune in both sets."""

from collections import Counter
from pathlib import Path

import pytest

from partbook.corpus.library import Library, PublicWork
from partbook.study.human import STYLES, Works, mixed, readings


def nobody(_: str) -> None:
    """Is told each title."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library.open(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def titles_only(monkeypatch: pytest.MonkeyPatch) -> list[PublicWork]:
    """The works that would be read: reading a madrigal takes a second."""
    asked: list[PublicWork] = []

    def noted(library: Library, works: list[PublicWork], on_work: object) -> Works:
        asked.extend(works)
        return Works((), tuple(work.collection for work in works))

    monkeypatch.setattr("partbook.study.human.readings", noted)
    return asked


def test_collections_are_mixed_by_the_square_roots_of_their_sizes(
    library: Library, titles_only: list[PublicWork]
) -> None:
    found = Counter(mixed(library, "heldout", 60, seed=1, on_work=nobody).styles)
    roots = {name: len(library.pool(name, "base")) ** 0.5 for name in STYLES}
    assert sum(found.values()) == 60
    for name in STYLES:
        assert found[name] == pytest.approx(60 * roots[name] / sum(roots.values()), abs=3)


def test_a_collection_that_is_short_lends_its_places_to_the_others(
    library: Library, titles_only: list[PublicWork]
) -> None:
    for pool in ("heldout", "label"):
        titles_only.clear()
        found = Counter(mixed(library, pool, 200, seed=1, on_work=nobody).styles)
        assert sum(found.values()) == 200
        for name in STYLES:
            assert 0 < found[name] <= len(library.pool(name, pool))
        assert len({work.key for work in titles_only}) == 200


def test_more_than_there_are_is_all_there_is(library: Library, titles_only: list[PublicWork]) -> None:
    found = mixed(library, "heldout", 10_000, seed=1, on_work=nobody)
    assert 200 < len(found.styles) <= sum(len(library.pool(name, "heldout")) for name in STYLES)


def test_no_tune_is_among_the_held_out_works_and_among_the_others(
    library: Library, titles_only: list[PublicWork]
) -> None:
    mixed(library, "heldout", 200, seed=1, on_work=nobody)
    held = {work.family for work in titles_only}
    titles_only.clear()
    mixed(library, "label", 200, seed=1, on_work=nobody)
    assert held.isdisjoint(work.family for work in titles_only)
    base = {work.family for name in STYLES for work in library.pool(name, "base")}
    assert base.isdisjoint(held | {work.family for work in titles_only})


def test_the_seed_draws_the_works(library: Library, titles_only: list[PublicWork]) -> None:
    def drawn(seed: int) -> list[str]:
        titles_only.clear()
        mixed(library, "heldout", 40, seed=seed, on_work=nobody)
        return [work.key for work in titles_only]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_works_are_read_under_their_titles_and_families(library: Library) -> None:
    works = library.pool("oneills1850", "heldout")[:4]
    told: list[str] = []
    found = readings(library, works, told.append)
    assert [piece.title for piece in found.pieces] == told == [work.title for work in works]
    assert [piece.work for piece in found.pieces] == [work.family for work in works]
    assert found.styles == ("oneills1850",) * 4
    assert len(found) == 4
    assert all(piece.quarters > 16 for piece in found.pieces)


def test_what_cannot_be_read_is_passed_over(library: Library, tmp_path: Path) -> None:
    good = library.pool("oneills1850", "heldout")[0]
    (tmp_path / "no.mid").write_bytes(b"nothing")
    bad = PublicWork("mine", "mine/no.mid", "no", "no", source=tmp_path / "no.mid")
    found = readings(library, [bad, good])
    assert [piece.title for piece in found.pieces] == [good.title]
    assert found.styles == ("oneills1850",)
