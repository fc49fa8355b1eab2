"""Bounds from guesses: the papers' own figures, closed forms, a mechanism whose ε is known, and real rounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, norm

from partbook.errors import ConfigError
from partbook.privacy.mechanism import NoisyGrid
from partbook.simulation.audit import one_run
from partbook.simulation.audit.bounds import (
    METHODS,
    Guessed,
    binomial_epsilon,
    binomial_p,
    epsilon_of_mu,
    explained,
    gaussian_refuted,
    needed,
)
from partbook.simulation.audit.canaries import Federation, Setting, canary
from partbook.simulation.audit.one_run import OneRun, right_guesses

pytestmark = pytest.mark.timeout(300)  # whole audits

DELTA = 1e-5


def small(base: Path, **more: float) -> Setting:
    return Setting(labels=3, each=6, rounds=2, base=base, **more)


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_binomial_bound_is_the_papers(
    canaries: int, guesses: int, right: int, delta: float, published: float
) -> None:
    # arXiv 2305.08846 v1, appendix D, p. 46, and §7, p. 28, which cuts digits off rather than rounding.
    assert binomial_epsilon(canaries, guesses, right, delta) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("guesses", [1, 10, 80, 500])
def test_guesses_that_are_all_right_have_a_closed_form(guesses: int) -> None:
    chance = 0.05 ** (1 / guesses)
    expected = max(0.0, math.log(chance / (1 - chance)))
    assert binomial_epsilon(guesses, guesses, guesses, 0.0) == pytest.approx(expected, abs=1e-6)


def test_eighty_right_of_eighty_show_more_than_three() -> None:
    assert binomial_epsilon(80, 80, 80, DELTA) > 3.2


def test_what_delta_adds_is_what_its_definition_says() -> None:
    canaries, guesses, right, epsilon, delta = 60, 40, 31, 0.7, 1e-3
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))
    worst = max(
        sum(float(binom.pmf(k, guesses, chance)) for k in range(right - i, right)) / i for i in range(1, right + 1)
    )
    tail = sum(float(binom.pmf(k, guesses, chance)) for k in range(right, guesses + 1))
    assert binomial_p(canaries, guesses, right, epsilon, delta) == pytest.approx(tail + 2 * canaries * delta * worst)


def test_one_guess_about_one_coin_is_right_with_a_chance_known_exactly() -> None:
    # Of two Gaussians μ apart, a fair coin between them is guessed with probability Φ(μ/2) at best.
    for mu in (0.1, 1.0, 3.0):
        best = float(norm.cdf(mu / 2))
        assert not gaussian_refuted(1, 1, 1, mu, level=best - 1e-6)
        assert gaussian_refuted(1, 1, 1, mu, level=best + 1e-6)


@pytest.mark.parametrize("method", ["binomial", "mu"])
def test_more_right_guesses_never_show_less(method: str) -> None:
    found = [getattr(Guessed.of(60, 40, right, DELTA), method) for right in range(15, 41)]
    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[-1] > 0.9


def test_the_epsilon_of_a_gaussian_solves_its_equation() -> None:
    for mu, delta in ((0.25, 1e-5), (1.0, 1e-5), (4.0, 1e-8)):
        epsilon = epsilon_of_mu(mu, delta)
        spent = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        assert spent == pytest.approx(delta, rel=1e-4)
    assert epsilon_of_mu(0.0, 1e-5) == 0.0


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be"):
        binomial_p(10, 11, 3, 1.0, 0.0)
    with pytest.raises(ValueError, match="cannot be"):
        gaussian_refuted(10, 5, 6, 1.0)


def guessed(noise: float, canaries: int, guesses: int, random: np.random.Generator) -> int:
    """Right guesses about coins seen through Gaussian noise, one number each."""
    coins = random.random(canaries) < 0.5
    return right_guesses(coins + noise * random.standard_normal(canaries), coins, guesses)


@pytest.mark.parametrize("guesses", [60, 300])
@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_the_bounds_stay_below_a_known_truth(mu: float, guesses: int) -> None:
    random, truth, runs = np.random.default_rng(7), epsilon_of_mu(mu, DELTA), 300
    rights = [guessed(1 / mu, 300, guesses, random) for _ in range(runs)]
    bounds = {right: Guessed.of(300, guesses, right, DELTA) for right in set(rights)}
    for method in METHODS:
        assert explained(sum(bounds[right].bound(method) > truth for right in rights), runs)
    assert np.median([bounds[right].mu for right in rights]) > 0.0, "and they say something"


@pytest.mark.parametrize("halvings", [0, 1, 2, 3, 4])
def test_noise_that_was_halved_too_often_is_found_out(halvings: int) -> None:
    random, claim, canaries = np.random.default_rng(halvings), epsilon_of_mu(0.5, DELTA), 1600
    found = Guessed.of(canaries, canaries, guessed(2.0 / 2**halvings, canaries, canaries, random), DELTA)
    assert (max(found.binomial, found.gaussian) > claim) == (halvings >= 2)


def test_the_fewest_right_guesses_that_contradict_a_claim_are_just_enough() -> None:
    enough = needed(80, 1.0, DELTA)
    assert max(Guessed.of(80, 80, enough, DELTA).bound(method) for method in METHODS) > 1.0
    assert max(Guessed.of(80, 80, enough - 1, DELTA).bound(method) for method in METHODS) <= 1.0


def test_chance_explains_a_bound_in_twenty_and_not_five() -> None:
    assert explained(0, 20)
    assert explained(1, 20)
    assert not explained(5, 20)


def test_abstaining_keeps_the_surest_guesses() -> None:
    scores, coins = np.array([0.9, 0.52, 0.48, 0.1]), np.array([True, False, True, False])
    assert [right_guesses(scores, coins, guesses) for guesses in (2, 4)] == [2, 2]


def test_every_canary_is_one_window_of_its_own(tiny_base: Path) -> None:
    federation = Federation(small(tiny_base), np.random.default_rng(0))
    assert all(len(recording.ids) < federation.model.config.context for recording in federation.recordings)
    assert len({recording.ids.tobytes() for recording in federation.recordings}) == 18 + 3
    made = [canary(0, federation.tokenizer, np.random.default_rng(3)).to_bytes() for _ in range(2)]
    assert made[0] == made[1]


def test_the_noise_is_calibrated_to_the_claim(tiny_base: Path) -> None:
    federation = Federation(small(tiny_base), np.random.default_rng(0))
    assert 0.99 < federation.claimed <= 1.0
    # Rényi accounting gives a little away, so the Gaussian's own ε lies below.
    assert epsilon_of_mu(federation.mu, 1e-5) < federation.claimed


def test_with_noise_the_adversary_guesses_and_without_it_knows(tiny_base: Path) -> None:
    random = np.random.default_rng(1)
    federation = Federation(small(tiny_base), random)
    kinds = {}
    for protected in (True, False):
        coins = [federation.coins(random) for _ in range(4)]
        played = [(federation.play(each, protected=protected).scores(), each) for each in coins]
        kinds[protected] = OneRun.of(played, 18, 1e-5)
    # Far above the claim, so that chance fails this test less than once in a hundred thousand times.
    assert not kinds[True].contradicts(2.5 * federation.claimed)
    assert kinds[False].contradicts(federation.claimed)
    assert kinds[False].together.right == 4 * 18
    assert np.abs(kinds[False].scores - kinds[False].coins).max() < 0.1
    assert kinds[False].above(federation.claimed, "binomial") == 4


def test_masks_and_messages_give_the_adversary_the_sums_that_adding_up_does(tiny_base: Path, tmp_path: Path) -> None:
    # With next to no noise, whatever the way there, each canary shows whether it was in.
    federation = Federation(small(tiny_base), np.random.default_rng(2))
    training = federation.plan.training.model_copy(update={"noise_multiplier": 0.05})
    federation.plan = federation.plan.model_copy(update={"training": training})
    coins = federation.coins(np.random.default_rng(3))
    for view in (federation.play(coins), federation.play_messages(coins, tmp_path)):
        assert np.array_equal(view.scores() > 0.5, coins)
        # Noise, and a little rounding, as the adversary measures them.
        assert view.variance == pytest.approx((0.05 * federation.setting.clip) ** 2, rel=0.1)
        assert np.diag(view.gram) == pytest.approx(2 * federation.setting.clip**2, rel=1e-4)


def test_a_run_reports_both_kinds_and_draws_them(tiny_base: Path, tmp_path: Path) -> None:
    said: list[str] = []
    # Of what so few canaries can refute at all, a claim that chance hardly ever does.
    result = one_run.run(tmp_path, quick=True, seed=1, on_progress=said.append, runs=3, epsilon=2.0, base=tiny_base)
    assert result.within
    assert len(said) == 6
    assert "With noise" in result.finding
    assert result.figures["without_noise"]["together"]["right"] == 96
    assert result.figures["runs_above_the_claim"]["without_noise"]["binomial"] == 3
    assert result.plot.read_bytes().startswith(b"\x89PNG")


def test_a_federation_that_lost_its_noise_is_caught(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoisyGrid, "noisy", lambda grid, total, words=None: total)
    result = one_run.run(tmp_path, quick=True, seed=1, on_progress=lambda _: None, runs=1, base=tiny_base)
    assert not result.within
    assert "broken" in result.finding


def test_a_claim_that_could_not_fail_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not fail"):
        one_run.run(tmp_path, quick=True, seed=1, on_progress=lambda _: None, epsilon=3.0)
