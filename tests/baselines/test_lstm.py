import numpy as np
import pytest
import torch

from partbook.baselines.lstm import LstmConfig, LstmModel, LstmNetwork
from partbook.model.likelihood import token_losses
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import gather, spans


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Tokenizer) -> LstmModel:
    torch.manual_seed(2)
    return LstmModel(LstmNetwork(LstmConfig(len(tiny_tokenizer), width=16, layers=2, context=48)), tiny_tokenizer)


def test_the_network_steps_as_it_reads(model: LstmModel) -> None:
    ids, state, steps = torch.tensor([[1, 5, 6, 7]]), None, []
    for position in range(4):
        logits, state = model.network.advance(ids[:, position : position + 1], state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), model.network(ids))


def test_nats_are_those_of_the_windows_end_to_end(model: LstmModel, recordings: list[Recording]) -> None:
    for recording in recordings:
        cut = spans(recording, model.tokenizer, 48)
        assert len(cut) > 1
        expected = []
        for span in cut:
            ids = torch.from_numpy(gather([(recording, span)], model.tokenizer, 48).ids)
            with torch.inference_mode():
                losses = token_losses(model.network, ids, torch.zeros(0), torch.zeros(0), model.tokenizer.pad)[0]
            begin = len(span.prefix) - 1  # the header, which is given
            expected.append(losses[begin : begin + span.stop - span.start + span.last].numpy())
        np.testing.assert_allclose(model.nats(recording), np.concatenate(expected), rtol=1e-4)


def test_a_piece_without_tokens_still_ends(model: LstmModel, recordings: list[Recording]) -> None:
    nothing = recordings[0]
    empty = Recording(
        "", 1.0, nothing.notes, nothing.ids[:0], nothing.bar_starts[:0], nothing.bar_seconds[:0], nothing.mel
    )
    assert model.nats(empty).shape == (1,)


def test_forget_gates_begin_open(model: LstmModel) -> None:
    width = model.network.config.width
    for layer in range(2):
        bias = getattr(model.network.lstm, f"bias_ih_l{layer}")
        assert bias[width : 2 * width].mean() > 0.9
        assert abs(bias[:width].mean()) < 0.3
