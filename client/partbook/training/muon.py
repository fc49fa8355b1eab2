"""The base model's optimiser: Muon for what mixes features, AdamW for everything else, stepped together.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; code at github.com/KellerJordan/Muon, commit f90a42b)
replaces a matrix's Nesterov momentum by an approximation of the nearest semi-orthogonal matrix, so that every direction
moves alike however small its gradient is. The approximation is five quintic Newton–Schulz iterations, whose
coefficients are chosen for a steep slope at zero: singular values end between about 0.7 and 1.2, not at 1. Decoupled
weight decay as in Liu et al. 2025 (arXiv 2502.16982 v1, §2.2).

Why not `torch.optim.Muon` of torch 2.13, which is the same rule: it iterates in bfloat16 wherever it runs. On a core
without bfloat16 arithmetic (AVX2) that takes 13.9 s for four blocks of width 256, whose whole forward and backward
step on 8 × 1,024 tokens takes 5.2 s; in float32 it is 0.33 s. Here a device iterates in bfloat16 where it has
arithmetic for it (`partbook.model.precision`), and in float32 elsewhere; an accelerator takes matrices of one shape at
once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from partbook.model.precision import native

MOMENTUM: Final = 0.95
ITERATIONS: Final = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the quintic a·x + b·x³ + c·x⁵; Jordan et al.
_SMALLEST: Final = 1e-7  # a norm that nothing is divided by
_MIXING: Final = ("blocks.", "encoder.")  # the parts whose Linear layers map features to features


class Muon(torch.optim.Optimizer):
    """Momentum whose every matrix is made semi-orthogonal before it moves the weights.

    A matrix (rows, columns) moves by rate · √max(1, rows / columns) · orthogonalise(gradient + momentum).
    """

    def __init__(self, params: Iterable[Tensor], rate: float, *, weight_decay: float = 0.0) -> None:
        """Optimise matrices.

        Args:
            params: of two dimensions each.
            rate: spectral norm of a square matrix's move, about.
            weight_decay: share of a weight that goes each step, over `rate`.

        Raises:
            ValueError: a parameter is no matrix.
        """
        super().__init__(params, {"lr": rate, "weight_decay": weight_decay})
        for matrix in self._all():
            if matrix.ndim != 2:
                raise ValueError(f"Muon moves matrices; a parameter of shape {tuple(matrix.shape)} is AdamW's.")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient; gradients stay as they are."""
        assert closure is None, "gradients are there already"
        for group in self.param_groups:
            alike: dict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape, matrix.device].append(matrix)
            for (shape, device), matrices in alike.items():
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                # An accelerator gains by few large products, a CPU by matrices that stay in its cache.
                size = 1 if device.type == "cpu" else len(matrices)
                for start in range(0, len(matrices), size):
                    some = matrices[start : start + size]
                    moves = orthogonalise(torch.stack([self._pushed(matrix) for matrix in some]))
                    for matrix, move in zip(some, moves, strict=True):
                        matrix.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(move, alpha=-rate)

    def _pushed(self, matrix: Tensor) -> Tensor:
        """The gradient with Nesterov's momentum, which is brought forward."""
        assert matrix.grad is not None, "others are left out"
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix.grad)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(matrix.grad, 1.0 - MOMENTUM)
        return matrix.grad.lerp(momentum, MOMENTUM)

    def _all(self) -> Iterator[Tensor]:
        return (matrix for group in self.param_groups for matrix in group["params"])


def orthogonalise(matrices: Tensor) -> Tensor:
    """About U·Vᵀ of matrices U·S·Vᵀ, (n, rows, columns): singular values that are not tiny end in 0.68 … 1.21.

    In the device's native precision; the result is as the argument's type. Zeros stay zeros.
    """
    x = matrices.to(native(matrices.device))
    upright = x.shape[1] > x.shape[2]
    if upright:
        x = x.mT  # the Gram matrix of the shorter side is the smaller one
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_SMALLEST)  # Frobenius', an upper bound of the spectral
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if upright else x).to(matrices.dtype)


class Optimiser:
    """Both optimisers of one model, with one schedule: each goes at a share of its own peak rate.

    Muon has the weights of the Linear layers in the model's `blocks` and `encoder`. AdamW (betas 0.9, 0.95) has
    embeddings, other heads, norms, gains, biases, convolutions and the LSTM. Weight decay is of matrices other than
    embeddings; vectors have none.
    """

    def __init__(self, model: nn.Module, muon_rate: float, adamw_rate: float, weight_decay: float) -> None:
        """Optimise every parameter that wants a gradient.

        Args:
            model: on its device.
            muon_rate, adamw_rate: peaks.
            weight_decay: see above.
        """
        mixing, matrices, others = split(model)
        self._both: list[tuple[torch.optim.Optimizer, float]] = []
        if mixing:
            self._both.append((Muon(mixing, muon_rate, weight_decay=weight_decay), muon_rate))
        groups = [(matrices, weight_decay), (others, 0.0)]
        described = [{"params": params, "weight_decay": decay} for params, decay in groups if params]
        if described:
            self._both.append((torch.optim.AdamW(described, lr=adamw_rate, betas=(0.9, 0.95)), adamw_rate))

    def step(self, share: float) -> None:
        """Move by the gradients there are, at a share of the peak rates, and drop them."""
        for optimiser, peak in self._both:
            for group in optimiser.param_groups:
                group["lr"] = peak * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """What `restore` wants: tensors are the optimisers' own, not copies."""
        return [optimiser.state_dict() for optimiser, _ in self._both]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go on from what `state` gave, of a model of the same shape.

        Raises:
            ValueError: it is of another.
        """
        for (optimiser, _), one in zip(self._both, state, strict=True):
            optimiser.load_state_dict(one)


def split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """A model's parameters that want a gradient: Muon's; AdamW's with weight decay, and without."""
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(_MIXING)
    }
    embedded = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    mixing: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name in linear and id(parameter) not in embedded:
            mixing.append(parameter)
        elif parameter.ndim > 1 and id(parameter) not in embedded:
            matrices.append(parameter)
        else:
            others.append(parameter)
    return mixing, matrices, others
