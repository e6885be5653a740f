"""The text encoder: a small pre-norm transformer from word vectors to slot vectors."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossmodal.networks.sizes import Count, Size


@dataclass(frozen=True)
class TextEncoderConfig:
    """Architecture of a `TextEncoder`; `source` and `word_dim` describe its input vectors.

    If not `ordered`, it reads only the mean of all word vectors.
    """

    source: Literal["word2vec", "bert"] = "word2vec"
    ordered: bool = True
    word_dim: Size = 128
    width: Size = 192
    heads: Count = 6
    layers: Count = 4
    max_words: Size = 64


class Whitening(nn.Module):
    """A transform that decorrelates word vectors, (..., D) -> (..., D).

    Word2vec's vectors of opposites ("small", "big") are almost equal; whitened, they differ as
    much as those of any two words.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    def fit(self, vectors: Tensor) -> None:
        """Set the transform from the vectors of the vocabulary, (V, D)."""
        mean = vectors.mean(0)
        covariance = torch.cov((vectors - mean).T)
        values, axes = torch.linalg.eigh(covariance)
        scale = (values.clamp_min(values.max() * 1e-4)).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_(axes * scale @ axes.T)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.matrix


class Block(nn.Module):
    """A transformer block: pre-norm self-attention and MLP, (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        B, T, C = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, C / H)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """A transformer over the words and `slots` learned queries, whose outputs are the slots."""

    def __init__(self, config: TextEncoderConfig, slots: int) -> None:
        super().__init__()
        self.slots, self.ordered = slots, config.ordered
        self.whitening = Whitening(config.word_dim)
        self.embed = nn.Linear(config.word_dim, config.width)
        self.positions = nn.Parameter(torch.randn(config.max_words, config.width) * 0.02)
        self.questions = nn.Parameter(torch.randn(slots, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, words: Tensor, keep: Tensor) -> Tensor:
        """Map word vectors (B, T, D) and their mask (B, T) to slots (B, S, C)."""
        B, T, _ = words.shape
        x = self.embed(self.whitening(words))  # (B, T, C)
        if self.ordered:
            x = x + self.positions[:T]
        else:
            x = (x * keep[..., None]).sum(1, keepdim=True) / keep.sum(1).clamp_min(1)[:, None, None]
            keep = keep.any(1, keepdim=True)  # (B, 1)
        x = torch.cat([self.questions.expand(B, -1, -1), x], dim=1)  # (B, S + T, C)
        keep = torch.cat([keep.new_ones(B, self.slots), keep], dim=1)
        for block in self.blocks:
            x = block(x, keep)
        return self.norm(x[:, : self.slots])  # type: ignore[no-any-return]
