"""The long profile multiplies the examples of every property, once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from long_runs import LONG, lengthen


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> Iterator[None]:
    before = settings.get_current_profile_name()
    settings.load_profile(request.param)
    yield
    settings.load_profile(before)


long = pytest.mark.parametrize("profile", [LONG], indirect=True)
ordinary = pytest.mark.parametrize("profile", ["shared machine"], indirect=True)


@long
def test_every_property_has_ten_times_its_examples(profile: None) -> None:
    seen = {"asking": 0, "silent": 0}

    @given(st.integers())
    @settings(max_examples=7, database=None)
    def asking(_: int) -> None:
        seen["asking"] += 1

    @given(st.integers())
    @settings(database=None)
    def silent(_: int) -> None:
        seen["silent"] += 1

    lengthen([asking, silent, asking])
    asking()
    silent()
    assert seen == {"asking": 70, "silent": 1000}


@long
def test_a_state_machine_is_run_ten_times_as_often(profile: None) -> None:
    class Machine(RuleBasedStateMachine):
        @rule()
        def step(self) -> None: ...

    case = Machine.TestCase
    case.settings = settings(max_examples=3, stateful_step_count=2)
    lengthen([case("runTest").runTest, case("runTest").runTest])
    assert case.settings.max_examples == 30
    assert case.settings.stateful_step_count == 2


@ordinary
def test_without_the_long_profile_nothing_changes(profile: None) -> None:
    @given(st.integers())
    @settings(max_examples=7)
    def asking(_: int) -> None: ...

    lengthen([asking])
    assert asking._hypothesis_internal_use_settings.max_examples == 7
