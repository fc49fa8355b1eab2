"""Against Opacus and torch.func: two other ways to a recording's own gradient, by name of every trained tensor.

Both read one example as one row of a batch, so recordings have one window each here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.grad_sample import register_grad_sampler
from opacus.grad_sample.layer_norm import compute_layer_norm_grad_sample
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from partbook.model.adapter import AdaptedLinear, adapter_state, apply_adapter, attach, flatten
from partbook.model.checkpoint import load_model
from partbook.model.layers import Norm
from partbook.model.likelihood import to_tensors, token_losses
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.plan.training import DistributedDp
from partbook.training.examples import Examples
from partbook.training.per_recording import recording_updates

BATCH = [0, 1, 2]


@pytest.fixture(autouse=True, scope="module")
def samplers() -> Iterator[None]:
    """What Opacus must be told of our layers, by the formula of a Linear: B's gradient is backpropᵀ · scale·A·x."""

    def of_adapted(layer: AdaptedLinear, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
        low = activations[0] @ layer.a.T * layer.scale
        return {layer.b: torch.einsum("n...o,n...r->nor", backprops, low)}

    kept = dict(GradSampleModule.GRAD_SAMPLERS)
    register_grad_sampler(AdaptedLinear)(of_adapted)
    register_grad_sampler(Norm)(compute_layer_norm_grad_sample)
    yield
    GradSampleModule.GRAD_SAMPLERS.clear()
    GradSampleModule.GRAD_SAMPLERS.update(kept)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PartbookModel:
    found = attach(load_model(tiny_base))
    random = torch.Generator().manual_seed(3)
    nn.init.normal_(found.encoder.silence, generator=random)
    state = {n: t + 0.1 * torch.randn(t.shape, generator=random) for n, t in adapter_state(found).items()}
    return apply_adapter(found, state)


@pytest.fixture(scope="module")
def examples(tiny_tokenizer: Tokenizer, recordings: list[Recording]) -> Examples:
    return Examples(recordings, tiny_tokenizer, 64)


@pytest.fixture(scope="module")
def batch(examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    rows = examples.draw(np.array(BATCH), 1, np.random.default_rng(4))
    return to_tensors(examples.take(rows.ravel()), torch.device("cpu"))


@pytest.fixture(scope="module")
def ours(model: PartbookModel, examples: Examples, tiny_tokenizer: Tokenizer) -> dict[int, np.ndarray]:
    training = DistributedDp(noise_multiplier=1, sampling=1, batch=3, clip=1e6)
    state, random = adapter_state(model), np.random.default_rng(4)
    found = recording_updates(model, state, examples, np.array(BATCH), training, tiny_tokenizer.pad, random)
    return {update.recording: update.vector for update in found}


def mean_losses(model: nn.Module, ids: Tensor, mel: Tensor, heard: Tensor, pad: int) -> Tensor:
    return token_losses(model, ids, mel, heard, pad).sum(1) / (ids[:, 1:] != pad).sum(1)


def same(ours: dict[int, np.ndarray], theirs: dict[str, Tensor]) -> None:
    """Theirs: (recordings, …) of each name."""
    for place, recording in enumerate(BATCH):
        start = 0
        for name in sorted(theirs):
            expected = theirs[name][place].detach().numpy().ravel()
            found = -ours[recording][start : start + len(expected)]
            start += len(expected)
            gap = np.linalg.norm(found - expected)
            # In silence there is one thing to listen to, and no gradient but what rounding leaves.
            assert gap <= 1e-5 * np.linalg.norm(expected) + 1e-8, f"{name}: {gap / np.linalg.norm(expected):.1e}"
        assert start == len(ours[recording])


@pytest.mark.filterwarnings("ignore:Full backward hook")  # the sound before the notes needs no gradient
def test_updates_are_opacus_grad_samples(
    model: PartbookModel,
    batch: tuple[Tensor, Tensor, Tensor],
    ours: dict[int, np.ndarray],
    tiny_tokenizer: Tokenizer,
) -> None:
    model.train()  # Opacus ignores modules in evaluation mode; there is no dropout
    # The encoder is frozen, so that Opacus need not know its LSTM.
    wrapped = GradSampleModule(model, loss_reduction="sum", strict=False)
    try:
        mean_losses(wrapped, *batch, tiny_tokenizer.pad).sum().backward()
        same(ours, {name: p.grad_sample for name, p in model.named_parameters() if p.requires_grad})
    finally:
        wrapped._close()
        model.eval()


def test_updates_are_vmapped_gradients(
    model: PartbookModel,
    batch: tuple[Tensor, Tensor, Tensor],
    ours: dict[int, np.ndarray],
    tiny_tokenizer: Tokenizer,
) -> None:
    state = adapter_state(model)
    ids, mel, heard = batch
    memory, audible = (t.detach() for t in model.encode(mel, heard))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, memory: Tensor, audible: Tensor) -> Tensor:
            return self.model.decode(ids[None], memory[None], audible[None])[0]

    def loss(state: dict[str, Tensor], ids: Tensor, memory: Tensor, audible: Tensor) -> Tensor:
        prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
        logits = functional_call(Decoder(), prefixed, (ids[:-1], memory, audible))
        return nn.functional.cross_entropy(logits, ids[1:], ignore_index=tiny_tokenizer.pad)

    # Attention by its formula: the fused kernel has no rule for a batch of calls.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        theirs = vmap(grad(loss), in_dims=(None, 0, 0, 0))(state, ids, memory, audible)
    assert len(flatten(state)) == sum(t[0].numel() for t in theirs.values())
    same(ours, theirs)
