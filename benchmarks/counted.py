"""Networks whose kernels are counted: torchvision's layouts at full depth and small width, which the counts ignore."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EFFICIENTNET_B0 = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
                   (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, kernel, stride of the first block, expansion, channels out."""
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels out, blocks, stride of the first block."""
DENSENET_121 = (6, 12, 24, 16)
"""Layers of each dense block."""


def convolution(
    before: int, after: int, kernel: int, stride: int, groups: int, *activation: nn.Module
) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), *activation)


class SqueezeExcitation(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)
        self.activation, self.scale_activation = nn.SiLU(inplace=True), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class Inverted(nn.Module):
    """Expand, filter each channel by itself, perhaps weigh the channels, project; beside a shortcut where one fits."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        stride: int,
        expansion: int,
        activation: type[nn.Module],
        weighs: bool,
    ) -> None:
        super().__init__()
        width = before * expansion
        parts = [] if expansion == 1 else [convolution(before, width, 1, 1, 1, activation(inplace=True))]
        parts.append(convolution(width, width, kernel, stride, width, activation(inplace=True)))
        if weighs:
            parts.append(SqueezeExcitation(width, max(1, before // 4)))
        self.block = nn.Sequential(*parts, convolution(width, after, 1, 1, 1))
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        if not self.shortcut:
            return self.block(x)
        if isinstance(self.block[0][-1], nn.SiLU):
            found = self.block(x)
            found += x
            return found
        return x + self.block(x)


class Head(nn.Module):
    def __init__(self, features: nn.Module, width: int, classes: int = 10) -> None:
        super().__init__()
        self.features, self.avgpool, self.classifier = features, nn.AdaptiveAvgPool2d(1), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def efficientnet_b0(part: int = 4) -> nn.Module:
    """EfficientNet-B0 of a `part` of its width."""
    width = 32 // part
    layers: list[nn.Module] = [convolution(3, width, 3, 2, 1, nn.SiLU(inplace=True))]
    for blocks, kernel, stride, expansion, after in EFFICIENTNET_B0:
        for n in range(blocks):
            layers.append(Inverted(width, after // part, kernel, stride if n == 0 else 1, expansion, nn.SiLU, True))
            width = after // part
    layers.append(convolution(width, 4 * width, 1, 1, 1, nn.SiLU(inplace=True)))
    return Head(nn.Sequential(*layers), 4 * width)


def mobilenet_v2(part: int = 4) -> nn.Module:
    """MobileNet-v2 of a `part` of its width."""
    width = 32 // part
    layers: list[nn.Module] = [convolution(3, width, 3, 2, 1, nn.ReLU6(inplace=True))]
    for expansion, after, blocks, stride in MOBILENET_V2:
        for n in range(blocks):
            layers.append(Inverted(width, after // part, 3, stride if n == 0 else 1, expansion, nn.ReLU6, False))
            width = after // part
    layers.append(convolution(width, 4 * width, 1, 1, 1, nn.ReLU6(inplace=True)))
    return Head(nn.Sequential(*layers), 4 * width)


class DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(before), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self:
            features.append(layer(features))
        return torch.cat(features, 1)


def densenet_121(growth: int = 4) -> nn.Module:
    """DenseNet-121 with a smaller growth of each layer."""
    width = 2 * growth
    layers: list[nn.Module] = [convolution(3, width, 7, 2, 1, nn.ReLU(inplace=True)), nn.MaxPool2d(3, 2, 1)]
    for n, depth in enumerate(DENSENET_121):
        layers.append(DenseBlock(DenseLayer(width + k * growth, growth) for k in range(depth)))
        width += depth * growth
        if n < len(DENSENET_121) - 1:
            halved = nn.Conv2d(width, width // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True), halved, nn.AvgPool2d(2, ceil_mode=True)]
            width //= 2
    return Head(nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True)), width)
