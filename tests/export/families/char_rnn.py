"""Recurrent networks that predict the next character at every position."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .family import Batch, Family, integers, token_loss

__all__ = ["CHAR_GRU", "CHAR_LSTM"]

_TOKENS, _POSITIONS = 40, 16


class _CharacterRnn(nn.Module):
    def __init__(self, recurrence: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.token = nn.Embedding(_TOKENS, 16)
        self.recurrence: Any = recurrence(16, 32, batch_first=True)
        self.head = nn.Linear(32, _TOKENS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrence(self.token(x))
        scores: torch.Tensor = self.head(states)
        return scores


def _batch(count: int) -> Batch:
    text = integers(count, _POSITIONS + 1, below=_TOKENS)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


CHAR_GRU = Family(
    name="char_gru",
    what="an embedding and a GRU over 16 characters, the next one predicted at every position",
    make_model=lambda: _CharacterRnn(nn.GRU),
    make_batch=_batch,
    loss=token_loss,
)
CHAR_LSTM = Family(
    name="char_lstm",
    what="the same with an LSTM",
    make_model=lambda: _CharacterRnn(nn.LSTM),
    make_batch=_batch,
    loss=token_loss,
)
