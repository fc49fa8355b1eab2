"""Small grammars for tests of decoding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor


class Only:
    """Allows some tokens, each any number of times, and keeps what it was told."""

    def __init__(self, vocabulary: int, tokens: Iterable[int], told: Iterable[int] = ()) -> None:
        self.vocabulary, self.tokens, self.told = vocabulary, frozenset(tokens), list(told)

    def allowed(self) -> Tensor:
        """See `Constraint`."""
        allowed = torch.zeros(self.vocabulary, dtype=torch.bool)
        allowed[sorted(self.tokens)] = True
        return allowed

    def append(self, token: int) -> None:
        """See `Constraint`."""
        self.told.append(token)

    def copy(self) -> Self:
        """See `Constraint`."""
        return type(self)(self.vocabulary, self.tokens, self.told)


class Once(Only):
    """Allows each of some tokens once."""

    def allowed(self) -> Tensor:
        """See `Constraint`."""
        return super().allowed() & ~torch.isin(torch.arange(self.vocabulary), torch.tensor(self.told))


class Turning(Only):
    """Allows some tokens, none of them among the last two."""

    def allowed(self) -> Tensor:
        """See `Constraint`."""
        return super().allowed() & ~torch.isin(torch.arange(self.vocabulary), torch.tensor(self.told[-2:]))
