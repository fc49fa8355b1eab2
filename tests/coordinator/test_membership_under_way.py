"""A new version of the roster while a round is under way: nothing is added up for two cohorts."""

# The fixtures are those of the changes between rounds.
# ruff: noqa: F811
from __future__ import annotations

import pytest
from test_membership_changes import Line, federation, mode, sealed, vaults  # noqa: F401

from partbook.errors import CohortTooSmall, ConfigError
from partbook.identity.membership import next_version
from partbook.plan import wire


class Cut(Exception):
    """The coordinator's process ends here."""


class CutLine(Line):
    def __init__(self, line: Line, kind: str) -> None:
        self.nodes, self.custodian, self.refusals, self.kind = line.nodes, line.custodian, [], kind

    def exchange(self, kind, requests, *, timeout):
        found = super().exchange(kind, requests, timeout=timeout)
        if kind == self.kind:
            raise Cut
        return found


@pytest.mark.parametrize("kind", [wire.TRAIN, wire.SHARE, wire.CONTRIBUTE, wire.REVEAL])
def test_a_round_that_a_new_roster_finds_under_way_is_given_up_and_the_next_is_planned(federation, kind) -> None:
    federation.start()
    federation.run(1)
    federation.line = CutLine(federation.line, kind)
    with pytest.raises(Cut):
        federation.run(2)
    federation.install(next_version(federation.roster, remove=["Tenor"], seal_key=federation.new_seal()))
    line = federation.start()
    state = federation.run(2)
    assert state.history[-1].members == ("Alto", "Bass", "Discant")
    assert state.history[-1].round == (2 if kind == wire.TRAIN else 3)
    assert line.refusals == []


def test_no_label_sends_to_a_second_cohort_what_it_contributed_to_the_first(federation) -> None:
    """Two sums of one round, with and without a member that left, would differ by its update alone."""
    federation.start()
    federation.line = CutLine(federation.line, wire.REVEAL)
    with pytest.raises(Cut):
        federation.run(1)
    federation.install(next_version(federation.roster, remove=["Tenor"], seal_key=federation.new_seal()))
    line = federation.start()
    (federation.folder / "state" / "attempt").unlink()  # a coordinator that wants the second sum
    with pytest.raises(CohortTooSmall):
        federation.run(1)
    assert line.refusals == [("train", member, "StalePlan") for member in ("Alto", "Bass", "Discant")]


def test_a_sum_that_was_opened_is_stepped_with_before_the_roster_changes(sealed) -> None:
    sealed.start()
    sealed.line = CutLine(sealed.line, wire.APPLY)
    with pytest.raises(Cut):
        sealed.run(1)
    before = sealed.roster
    old = sealed.parties
    sealed.install(next_version(before, replace=[sealed.new_keys("Bass")]))
    sealed.start()
    with pytest.raises(ConfigError, match="Finish the round"):
        sealed.run(1)
    before.write(old.roster)
    sealed.parties = old
    sealed.start()
    assert sealed.run(1).round == 1
