"""Negative log-likelihood of recordings under the model, in nats per token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import Span, Windows, gather, spans


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A sum of negative log-probabilities over tokens.

    Attributes:
        nats: the sum.
        tokens: how many tokens it is over, EOS included.
    """

    nats: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Nats per token."""
        return self.nats / max(self.tokens, 1)


def to_tensors(windows: Windows, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """ids (b, t + 1), mel (b, 688, 128) and has_memory (b,) on a device."""
    return (
        torch.from_numpy(windows.ids).to(device),
        torch.from_numpy(windows.memory).to(device),
        torch.from_numpy(windows.has_memory).to(device),
    )


class NextToken(Protocol):
    """Whatever says what comes next, as `PartbookModel` does: called with ids (b, t), mel and has_memory."""

    def __call__(self, ids: Tensor, mel: Tensor, has_memory: Tensor, /) -> Tensor:
        """Logits (b, t, vocabulary)."""


def token_losses(model: NextToken, ids: Tensor, mel: Tensor, has_memory: Tensor, pad: int) -> Tensor:
    """Negative log-probability of each token given those before it: (b, t), 0 at padding."""
    logits = model(ids[:, :-1], mel, has_memory).float()  # under autocast they are bfloat16
    # Flat, because cross-entropy over transposed logits takes up to a fifth longer.
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none", ignore_index=pad)
    return losses.view(len(ids), -1)


def evaluate(
    model: PartbookModel, tokenizer: Tokenizer, recordings: Sequence[Recording], *, batch: int = 16
) -> Likelihood:
    """The likelihood of whole recordings: every token once, and headers repeated, in windows that begin on bars.

    Deterministic; leaves the model in evaluation mode.
    """
    length = model.config.context
    items = [(r, span) for r in recordings for span in spans(r, tokenizer, length)]
    # Windows of like length share a batch, so that little is padding.
    items.sort(key=lambda item: item[1].tokens)
    device = model.embedding.weight.device
    model.eval()
    nats, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(items), batch):
            windows = gather(items[start : start + batch], tokenizer)
            ids, mel, has_memory = to_tensors(windows, device)
            nats += float(token_losses(model, ids, mel, has_memory, tokenizer.pad).double().sum())
            tokens += int((ids[:, 1:] != tokenizer.pad).sum())
    return Likelihood(nats, tokens)


def token_nats(
    losses: Callable[[Tensor, Tensor, Tensor], Tensor],
    tokenizer: Tokenizer,
    recording: Recording,
    context: int,
    device: torch.device,
    *,
    batch: int = 16,
) -> NDArray[np.float64]:
    """What `evaluate` sums, token by token: nats of each token of a recording and of its end, (tokens + 1,).

    Args:
        losses: nats of each token, (b, t) of ids (b, t + 1), mel and has_memory; 0 at padding.
        tokenizer: the model's.
        recording: may be empty: what is left is that it ends at once.
        context: positions the model sees at once, BOS included.
        device: where `losses` computes.
        batch: windows at a time.
    """
    cut = spans(recording, tokenizer, context) or [Span(0, 0, 0.0, True, (tokenizer.bos,))]
    result = np.zeros(len(recording.ids) + 1)
    with torch.inference_mode():
        for start in range(0, len(cut), batch):
            chunk = cut[start : start + batch]
            windows = gather([(recording, span) for span in chunk], tokenizer)
            found = losses(*to_tensors(windows, device)).double().cpu().numpy()
            for row, span in enumerate(chunk):
                end, begin = span.stop + span.last, len(span.prefix) - 1  # what repeats the header is given
                result[span.start : end] = found[row, begin : begin + end - span.start]
    return result
