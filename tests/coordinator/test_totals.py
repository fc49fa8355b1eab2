from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio import MEMBERS, Play, Trio

from partbook.coordinator import totals
from partbook.coordinator.shelf import Shelf
from partbook.coordinator.totals import MaskedTotal, SealedTotal, chunk_sizes
from partbook.errors import AlteredCiphertext, CorruptMessage, ForeignSealKey, OutOfTurn, PartbookError
from partbook.plan import rounds
from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import open_chunk, seal
from partbook.sealing.parameters import SealPublic, SealSecret, generate

CHUNK = 50


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rounds, totals):
        monkeypatch.setattr(module, "CHUNK", CHUNK)


@pytest.fixture(scope="module")
def keys(trio: Trio) -> tuple[SealSecret, SealPublic]:
    secret = SealSecret.read(trio.parties.custodian.secret, None)
    return secret, secret.public


@given(st.integers(1, 400), st.sampled_from(["masked", "sealed"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_chunks_are_full_but_the_last_and_leave_nothing_out(trio: Trio, parameters: int, mode: str) -> None:
    plan = trio.plan(mode, parameters=parameters)
    sizes = chunk_sizes(plan)
    assert sum(sizes) == plan.elements
    assert len(sizes) == plan.chunks
    assert set(sizes[:-1]) <= {CHUNK}
    assert 1 <= sizes[-1] <= CHUNK


def parts(plan: RoundPlan, vector: np.ndarray) -> list[np.ndarray]:
    return [vector[start : start + CHUNK] for start in range(0, plan.elements, CHUNK)]


@given(seed=st.integers(0, 2**32), parameters=st.integers(1, 170), count=st.integers(1, 6), stop=st.integers(0, 6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_masked_sums_are_exact_in_the_ring_through_a_restart(trio, tmp_path, seed, parameters, count, stop) -> None:
    plan = trio.plan(parameters=parameters)
    random = np.random.default_rng(seed)
    vectors = random.integers(0, 2**32, (count, parameters), dtype=np.uint32)
    shelf = Shelf(tmp_path / "sums")
    shelf.clear()
    total = MaskedTotal(plan, shelf)
    for index, vector in enumerate(vectors):
        for chunk, part in enumerate(parts(plan, vector)):
            total.check(chunk, part.astype("<u4").tobytes())
            total.add(chunk, part.astype("<u4").tobytes())
        if index == stop:
            total = MaskedTotal(plan, another(shelf, tmp_path / "sums"))
    expected = [sum(column) % 2**32 for column in vectors.T.tolist()]
    assert total.numbers().tolist() == expected


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_sealed_sums_are_exact_in_the_ring_through_a_restart(trio: Trio, keys, tmp_path: Path, stop: int) -> None:
    plan = trio.plan("sealed", parameters=230)
    secret, public = keys
    vectors = np.random.default_rng(stop).integers(0, plan.ring.modulus, (3, plan.elements), dtype=np.uint64)
    shelf = Shelf(tmp_path / "sums")
    total = SealedTotal(plan, shelf)
    assert plan.chunks == 3
    for index, vector in enumerate(vectors):
        if index == stop:
            total = SealedTotal(plan, another(shelf, tmp_path / "sums"))
        for chunk, part in enumerate(parts(plan, vector)):
            blob = seal(public, part.copy())
            total.check(chunk, blob)
            total.add(chunk, blob)
    opened = np.concatenate([open_chunk(secret, blob) for blob in total.dump()])
    assert opened.tolist() == [sum(column) % plan.ring.modulus for column in vectors.T.tolist()]


@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_what_is_left_of_the_masks_is_taken_off_every_chunk(trio: Trio, tmp_path, keys, mode, monkeypatch) -> None:
    from partbook.node import held_model, label

    for module in (rounds, totals, label, held_model):
        monkeypatch.setattr(module, "CHUNK", len(trio.start) // 5)
    nodes, plan = trio.nodes(tmp_path), trio.plan(mode)
    assert plan.chunks >= 3
    played = Play(trio, nodes, plan).train()
    stored = sum(node._vector.astype(np.int64) for node in nodes.values())
    played.play()
    if mode == "masked":
        assert np.array_equal(played.sum(), stored)
        return
    slots = np.concatenate([open_chunk(keys[0], blob) for blob in played.sealed()])
    assert np.array_equal(plan.packing.unpack(slots, plan.parameters, len(MEMBERS)), stored)


@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_masks_do_not_come_off_before_their_secrets_are_there(trio: Trio, tmp_path, mode: str) -> None:
    played = Play(trio, trio.nodes(tmp_path), trio.plan(mode)).train()
    with pytest.raises(OutOfTurn):
        played.total.unmask(played.machine)


@pytest.mark.parametrize("size", [0, CHUNK * 4 - 1, CHUNK * 4 + 1, CHUNK * 4 + 4])
def test_a_masked_chunk_of_another_length_is_refused_and_adds_nothing(trio: Trio, size: int) -> None:
    total = MaskedTotal(trio.plan(parameters=130))
    for act in (total.check, total.add):
        with pytest.raises(CorruptMessage):
            act(0, bytes(size))
    assert not total.numbers().any()


def test_a_sealed_chunk_of_another_form_or_key_is_refused_and_adds_nothing(trio: Trio, keys) -> None:
    plan = trio.plan("sealed", parameters=230)
    secret, public = keys
    total = SealedTotal(plan)
    good = seal(public, np.ones(CHUNK, np.uint64))
    total.add(0, good)
    before = total.dump()
    foreign = seal(generate()[1], np.ones(CHUNK, np.uint64))
    wrong: list[tuple[bytes, type[PartbookError]]] = [
        (foreign, ForeignSealKey),
        (good[:-1], AlteredCiphertext),
        (b"", AlteredCiphertext),
        (good[:60] + b"\xff" * 8 + good[68:], AlteredCiphertext),
        (seal(public, np.ones(CHUNK - 1, np.uint64)), AlteredCiphertext),
        (before[0][:51] + b"\2" + before[0][52:], AlteredCiphertext),
    ]
    for blob, error in wrong:
        for act in (total.check, total.add):
            with pytest.raises(error):
                act(0, blob)
        assert total.dump() == before
    total.add(0, good)
    assert (open_chunk(secret, total.dump()[0]) == 2).all()


@pytest.mark.parametrize("mode", ["masked", "sealed"])
def test_contributions_are_added_one_after_another_as_together(trio: Trio, keys, tmp_path: Path, mode: str) -> None:
    plan = trio.plan(mode, parameters=130)
    kind = MaskedTotal if mode == "masked" else SealedTotal
    size = chunk_sizes(plan)[0]
    parts = [np.full(size, number, plan.ring.dtype) for number in (1, 2, 3)]
    blobs = [plan.ring.to_bytes(part) if mode == "masked" else seal(keys[1], part) for part in parts]
    one, all_ = kind(plan), kind(plan, Shelf(tmp_path / "sums"))
    for blob in blobs:
        one.add(0, blob)
    all_.add_all(0, iter(blobs))
    assert one.dump() == all_.dump()
    with pytest.raises(PartbookError):
        all_.add_all(0, [blobs[0], blobs[1][:-1]])
    assert one.dump() == all_.dump()


def another(shelf: Shelf, folder: Path) -> Shelf:
    """As another process goes on with it."""
    shelf.flush()
    found = Shelf(folder)
    found.restore(shelf.digests)
    return found
