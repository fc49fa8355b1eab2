from __future__ import annotations

import os
import pickle
import tracemalloc

import numpy as np
import pytest
import slow
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from partbook.errors import CorruptMessage, ValueOutOfRange
from partbook.secagg.rings import CHUNK, RESIDUES, WORDS, Ring, T, _Stream, add_masks, ring_named

# Rejects nearly every other word, which modulo t happens once in 2^34.
NARROW = Ring("narrow", 2**47 + 1, np.dtype("<u8"), np.dtype("<i8"))
rings = pytest.mark.parametrize("ring", [WORDS, RESIDUES, NARROW], ids=lambda ring: ring.name)
two_rings = pytest.mark.parametrize("ring", [WORDS, RESIDUES], ids=lambda ring: ring.name)


def random_values(ring: Ring, length: int) -> np.ndarray:
    generator = np.random.default_rng(length)
    return generator.integers(0, ring.modulus, length, ring.dtype)


def test_t_is_the_largest_48_bit_prime_that_is_1_modulo_8192():
    def prime(number):
        return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13, 17))

    assert RESIDUES.modulus == T == slow.T
    candidates = range(2**48 - 2**48 % 8192 + 1 - 8192, 0, -8192)
    assert next(number for number in candidates if prime(number)) == T


def test_a_plan_names_one_of_two_rings():
    assert ring_named("2^32") is WORDS
    assert ring_named("t") is RESIDUES
    with pytest.raises(ValueError, match="not a ring"):
        ring_named("2^64")


@rings
@given(data=st.data())
def test_masks_are_those_of_the_slow_arithmetic(ring, data):
    length = data.draw(st.integers(0, 40))
    values = data.draw(st.lists(st.integers(0, ring.modulus - 1), min_size=length, max_size=length))
    masks = data.draw(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from([1, -1])), max_size=4))
    chunk = data.draw(st.integers(0, 2**64 - 1))
    ours = np.array(values, ring.dtype)
    add_masks(ours, masks, ring, chunk)
    assert ours.tolist() == slow.masked(values, masks, ring.modulus, chunk)


@pytest.mark.parametrize("length", [1, 2**15 - 1, 2**15, 2**15 + 1, 2**16 + 3])
def test_rejected_words_shift_the_stream_across_blocks(length):
    values = np.zeros(length, NARROW.dtype)
    add_masks(values, [(slow.seed(1), 1)], NARROW, 5)
    assert values.tolist() == slow.mask(slow.seed(1), 5, NARROW.modulus, length)


@rings
def test_masks_cancel_in_any_order_and_grouping(ring):
    values = random_values(ring, 40_000)
    before = values.copy()
    seeds = [os.urandom(32) for _ in range(5)]
    add_masks(values, [(seed, 1) for seed in seeds], ring, 2)
    assert (values != before).mean() > 0.99
    add_masks(values, [(seed, -1) for seed in reversed(seeds[2:])], ring, 2)
    for seed in seeds[:2]:
        add_masks(values, [(seed, -1)], ring, 2)
    np.testing.assert_array_equal(values, before)


@two_rings
def test_a_shorter_chunk_has_the_beginning_of_the_same_mask(ring):
    long, short = np.zeros(70_000, ring.dtype), np.zeros(33_333, ring.dtype)
    for values in (long, short):
        add_masks(values, [(slow.seed(3), -1)], ring, 9)
    np.testing.assert_array_equal(long[: len(short)], short)


@two_rings
def test_chunks_and_seeds_share_no_mask(ring):
    masks = []
    for seed, chunk in [(1, 0), (1, 1), (1, 2**32), (2, 0)]:
        masks.append(np.zeros(1000, ring.dtype))
        add_masks(masks[-1], [(slow.seed(seed), 1)], ring, chunk)
    assert len(np.unique(np.concatenate(masks))) > 3990


@rings
def test_a_masked_zero_vector_is_uniform(ring):
    values = np.zeros(2**17, ring.dtype)
    add_masks(values, [(slow.seed(4), 1)], ring, 0)
    assert int(values.max()) < ring.modulus
    counts = np.histogram(values, bins=256, range=(0, ring.modulus))[0]
    assert stats.chisquare(counts).pvalue > 1e-4


@rings
def test_a_thousand_masks_of_one_sign_do_not_overflow(ring):
    values = np.full(3, ring.modulus - 1, ring.dtype)
    masks = [(slow.seed(number), -1) for number in range(1000)]
    add_masks(values, masks, ring, 0)
    assert values.tolist() == slow.masked([ring.modulus - 1] * 3, masks, ring.modulus, 0)


@two_rings
def test_masking_a_chunk_takes_less_than_a_mebibyte(ring):
    values = np.zeros(CHUNK, ring.dtype)
    masks = [(slow.seed(number), 1) for number in range(4)]
    tracemalloc.start()
    try:
        add_masks(values, masks, ring, 0)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "values",
    [np.zeros(2, np.uint32), np.zeros(2, np.int64), np.zeros(2), np.zeros((1, 2), np.uint64), np.uint64(1).reshape(())],
)
def test_a_vector_of_another_type_or_shape_is_refused(values):
    for refuse in (RESIDUES.check, RESIDUES.to_bytes, lambda v: add_masks(v, [], RESIDUES, 0)):
        with pytest.raises(ValueOutOfRange, match="another ring"):
            refuse(values)


def test_an_unreduced_element_is_named_by_its_place_and_never_shown():
    values = np.zeros(50_000, np.uint64)
    values[[40_000, 45_000]] = T, T + 123456
    RESIDUES.check(values[:40_000])
    for refuse in (RESIDUES.check, RESIDUES.to_bytes, lambda v: add_masks(v, [(bytes(32), 1)], RESIDUES, 0)):
        with pytest.raises(ValueOutOfRange, match=r"Element 40000 of 50000") as refusal:
            refuse(values)
        assert str(T) not in str(refusal.value)
    assert values[0] == 0
    with pytest.raises(ValueOutOfRange, match="Element 40000"):
        RESIDUES.from_bytes(values.tobytes(), len(values))


@two_rings
@given(data=st.data())
def test_bytes_carry_the_elements_there_and_back(ring, data):
    values = np.array(data.draw(st.lists(st.integers(0, ring.modulus - 1), max_size=20)), ring.dtype)
    wire = ring.to_bytes(values)
    assert wire == b"".join(int(v).to_bytes(ring.dtype.itemsize, "little") for v in values)
    back = ring.from_bytes(wire, len(values))
    assert back.dtype == ring.dtype
    assert back.flags.writeable
    np.testing.assert_array_equal(back, values)
    for wrong, length in [(wire + b"\0", len(values)), (wire, len(values) + 1)]:
        with pytest.raises(CorruptMessage, match="cut or padded"):
            ring.from_bytes(wrong, length)


@two_rings
def test_vectors_are_added_in_the_ring(ring):
    a, b = random_values(ring, 40_000), random_values(ring, 40_000)[::-1].copy()
    a[:3], b[:3] = (ring.modulus - 1, 0, 1), (ring.modulus - 1, 0, ring.modulus - 1)
    expected = [(x + y) % ring.modulus for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    ring.add(a, b)
    assert a.tolist() == expected
    with pytest.raises(ValueError, match="cannot be added"):
        ring.add(a, b[1:])


@pytest.mark.parametrize("ring", [WORDS, RESIDUES], ids=lambda ring: ring.name)
def test_any_number_of_masks_is_taken_off_again(ring):
    # More than a 63-bit sum of 48-bit masks would hold: what 1,000 members leave behind when 47 of them drop out.
    values = np.arange(3, dtype=ring.dtype)
    seeds = [index.to_bytes(32, "big") for index in range(20_000)]
    add_masks(values, [(seed, 1) for seed in seeds], ring, 0)
    assert values.tolist() != [0, 1, 2]
    add_masks(values, [(seed, -1) for seed in seeds], ring, 0)
    assert values.tolist() == [0, 1, 2]


def test_what_cannot_be_masked_is_a_mistake_of_the_caller():
    values = np.zeros(4, np.uint32)
    for wrong, masks in [
        (np.zeros(CHUNK + 1, np.uint32), []),
        (values, [(bytes(16), 1)]),
        (values, [(bytes(32), 2)]),
        (values, [(bytes(32), 1)] * 200 + [(bytes(31), 1)]),
    ]:
        with pytest.raises(ValueError, match=r"chunk|seed|added"):
            add_masks(wrong, masks, WORDS, 0)
    assert not values.any()


def test_a_keystream_is_not_pickled():
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(_Stream(bytes(32), WORDS, 0))
