from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
import slow

from partbook import errors
from partbook.secagg.rings import RESIDUES, WORDS, Ring, add_masks
from partbook.secagg.shares import combine

RINGS = {ring.modulus: ring for ring in (WORDS, RESIDUES)}
MASKS = json.loads((slow.VECTORS / "masks.json").read_text(encoding="utf-8"))
SHARES = json.loads((slow.VECTORS / "shares.json").read_text(encoding="utf-8"))


def comment(case):
    return case["comment"]


def expected(case):
    return {key: case[key] for key in ("expect", "result", "result_sha256", "secret") if key in case}


def outcome(attempt):
    """As the vectors spell it: what `attempt` returns, or the class of its refusal."""
    try:
        return {"expect": "success"} | attempt()
    except errors.PartbookError as refusal:
        return {"expect": type(refusal).__name__}


@pytest.mark.parametrize("case", MASKS, ids=comment)
def test_masks_come_out_as_the_vectors_say(case):
    modulus = int(case["modulus"])
    ring = RINGS.get(modulus) or Ring("narrow", modulus, np.dtype("<u8"), np.dtype("<i8"))

    def attempt():
        values = ring.from_bytes(bytes.fromhex(case["values"]) * case["repeat"], case["length"])
        masks = [(bytes.fromhex(one["seed"]), one["sign"]) for one in case["masks"]]
        add_masks(values, masks, ring, case["chunk"])
        result = ring.to_bytes(values)
        long = {"result_sha256": hashlib.sha256(result).hexdigest()}
        return long if "result_sha256" in case else {"result": result.hex()}

    assert outcome(attempt) == expected(case)


@pytest.mark.parametrize("case", SHARES, ids=comment)
def test_shares_combine_as_the_vectors_say(case):
    shares = {int(point): bytes.fromhex(share) for point, share in case["shares"].items()}
    assert outcome(lambda: {"secret": combine(shares, case["threshold"]).hex()}) == expected(case)


def test_the_slow_arithmetic_still_leads_to_the_vectors():
    assert slow.mask_cases() == MASKS
    assert slow.share_cases() == SHARES


def test_the_vector_with_a_rejection_modulo_t_has_one():
    chunk, at = slow.REJECTING
    stream = (word % 2**48 for word in slow.words(slow.seed(0), chunk, 8))
    words = list(itertools.islice(stream, at + 2))
    assert [place for place, word in enumerate(words) if word >= slow.T] == [at]
    assert slow.mask(slow.seed(0), chunk, slow.T, at + 1) == words[:at] + words[at + 1 :]


def test_every_class_of_failure_has_a_vector():
    assert {case["expect"] for case in MASKS} == {"success", "CorruptMessage", "ValueOutOfRange"}
    assert {case["expect"] for case in SHARES} == {"success", "CorruptMessage", "CohortTooSmall"}
