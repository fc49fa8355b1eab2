"""The only parameters a federation trains: LoRA with frozen A ("FFA-LoRA"), and the decoder's norms.

LoRA: Hu et al. 2021 (arXiv 2106.09685). A is drawn once from a public seed and never trained, so that noise added
to B stays linear in the update (Sun et al. 2024, arXiv 2403.12313, "FFA-LoRA"). B starts at zero and norms at the
base model's, so a fresh adapter changes nothing.

The trained parameters have one canonical order (by name), in which they travel as a flat vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from partbook.errors import AlteredFile, ConfigError
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel

ADAPTER_SEED: Final = 0x9A27_B00C  # public; A is a function of it and the layer's name


class AdaptedLinear(nn.Module):
    """A frozen Linear plus scale · B·A, of which only B (out, rank) is trained.

    B may also be one copy for each recording of the batch, (recordings, out, rank): the batch is then as many equal
    runs of rows, and what autograd returns for a copy is its recording's gradient alone.
    """

    a: Tensor

    def __init__(self, linear: nn.Linear, name: str, rank: int, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.register_buffer("a", _frozen_a(name, rank, linear.in_features), persistent=False)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        base: Tensor = self.linear(x)
        low = F.linear(x, self.a) * self.scale  # (…, rank)
        if self.b.ndim == 2:
            return base + F.linear(low, self.b)
        runs = len(self.b), -1  # recordings, and all rows of one
        lifted = torch.baddbmm(base.view(*runs, base.shape[-1]), low.view(*runs, low.shape[-1]), self.b.mT)
        return lifted.view_as(base)


def _frozen_a(name: str, rank: int, columns: int) -> Tensor:
    # NumPy's Philox is stable across releases and machines, which torch's generators do not promise.
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.Philox(key=[ADAPTER_SEED, key]))
    bound = np.sqrt(3.0 / columns)
    return torch.from_numpy(generator.uniform(-bound, bound, (rank, columns)).astype(np.float32))


def attach(model: PartbookModel) -> PartbookModel:
    """Freeze a base model and give every Linear of its decoder an adapter; in place, returns the model."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    config = model.config
    for index, block in enumerate(model.blocks):
        for owner_name, owner in list(block.named_modules()):
            for child_name, child in list(owner.named_children()):
                if isinstance(child, nn.Linear) and not isinstance(owner, AdaptedLinear):
                    name = ".".join(filter(None, ("blocks", str(index), owner_name, child_name)))
                    setattr(
                        owner,
                        child_name,
                        AdaptedLinear(child, name, config.adapter_rank, config.adapter_scale),
                    )
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not name.startswith("encoder"):
            module.requires_grad_(True)
    return model


def trained_parameters(model: PartbookModel) -> dict[str, nn.Parameter]:
    """The federated parameters by name, in canonical order.

    Raises:
        ConfigError: the model has no adapter.
    """
    found = {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}
    if not any(name.endswith(".b") for name in found):
        raise ConfigError("This model has no adapter; call `attach` first.")
    return found


def adapter_state(model: PartbookModel) -> dict[str, Tensor]:
    """A copy of the federated parameters, float32 on the CPU."""
    return {name: p.detach().to("cpu", torch.float32).clone() for name, p in trained_parameters(model).items()}


def apply_adapter(model: PartbookModel, state: Mapping[str, Tensor]) -> PartbookModel:
    """Put a state into the model, attaching adapters if it has none.

    Raises:
        ConfigError: names or shapes are not this model's.
    """
    if not any(isinstance(m, AdaptedLinear) for m in model.modules()):
        attach(model)
    parameters = trained_parameters(model)
    if set(parameters) != set(state):
        odd = sorted(set(parameters) ^ set(state))[0]
        raise ConfigError(f"The adapter does not fit this base model: {odd!r} is in only one of them.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != state[name].shape:
                raise ConfigError(
                    f"The adapter does not fit this base model: {name!r} is {tuple(state[name].shape)}, "
                    f"expected {tuple(parameter.shape)}."
                )
            parameter.copy_(state[name])
    return model


def flatten(state: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """The state as one float32 vector, in canonical order: (d,)."""
    return np.concatenate([state[name].detach().cpu().numpy().ravel() for name in sorted(state)]).astype(np.float32)


def unflatten(vector: NDArray[np.float32], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten` for states shaped like `like`.

    Raises:
        ConfigError: the vector's length is not the adapter's.
    """
    total = sum(tensor.numel() for tensor in like.values())
    if len(vector) != total:
        raise ConfigError(f"The vector has {len(vector)} numbers, but the adapter {total}.")
    state, start = {}, 0
    for name in sorted(like):
        size = like[name].numel()
        piece = np.array(vector[start : start + size], dtype=np.float32)
        state[name] = torch.from_numpy(piece).reshape(like[name].shape)
        start += size
    return state


def in_scope(names: Iterable[str], scope: Scope) -> tuple[str, ...]:
    """Those of an adapter's names that a federation of this scope trains, in canonical order."""
    return tuple(sorted(name for name in names if scope == "all" or not name.endswith(".b")))


def selection(like: Mapping[str, Tensor], scope: Scope) -> NDArray[np.int64]:
    """Where the trained numbers lie in the canonical vector of a state shaped like `like`: ascending, (trained,)."""
    trained, places, start = set(in_scope(like, scope)), [], 0
    for name in sorted(like):
        stop = start + like[name].numel()
        if name in trained:
            places.append(np.arange(start, stop))
        start = stop
    return np.concatenate(places)


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 little-endian values, in canonical order: what a plan names."""
    digest = hashlib.sha256(b"partbook/v1/adapter")
    for name in sorted(state):
        tensor = state[name].detach().cpu().to(torch.float32).contiguous()
        head = json.dumps([name, list(tensor.shape)]).encode()
        digest.update(len(head).to_bytes(4, "little") + head + tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def adapter_bytes(state: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """A state as safetensors, with free text about it."""
    # One entry, because safetensors writes several in no fixed order, and equal states must be equal bytes.
    metadata = {"partbook": json.dumps(dict(about), sort_keys=True)}
    return save_tensors({k: v.contiguous() for k, v in state.items()}, metadata=metadata)


def save_adapter(path: Path, state: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write `adapter_bytes`; replaces the file atomically."""
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_bytes(adapter_bytes(state, about))
    temporary.replace(path)


def load_adapter(path: Path) -> dict[str, Tensor]:
    """Read a state that `save_adapter` wrote.

    Raises:
        AlteredFile: the file is missing or is not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError) as error:
        raise AlteredFile(f"{path} is not an adapter ({error}); restore it from the run or the release.") from error
