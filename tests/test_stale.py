"""Nothing that a model held before is used after it has changed, however it was changed.

Random changes of one model, each followed by an explanation, which must be that of a copy that was never explained before.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.act: nn.Module = nn.SiLU(inplace=True)
        self.norm, self.head = nn.LayerNorm(36), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        x = F.max_pool2d(x, 2, padding=1)
        return self.head(self.norm(x.flatten(1)))


def _train(model: Network) -> None:
    model.train().requires_grad_(True)
    dtype = model.head.weight.dtype
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    model(torch.randn(4, 2, 8, 8, dtype=dtype)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    model.eval()


def _load(model: Network, assign: bool = False) -> None:
    state = {k: v + 0.1 * torch.rand_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=assign)


def _statistics(model: Network) -> None:
    with torch.no_grad():
        model.bn2.running_var.mul_(1.3)  # type: ignore[union-attr]
        model.bn1.running_mean.add_(0.2)  # type: ignore[union-attr]


def _through_data(model: Network) -> None:
    """Writes that no version counts."""
    before = model.conv2.weight._version
    model.conv2.weight.data.mul_(-1.1)
    model.bn2.weight.data.add_(0.1)
    model.bn1.running_var.data.mul_(0.9)  # type: ignore[union-attr]
    assert model.conv2.weight._version == before


def _through_numpy(model: Network) -> None:
    model.head.weight.detach().numpy()[0] *= 1.5
    model.conv1.weight.detach().numpy()[:, :1] += 0.05


def _replaced(model: Network) -> None:
    model.conv2 = nn.Conv2d(4, 4, 3, bias=False, dtype=model.head.weight.dtype)
    model.act = random.choice([nn.SiLU(inplace=True), nn.Hardswish(), nn.ReLU6(inplace=True), nn.Sigmoid()])


def _other_memory(model: Network) -> None:
    model.conv1.weight.data = model.conv1.weight.data.flip(0).contiguous()
    model.bn2.eps *= 2


CHANGES: list[Callable[[Network], Any]] = [
    _train, _load, lambda m: _load(m, assign=True), _statistics, _through_data, _through_numpy, _replaced, _other_memory,
    lambda m: m.double(), lambda m: m.float(), lambda m: m.requires_grad_(False), lambda m: m.requires_grad_(True),
    lambda m: m.to(memory_format=torch.channels_last),
]  # fmt: skip
COMPOSITES: list[Any] = [
    "zero", "epsilon", "gamma", "gamma_flat", "epsilon_plus", "epsilon_alpha2_beta1", "attnlrp", "auto",
    relprop.Composite({"conv": relprop.rules.Gamma(2.0), "linear": relprop.rules.Gamma(0.1)}),
    relprop.Composite({"batch_norm": relprop.rules.Epsilon(0.01), "conv": relprop.rules.WSquare()}),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_an_explanation_is_that_of_a_model_that_was_never_explained(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    model = Network().eval()
    for _ in range(25):
        change, composite = random.choice(CHANGES), random.choice(COMPOSITES)
        change(model)
        x = torch.randn(2, 2, 8, 8, dtype=model.head.weight.dtype)
        found = relprop.attribute(model, x, 1, composite=composite).values
        fresh = relprop.attribute(copy.deepcopy(model), x, 1, composite=composite).values
        assert torch.equal(found, fresh), (change, composite)


def test_several_targets_of_one_pass_are_those_of_single_calls() -> None:
    torch.manual_seed(0)
    model, x = Network().eval(), torch.randn(2, 2, 8, 8)
    for composite in COMPOSITES[:8]:
        together = relprop.attribute_each(model, x, [0, 1, 2], composite=composite)
        for target, found in enumerate(together):
            alone = relprop.attribute(model, x, target, composite=composite)
            torch.testing.assert_close(found.values, alone.values, rtol=1e-5, atol=1e-7)
