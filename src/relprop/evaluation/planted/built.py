"""Networks whose weights are set, so that they read known units and nothing else: no training blurs the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_OPEN, _SHUT = 30.0, -30.0
"""What a gate is given so that it is open or shut to rounding."""


@dataclass(frozen=True, eq=False)
class PlantedTask:
    """A model, samples, and the entries of each that the model reads.

    Attributes:
        name: what it is, in words.
        model: the model.
        inputs: its inputs.
        target: what is explained.
        truth: the entries that count, boolean, in the shape of the main input or without its channels.
        units: what is judged as one.
        why: why it is left out, in words; "" if it is not.
        twins: the same inputs without what was planted; None if nothing was.
    """

    name: str
    model: Any
    inputs: Any
    target: Any
    truth: Tensor
    units: Any
    why: str = ""
    twins: Any = None


def dense(samples: int, generator: torch.Generator, read: int = 3, features: int = 16) -> PlantedTask:
    """A sum of relus of some features; the others have weights of 0."""
    places = torch.randperm(features, generator=generator)[:read]
    first, last = nn.Linear(features, features, bias=False), nn.Linear(features, 2, bias=False)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[places, places] = 1.0
        last.weight.zero_()
        last.weight[0, places] = torch.linspace(0.5, 1.5, read)
    x = torch.rand(samples, features, generator=generator) + 0.1
    truth = torch.zeros(samples, features, dtype=torch.bool)
    truth[:, places] = True
    return PlantedTask(
        "dense: reads 3 of 16 features", nn.Sequential(first, nn.ReLU(), last).eval(), x, 0, truth, "features"
    )


def convolutional(samples: int, generator: torch.Generator, read: int = 2, side: int = 4, grid: int = 6) -> PlantedTask:
    """The means of some patches of a picture; the head has weights of 0 for the others."""
    places = torch.randperm(grid * grid, generator=generator)[:read]
    conv, head = nn.Conv2d(3, 1, side, side, bias=False), nn.Linear(grid * grid, 2, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0 / (3 * side * side))
        head.weight.zero_()
        head.weight[0, places] = 1.0
    x = torch.rand(samples, 3, side * grid, side * grid, generator=generator) + 0.1
    truth = torch.zeros(grid * grid, dtype=torch.bool)
    truth[places] = True
    truth = truth.reshape(grid, grid).repeat_interleave(side, 0).repeat_interleave(side, 1).expand(samples, -1, -1)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head).eval()
    return PlantedTask("convolutional: reads 2 of 36 patches", model, x, 0, truth, ("patches", side))


class _Remembering(nn.Module):
    """An LSTM that adds up one channel at the steps that another channel marks."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 1, batch_first=True)
        self.head = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            for weight in self.lstm.parameters():
                weight.zero_()
            # The rows are the gates of torch: input, forget, cell, output.
            weights = dict(self.lstm.named_parameters())
            weights["weight_ih_l0"].copy_(torch.tensor([[0.0, 2 * _OPEN], [0, 0], [0.5, 0], [0, 0]]))
            weights["bias_ih_l0"].copy_(torch.tensor([_SHUT, _OPEN, 0.0, _OPEN]))
            self.head.weight.copy_(torch.tensor([[1.0], [0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def recurrent(samples: int, generator: torch.Generator, steps: int = 12) -> PlantedTask:
    """What a marked step holds, remembered until the end of the series."""
    x = torch.zeros(samples, steps, 2)
    x[..., 0] = torch.rand(samples, steps, generator=generator) + 0.2
    at = torch.randint(1, steps - 1, (samples,), generator=generator)
    x[torch.arange(samples), at, 1] = 1.0
    truth = (x[..., 1:] > 0).expand_as(x).clone()
    return PlantedTask(
        "recurrent: reads 1 of 12 steps", _Remembering().eval(), x, 0, truth, torch.arange(steps)[None, :, None]
    )


class _Copying(nn.Module):
    """One head of attention, which copies the content of the token that is flagged."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, 1), nn.Linear(width, 1, bias=False)
        self.value, self.head = nn.Linear(width, 1, bias=False), nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            for weight in self.parameters():
                weight.zero_()
            self.query.bias.fill_(_OPEN)
            self.key.weight[0, 0].fill_(1.0)  # the flag
            self.value.weight[0, 1:].fill_(1.0)
            self.head.weight[0, 0].fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x[:, :1]) @ self.key(x).transpose(1, 2)
        return self.head(scores.softmax(-1) @ self.value(x))[:, 0]


def attention(samples: int, generator: torch.Generator, tokens: int = 10) -> PlantedTask:
    """The content of the flagged token, by a head that copies it."""
    x = torch.rand(samples, tokens, 6, generator=generator) + 0.1
    x[..., 0] = 0.0
    at = torch.randint(1, tokens, (samples,), generator=generator)
    x[torch.arange(samples), at, 0] = 1.0
    truth = (x[..., :1] > 0).expand_as(x).clone()
    return PlantedTask(
        "attention: reads 1 of 10 tokens", _Copying().eval(), x, 0, truth, torch.arange(tokens)[None, :, None]
    )


BUILT: dict[str, Callable[..., PlantedTask]] = {
    "dense": dense,
    "convolutional": convolutional,
    "recurrent": recurrent,
    "attention": attention,
}
