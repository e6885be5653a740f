"""The stages of a ResNet: He et al. 2015, https://arxiv.org/abs/1512.03385.

Modules and parameters have torchvision's names and order, so that its weights fit. A model host
does not import torchvision: that takes as long as importing torch.
"""

from typing import Literal

from torch import Tensor, nn

Depth = Literal[18, 34, 50]
BLOCKS: dict[Depth, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
STEM = 64  # channels of the first stage, which double with each one


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: (B, C, H, W) -> (B, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions and a shortcut: (B, C, H, W) -> (B, 4 width, ...)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return self.relu(x)  # type: ignore[no-any-return]


def resnet_stages(depth: Depth, count: int) -> nn.Sequential:
    """The stem and the first `count` stages: (B, 3, H, W) -> (B, C, H / 2^(count + 1), ...)."""
    block = Bottleneck if depth == 50 else BasicBlock
    layers: list[nn.Module] = [
        nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(STEM),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = STEM
    for number, blocks in enumerate(BLOCKS[depth][:count]):
        width, stride = STEM << number, 1 if number == 0 else 2
        stage = []
        for index in range(blocks):
            stage.append(block(channels, width, stride if index == 0 else 1))
            channels = width * block.expansion
        layers.append(nn.Sequential(*stage))
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _conv(channels: int, width: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, side, stride, padding=side // 2, bias=False)


def _shortcut(channels: int, width: int, stride: int) -> nn.Sequential | None:
    """What makes the input fit the output; None where it does."""
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(_conv(channels, width, 1, stride), nn.BatchNorm2d(width))
