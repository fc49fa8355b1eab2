from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_packing
from write_sealed_vectors import digest_of, packing_vectors, sealed_slots

from partbook import errors
from partbook.sealing.blocks import SealedSum, open_chunk, seal
from partbook.sealing.packing import Packing
from partbook.sealing.parameters import PARAMETER_HASH, SealSecret
from partbook.secagg.rings import T

FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "sealed.json").read_text())


@pytest.fixture(scope="module")
def secret() -> SealSecret:
    return SealSecret((FOLDER / "sealed_secret.bin").read_bytes())


def refusal(name: str) -> type[errors.PartbookError]:
    found = getattr(errors, name)
    assert issubclass(found, errors.PartbookError)
    return found


def altered(vector: dict[str, Any]) -> bytes:
    chunk = bytearray((FOLDER / "sealed_chunk.bin").read_bytes())
    if "flip" in vector:
        chunk[vector["flip"][0]] ^= vector["flip"][1]
    return bytes(chunk[: vector.get("keep")]) + bytes.fromhex(vector.get("append", ""))


def test_the_files_are_the_recorded_ones_and_small() -> None:
    sizes = 0
    for name, digest in VECTORS["sha256"].items():
        data = (FOLDER / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        sizes += len(data)
    assert sizes < 250_000


def test_the_slow_packing_still_writes_the_recorded_slots() -> None:
    assert packing_vectors() == VECTORS["packing"]


def test_the_recorded_key_has_the_recorded_id(secret: SealSecret) -> None:
    assert (secret.key_id, PARAMETER_HASH) == (VECTORS["key_id"], VECTORS["parameter_hash"])


@pytest.mark.parametrize("vector", VECTORS["packing"], ids=lambda v: f"{v['span']}x{v['cohort']}-{v['expect']}")
def test_packing_does_what_the_vector_says(vector: dict[str, Any]) -> None:
    values = np.array(vector.get("values", []), dtype=np.uint32)
    if vector["expect"] != "success":
        with pytest.raises(refusal(vector["expect"])):
            Packing(vector["span"], vector["cohort"]).pack(values)
        return
    packing = Packing(vector["span"], vector["cohort"])
    slots = packing.pack(values)
    assert packing.fields == vector["fields"]
    assert [str(slot) for slot in slots.tolist()] == vector["slots"]
    assert packing.unpack(slots, values.size, 1).tolist() == vector["values"]
    assert slow_packing.unpack(slots.tolist(), values.size, vector["span"], vector["cohort"]) == vector["values"]


@pytest.mark.parametrize("vector", VECTORS["unsealable"], ids=lambda v: v["slots"][0])
def test_unsealable_slots_are_refused(vector: dict[str, Any], secret: SealSecret) -> None:
    with pytest.raises(refusal(vector["expect"])):
        seal(secret.public, np.array([int(slot) for slot in vector["slots"]], dtype=np.uint64))


@pytest.mark.parametrize("vector", VECTORS["chunks"], ids=lambda v: v["name"])
def test_a_chunk_opens_or_fails_as_the_vector_says(vector: dict[str, Any], secret: SealSecret) -> None:
    chunk = altered(vector)
    if vector["expect"] != "success":
        with pytest.raises(refusal(vector["expect"])):
            open_chunk(secret, chunk)
        with pytest.raises(refusal(vector["expect"])):
            SealedSum(len(sealed_slots()), secret.key_id).add(chunk)
        return
    if "copies" in vector:
        total = SealedSum(len(sealed_slots()))
        for _ in range(vector["copies"]):
            total.add(chunk)
        total.add_plain(np.array([T - 1 - i for i in range(total.slots)], dtype=np.uint64))
        chunk = total.serialise()
    assert digest_of(open_chunk(secret, chunk).tolist()) == vector["opened"]
