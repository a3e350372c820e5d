"""Causal transformers that predict the next token: normalisation first, fused attention, GELU."""

from functools import partial

import torch
from torch import nn

from .family import Batch, Family, integers, token_loss

__all__ = ["CHAR_TRANSFORMER_TIED", "CHAR_TRANSFORMER_UNTIED", "TRANSFORMER_10M"]


class _Attention(nn.Module):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, positions, width = x.shape
        joint = self.query_key_value(x).view(batch, positions, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(batch, positions, width))
        return attended


class _Block(nn.Module):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), _Attention(width, heads=heads)
        self.dense_norm = nn.LayerNorm(width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        total: torch.Tensor = x + self.dense(self.dense_norm(x))
        return total


class _Transformer(nn.Module):
    def __init__(self, *, tokens: int, positions: int, width: int, heads: int, layers: int, tied: bool) -> None:
        super().__init__()
        self.token = nn.Embedding(tokens, width)
        self.position = nn.Parameter(torch.zeros(positions, width))
        self.blocks = nn.Sequential(*(_Block(width, heads=heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens, bias=False)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.norm(self.blocks(self.token(x) + self.position)))
        return scores


def _batch(count: int, *, tokens: int, positions: int) -> Batch:
    text = integers(count, positions + 1, below=tokens)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


_small = partial(_Transformer, tokens=40, positions=32, width=32, heads=2, layers=2)
_small_batch = partial(_batch, tokens=40, positions=32)

CHAR_TRANSFORMER_TIED = Family(
    name="char_transformer_tied",
    what="a causal transformer of two layers over 32 characters, whose head is its embedding's weight",
    make_model=partial(_small, tied=True),
    make_batch=_small_batch,
    loss=token_loss,
    # The head is the embedding, below every layer: training it alone would save nothing.
    head="norm.*",
    lora=True,
)
CHAR_TRANSFORMER_UNTIED = Family(
    name="char_transformer_untied",
    what="the same with a head of its own",
    make_model=partial(_small, tied=False),
    make_batch=_small_batch,
    loss=token_loss,
    lora=True,
)
TRANSFORMER_10M = Family(
    name="transformer_10m",
    what="a causal transformer of six layers, 10.9 million parameters, over 128 tokens",
    # Six layers of 12 x 384 x 384 weights, and 256 tokens twice.
    make_model=partial(_Transformer, tokens=256, positions=128, width=384, heads=6, layers=6, tied=False),
    make_batch=partial(_batch, tokens=256, positions=128),
    loss=token_loss,
    lora=True,
    batch_size=8,
    slow=True,
)
