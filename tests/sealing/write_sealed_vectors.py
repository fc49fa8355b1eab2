"""Writes tests/vectors/sealed.json and the two files it names: `python tests/sealing/write_sealed_vectors.py`.

Slots and opened values come from the slow implementations beside this file. Encryption is random, so the sealed chunk
is a recording: it is written only if `slow_bfv` opens it, and a new one replaces it only with a new protocol version.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import slow_bfv
import slow_packing

from partbook.sealing.blocks import seal
from partbook.sealing.parameters import PARAMETER_HASH, generate

FOLDER = Path(__file__).parent.parent / "vectors"
T = slow_packing.T
SLOTS = 4000
SHAPES = [(1, 1), (254, 100), (2**16 - 2, 3), (2**16 - 2, 64), (2**16 - 2, 128), (2**20 - 2, 50), (2**32 - 2, 128)]


def digest_of(values: list[int]) -> str:
    """SHA-256 of values as little-endian 64-bit words."""
    return hashlib.sha256(b"".join(value.to_bytes(8, "little") for value in values)).hexdigest()


def sealed_slots() -> list[int]:
    """What is inside the recorded chunk: the edges of the ring, then values from SHA-256."""
    edges = [0, 1, 2, T // 2 - 1, T // 2, T // 2 + 1, T - 2, T - 1]
    return edges + [
        int.from_bytes(hashlib.sha256(b"partbook/v1/vector %d" % i).digest()[:8], "big") % T
        for i in range(SLOTS - len(edges))
    ]


def packing_vectors() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for span, cohort in SHAPES:
        fields = slow_packing.fields_of(span, cohort)
        values = [span, 0, *(pow(7, i, 2**61 - 1) % (span + 1) for i in range(2 * fields + 1))]
        slots = slow_packing.pack(values, span, cohort)
        rows.append(
            {
                "span": span,
                "cohort": cohort,
                "fields": fields,
                "values": values,
                "slots": [str(slot) for slot in slots],
                "expect": "success",
            }
        )
    rows.append({"span": 2**16 - 2, "cohort": 64, "fields": 2, "values": [2**16 - 1], "expect": "ValueOutOfRange"})
    rows.append({"span": 2**48, "cohort": 64, "expect": "ConfigError"})
    rows.append({"span": 2**16 - 2, "cohort": 129, "expect": "ConfigError"})
    return rows


def chunk_vectors(length: int) -> list[dict[str, object]]:
    slots = sealed_slots()
    thrice_and_more = [(3 * slot + T - 1 - i) % T for i, slot in enumerate(slots)]
    return [
        {"name": "as sealed", "opened": digest_of(slots), "expect": "success"},
        {"name": "added up three times, then t - 1 - i added to slot i", "copies": 3, "plain": "t - 1 - i",
         "opened": digest_of(thrice_and_more), "expect": "success"},
        {"name": "a bit of the mark flipped", "flip": [0, 1], "expect": "AlteredCiphertext"},
        {"name": "a bit of the key id flipped", "flip": [16, 1], "expect": "ForeignSealKey"},
        {"name": "no contribution", "flip": [51, 1], "expect": "AlteredCiphertext"},
        {"name": "slots of another number of blocks", "flip": [54, 64], "expect": "AlteredCiphertext"},
        {"name": "a coefficient outside the ring", "flip": [56 + 7, 128], "expect": "AlteredCiphertext"},
        {"name": "cut in the head", "keep": 55, "expect": "AlteredCiphertext"},
        {"name": "cut in the block", "keep": length - 1, "expect": "AlteredCiphertext"},
        {"name": "a byte too many", "append": "00", "expect": "AlteredCiphertext"},
        {"name": "empty", "keep": 0, "expect": "AlteredCiphertext"},
    ]  # fmt: skip


def main() -> None:
    secret, public = generate()
    chunk = seal(public, np.array(sealed_slots(), dtype=np.uint64))
    words = np.frombuffer(chunk, dtype="<u8", offset=56).reshape(2, 4096)
    key = secret.native.secret_key().data()
    opened, _ = slow_bfv.decrypt(words[0].tolist(), words[1].tolist(), [key.data(i) for i in range(4096)])
    assert opened == sealed_slots() + [0] * (4096 - SLOTS)
    files = {}
    for name, data in (("sealed_secret.bin", secret.reveal()), ("sealed_chunk.bin", chunk)):
        (FOLDER / name).write_bytes(data)
        files[name] = hashlib.sha256(data).hexdigest()
    document = {
        "about": "Packed slots, one sealed chunk and what becomes of it; see tests/sealing/write_sealed_vectors.py. "
        "The secret key was made for this file and protects nothing.",
        "parameter_hash": PARAMETER_HASH,
        "key_id": public.key_id,
        "sha256": files,
        "packing": packing_vectors(),
        "unsealable": [{"slots": [str(value)], "expect": "ValueOutOfRange"} for value in (T, T + 1, 2**64 - 1)],
        "chunks": chunk_vectors(len(chunk)),
    }
    (FOLDER / "sealed.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
