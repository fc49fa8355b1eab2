from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from partbook.model.checkpoint import load_model
from partbook.model.likelihood import evaluate, token_losses, token_nats
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import gather, spans


def test_every_token_counts_once_and_batching_does_not_matter(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    model = load_model(tiny_base)
    one = evaluate(model, tiny_tokenizer, recordings, batch=1)
    many = evaluate(model, tiny_tokenizer, recordings, batch=7)
    windows = [span for r in recordings for span in spans(r, tiny_tokenizer, model.config.context)]
    repeated = sum(len(span.prefix) - 1 for span in windows)  # headers of windows inside a piece
    assert repeated
    assert one.tokens == many.tokens == sum(len(r.ids) + 1 for r in recordings) + repeated  # one EOS each
    assert one.nats == pytest.approx(many.nats, rel=1e-5)


def test_the_sum_is_that_of_one_token_at_a_time(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    model, tk = load_model(tiny_base), tiny_tokenizer
    recording, expected = recordings[0], 0.0
    for span in spans(recording, tk, model.config.context):
        windows = gather([(recording, span)], tk, model.config.context)
        ids, mel = torch.from_numpy(windows.ids), torch.from_numpy(windows.memory)
        heard = torch.from_numpy(windows.has_memory)
        for t in range(1, ids.shape[1]):
            if int(ids[0, t]) != tk.pad:
                with torch.inference_mode():
                    expected -= float(F.log_softmax(model(ids[:, :t], mel, heard)[0, -1], -1)[ids[0, t]])
    assert evaluate(model, tk, [recording]).nats == pytest.approx(expected, rel=1e-4)


def test_a_pieces_tokens_are_counted_once_and_headers_that_windows_repeat_are_given(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    model, tk = load_model(tiny_base), tiny_tokenizer

    def losses(ids: torch.Tensor, mel: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        return token_losses(model, ids, mel, heard, tk.pad)

    for recording in recordings:
        cut = spans(recording, tk, model.config.context)
        windows = gather([(recording, span) for span in cut], tk)
        with torch.inference_mode():
            found = losses(*(torch.from_numpy(a) for a in (windows.ids, windows.memory, windows.has_memory)))
        expected = []
        for row, span in enumerate(cut):
            given = len(span.prefix) - 1
            expected += found[row, given : given + span.stop - span.start + span.last].tolist()
        nats = token_nats(losses, tk, recording, model.config.context, torch.device("cpu"))
        assert nats.shape == (len(recording.ids) + 1,)
        assert nats.tolist() == pytest.approx(expected, rel=1e-5)
