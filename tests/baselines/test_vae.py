import numpy as np
import pytest
import torch

from partbook.baselines.lstm import LstmConfig, LstmNetwork
from partbook.baselines.vae import (
    ANNEALED,
    FREE_NATS,
    Bound,
    VaeConfig,
    VaeModel,
    VaeNetwork,
    evidence_bound,
    training_loss,
)
from partbook.model.config import small
from partbook.model.transformer import PartbookModel, parameter_count
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer

PAD = 0


@pytest.fixture(scope="module")
def network() -> VaeNetwork:
    torch.manual_seed(3)
    return VaeNetwork(VaeConfig(20, width=8, encoder=6, latent=4, decoder=10, layers=2)).eval()


def test_recurrent_models_are_of_the_bases_size() -> None:
    base = parameter_count(PartbookModel(small(2000)))
    assert base == 4_593_628
    assert parameter_count(LstmNetwork(LstmConfig())) == 4_586_832
    assert parameter_count(VaeNetwork(VaeConfig())) == 4_577_296


def test_padding_changes_nothing(network: VaeNetwork) -> None:
    short = torch.tensor([[1, 5, 6, 7]])
    padded = torch.tensor([[1, 5, 6, 7, PAD, PAD], [1, 9, 8, 7, 6, 5]])
    noise = torch.randn(2, 4)
    alone, beside = evidence_bound(network, short, noise[:1], PAD), evidence_bound(network, padded, noise, PAD)
    torch.testing.assert_close(beside.tokens[0, :3], alone.tokens[0])
    assert (beside.tokens[0, 3:] == 0).all()
    torch.testing.assert_close(beside.divergence[0], alone.divergence[0])


def test_the_divergence_is_that_of_two_normals(network: VaeNetwork) -> None:
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    mean, log_variance = network.encode(ids[:, 1:], torch.tensor([4]))
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(evidence_bound(network, ids, torch.zeros(1, 4), PAD).divergence[0], expected)


def test_the_decoder_steps_as_it_reads(network: VaeNetwork) -> None:
    ids, z = torch.tensor([[1, 5, 6, 7]]), torch.randn(1, 4)
    whole, _ = network.advance(ids, z, network.open(z))
    state, steps = network.open(z), []
    for position in range(4):
        logits, state = network.advance(ids[:, position : position + 1], z, state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def test_free_bits_cost_nothing_and_annealing_rises_to_one() -> None:
    tokens, count = torch.full((2, 5), 2.0), 10
    within = Bound(tokens, torch.tensor([FREE_NATS, 1.0]))
    above = Bound(tokens, torch.tensor([FREE_NATS + 5.0, 1.0]))
    assert float(training_loss(within, count, 1.0)) == 2.0
    assert float(training_loss(above, count, 1.0)) == pytest.approx(2.5)
    assert float(training_loss(above, count, ANNEALED / 2)) == pytest.approx(2.25)
    assert float(training_loss(above, count, 0.0)) == 2.0


def test_more_draws_tighten_the_bound(tiny_tokenizer: Tokenizer, recordings: list[Recording]) -> None:
    torch.manual_seed(5)
    size = len(tiny_tokenizer)
    network = VaeNetwork(VaeConfig(size, width=16, encoder=12, latent=8, decoder=16, context=64))
    torch.nn.init.normal_(network.mean.weight, std=2.0)  # a z that matters
    one, many = VaeModel(network, tiny_tokenizer), VaeModel(network, tiny_tokenizer, draws=50)
    assert one.bound
    total_one, total_many = (sum(m.nats(r).sum() for r in recordings) for m in (one, many))
    assert total_many < total_one
    assert np.isfinite(total_many)
