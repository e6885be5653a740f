"""Picture to words: ResNet features, attended to by an LSTM.

Vinyals et al. 2014 (https://arxiv.org/abs/1411.4555) with the soft attention of Xu et al.
2015 (https://arxiv.org/abs/1502.03044). The ResNet (He et al. 2015) is torchvision's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

# Of ImageNet, as torchvision's weights expect them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
END = 0  # ends a caption, and stands before its first word


@dataclass(frozen=True)
class CaptionerConfig:
    """Architecture of a `Captioner`; `words[0]` is the end mark, not a word.

    `side` is the height and width of its input, `stages` how many of the ResNet's four
    stages are used: the fewer, the finer the grid that is attended to.
    """

    words: tuple[str, ...]
    side: int = 96
    stages: int = 3
    width: int = 256
    embedding: int = 128
    dropout: float = 0.1

    @property
    def grid(self) -> int:
        """Cells along one side of the feature grid."""
        return math.ceil(self.side / (1 << (self.stages + 1)))


@dataclass(frozen=True)
class State:
    """The LSTM between two words, hidden and cell, each (B, W)."""

    hidden: Tensor
    cell: Tensor

    def select(self, rows: Tensor) -> "State":
        return State(self.hidden[rows], self.cell[rows])


class Encoder(nn.Module):
    """Pictures uint8 (B, 3, side, side) -> features of the cells of a grid (B, N, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        net = resnet18(weights=None)
        stages = [net.layer1, net.layer2, net.layer3, net.layer4][: config.stages]
        self.convs = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, *stages)
        self.project = nn.Linear(64 * 2 ** (config.stages - 1), config.width)
        self.places = nn.Parameter(torch.randn(config.grid**2, config.width) * 0.02)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() - self.mean) / self.std
        x = self.convs(x)  # (B, C, h, w)
        return self.project(x.flatten(2).transpose(1, 2)) + self.places  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """One word at a time: looks at the grid, updates the LSTM, scores the next word."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        width = config.width
        self.embed = nn.Embedding(len(config.words), config.embedding)
        self.start = nn.Linear(width, 2 * width)
        self.query = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        self.cell = nn.LSTMCell(config.embedding + width, width)
        self.out = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(2 * width, len(config.words))
        )

    def begin(self, features: Tensor) -> State:
        hidden, cell = self.start(features.mean(1)).chunk(2, -1)
        return State(torch.tanh(hidden), cell)

    def step(
        self, word: Tensor, state: State, features: Tensor, keys: Tensor
    ) -> tuple[Tensor, State]:
        """Word ids (B,), features and keys (B, N, W) -> logits (B, V) of the next word."""
        energy = self.score(torch.tanh(keys + self.query(state.hidden)[:, None]))  # (B, N, 1)
        context = (energy.softmax(1) * features).sum(1)  # (B, W)
        hidden, cell = self.cell(
            torch.cat([self.embed(word), context], -1), (state.hidden, state.cell)
        )
        return self.out(torch.cat([hidden, context], -1)), State(hidden, cell)


class Captioner(nn.Module):
    """`loss` to train on (picture, caption) pairs, `encoder` and `decoder` to search."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def loss(self, images: Tensor, captions: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy a word, in nats, and the fraction of captions predicted whole.

        images uint8 (B, 3, H, W); captions (B, T), each ended by `END`; keep (B, T).
        """
        features = self.encoder(images)
        keys = self.decoder.keys(features)
        state = self.decoder.begin(features)
        word = torch.full_like(captions[:, 0], END)
        steps = []
        for t in range(captions.shape[1]):
            logits, state = self.decoder.step(word, state, features, keys)
            steps.append(logits)
            word = captions[:, t]  # teacher forcing
        logits = torch.stack(steps, 1)  # (B, T, V)
        loss = F.cross_entropy(logits[keep], captions[keep])
        whole = ((logits.argmax(-1) == captions) | ~keep).all(1).float().mean()
        return loss, whole
