"""The image-to-text model: an LSTM that attends to ResNet features.

Vinyals et al. 2014 (https://arxiv.org/abs/1411.4555) with the soft attention of Xu et al.
2015 (https://arxiv.org/abs/1502.03044).
"""

import math
import socket
from dataclasses import dataclass
from http.client import HTTPException
from itertools import pairwise
from pickle import UnpicklingError
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crossmodal.errors import InvalidSetting
from crossmodal.networks.resnet import Depth, resnet_stages
from crossmodal.networks.sizes import Count, Size

# Of ImageNet's pixels; torchvision's weights expect inputs normalized by them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CellName = Literal["lstm", "gru", "rnn"]
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
DOWNLOAD_TIMEOUT_S = 20
WORD_DROPOUT = 0.2  # fraction of previous words; makes the model rely on the picture
END = 0  # the word id that starts and ends a caption


@dataclass(frozen=True)
class CaptionerConfig:
    """Architecture of a `Captioner`; `words[0]` is the end mark, not a word.

    `side` is the height and width of its input, `depth` the ResNet's, `stages` how many of
    its four stages are used: fewer stages give a finer grid to attend to. Without `attention`
    the grid is one cell, the mean of the picture. `most` is the max count of each word in a
    caption; `doubled` are the words that may follow themselves.
    """

    words: tuple[str, ...]
    side: Size = 96
    depth: Depth = 18
    stages: Count = 3
    cell: CellName = "lstm"
    attention: bool = True
    most: tuple[int, ...] = ()
    doubled: tuple[str, ...] = ()
    width: Size = 256
    embedding: Size = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.most and len(self.most) != len(self.words):
            raise ValueError(f"most has {len(self.most)} numbers for {len(self.words)} words")

    @property
    def grid(self) -> int:
        """The number of cells along one side of the feature grid."""
        return math.ceil(self.side / (1 << (self.stages + 1))) if self.attention else 1

    @property
    def channels(self) -> int:
        """The number of channels of the last used stage."""
        return (64 << (self.stages - 1)) * (4 if self.depth == 50 else 1)


@dataclass(frozen=True)
class State:
    """The recurrent state between two words: hidden and, for an LSTM, cell, each (B, K, W).

    K is the number of captions per picture.
    """

    hidden: Tensor
    cell: Tensor

    def select(self, beams: Tensor) -> "State":
        """Return the state of the captions `beams` (B, K) of each picture; they may repeat."""
        index = beams[..., None].expand(-1, -1, self.hidden.shape[-1])
        return State(self.hidden.gather(1, index), self.cell.gather(1, index))


class Encoder(nn.Module):
    """The ResNet: pictures uint8 (B, 3, side, side) -> features of N grid cells (B, N, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.attention = config.attention
        self.convs = resnet_stages(config.depth, config.stages)
        self.project = nn.Linear(config.channels, config.width)
        self.places = nn.Parameter(torch.randn(config.grid**2, config.width) * 0.02)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() - self.mean) / self.std
        x = self.convs(x)  # (B, C, h, w)
        if not self.attention:
            x = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return self.project(x.flatten(2).transpose(1, 2)) + self.places  # type: ignore[no-any-return]

    def fuse(self) -> None:
        """Fuse batch norms into convolutions, for faster inference; no training afterward.

        Weights become channels-last, which is faster on vector units and tensor cores.
        """
        for module in [self.convs, *self.convs.modules()]:
            parts = dict(module.named_children())
            for (_, conv), (name, norm) in pairwise(parts.items()):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(conv, norm)
                    conv.weight, conv.bias = fused.weight, fused.bias
                    setattr(module, name, nn.Identity())
        self.convs.to(memory_format=torch.channels_last)


class Decoder(nn.Module):
    """The decoder: each step attends to the grid, updates the cell, scores the next word."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        width = config.width
        self.embed = nn.Embedding(len(config.words), config.embedding)
        self.start = nn.Linear(width, 2 * width)
        self.query = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        self.cell = CELLS[config.cell](config.embedding + width, width)
        self.out = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(2 * width, len(config.words))
        )

    def begin(self, features: Tensor, captions: int = 1) -> State:
        """Return the initial state of `captions` captions per picture."""
        hidden, cell = self.start(features.mean(1)).chunk(2, -1)
        hidden, cell = (x[:, None].expand(-1, captions, -1) for x in (hidden, cell))  # (B, K, W)
        return State(torch.tanh(hidden), cell)

    def step(
        self, word: Tensor, state: State, features: Tensor, keys: Tensor
    ) -> tuple[Tensor, State]:
        """Map word ids (B, K), features and keys (B, N, W) to logits (B, K, V) of the next word."""
        seen = torch.tanh(keys[:, None] + self.query(state.hidden)[:, :, None])  # (B, K, N, W)
        attention = self.score(seen).squeeze(-1).softmax(-1)  # (B, K, N)
        context = attention @ features  # (B, K, W)
        state = self._advance(torch.cat([self.embed(word), context], -1), state)
        return self.out(torch.cat([state.hidden, context], -1)), state

    def _advance(self, x: Tensor, state: State) -> State:
        B, K, _ = x.shape
        hidden, cell = state.hidden.flatten(0, 1), state.cell.flatten(0, 1)  # (B * K, W)
        if isinstance(self.cell, nn.LSTMCell):
            hidden, cell = self.cell(x.flatten(0, 1), (hidden, cell))
        else:
            hidden = self.cell(x.flatten(0, 1), hidden)
        return State(hidden.view(B, K, -1), cell.view(B, K, -1))


class Captioner(nn.Module):
    """The captioner: `loss` to train on pairs, `encoder` and `decoder` for beam search."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def loss(self, images: Tensor, captions: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy per word, in nats, and the fraction of captions predicted exactly.

        images uint8 (B, 3, H, W); captions (B, T), each ended by `END`; keep (B, T).
        """
        features = self.encoder(images)
        keys = self.decoder.keys(features)
        state = self.decoder.begin(features)
        word = torch.full_like(captions[:, :1], END)
        steps = []
        for t in range(captions.shape[1]):
            logits, state = self.decoder.step(word, state, features, keys)
            steps.append(logits)
            word = self._dropped(captions[:, t : t + 1])  # teacher forcing
        logits = torch.cat(steps, 1)  # (B, T, V)
        loss = F.cross_entropy(logits[keep], captions[keep])
        whole = ((logits.argmax(-1) == captions) | ~keep).all(1).float().mean()
        return loss, whole

    def _dropped(self, word: Tensor) -> Tensor:
        """Apply word dropout, in training only."""
        if not self.training:
            return word
        return word.masked_fill(torch.rand(word.shape, device=word.device) < WORD_DROPOUT, END)


def load_pretrained(model: Captioner) -> None:
    """Load torchvision's ResNet weights, trained on ImageNet.

    Raises `InvalidSetting` if they are not in torch's cache and cannot be downloaded.
    """
    from torchvision.models import get_model, get_model_weights  # takes seconds to import

    config = model.config
    name = f"resnet{config.depth}"
    weights = get_model_weights(name).IMAGENET1K_V1
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)  # torch's download has no timeout
    try:
        found = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, HTTPException, OSError, RuntimeError, EOFError, UnpicklingError) as e:
        raise InvalidSetting(
            f"--pretrained: torchvision's weights of {name} cannot be downloaded ({e}): put "
            f"{weights.url} into {torch.hub.get_dir()}/checkpoints, or train without --pretrained"
        ) from e
    finally:
        socket.setdefaulttimeout(before)
    net = get_model(name, weights=None)
    net.load_state_dict(found)
    stages = [net.layer1, net.layer2, net.layer3, net.layer4][: config.stages]
    ours = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, *stages)
    model.encoder.convs.load_state_dict(ours.state_dict())
