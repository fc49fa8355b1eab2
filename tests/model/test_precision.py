"""Which format products are in, and that attention in blocks is attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from partbook.model.layers import QUERIES, causal_attention
from partbook.model.precision import native, products

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_a_processor_multiplies_what_it_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert native(CPU) is expected


def test_an_accelerator_multiplies_bfloat16() -> None:
    assert native(torch.device("cuda")) is torch.bfloat16


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_products_are_of_the_precision_asked_for(precision: torch.dtype) -> None:
    with products(CPU, precision):
        assert torch.nn.Linear(4, 4)(torch.ones(1, 4)).dtype is precision
    assert torch.nn.Linear(4, 4)(torch.ones(1, 4)).dtype is torch.float32


def attended(positions: int, *, precision: torch.dtype) -> list[Tensor]:
    """The mixture, and the gradients of queries, keys and values."""
    torch.manual_seed(3)
    three = [torch.randn(2, 4, positions, 64, requires_grad=True) for _ in range(3)]
    with products(CPU, precision):
        mixed = causal_attention(*three)
    (mixed.float() * torch.randn(mixed.shape)).sum().backward()  # type: ignore[no-untyped-call]
    return [mixed, *(tensor.grad for tensor in three if tensor.grad is not None)]


@pytest.mark.parametrize("positions", [1, QUERIES - 1, QUERIES, 2 * QUERIES + 5])
def test_attention_in_blocks_is_torchs_up_to_bfloat16(positions: int) -> None:
    exact, found = (attended(positions, precision=p) for p in (torch.float32, torch.bfloat16))
    for one, other in zip(exact, found, strict=True):
        assert (one - other.float()).norm() < 0.02 * one.norm() + 1e-4  # one position's query has no gradient


def test_attention_in_blocks_sees_nothing_that_comes_later() -> None:
    torch.manual_seed(4)
    query, key, value = (torch.randn(1, 1, QUERIES + 9, 16) for _ in range(3))
    with products(CPU, torch.bfloat16):
        before = causal_attention(query, key, value)
        for late in (5, QUERIES + 3):
            changed = [key.clone(), value.clone()]
            for tensor in changed:
                tensor[:, :, late:] += 7.0
            after = causal_attention(query, *changed)
            assert torch.equal(before[:, :, :late], after[:, :, :late])
            assert not torch.equal(before[:, :, late:], after[:, :, late:])
