"""Small networks that are trained here in seconds, with held-out samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faithfulness.cases import Case, judged, trained


def digits(upsampled: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 1,797 digits of 8 x 8 of scikit-learn: 1,297 to train on, 500 to test on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(found.target).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    if upsampled > 1:
        x = F.interpolate(x, scale_factor=upsampled, mode="bilinear", align_corners=False)
    return x[:1297], y[:1297], x[1297:], y[1297:]


def mlp(count: int) -> Case:
    x, y, a, b = (t.flatten(1) if t.ndim == 4 else t for t in digits())
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return judged("MLP", "digits", "dense", trained(model, x, y, 400), a, b, count)


def cancer(count: int) -> Case:
    """A table of measurements of cells, each column with mean 0 and spread 1."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    x, y = torch.tensor(found.data).float(), torch.tensor(found.target).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    x = (x - x[:380].mean(0)) / x[:380].std(0)
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    return judged(
        "MLP", "breast cancer, standardised", "dense", trained(model, x[:380], y[:380], 400), x[380:], y[380:], count
    )


def vgg(count: int) -> Case:
    x, y, a, b = digits(2)

    def block(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

    model = nn.Sequential(
        *block(1, 16), *block(16, 16), nn.MaxPool2d(2), *block(16, 32), *block(32, 32), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    model = trained(model, x, y, 200)
    units = ("patches", 2)
    return judged("VGG with BatchNorm", "digits", "convolutional", model, a, b, count, units=units, last=model[10])


class Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.short = nn.Conv2d(i, o, 1, stride, bias=False)
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.nb(self.b(self.one(self.na(self.a(x))))) + self.short(x))


def resnet(count: int) -> Case:
    x, y, a, b = digits(2)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Residual(16, 16, 1), Residual(16, 32, 2),
        Residual(32, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    model = trained(model, x, y, 250)
    return judged("ResNet", "digits", "convolutional", model, a, b, count, units=("patches", 2), last=model[5].b)


class Transformer(nn.Module):
    """A small vision transformer: patches of 4 x 4, two layers, the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.layers(tokens)).mean(1))


def vit(count: int) -> Case:
    x, y, a, b = digits(2)
    model = trained(Transformer(), x, y, 500)
    return judged("ViT", "digits", "vision transformer", model, a, b, count, units=("patches", 2))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 48, batch_first=True), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def lstm(count: int) -> Case:
    x, y, a, b = (t[:, 0] if t.ndim == 4 else t for t in digits())
    model, options = trained(Recurrent(), x, y, 400), {"units": "entries", "replace": ["mean", 0.0]}
    return judged("LSTM", "digits, a row each step", "recurrent", model, a, b, count, **options)


def motifs(count: int) -> Case:
    """Sequences of four letters, in one of which a motif is hidden; which motif is the class."""
    chance = torch.Generator().manual_seed(0)
    words = torch.randint(4, (3, 8), generator=chance)

    def drawn(many: int) -> tuple[Tensor, Tensor, Tensor]:
        letters = torch.randint(4, (many, 60), generator=chance)
        y, at = torch.randint(3, (many,), generator=chance), torch.randint(52, (many,), generator=chance)
        truth = torch.zeros(many, 1, 60, dtype=torch.bool)
        for n in range(many):
            letters[n, at[n] : at[n] + 8] = words[y[n]]
            truth[n, 0, at[n] : at[n] + 8] = True
        return F.one_hot(letters, 4).transpose(1, 2).float(), y, truth

    x, y, _ = drawn(2000)
    a, b, truth = drawn(400)
    model = nn.Sequential(
        nn.Conv1d(4, 24, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(24, 24, 5, padding=2), nn.ReLU(),
        nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    model = trained(model, x, y, 500)
    return judged("1-D CNN", "planted motifs", "series", model, a, b, count, truth=truth)
