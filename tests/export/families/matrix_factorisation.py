"""Ratings as products of two embeddings and biases (Koren, Bell and Volinsky 2009, Computer 42(8), equation 4)."""

import torch
from torch import nn

from .family import Batch, Family, integers, normals

__all__ = ["MATRIX_FACTORISATION"]

_USERS, _ITEMS = 50, 40


class _Factors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(_USERS, 8), nn.Embedding(_ITEMS, 8)
        self.user_bias, self.item_bias = nn.Embedding(_USERS, 1), nn.Embedding(_ITEMS, 1)
        self.mean_bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        user, item = x[:, 0], x[:, 1]
        biases = self.user_bias(user) + self.item_bias(item) + self.mean_bias
        rating: torch.Tensor = (self.user(user) * self.item(item)).sum(dim=1) + biases.squeeze(1)
        return rating


def _batch(count: int) -> Batch:
    users = integers(count, below=_USERS, purpose="family_users")
    items = integers(count, below=_ITEMS, purpose="family_items")
    return torch.stack([users, items], dim=1), normals(count, purpose="family_y")


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square()


MATRIX_FACTORISATION = Family(
    name="matrix_factorisation",
    what="embeddings of users and items, their product and biases, squared error",
    make_model=_Factors,
    make_batch=_batch,
    loss=_loss,
    head="*_bias*",
    batch_size=8,
)
