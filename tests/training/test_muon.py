"""Muon against its definition, against torch's own, and who gets which parameter."""

from __future__ import annotations

import pytest
import tiny_run
import torch
from torch import nn
from torch.optim import Muon as TorchMuon

from partbook.training import muon
from partbook.training.muon import Muon, Optimiser, orthogonalise, split


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "native", lambda _: torch.float32)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16), (1, 8)])
def test_singular_values_are_brought_near_one_and_their_vectors_kept(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(n, min(shape)))[0] for n in shape)
    values = torch.logspace(0, -2, min(shape))
    found = orthogonalise((left * values @ right.T)[None])[0]
    brought = left.T @ found @ right
    assert (brought.diagonal() > 0.6).all()
    assert (brought.diagonal() < 1.3).all()
    assert (brought - torch.diag(brought.diagonal())).abs().max() < 1e-4


def test_a_matrix_without_gradient_direction_stays_zero() -> None:
    assert not orthogonalise(torch.zeros(2, 4, 3)).any()


@pytest.mark.parametrize("shape", [(24, 24), (48, 12), (12, 48)])
def test_it_moves_as_torchs_own_does_up_to_bfloat16(shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    pair = (Muon([ours], 0.02, weight_decay=0.1), TorchMuon([theirs], lr=0.02, weight_decay=0.1))
    for _ in range(5):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimiser in pair:
            optimiser.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_the_first_step_is_as_long_as_its_shape_says() -> None:
    torch.manual_seed(3)
    matrix = nn.Parameter(torch.zeros(64, 16))
    matrix.grad = torch.linalg.qr(torch.randn(64, 16))[0]
    Muon([matrix], 0.02).step()
    lengths = torch.linalg.svdvals(matrix.detach()) / (0.02 * 2.0)  # √(64 / 16)
    assert ((lengths > 0.6) & (lengths < 1.3)).all()


def test_vectors_are_refused_by_shape() -> None:
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], 0.02)


def test_muon_gets_the_linear_layers_of_blocks_and_encoder_and_nothing_else() -> None:
    model = tiny_run.model()
    mixing, matrices, others = split(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    outside = [names[id(p)] for p in mixing if not names[id(p)].startswith("blocks.")]
    assert outside == ["encoder.classes.weight"]
    assert len(mixing) - 1 == tiny_run.CONFIG.layers * 10
    gains = {f"blocks.{block}.self_attention" for block in range(tiny_run.CONFIG.layers)}
    found = {names[id(p)].rsplit(".", 1)[0] for p in matrices}
    assert found == {"encoder.first", "encoder.second", "encoder.lstm", *gains}
    assert "embedding.weight" in {names[id(p)] for p in others}
    every = [*mixing, *matrices, *others]
    assert {id(p) for p in every} == set(names)
    assert len(every) == len(names)


def test_a_frozen_parameter_has_no_optimiser() -> None:
    model = tiny_run.model()
    model.embedding.weight.requires_grad_(False)
    assert all(p is not model.embedding.weight for group in split(model) for p in group)


def test_both_go_at_the_same_share_of_their_own_peak() -> None:
    ends = []
    for share in (1.0, 0.5):
        model = tiny_run.model()
        before = [p.detach().clone() for p in model.parameters()]
        optimiser = Optimiser(model, 0.02, 1e-3, 0.0)
        torch.manual_seed(4)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimiser.step(share)
        assert all(p.grad is None for p in model.parameters())
        ends.append([p.detach() - b for p, b in zip(model.parameters(), before, strict=True)])
    for whole, half in zip(*ends, strict=True):
        torch.testing.assert_close(half * 2, whole, rtol=1e-3, atol=1e-6)
