"""Every precision gives finite relevance near the one of float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import relprop
from networks import ResNet, convolutional

# Relative to the largest relevance: 2**-8 is the spacing of bfloat16 next to 1, 2**-11 of float16, 2**-24 of
# float32; a dozen layers, and differences of alike numbers in their sums, cost a few digits more.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.1}

COMPOSITES: dict[str, relprop.Composite | str] = {
    name: name
    for name in (
        "auto",
        "zero",
        "epsilon_plus",
        "epsilon_plus_flat",
        "epsilon_alpha2_beta1",
        "gamma_flat",
        "deep_taylor",
        "excitation_backprop",
        "guided_backprop",
    )
} | {"epsilon_gamma_box": relprop.composites.epsilon_gamma_box(-4.0, 4.0)}

over_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
over_composites = pytest.mark.parametrize("composite", COMPOSITES)


def near(values: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    assert values.dtype == dtype
    assert values.isfinite().all()
    assert (values.double() - exact).abs().max() <= TOLERANCES[dtype] * exact.abs().max()


@over_dtypes
@over_composites
def test_near_double_precision(composite: str, dtype: torch.dtype) -> None:
    # Without max pooling and biases: rounding must not choose another winner, nor move a sum across 0.
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 5, bias=False),
    )
    x = torch.rand(2, 3, 8, 8)
    model, x = model.to(dtype), x.to(dtype)
    values = relprop.attribute(model, x, 1, composite=COMPOSITES[composite]).values
    exact = relprop.attribute(model.double(), x.double(), 1, composite=COMPOSITES[composite]).values
    near(values, exact, dtype)


@over_dtypes
@over_composites
def test_finite_on_a_resnet(composite: str, dtype: torch.dtype) -> None:
    """Units that are exactly 0, black pixels and large scores among them."""
    model, x = ResNet().to(dtype), torch.randn(2, 3, 16, 16)
    x[:, :, :8] = 0
    relevance = relprop.attribute(model, x.to(dtype), 1, composite=COMPOSITES[composite])
    assert relevance.values.dtype == dtype
    assert relevance.values.isfinite().all()
    assert relevance.residual.isfinite().all()


@over_dtypes
@pytest.mark.parametrize("rule", [relprop.Flat(), relprop.WSquare(), relprop.ZBox(-1.0, 1.0)], ids=repr)
def test_rules_that_reach_units_at_zero(rule: relprop.rules.Rule, dtype: torch.dtype) -> None:
    """A relevance that is not proportional to the input has no gradient at 0: half precision must survive
    that.
    """
    model = convolutional(bias=False).to(dtype)
    x = torch.randn(2, 3, 8, 8).to(dtype)
    x[:, 0] = 0
    composite = relprop.Composite({"linear": rule, "conv": rule})
    if dtype == torch.float16:  # on hidden layers it has no room for what stands in for a zero
        with pytest.raises(relprop.errors.RuleError, match="float16"):
            relprop.attribute(model, x, 1, composite=composite)
        composite = relprop.Composite({relprop.first: rule})
    values = relprop.attribute(model, x, 1, composite=composite).values
    assert values.isfinite().all()
    assert (values[:, 0] != 0).any()
    if dtype != torch.bfloat16:  # eight bits may choose another winner in the max pool
        exact = relprop.attribute(model.double(), x.double(), 1, composite=composite).values
        near(values, exact, dtype)


@over_dtypes
def test_small_denominators(dtype: torch.dtype) -> None:
    """A stabiliser below what the dtype holds, a sum that cancels to nothing and one that is nothing:
    finite all the same.
    """
    model = nn.Linear(2, 3, bias=False).to(dtype)
    model.weight.data = torch.tensor([[1, -1], [1, -1 + 2**-7], [0, 0]], dtype=dtype)
    x = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=dtype)
    for rule in (
        relprop.Zero(),
        relprop.Epsilon(1e-30),
        relprop.Gamma(),
        relprop.ZPlus(),
        relprop.AlphaBeta(),
    ):
        composite = relprop.Composite({"linear": rule})
        values = relprop.attribute(model, x, lambda y: y.sum(1), composite=composite).values
        assert values.isfinite().all()


@over_dtypes
def test_autocast(dtype: torch.dtype) -> None:
    """Under autocast some operations run in half precision: the result has the input's dtype."""
    model, x = convolutional(), torch.randn(2, 3, 8, 8)
    exact = relprop.attribute(model, x, 1, composite="epsilon_plus").values
    if dtype not in (torch.bfloat16, torch.float16):
        pytest.skip("autocast knows half precisions only")
    with torch.autocast("cpu", dtype=dtype):
        values = relprop.attribute(model, x, 1, composite="epsilon_plus").values
    assert values.dtype == torch.float32
    assert torch.cosine_similarity(values.flatten(), exact.flatten(), 0) > 0.95
