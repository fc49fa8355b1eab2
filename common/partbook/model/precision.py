"""In which number format a device multiplies best: bfloat16 where it has instructions for it, float32 elsewhere.

A core with AVX512-BF16 multiplies bfloat16 2.5 times as fast as float32 and adds up in float32; one without emulates it
and is many times slower. Only products change: weights, gradients, norms and losses stay float32.
"""

from __future__ import annotations

import contextlib
from typing import Final

import torch

_INSTRUCTIONS: Final = ("avx512_bf16", "amx_bf16")


def native(device: torch.device) -> torch.dtype:
    """bfloat16 on an accelerator and on a processor with AVX512-BF16 or AMX; float32 on any other."""
    if device.type != "cpu":
        return torch.bfloat16
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(capabilities.get(name) for name in _INSTRUCTIONS) else torch.float32


def products(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """A block in which matrix products are of `precision`, by autocast; of float32, nothing changes."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)
