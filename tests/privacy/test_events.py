"""Events: what they say, how they are written down, and what a plan's round comes to."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import CorruptMessage, UnsupportedEvent
from partbook.plan.rounds import RoundPlan
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining
from partbook.privacy.events import Event, NoisySum, Repeated, Unprotected, events_of, from_json, to_json

FIELDS = {
    "federation": "quartet",
    "roster": "e" * 64,
    "round": 3,
    "nonce": "0" * 32,
    "deadline": 2_000_000_000,
    "base_hash": "a" * 64,
    "model_hash": "b" * 64,
    "parameters": 1000,
    "cohort": ("Alto", "Bass", "Cantus", "Tenor"),
    "threshold": 3,
    "mode": "masked",
    "bits": 20,
}
DISTRIBUTED = DistributedDp(noise_multiplier=1.1, sampling=0.064, batch=64, colluders=1)

finite = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
sums = st.builds(
    NoisySum,
    noise_multiplier=finite,
    sampling=st.floats(0, 1, exclude_min=True),
    slack=st.floats(0, allow_infinity=False),
    tail=st.floats(0, 1, exclude_max=True),
)
repeated = st.builds(Repeated, sums | st.just(Unprotected()), st.integers(1, 2**53 - 1))


@given(st.lists(repeated, max_size=4))
def test_events_survive_their_canonical_form(events: list[Repeated]) -> None:
    text = to_json(events)
    assert from_json(text) == tuple(events)
    assert to_json(from_json(text)) == text


def test_the_form_of_events_never_changes() -> None:
    """Ledgers hold these bytes: a change here is a change of what labels signed for."""
    events = (Repeated(NoisySum(1.25, 0.064, 2.5e-67, 1.7e-26), 3), Repeated(Unprotected()))
    assert to_json(events) == (
        '[{"event":{"kind":"noisy-sum","noise_multiplier":"1.25","sampling":"0.064","slack":"2.5e-67",'
        '"tail":"1.7e-26"},"times":3},{"event":{"kind":"unprotected"},"times":1}]'
    )


def spoilt(**changes: object) -> str:
    event = {"kind": "noisy-sum", "noise_multiplier": "1.0", "sampling": "0.5", "slack": "0.0", "tail": "0.0"}
    event |= {key: value for key, value in changes.items() if key != "times"}
    item = {"event": {k: v for k, v in event.items() if v is not None}, "times": changes.get("times", 1)}
    return json.dumps([item], sort_keys=True, separators=(",", ":"))


def test_what_is_spoilt_below_is_whole_before() -> None:
    assert from_json(spoilt()) == (Repeated(NoisySum(1.0, 0.5)),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (spoilt(kind="laplace-sum"), "laplace-sum"),
        (spoilt(kind=None), "kind"),
        (spoilt(sampling=None), "`sampling` is missing"),
        (spoilt(slack=None), "`slack` is missing"),
        (spoilt(clip="1.0"), "`clip` is not a known key"),
        (spoilt(noise_multiplier="nan"), "noise_multiplier"),
        (spoilt(noise_multiplier="inf"), "noise_multiplier"),
        (spoilt(noise_multiplier="0.0"), "noise_multiplier"),
        (spoilt(noise_multiplier="-1.0"), "noise_multiplier"),
        (spoilt(noise_multiplier=1), "noise_multiplier"),
        (spoilt(noise_multiplier="1.00"), "shortest"),
        (spoilt(noise_multiplier=" 1.0"), "shortest"),
        (spoilt(noise_multiplier="many"), "shortest"),
        (spoilt(sampling="0.0"), "sampling"),
        (spoilt(sampling="1.5"), "sampling"),
        (spoilt(slack="-1e-09"), "slack"),
        (spoilt(slack="-0.0"), "slack"),
        (spoilt(slack="nan"), "slack"),
        (spoilt(tail="1.0"), "tail"),
        (spoilt(times=0), "times"),
        (spoilt(times=-2), "times"),
        (spoilt(times=True), "times"),
        (spoilt(times="3"), "times"),
        (spoilt(times=2**53), "canonical"),
        (spoilt().replace(",", ", "), "canonical"),
        (spoilt().replace('"slack":"0.0"', '"slack":"0.0","slack":"0.0"'), "canonical"),
        (spoilt()[:-2], "canonical"),
        ('{"event":{"kind":"unprotected"},"times":1}', "list"),
        ("[1]", "event 1"),
        ('[{"event":1,"times":1}]', "event"),
        ('[{"event":{"kind":"unprotected"}}]', "`times` is missing"),
        ('[{"event":{"kind":"unprotected","sampling":"0.1"},"times":1}]', "sampling"),
        ('[{"event":{"kind":["unprotected"]},"times":1}]', "kind"),
        ("", "canonical"),
    ],
)
def test_anything_but_an_events_one_form_is_refused_naming_the_key(text: str, says: str) -> None:
    with pytest.raises(CorruptMessage, match=says):
        from_json(text)


def test_a_later_event_is_named_by_its_place() -> None:
    good, bad = spoilt()[1:-1], spoilt(sampling="7.0")[1:-1]
    with pytest.raises(CorruptMessage, match="event 2: sampling is 7"):
        from_json(f"[{good},{bad}]")


def test_an_event_out_of_its_range_cannot_be_made() -> None:
    for wrong in ({"noise_multiplier": math.nan}, {"sampling": 0.0}, {"slack": -1.0}, {"tail": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NoisySum(**({"noise_multiplier": 1.0, "sampling": 0.5} | wrong))
    for times in (0, 1.5, True):
        with pytest.raises(ValueError, match="times"):
            Repeated(Unprotected(), times)  # type: ignore[arg-type]


def test_an_event_without_a_spelling_is_not_written() -> None:
    class Shuffled:
        pass

    with pytest.raises(UnsupportedEvent, match="Shuffled"):
        to_json([Repeated(Shuffled())])  # type: ignore[arg-type]


def the_sum(events: tuple[Repeated, ...]) -> NoisySum:
    (only,) = events
    event: Event = only.event
    assert isinstance(event, NoisySum)
    return event


def test_a_distributed_round_is_one_sum_and_outsiders_see_it_through_all_members_noise() -> None:
    plan = RoundPlan(**FIELDS, training=DISTRIBUTED)
    near, far = the_sum(events_of(plan, "colluders")), the_sum(events_of(plan, "outsiders"))
    assert (near.noise_multiplier, near.sampling) == (1.1, 0.064)
    assert near.slack == plan.grid.slack
    assert near.tail == 4 * plan.grid.truncation > 0
    assert far.noise_multiplier == pytest.approx(1.1 * math.sqrt(3 / 2))
    assert (far.sampling, far.tail) == (near.sampling, near.tail)
    assert far.slack >= near.slack, "three shares are a little further from a discrete Gaussian than two"
    # What the grid really adds is no less than what the events say.
    grid = plan.grid
    assert 2 * grid.variance >= (near.noise_multiplier * grid.sensitivity) ** 2
    assert 3 * grid.variance >= (far.noise_multiplier * grid.sensitivity) ** 2 * (1 - 1e-12)


def test_without_colluders_there_is_one_figure() -> None:
    plan = RoundPlan(**FIELDS, training=DISTRIBUTED.model_copy(update={"colluders": 0}))
    assert events_of(plan, "colluders") == events_of(plan, "outsiders")


def test_a_local_round_is_as_many_sums_as_steps_the_same_against_everybody() -> None:
    training = LocalDp(noise_multiplier=1.5, sampling=0.1, batch=25, steps=7)
    plan = RoundPlan(**FIELDS, training=training)
    events = events_of(plan, "colluders")
    assert events == events_of(plan, "outsiders")
    assert events == (Repeated(NoisySum(1.5, 0.1, plan.local_grid.slack, plan.local_grid.truncation), 7),)
    assert the_sum(events).slack == 0.0


def test_plain_training_is_unprotected() -> None:
    plan = RoundPlan(**FIELDS, training=PlainTraining())
    assert events_of(plan, "colluders") == events_of(plan, "outsiders") == (Repeated(Unprotected()),)


def test_training_of_an_unknown_kind_is_refused() -> None:
    class Odd:
        kind = "odd"

    plan = RoundPlan(**FIELDS, training=DISTRIBUTED).model_copy(update={"training": Odd()})
    with pytest.raises(UnsupportedEvent, match="odd"):
        events_of(plan, "colluders")


def test_an_unknown_adversary_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="everybody"):
        events_of(RoundPlan(**FIELDS, training=DISTRIBUTED), "everybody")  # type: ignore[arg-type]
