"""Small networks that more than one promise is tested on, each an idiom that real code is written in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def settle(model: nn.Module, *, biases: bool = True) -> nn.Module:
    """Batch norms as after some training (without biases: their share is nothing), the model ready for
    inference.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
            if biases:
                nn.init.normal_(module.running_mean, std=0.3)
                if module.affine:
                    nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def convolutional(bias: bool = True) -> nn.Sequential:
    """Conv, relu, max pool, conv, relu, average pool, two linear layers: (3, 8, 8) -> 5 classes."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 8, bias=bias),
        nn.ReLU(),
        nn.Linear(8, 5, bias=bias),
    ).eval()


def normalised() -> nn.Module:
    """The same with batch norms and one in-place relu: (3, 8, 8) -> 5 classes."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, 5),
    )
    return settle(model)


def mlp(depth: int, width: int, bias: bool = True) -> nn.Sequential:
    """Linear layers with relus between, scaled to keep the size of what they carry."""
    model = nn.Sequential()
    for _ in range(depth):
        linear = nn.Linear(width, width, bias=bias)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        model.extend([linear, nn.ReLU()])
    return model[:-1].eval()


class Written(nn.Module):
    """A network whose forward is a function of itself and its inputs, over the modules it is given."""

    def __init__(self, written: Callable[..., Tensor], **modules: nn.Module):
        super().__init__()
        self.written = written
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.written(self, *inputs)


class Bottleneck(nn.Module):
    """The block of a ResNet-50, laid out as torchvision does: one in-place relu used three times, `out +=
    identity`.
    """

    def __init__(self, channels: int, inner: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class BasicBlock(nn.Module):
    """The block of a ResNet-18, the sum written as an expression."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity() if channels == out and stride == 1 else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, max pool, four blocks of both kinds, global average: (3, 16, 16) -> 5 classes."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = nn.Sequential(Bottleneck(4, 3, 6, 1), Bottleneck(6, 3, 6, 1))
        self.layer2 = nn.Sequential(Bottleneck(6, 3, 8, 2), BasicBlock(8, 8, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 5, bias=bias)
        settle(self, biases=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InplaceBasicBlock(nn.Module):
    """The block of a ResNet-18 as torchvision writes it: one in-place relu used twice, `out += identity`."""

    def __init__(self, channels: int, inner: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


PLANS = {18: (InplaceBasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3)), 101: (Bottleneck, (3, 4, 23, 3))}


class TorchvisionResNet(nn.Module):
    """A ResNet-18, 50 or 101 in torchvision's layout, narrower: (3, 32, 32) -> 5 classes.

    Its batch norms hold the statistics of random inputs, as after some training.
    """

    def __init__(self, depth: int, width: int = 4):
        super().__init__()
        block, plan = PLANS[depth]
        expansion = 1 if block is InplaceBasicBlock else 4
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = width
        for stage, blocks in enumerate(plan):
            inner, layers = width * 2**stage, []
            for position in range(blocks):
                stride = 2 if stage and not position else 1
                layers.append(block(channels, inner, inner * expansion, stride))
                channels = inner * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, 5)
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.momentum = None  # the average of all batches, not the last of them
        with torch.no_grad():
            self.train()(torch.randn(8, 3, 32, 32))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))
