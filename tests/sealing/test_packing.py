from __future__ import annotations

import numpy as np
import pytest
import slow_packing
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import ConfigError, ValueOutOfRange
from partbook.sealing.packing import Packing
from partbook.sealing.parameters import MAX_CONTRIBUTIONS
from partbook.secagg.rings import T

shapes = st.builds(
    lambda bits, cohort: (2**bits - 2, cohort), st.integers(2, 32), st.integers(1, MAX_CONTRIBUTIONS)
).filter(lambda shape: shape[0] * shape[1] < T)


@given(shape=shapes, length=st.integers(0, 50), members=st.integers(1, 128), data=st.data())
@settings(max_examples=150, deadline=None)
def test_sums_of_packed_vectors_unpack_to_the_sums_of_vectors(
    shape: tuple[int, int], length: int, members: int, data: st.DataObject
) -> None:
    packing, members = Packing(*shape), min(members, shape[1])
    extreme = data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    low = packing.span if extreme else 0
    vectors = [rng.integers(low, packing.span, length, endpoint=True).astype(np.uint32) for _ in range(members)]
    summed = np.zeros(packing.slots(length), dtype=np.uint64)
    for vector in vectors:
        summed = (summed + packing.pack(vector)) % np.uint64(T)
    expected = np.sum(vectors, axis=0, dtype=np.uint64)
    assert np.array_equal(packing.unpack(summed, length, members), expected)


@given(shape=shapes, values=st.lists(st.integers(0, 2**32 - 1), max_size=40))
@settings(max_examples=100, deadline=None)
def test_packing_agrees_with_the_slow_one(shape: tuple[int, int], values: list[int]) -> None:
    packing = Packing(*shape)
    values = [value % (packing.span + 1) for value in values]
    packed = packing.pack(np.array(values, dtype=np.uint32))
    assert packing.fields == slow_packing.fields_of(*shape)
    assert packed.tolist() == slow_packing.pack(values, *shape)
    assert slow_packing.unpack(packed.tolist(), len(values), *shape) == values
    assert all(slot < T for slot in packed.tolist())


def test_sixteen_bits_go_two_to_a_slot_for_every_cohort_a_sealed_sum_allows() -> None:
    assert {Packing(2**16 - 2, cohort).fields for cohort in range(3, MAX_CONTRIBUTIONS + 1)} == {2}


def test_a_value_above_the_span_is_refused_and_not_spilt_into_its_neighbour() -> None:
    packing = Packing(2**16 - 2, 64)
    with pytest.raises(ValueOutOfRange, match="index 1"):
        packing.pack(np.array([0, 2**16 - 1], dtype=np.uint32))


def test_slots_that_no_such_sum_has_are_refused() -> None:
    packing = Packing(2**16 - 2, 64)
    packed = packing.pack(np.full(3, packing.span, dtype=np.uint32))
    for bad in (
        packed * np.uint64(2),  # two contributions, not one
        packed + np.array([0, packing.radix], dtype=np.uint64),  # something behind the last parameter
        packed + np.array([packing.radix**2, 0], dtype=np.uint64),  # something above the last digit
        np.full(2, T - 1, dtype=np.uint64),
    ):
        with pytest.raises(ValueOutOfRange):
            packing.unpack(bad, 3, 1)


@pytest.mark.parametrize(("span", "cohort"), [(0, 3), (2**45, 64), (2**48, 1), (2**16 - 2, 0), (2**16 - 2, 129)])
def test_what_no_slot_holds_is_a_configuration_error(span: int, cohort: int) -> None:
    with pytest.raises(ConfigError):
        Packing(span, cohort)


def test_more_contributions_than_the_cohort_are_misuse() -> None:
    with pytest.raises(ValueError, match="1 to 3"):
        Packing(100, 3).unpack(np.zeros(1, dtype=np.uint64), 1, 4)
