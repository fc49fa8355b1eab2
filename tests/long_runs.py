"""`--hypothesis-profile=long`: every property with ten times as many examples, however many a test asks for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hypothesis

LONG: Final = "long"
TIMES: Final = 10


def register() -> None:
    """Make the profile known; tests that ask for no number of examples have their ten times as many by it."""
    default = hypothesis.settings.get_profile("default").max_examples
    hypothesis.settings.register_profile(LONG, deadline=None, max_examples=TIMES * default)


def lengthen(tests: list[Callable[..., Any]]) -> None:
    """Multiply what tests ask for themselves; the same test, or the class it is of, may be there several times."""
    if hypothesis.settings.get_current_profile_name() != LONG:
        return
    done: set[int] = set()
    for test in tests:
        machine = hasattr(test, "_hypothesis_state_machine_class")
        # A property's settings lie on the function, and a state machine's on the test case that unittest makes of it.
        owner, name = (
            (type(test.__self__), "settings")
            if machine
            else (getattr(test, "__func__", test), "_hypothesis_internal_use_settings")
        )
        if id(owner) in done:
            continue
        done.add(id(owner))
        asked = getattr(owner, name)
        if asked.max_examples != hypothesis.settings.default.max_examples:
            setattr(owner, name, hypothesis.settings(asked, max_examples=TIMES * asked.max_examples))
