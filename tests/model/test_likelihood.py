from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from partbook.model.checkpoint import load_model
from partbook.model.likelihood import evaluate
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import gather, spans


def test_every_token_counts_once_and_batching_does_not_matter(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    model = load_model(tiny_base)
    one = evaluate(model, tiny_tokenizer, recordings, batch=1)
    many = evaluate(model, tiny_tokenizer, recordings, batch=7)
    assert one.tokens == many.tokens == sum(len(r.ids) + 1 for r in recordings)  # one EOS each
    assert one.nats == pytest.approx(many.nats, rel=1e-5)


def test_the_sum_is_that_of_one_token_at_a_time(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    model, tk = load_model(tiny_base), tiny_tokenizer
    recording, expected = recordings[0], 0.0
    for span in spans(recording, model.config.context):
        windows = gather([(recording, span)], model.config.context, bos=tk.bos, eos=tk.eos, pad=tk.pad)
        ids, mel = torch.from_numpy(windows.ids), torch.from_numpy(windows.memory)
        heard = torch.from_numpy(windows.has_memory)
        for t in range(1, ids.shape[1]):
            if int(ids[0, t]) != tk.pad:
                with torch.inference_mode():
                    expected -= float(F.log_softmax(model(ids[:, :t], mel, heard)[0, -1], -1)[ids[0, t]])
    assert evaluate(model, tk, [recording]).nats == pytest.approx(expected, rel=1e-4)
