"""Hooks on gradients: a model's own are passed by in the relevance pass, and a caller's are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import close
from test_custom_functions import HEAD, W, stack  # noqa: F401

HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "full": lambda m: m.register_full_backward_hook(lambda *a: None),
    "one that changes gradients": lambda m: m.register_full_backward_hook(lambda m, given, out: (given[0] * 100,)),
    "before": lambda m: m.register_full_backward_pre_hook(lambda *a: None),
    "of old": lambda m: m.register_backward_hook(lambda m, given, out: tuple(g and g * 100 for g in given)),
    "before, changing": lambda m: m.register_full_backward_pre_hook(lambda m, out: (out[0] * 100,)),
}


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus", "gamma_flat"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")  # torch's, without relprop, too
def test_hooks_on_gradients_are_passed_by(hook: str, composite: str) -> None:
    """On every module, a batch norm that merges and an in-place relu among them: the same numbers, and none is called."""
    model = nn.Sequential(
        nn.Sequential(nn.Conv1d(1, 3, 2), nn.BatchNorm1d(3), nn.ReLU(inplace=True)), nn.Flatten(), nn.Linear(9, 2)
    )
    model = model.double().eval()
    x = torch.randn(2, 1, 4).double()
    options: Any = {"composite": composite, "layers": "*", "ledger": True}
    before = relprop.attribute(model, x, 0, **options)
    handles = [HOOKS[hook](m) for m in model.modules()]
    found = relprop.attribute(model, x, 0, **options)
    assert torch.equal(found.values, before.values) and torch.equal(found.output, before.output)
    assert all(torch.equal(found.layers[name], value) for name, value in before.layers.items())
    assert all(torch.equal(found.ledger[cause], value) for cause, value in before.ledger.items())
    at_inputs = relprop.attribute(model, x, 0, composite=composite, layers="*", layers_at="input").layers
    for handle in handles:
        handle.remove()
    expected = relprop.attribute(model, x, 0, composite=composite, layers="*", layers_at="input").layers
    assert all(torch.equal(at_inputs[name], value) for name, value in expected.items())


class Looking(nn.Module):
    """Registers hooks in its forward, as those do that keep a gradient for later."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above, self.looks = nn.Linear(4, 5), nn.Linear(5, 2), True

    def forward(self, x: Tensor) -> Tensor:
        h = self.below(x)
        if self.looks:
            h.register_hook(lambda g: g * 100).remove()
            h.register_hook(lambda g: g * 100)
            h.retain_grad()
            assert h.grad_fn is not None
            h.grad_fn.register_hook(lambda given, got: tuple(None if g is None else g * 100 for g in given))
            h.grad_fn.register_prehook(lambda got: tuple(g * 100 for g in got))
        return self.above(h.relu())


@pytest.mark.parametrize("checkpoint", [False, ["below"]])
@pytest.mark.parametrize("composite", ["zero", "epsilon_plus", "gamma_flat"])
def test_hooks_that_a_forward_registers_are_passed_by(composite: str, checkpoint: Any) -> None:
    model, x = Looking().double().eval(), torch.randn(3, 4).double()
    options: Any = {"composite": composite, "checkpoint": checkpoint}
    found = relprop.attribute(model, x, 1, **options).values
    model.looks = False
    assert torch.equal(found, relprop.attribute(model, x, 1, **options).values)


def test_hooks_of_a_caller_are_called() -> None:
    model, x = Looking().double().eval(), torch.randn(3, 4).double()
    leaf, seen = x.clone().requires_grad_(), []
    with relprop.propagate("zero", model=model, inputs=leaf):
        y = model(leaf)
        y.register_hook(seen.append)
        y[:, 1].sum().backward()
    assert len(seen) == 1
    assert leaf.grad is not None
    close(leaf.grad * x, relprop.attribute(model, x, 1, composite="zero").values)


def test_hooks_of_a_module_with_several_inputs_and_outputs() -> None:
    class Pair(nn.Module):
        def forward(self, a: Tensor, b: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
            return a @ W.T, b[ids] @ W.T

    pair = Pair()
    x = torch.randn(2, 4).double()

    def model(x: Tensor) -> Tensor:
        a, b = pair(x, x * 2, torch.tensor([0, 1]))
        return F.linear(a.tanh() + b, HEAD)

    expected = relprop.attribute(model, x, 1, composite="epsilon").values
    pair.register_full_backward_hook(lambda *a: None)
    pair.register_full_backward_pre_hook(lambda *a: None)
    assert torch.equal(relprop.attribute(model, x, 1, composite="epsilon").values, expected)
