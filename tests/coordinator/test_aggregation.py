import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partbook.coordinator.aggregation import average, step
from partbook.errors import CorruptMessage
from partbook.plan.federation import ServerStep

vectors = arrays(np.float32, 7, elements=st.floats(-1, 1, width=32))


@given(first=vectors, second=vectors, third=vectors)
def test_the_average_does_not_depend_on_who_answered_first(first, second, third) -> None:
    one = average({"A": first, "B": second, "C": third}, 7, 10.0)
    other = average({"C": third, "A": first, "B": second}, 7, 10.0)
    assert np.array_equal(one, other)
    assert np.allclose(one, np.mean([first, second, third], axis=0), atol=1e-6)


def test_an_update_beyond_the_clip_or_of_another_length_is_named() -> None:
    small = np.full(4, 0.1, np.float32)
    with pytest.raises(CorruptMessage, match="Bass sent an update of norm"):
        average({"Alto": small, "Bass": small * 100}, 4, 1.0)
    with pytest.raises(CorruptMessage, match="Bass sent 3 numbers"):
        average({"Alto": small, "Bass": small[:3]}, 4, 1.0)


def test_steps_follow_momentum() -> None:
    rule = ServerStep(learning_rate=0.5, momentum=0.9)
    adapter, velocity = np.zeros(2, np.float32), np.zeros(2, np.float32)
    mean = np.array([1.0, -2.0])
    adapter, velocity = step(adapter, mean, velocity, rule)
    assert adapter.tolist() == [0.5, -1.0]
    adapter, velocity = step(adapter, mean, velocity, rule)
    assert velocity == pytest.approx([1.9, -3.8])
    assert adapter == pytest.approx([0.5 + 0.95, -1.0 - 1.9])
