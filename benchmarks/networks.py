"""The measured networks, written out plainly so that the benchmark needs no model library.

VGG-16 and ResNet-50 have torchvision's layout (in-place activations, one relu module per residual block,
functional `+=` and `torch.flatten`) because that is the code people attribute. EfficientNet-Lite0 adds
depthwise convolutions, ReLU6 and asymmetric padding. Weights are random: cost does not depend on what a
network has learnt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOL = 0
VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)
RESNET50 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first block
EFFICIENTNET_LITE0 = (  # blocks, kernel, stride of the first block, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class VGG(nn.Module):
    """Convolutions with bias, no BatchNorm, and three wide linear layers, as in torchvision's `vgg16`."""

    def __init__(self, plan: tuple[int, ...] = VGG16, hidden: int = 4096, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for step in plan:
            if step == POOL:
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(width, step, 3, padding=1), nn.ReLU(inplace=True)]
                width = step
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(width * 7 * 7, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; one relu module is used three times."""

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        width_out = width * self.expansion
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or width_in != width_out:
            shortcut = nn.Conv2d(width_in, width_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width_out))

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out, x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        out, identity = self.branches(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Torchvision's `resnet50`."""

    def __init__(self, plan: tuple[tuple[int, int, int], ...] = RESNET50, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        stages, width_in = [], 64
        for width, depth, stride in plan:
            blocks = []
            for position in range(depth):
                blocks.append(Bottleneck(width_in, width, stride if position == 0 else 1))
                width_in = width * Bottleneck.expansion
            stages.append(nn.Sequential(*blocks))
        self.layers = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


def convolution(
    width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU6; strided ones are padded on the right as TensorFlow's "SAME" does."""
    before, after = ((kernel - 1) // 2,) * 2 if stride == 1 else ((kernel - 2) // 2, (kernel - 1) // 2)
    layers: list[nn.Module] = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
    padding = before if before == after else 0
    layers.append(nn.Conv2d(width_in, width_out, kernel, stride, padding, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(width_out, eps=1e-3))
    if activation:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class MBConv(nn.Module):
    """Expand, filter each channel by itself, project; beside a shortcut where the shapes allow one."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = width_in * expansion
        expand = [] if expansion == 1 else [convolution(width_in, width, 1)]
        self.body = nn.Sequential(
            *expand,
            convolution(width, width, kernel, stride, groups=width),
            convolution(width, width_out, 1, activation=False),
        )
        self.skip = stride == 1 and width_in == width_out

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x

    def forward(self, x: Tensor) -> Tensor:
        if not self.skip:
            return self.body(x)
        out, identity = self.branches(x)
        out += identity
        return out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0: the EfficientNet without squeeze-and-excitation and swish."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = convolution(3, 32, 3, 2)
        blocks, width_in = [], 32
        for depth, kernel, stride, expansion, width in EFFICIENTNET_LITE0:
            for position in range(depth):
                blocks.append(MBConv(width_in, width, kernel, stride if position == 0 else 1, expansion))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = convolution(width_in, 1280, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.head(self.blocks(self.stem(x)))), 1))


NETWORKS = {"vgg16": VGG, "resnet50": ResNet, "efficientnet_lite0": EfficientNetLite}


def build(name: str, device: str = "cpu", seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with frozen parameters and BatchNorm statistics that fit."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    initialise(model)
    calibrate(model)
    return model.requires_grad_(False).eval().to(device)


def initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)


def calibrate(model: nn.Module, batches: int = 3) -> None:
    """An untrained BatchNorm divides by 1, and activations grow with depth until relevance overflows."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
    model.train()
    with torch.no_grad():
        for _ in range(batches):
            model(images(4, 96))


LOW, HIGH = -2.1, 2.6  # the range of pixels after ImageNet's usual normalisation


def images(batch: int, size: int, device: str = "cpu", seed: int = 1) -> Tensor:
    """Noise over the whole range of pixels."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, 3, size, size, generator=generator) * (HIGH - LOW) + LOW).to(device)


def targets(batch: int, device: str = "cpu") -> Tensor:
    """A different class for every sample, as in real use."""
    return (torch.arange(batch) * 7).to(device)
