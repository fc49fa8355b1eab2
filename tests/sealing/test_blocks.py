from __future__ import annotations

import numpy as np
import pytest
import slow_bfv
import tenseal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from partbook.errors import AlteredCiphertext, ForeignSealKey, ValueOutOfRange
from partbook.sealing import blocks
from partbook.sealing.blocks import BLOCK_BYTES, ChunkHead, SealedSum, open_chunk, seal, sealed_bytes
from partbook.sealing.parameters import MAX_CONTRIBUTIONS, Q, SealPublic, SealSecret
from partbook.secagg.rings import CHUNK, T

Keys = tuple[SealSecret, SealPublic]
EDGES = [0, 1, 2, T // 2 - 1, T // 2, T // 2 + 1, T - 2, T - 1]


def residues(values: list[int]) -> NDArray[np.uint64]:
    return np.array(values, dtype=np.uint64)


def randoms(count: int, seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, T, count, dtype=np.uint64)


def words_of(chunk: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(chunk, dtype="<u8", offset=56).reshape(-1, 2, 4096)


def test_every_residue_opens_as_it_was_sealed(seal_keys: Keys) -> None:
    secret, public = seal_keys
    values = np.concatenate([residues(EDGES), randoms(5000, 1)])
    chunk = seal(public, values)
    assert len(chunk) == sealed_bytes(values.size) == 56 + 2 * BLOCK_BYTES
    assert ChunkHead.decode(chunk) == ChunkHead(public.key_id, 1, values.size)
    assert np.array_equal(open_chunk(secret, chunk), values)


def test_two_seals_of_one_vector_share_no_word(seal_keys: Keys) -> None:
    values = randoms(100, 2)
    first, second = (words_of(seal(seal_keys[1], values)) for _ in range(2))
    assert not (first == second).any()


def test_a_block_decrypts_by_the_papers_formulas_alone(seal_keys: Keys) -> None:
    secret, public = seal_keys
    values = np.concatenate([residues(EDGES), randoms(4088, 3)])
    (c0, c1) = words_of(seal(public, values))[0]
    key = secret.native.secret_key().data()
    slots, noise = slow_bfv.decrypt(c0.tolist(), c1.tolist(), [key.data(i) for i in range(4096)])
    assert slots == values.tolist()
    assert noise < 8 * 15.1


def test_the_largest_sum_opens_with_noise_to_spare(seal_keys: Keys) -> None:
    secret, public = seal_keys
    total, expected = SealedSum(4096), [0] * 4096
    made = [(values, seal(public, values)) for values in (randoms(4096, seed) for seed in range(MAX_CONTRIBUTIONS))]
    for values, chunk in made:
        total.add(chunk)
        expected = [(a + b) % T for a, b in zip(expected, values.tolist(), strict=True)]
    assert open_chunk(secret, total.serialise()).tolist() == expected
    (c0, c1) = words_of(total.serialise())[0]
    key = secret.native.secret_key().data()
    _, noise = slow_bfv.decrypt(c0.tolist(), c1.tolist(), [key.data(i) for i in range(4096)])
    assert noise < 15.1 * MAX_CONTRIBUTIONS**0.5 * 7 < Q / (2 * T)
    with pytest.raises(ValueOutOfRange, match="at most 128"):
        total.add(made[0][1])


@given(
    columns=st.lists(st.lists(st.sampled_from(EDGES) | st.integers(0, T - 1), min_size=3, max_size=3), max_size=4),
    plain=st.lists(st.sampled_from(EDGES) | st.integers(0, T - 1), min_size=3, max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_sealed_sums_open_to_sums_modulo_t(seal_keys: Keys, columns: list[list[int]], plain: list[int]) -> None:
    secret, public = seal_keys
    columns = [*columns, EDGES[-3:]]
    total = SealedSum(3)
    for column in columns:
        total.add(seal(public, residues(column)))
    total.add_plain(residues(plain))
    expected = [sum(row) % T for row in zip(*columns, plain, strict=True)]
    assert open_chunk(secret, total.serialise()).tolist() == expected


def test_adding_here_is_adding_in_seal(seal_keys: Keys) -> None:
    _, public = seal_keys
    chunks = [seal(public, randoms(4096, seed)) for seed in range(2)]
    theirs, other = (blocks._native_block(blocks.parameters_only(), words_of(c).reshape(-1)) for c in chunks)
    theirs.add_(other)
    total = SealedSum(4096)
    for chunk in chunks:
        total.add(chunk)
    assert total.serialise()[56:] == blocks._words(theirs)


def test_a_block_is_what_tenseal_itself_reads_and_writes(seal_keys: Keys) -> None:
    secret, public = seal_keys
    values = randoms(4096, 5)
    context = tenseal.context_from(secret.reveal(), 1)
    theirs = blocks._prefix() + seal(public, values)[56:]
    opened = np.array(tenseal.bfv_vector_from(context, theirs).decrypt(), dtype=np.int64) % T
    assert np.array_equal(opened.astype(np.uint64), values)
    assert tenseal.bfv_vector(context, values.tolist()).serialize().startswith(blocks._prefix())


def test_a_sum_goes_on_after_it_was_written_and_read(seal_keys: Keys) -> None:
    secret, public = seal_keys
    a, b = randoms(10, 6), randoms(10, 7)
    total = SealedSum(10, public.key_id)
    total.add(seal(public, a))
    again = SealedSum.parse(total.serialise())
    again.add(seal(public, b))
    assert (again.contributions, again.key_id, again.slots) == (2, public.key_id, 10)
    assert np.array_equal(open_chunk(secret, again.serialise()), (a + b) % np.uint64(T))


@pytest.mark.parametrize("value", [T, T + 1, 2**63, 2**64 - 1])
def test_a_value_of_t_or_more_is_refused_not_encoded(seal_keys: Keys, value: int) -> None:
    _, public = seal_keys
    with pytest.raises(ValueOutOfRange, match="Slot 1 "):
        seal(public, residues([0, value]))
    total = SealedSum(2)
    total.add(seal(public, residues([0, 0])))
    with pytest.raises(ValueOutOfRange):
        total.add_plain(residues([0, value]))


def test_a_foreign_key_is_refused_where_it_would_add_silently(seal_keys: Keys, other_seal_keys: Keys) -> None:
    ours, theirs = (seal(keys[1], residues([1, 2])) for keys in (seal_keys, other_seal_keys))
    total = SealedSum(2)
    total.add(ours)
    before = total.serialise()
    with pytest.raises(ForeignSealKey):
        total.add(theirs)
    assert total.serialise() == before
    with pytest.raises(ForeignSealKey):
        SealedSum(2, seal_keys[1].key_id).add(theirs)
    with pytest.raises(ForeignSealKey):
        open_chunk(seal_keys[0], theirs)


def test_every_cut_extended_or_altered_head_is_refused(seal_keys: Keys) -> None:
    secret, public = seal_keys
    chunk = seal(public, residues([1, 2, 3]))
    bad = [b"", chunk[:10], chunk[:56], chunk[:-1], chunk + b"\0", chunk + chunk[56:], bytes(len(chunk))]
    for offset in (0, 15, 48, 51, 52):
        altered = bytearray(chunk)
        altered[offset] ^= 0x80
        bad.append(bytes(altered))
    for field in (slice(48, 52), slice(52, 56)):
        altered = bytearray(chunk)
        altered[field] = bytes(4)
        bad.append(bytes(altered))
    for wrong in bad:
        for reader in (lambda c: open_chunk(secret, c), SealedSum(3).add, SealedSum.parse):
            with pytest.raises(AlteredCiphertext):
                reader(wrong)


def test_a_coefficient_outside_the_ring_is_refused_before_seal_sees_it(seal_keys: Keys) -> None:
    chunk = bytearray(seal(seal_keys[1], randoms(5000, 8)))
    chunk[56 + BLOCK_BYTES + 8 : 56 + BLOCK_BYTES + 16] = Q.to_bytes(8, "little")
    with pytest.raises(AlteredCiphertext, match="block 1"):
        open_chunk(seal_keys[0], bytes(chunk))


def test_a_chunk_of_another_size_or_a_sum_is_no_contribution(seal_keys: Keys) -> None:
    _, public = seal_keys
    total = SealedSum(3)
    with pytest.raises(AlteredCiphertext, match="4 slots"):
        total.add(seal(public, residues([0] * 4)))
    for _ in range(2):
        total.add(seal(public, residues([0] * 3)))
    with pytest.raises(AlteredCiphertext, match="2 contributions"):
        SealedSum(3).add(total.serialise())


def test_a_contribution_that_is_no_encryption_at_all_breaks_nothing(seal_keys: Keys) -> None:
    secret, public = seal_keys
    empty = ChunkHead(public.key_id, 1, 2).encode() + bytes(BLOCK_BYTES)
    total = SealedSum(2)
    total.add(empty)
    with pytest.raises(AlteredCiphertext, match="SEAL"):
        total.add_plain(residues([1, 1]))
    total.add(seal(public, residues([5, 6])))
    assert open_chunk(secret, total.serialise()).tolist() == [5, 6]


def test_misuse_is_not_an_error_of_the_tree(seal_keys: Keys) -> None:
    for slots in (
        np.zeros(0, np.uint64),
        np.zeros(CHUNK + 1, np.uint64),
        np.zeros(3, np.int64),
        np.zeros((1, 1), np.uint64),
    ):
        with pytest.raises(ValueError, match="uint64"):
            seal(seal_keys[1], slots)
    for misuse in (
        lambda: SealedSum(0),
        lambda: SealedSum(3).serialise(),
        lambda: SealedSum(3).add_plain(residues([1])),
    ):
        with pytest.raises(ValueError, match=r"slots|added up"):
            misuse()
