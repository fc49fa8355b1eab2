"""The learning rate at every token, and what makes two recipes two."""

from __future__ import annotations

import pytest

from partbook.errors import ConfigError
from partbook.training.recipe import Recipe


def test_it_warms_up_in_a_straight_line_and_falls_to_a_tenth_along_a_cosine() -> None:
    recipe = Recipe(tokens=1000, step_tokens=10, warmup=100)
    assert [recipe.share(seen) for seen in (0, 40, 90)] == pytest.approx([0.1, 0.5, 1.0])
    assert recipe.share(100) == 1.0
    assert recipe.share(550) == pytest.approx(0.55)
    assert recipe.share(1000) == pytest.approx(0.1)
    assert recipe.share(2000) == pytest.approx(0.1)


def test_stable_stays_at_the_peak_until_its_decay() -> None:
    recipe = Recipe(tokens=1000, step_tokens=10, warmup=100, schedule="stable", decay=0.2)
    assert [recipe.share(seen) for seen in (100, 500, 800)] == [1.0, 1.0, 1.0]
    assert recipe.share(900) == pytest.approx(0.5)
    assert 0 < recipe.share(999) < 0.01


def test_a_prolonged_stable_run_learns_at_the_peak_again() -> None:
    recipe = Recipe(tokens=1000, warmup=0, schedule="stable")
    assert recipe.share(990) < 0.06
    assert recipe.prolonged(2000).share(1000) == 1.0


def test_no_warm_up_starts_at_the_peak() -> None:
    assert Recipe(tokens=1000, warmup=0).share(0) == 1.0


def test_the_average_forgets_the_first_weights_sooner() -> None:
    recipe = Recipe(tokens=1000)
    assert recipe.averaging(0) == pytest.approx(0.1)
    assert recipe.averaging(10**6) == 0.999


def test_what_differs_is_named_with_both_values() -> None:
    one, other = Recipe(tokens=10, seed=1), Recipe(tokens=20, seed=1, clip=2.0)
    assert other.differences(one.as_state()) == {"tokens": (10, 20), "clip": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("tokens", 0), ("clip", 0.0), ("dropout", 1.0), ("average", -0.1)),
        *(("decay", 0.0), ("warmup", -1), ("schedule", "step")),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        Recipe(**{"tokens": 100, name: value})  # type: ignore[arg-type]
