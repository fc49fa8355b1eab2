"""The client of Flower's SecAgg+, made of Flower's own functions, for a round with `k` neighbours.

Read in flwr 1.41.0: `flwr/client/mod/secure_aggregation/secaggplus_mod.py` and `flwr/common/secure_aggregation/`.
`_setup`, `_share_keys` and `_collect_masked_vectors` are called as they are. What a client does to its quantised
parameters in the last of these, between `quantize` and `ndarray_to_bytes`, is also written out here, so that masking
can be timed without the quantisation and the key agreements that share that function with it.

Each pair key is folded to 32 bits by `pseudo_rand_gen` before it seeds MT19937; a mask element is drawn as an int64
and sent as one.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
)
from flwr.common import ndarray_to_bytes, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)
from numpy.typing import NDArray

# The defaults of `SecAggPlusWorkflow`.
CLIP: Final = 8.0
TARGET_RANGE: Final = 2**22
MODULUS: Final = 2**32
MAX_WEIGHT: Final = 1000.0

_NODE: Final = 1000  # between its neighbours' ids: it adds the masks of some and subtracts those of others


class FlowerClient:
    """A client that has been through Flower's first two stages with `neighbours` others."""

    def __init__(self, neighbours: int) -> None:
        self._state = SecAggPlusState()
        self._state.nid = _NODE
        share_number = neighbours + 1
        settings = {
            Key.SAMPLE_NUMBER: share_number,
            Key.SHARE_NUMBER: share_number,
            Key.THRESHOLD: 2 * share_number // 3 + 1,
            Key.CLIPPING_RANGE: CLIP,
            Key.TARGET_RANGE: TARGET_RANGE,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: MAX_WEIGHT,
        }
        own = _setup(self._state, cast(Any, settings))
        ids = range(_NODE - neighbours // 2, _NODE - neighbours // 2 + share_number)
        keys: dict[str, Any] = {str(_NODE): (own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2])}
        for peer in ids:
            if peer != _NODE:
                keys[str(peer)] = tuple(public_key_to_bytes(generate_key_pairs()[1]) for _ in range(2))
        _share_keys(self._state, cast(Any, keys))
        share = bytes(len(self._state.rd_seed_share_dict[_NODE]))
        key_share = bytes(len(self._state.sk1_share_dict[_NODE]))
        peers = [peer for peer in ids if peer != _NODE]
        self._inbox = {
            Key.SOURCE_LIST: peers,
            Key.CIPHERTEXT_LIST: [
                encrypt(self._state.ss2_dict[peer], share_keys_plaintext_concat(peer, _NODE, share, key_share))
                for peer in peers
            ],
        }
        self._agreed = {
            peer: generate_shared_key(
                bytes_to_private_key(self._state.sk1), bytes_to_public_key(self._state.public_keys_dict[peer][0])
            )
            for peer in peers
        }

    def quantised(self, weights: NDArray[np.float32]) -> NDArray[Any]:
        """`weights` (d,) on Flower's grid, rounded as it rounds."""
        (values,) = quantize([weights], CLIP, TARGET_RANGE)
        return values

    def masked(self, values: NDArray[Any]) -> list[bytes]:
        """What is sent for quantised `values` (d,): the private mask, every neighbour's, the modulus, the bytes."""
        vectors = factor_combine(TARGET_RANGE, [values])
        dimensions = [vector.shape for vector in vectors]
        vectors = parameters_addition(vectors, pseudo_rand_gen(self._state.rd_seed, MODULUS, dimensions))
        for peer, key in self._agreed.items():
            mask = pseudo_rand_gen(key, MODULUS, dimensions)
            vectors = parameters_addition(vectors, mask) if peer < _NODE else parameters_subtraction(vectors, mask)
        return [ndarray_to_bytes(vector) for vector in parameters_mod(vectors, MODULUS)]

    def contributed(self, weights: NDArray[np.float32]) -> list[bytes]:
        """What is sent for `weights` (d,): Flower's whole `_collect_masked_vectors`."""
        parameters = ndarrays_to_parameters([weights])
        answer = _collect_masked_vectors(self._state, cast(Any, self._inbox), int(MAX_WEIGHT), parameters)
        return cast(list[bytes], answer[Key.MASKED_PARAMETERS])
