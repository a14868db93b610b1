"""Two linear layers with a relu between, and the definition of their relevance: what captum's interface is tested on."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference as ref
from networks import Written

close = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-9)
layer = ref.weighted(partial(ref.epsilon, epsilon=1e-9))
gamma = ref.weighted(partial(ref.gamma, gamma=0.25))


def chain(m: Any, x: Tensor) -> Tensor:
    return m.b(F.relu(m.a(x)))


def two(**changed: nn.Module) -> Any:
    """Two linear layers, `a` and `b`: 6 -> 3."""
    return Written(chain, **(dict(a=nn.Linear(6, 5), b=nn.Linear(5, 3)) | changed)).double()


def vectors(n: int = 2) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64)


def expected(model: Any, x: Tensor, first: ref.HandDown = layer, target: int = 1) -> Tensor:
    a = model.a(x).relu()
    r = torch.zeros_like(model.b(a))
    r[:, target] = model.b(a)[:, target]
    return first(model.a, x, layer(model.b, a, r)).detach()
