"""Which devices a node trains on: every accelerator that is visible, unless its label says otherwise.

    None                     all CUDA devices that the driver shows (`CUDA_VISIBLE_DEVICES` included), else the CPU
    ["cuda"]                 the same, but an error where there is none
    ["cuda:0", "cuda:2"]     these
    ["cpu"]                  the CPU, with all the cores that torch may use

The policy's `gpu_share` is of each device's memory, for this node alone; 0 keeps off them all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from partbook.errors import ConfigError


def devices_of(named: Sequence[str] | None, gpu_share: float) -> tuple[torch.device, ...]:
    """The devices that a setting and a policy come to, at least one, all of one kind.

    Several times `cpu` is as many processes on this machine's cores, each of which uses as many threads as one would:
    it shows that nothing depends on how many devices there are, and gains little.

    Args:
        named: see above.
        gpu_share: 0 to 1.

    Raises:
        ConfigError: a device is not there, is none, is named twice, or is kept off by the policy; or kinds are mixed.
    """
    if not 0 <= gpu_share <= 1:
        raise ValueError(f"A share of a device lies between 0 and 1: {gpu_share}.")
    if named is not None and not named:
        raise ConfigError('devices: an empty list names none; write ["cpu"], or leave it out for all there are.')
    present = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if named is None:
        named = (present if gpu_share else []) or ["cpu"]
    if any(name.startswith("cuda") for name in named) and not gpu_share:
        raise ConfigError(
            f"devices: {', '.join(named)} are named, but the label's policy keeps off accelerators (`gpu_share` is 0); "
            'write ["cpu"], or have the policy changed.'
        )
    found = [one for name in named for one in (present or ["cuda:0"] if name == "cuda" else [name])]
    for name in found:
        if not re.fullmatch(r"cpu|cuda:\d+", name):
            raise ConfigError(f'devices: {name!r} is no device; write "cpu", "cuda", or "cuda:0" and so on.')
        if name != "cpu" and name not in present:
            there = ", ".join(present) or "none"
            raise ConfigError(
                f"devices: {name} is not there (torch sees: {there}); look at the driver and CUDA_VISIBLE_DEVICES, or "
                "name another."
            )
        if name != "cpu" and found.count(name) > 1:
            raise ConfigError(f"devices: {name} is named twice; two processes would share what one can use alone.")
    if len({name[:4] for name in found}) > 1:
        raise ConfigError(
            f"devices: {', '.join(found)} are of two kinds, which round differently and wait for each other; name "
            "accelerators or the CPU."
        )
    return tuple(torch.device(name) for name in found)


def take_share(device: torch.device, gpu_share: float) -> None:
    """Let this process allocate no more than a share of a device's memory; nothing to do on a CPU."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(gpu_share, device)
