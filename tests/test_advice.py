"""What an error advises is tried, as it is written."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

import relprop
from relprop.engine.messages import unknown
from relprop.engine.registry import REFUSED, TABLE
from relprop.engine.run import Run
from relprop.errors import UnsupportedOperationError

LINE = re.compile(r"relprop\.register\((.+?), family=\"structure\"(, replace=True)?\)")
REFUSALS = [f for f, entry in TABLE.items() if entry.family == REFUSED and ":" not in entry.reason]


def tried(line: str, **names: Any) -> Any:
    return eval(line, {"torch": torch, "relprop": relprop, "F": F, **names})


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("function", REFUSALS, ids=lambda f: f.__name__)
def test_every_refused_operation_can_be_registered_as_the_message_says(function: Any) -> None:
    message = str(unknown(Run(None), function, (), TABLE[function].reason))
    found = LINE.search(message)
    assert found is not None and found[2], message
    assert tried(found[1]) == function
    tried(found[0])
    assert TABLE[function].family == "structure"
    tried(found[0].replace("structure", "activation"))


def test_a_refusal_with_advice_of_its_own_names_no_registration() -> None:
    for entry in TABLE.values():
        if entry.family == REFUSED and ":" in entry.reason:
            assert "register" not in str(unknown(Run(None), entry.function, (), entry.reason))


@pytest.mark.usefixtures("table")
def test_an_inverse_of_what_carries_relevance() -> None:
    """Constants are no matter; registered, the gradient acts."""
    two = 2 * torch.eye(3, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return (torch.linalg.inv(two) @ torch.linalg.inv(x.reshape(-1, 3, 3) + two)).sum((1, 2))

    x = torch.rand(1, 9, dtype=torch.float64)
    with pytest.raises(UnsupportedOperationError) as refusal:
        relprop.attribute(model, x)
    found = LINE.search(str(refusal.value))
    assert found is not None
    tried(found[0])
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(leaf).sum(), leaf)
    torch.testing.assert_close(relprop.attribute(model, x, composite="zero").values, x * g)
    assert relprop.attribute(model, x, composite="zero").unknown == {}


@pytest.mark.usefixtures("table")
def test_a_linear_system_whose_matrix_carries_relevance() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.linalg.solve(x.reshape(-1, 2, 2), torch.ones(2, 1, dtype=x.dtype)).sum((1, 2))

    x = torch.tensor([[3.0, 1.0, 0.5, 2.0]], dtype=torch.float64)
    with pytest.raises(UnsupportedOperationError) as refusal:
        relprop.attribute(model, x)
    found = LINE.search(str(refusal.value))
    assert found is not None
    tried(found[0])
    relprop.attribute(model, x, composite="zero")


@pytest.mark.usefixtures("table")
def test_an_operator_that_nobody_knows() -> None:
    library = torch.library.Library("relprop_advice", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: 2 * x, "CompositeImplicitAutograd")
    x = torch.randn(2, 3)
    for operator in (torch.ops.relprop_advice.twice, torch.ops.relprop_advice.twice.default):
        with pytest.raises(UnsupportedOperationError) as refusal:
            relprop.attribute(lambda x, operator=operator: operator(x).sum(1), x)
        found = LINE.search(str(refusal.value))
        assert found is not None and not found[2]
        assert tried(found[1]) is operator
        tried(found[0])
        torch.testing.assert_close(
            relprop.attribute(lambda x, o=operator: o(x).sum(1), x, composite="zero").values, 2 * x
        )


class Spike(Function):
    """A spike forward, a surrogate backward, as networks of spikes have it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g / (1 + 25 * ctx.saved_tensors[0].abs()) ** 2


@pytest.mark.usefixtures("table")
def test_spikes() -> None:
    """Each line of the advice: an activation hands all of a spike's relevance on, its own backward the surrogate's."""
    x = torch.randn(3, 4, dtype=torch.float64)
    w = torch.randn(4, dtype=torch.float64)
    model = lambda x: (Spike.apply(x) * w).sum(1)  # noqa: E731
    with pytest.raises(UnsupportedOperationError, match="no step of its forward hands relevance") as refusal:
        relprop.attribute(model, x)
    found = re.search(r"relprop.register\(Spike, family=\"activation\"\)", str(refusal.value))
    assert found is not None
    tried(found[0], Spike=Spike)
    torch.testing.assert_close(relprop.attribute(model, x, composite="zero").values, w * (x > 0))
    assert 'family="structure" if its own backward pass is right' in str(refusal.value)
    relprop.register(Spike, family="structure", replace=True)
    torch.testing.assert_close(relprop.attribute(model, x, composite="zero").values, x * w / (1 + 25 * x.abs()) ** 2)
