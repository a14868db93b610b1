"""The table of operations: nothing torch lets one override is unclassified by accident, and what is supported is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import get_testing_overrides, resolve_name

import relprop
from relprop.engine.registry import REFUSED, SILENT, TABLE
from relprop.rules.base import EVERYTHING

# Weight initialisers and process-group calls never meet a live tensor in a forward pass.
OUTSIDE = {"uniform_", "normal_", "constant_", "kaiming_uniform_"}
PROCESSES = "torch.distributed"


def test_every_overridable_function_is_classified() -> None:
    missing = [
        resolve_name(f) or str(f)
        for f in get_testing_overrides()
        if f not in TABLE
        and getattr(f, "__name__", "") not in OUTSIDE
        and not getattr(f, "__module__", "").startswith(PROCESSES)
    ]
    assert missing == []


def test_every_entry_is_in_a_family_or_silent_or_refused_with_a_reason() -> None:
    for function, entry in TABLE.items():
        assert entry.family in EVERYTHING | {SILENT, REFUSED}, function
        assert entry.family != REFUSED or entry.reason, function


def test_a_function_is_registered_once() -> None:
    with pytest.raises(ValueError, match="already"):
        relprop.register(torch.relu, family="activation")
    with pytest.raises(ValueError, match="family"):
        relprop.register(torch.relu, family="nonsense")


def test_an_operation_of_ones_own() -> None:
    def twice(x: Tensor) -> Tensor:
        return torch.ops.relprop_tests.twice(x)

    library = torch.library.Library("relprop_tests", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: 2 * x, "CompositeImplicitAutograd")
    x = torch.randn(3, 4)
    with pytest.raises(relprop.errors.UnsupportedOperationError, match="register"):
        relprop.attribute(lambda x: twice(x).sum(1), x)
    loose = relprop.attribute(lambda x: twice(x).sum(1), x, strict=False)
    assert "twice" in str(loose.unknown)
    relprop.register(torch.ops.relprop_tests.twice, family="structure", only=True)
    found = relprop.attribute(lambda x: twice(x).sum(1), x)
    torch.testing.assert_close(found.values, 2 * x)


def test_a_rule_of_ones_own() -> None:
    class Doubled(relprop.WeightedRule):
        """Positive weights count twice."""

        def propagate(self, layer: relprop.rules.Layer, g: Tensor) -> Tensor:
            weight = layer.weight + layer.weight.clamp(min=0)
            return layer.transpose(layer.share(g, layer.forward(layer.x, weight)), weight)

    linear = torch.nn.Linear(4, 2, bias=False).double()
    x = torch.randn(3, 4).double()
    found = relprop.attribute(linear, x, 1, composite=relprop.Composite({"linear": Doubled()}))
    w = linear.weight[1] + linear.weight[1].clamp(min=0)
    contributions = x * w
    expected = contributions / contributions.sum(1, keepdim=True) * linear(x)[:, 1:]
    torch.testing.assert_close(found.values, expected.detach())


def _samples() -> list[Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    wanted = [
        "abs",
        "add",
        "addmm",
        "addcmul",
        "bmm",
        "matmul",
        "mm",
        "mul",
        "div",
        "sub",
        "sum",
        "mean",
        "cumsum",
        "cat",
        "stack",
        "permute",
        "reshape",
        "squeeze",
        "transpose",
        "where",
        "clamp",
        "exp",
        "sqrt",
        "square",
        "tanh",
        "sigmoid",
        "maximum",
        "minimum",
        "amax",
        "max",
        "min",
        "gather",
        "index_select",
        "index_add",
        "scatter_add",
        "roll",
        "flip",
        "tril",
        "triu",
        "softmax",
        "log_softmax",
        "logsumexp",
        "einsum",
        "tensordot",
        "outer",
        "dot",
        "baddbmm",
        "prod",
        "var",
        "std",
        "nn.functional.relu",
        "nn.functional.gelu",
        "nn.functional.silu",
        "nn.functional.elu",
        "nn.functional.softplus",
        "nn.functional.hardswish",
        "nn.functional.mish",
        "nn.functional.leaky_relu",
        "nn.functional.linear",
        "nn.functional.conv1d",
        "nn.functional.conv2d",
        "nn.functional.conv_transpose2d",
        "nn.functional.avg_pool2d",
        "nn.functional.max_pool2d",
        "nn.functional.adaptive_avg_pool2d",
        "nn.functional.layer_norm",
        "nn.functional.group_norm",
        "nn.functional.pad",
        "nn.functional.interpolate",
        "nn.functional.pixel_shuffle",
        "nn.functional.unfold",
        "nn.functional.normalize",
    ]
    return [op for op in op_db if op.name in wanted and not op.variant_test_name.startswith("trilinear")]


@pytest.mark.filterwarnings("ignore")
def test_torchs_own_samples() -> None:
    """Under `gradient` the engine is autograd; under `zero` the forward value is torch's, bit for bit."""
    checked = 0
    for op in _samples():
        for sample in list(op.sample_inputs("cpu", torch.float64, requires_grad=False))[:6]:
            x = sample.input
            if not isinstance(x, Tensor) or x.numel() == 0 or not x.is_floating_point():
                continue
            leaf = x.detach().clone().requires_grad_()
            plain = _first(op(leaf.clone(), *sample.args, **sample.kwargs))
            if not plain.requires_grad or plain.numel() == 0 or plain.is_complex():
                continue
            weights = torch.linspace(-1, 1, plain.numel(), dtype=torch.float64).reshape(plain.shape)
            (expected,) = torch.autograd.grad((plain * weights).sum(), leaf)
            for composite in ("gradient", "zero"):
                leaf = x.detach().clone().requires_grad_()
                with relprop.propagate(composite):
                    value = _first(op(leaf.clone(), *sample.args, **sample.kwargs))
                assert torch.equal(value.detach().nan_to_num(), plain.detach().nan_to_num()), (op.name, composite)
                if composite == "gradient":
                    (found,) = torch.autograd.grad((value * weights).sum(), leaf)
                    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, msg=op.name)
            checked += 1
    assert checked > 150


def _first(value: Any) -> Tensor:
    return value[0] if isinstance(value, (tuple, list)) else value
