"""`relprop.captum`: captum's calls, targets and answers, layers, and a model that nobody touched. Rules: test_captum_rules."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from networks import Written, convolutional, mlp, normalised
from relprop.captum import (
    LRP,
    SUPPORTED_LAYERS_WITH_RULES,
    SUPPORTED_NON_LINEAR_LAYERS,
    Addition_Module,
    Alpha1_Beta0_Rule,
    EpsilonRule,
    GammaRule,
    IdentityRule,
    LayerLRP,
)
from relprop.errors import InputError, ModelStateError
from two_layers import chain, close, expected, layer, two, vectors

# -------------------------------------------------------------------------------------------------------- the calls


def test_the_package_offers_the_same_classes() -> None:
    assert relprop.LRP is LRP and relprop.LayerLRP is LayerLRP


@pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="captum is not installed")
def test_signatures_are_captums() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attr = importlib.import_module("captum.attr")
        rules = importlib.import_module("captum.attr._utils.lrp_rules")
        lrp = importlib.import_module("captum.attr._core.lrp")
    pairs = [
        (getattr(ours, name), getattr(theirs, name))
        for ours, theirs in ((LRP, attr.LRP), (LayerLRP, attr.LayerLRP))
        for name in ("__init__", "attribute", "attribute_future", "has_convergence_delta", "compute_convergence_delta")
    ]
    pairs += [
        (LayerLRP.interpolate, attr.LayerLRP.interpolate),
        (LRP(mlp(1, 2)).gradient_func, attr.LRP(mlp(1, 2)).gradient_func),
    ]
    pairs += [
        (rule, getattr(rules, rule.__name__)) for rule in (EpsilonRule, GammaRule, Alpha1_Beta0_Rule, IdentityRule)
    ]
    for ours, theirs in pairs:
        assert parameters(ours) == parameters(theirs)
    named = {kind.__name__: rule.__name__ for kind, rule in lrp.SUPPORTED_LAYERS_WITH_RULES.items()}
    assert {kind.__name__: rule.__name__ for kind, rule in SUPPORTED_LAYERS_WITH_RULES.items()} == named
    assert lrp.SUPPORTED_NON_LINEAR_LAYERS == SUPPORTED_NON_LINEAR_LAYERS


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


def test_attributes() -> None:
    model = two()
    lrp = LRP(model)
    assert lrp.model is lrp.forward_func is model
    assert lrp.multiplies_by_inputs is True and lrp.has_convergence_delta() is True
    with pytest.raises(NotImplementedError):
        lrp.attribute_future()
    assert LRP.attribute.__wrapped__ is not LRP.attribute
    x = vectors()
    close(LRP.attribute.__wrapped__(lrp, x, 1), lrp.attribute(x, 1))


def test_gradient_func_is_the_plain_gradient() -> None:
    model, x = two(), vectors()
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[:, 2].sum(), leaf)
    (found,) = LRP(model).gradient_func(model, (x,), 2)
    close(found, slope)
    assert not x.requires_grad


def test_the_result_sums_to_the_score_is_detached_and_has_the_inputs_dtype() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model = mlp(3, 6, bias=False).to(dtype)
        x = torch.randn(2, 6).to(dtype)
        found, delta = LRP(model).attribute(x, 1, None, True)
        assert found.dtype == dtype and not found.requires_grad and not delta.requires_grad
        assert delta.shape == (2,)
        tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found.sum(1), model(x)[:, 1].detach(), rtol=tolerance, atol=tolerance)


def test_delta_is_over_all_inputs() -> None:
    model = Written(lambda m, x, y: m.b(F.relu(m.a(x) + y)), a=nn.Linear(6, 5), b=nn.Linear(5, 3)).double()
    x, y = vectors(), torch.randn(2, 5, dtype=torch.float64)
    (r_x, r_y), delta = LRP(model).attribute((x, y), 1, return_convergence_delta=True)
    assert r_x.shape == x.shape and r_y.shape == y.shape
    close(delta, (model(x, y)[:, 1] - r_x.sum(1) - r_y.sum(1)).detach())
    close(LRP(model).compute_convergence_delta((r_x, r_y), model(x, y)[:, 1].detach()), delta)
    assert isinstance(LRP(model).attribute((x, y), 1), tuple)
    assert isinstance(LRP(two()).attribute((x,), 1), tuple)


@pytest.mark.parametrize(
    ("further", "arguments"),
    [(None, ()), (2.0, (2.0,)), ((2.0, ["a"]), (2.0, ["a"])), (["a"], (["a"],)), ((), ())],
    ids=repr,
)
def test_further_arguments(further: Any, arguments: tuple) -> None:
    seen: list[tuple] = []

    def written(m: Any, x: Tensor, *rest: Any) -> Tensor:
        seen.append(rest)
        return m.a(x)

    model = Written(written, a=nn.Linear(6, 3)).double()
    LRP(model).attribute(vectors(), 1, further)
    assert seen == [arguments]


# ------------------------------------------------------------------------------------------------------ the targets


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        (1, [1, 1]),
        (-1, [2, 2]),
        (np.int64(2), [2, 2]),
        (torch.tensor(1), [1, 1]),
        (torch.tensor([2]), [2, 2]),
        ([0, -1], [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        ((1,), [1, 1]),
        ([(1,), (0,)], [1, 0]),
    ],
    ids=repr,
)
def test_targets(target: Any, columns: list[int]) -> None:
    model, x = two(), vectors()
    found = LRP(model).attribute(x, target)
    each = [expected(model, x[n : n + 1], target=column) for n, column in enumerate(columns)]
    close(found, torch.cat(each))


def shaped(change: Callable[[Tensor], Any]) -> nn.Module:
    return Written(lambda m, x: change(m.a(x)), a=nn.Linear(6, 3)).double()


def test_targets_of_outputs_with_more_axes() -> None:
    model, x = shaped(lambda y: torch.stack([y, 2 * y], 2)), vectors()
    single = LRP(shaped(lambda y: y))
    single.model.load_state_dict(model.state_dict())
    close(LRP(model).attribute(x, (2, 1)), 2 * single.attribute(x, 2))
    close(
        LRP(model).attribute(x, [(2, 1), (0, -2)]),
        torch.cat([2 * single.attribute(x[:1], 2), single.attribute(x[1:], 0)]),
    )


@pytest.mark.parametrize(
    ("axes", "target", "columns"),
    [
        (1, 1, [1, 1]),
        (1, torch.tensor(-1), [2, 2]),
        (1, (1,), [1, 1]),
        (1, [(1,), (0,)], [1, 0]),
        (2, 1, [1, 1]),
        (2, (1, 0), [1, 1]),
        (2, [(1, 0), (2, -1)], [1, 2]),
        (1, (2, slice(0, 1)), [2, 2]),
        (1, (slice(1, 2), 0), [1, 1]),
    ],
    ids=repr,
)
def test_targets_that_name_fewer_axes_than_the_output_has(axes: int, target: Any, columns: list[int]) -> None:
    """Axes behind those named hold one entry; a slice names one, too."""
    model, x = shaped(lambda y: y[(..., *[None] * axes)]), vectors()
    single = LRP(shaped(lambda y: y))
    single.model.load_state_dict(model.state_dict())
    close(LRP(model).attribute(x, target), single.attribute(x, columns))


def test_a_target_names_one_entry_of_each_sample() -> None:
    model = LRP(shaped(lambda y: torch.stack([y, y], 2)))
    for target in (1, (1,), (slice(0, 2), 0), [(1,), (1,)]):
        with pytest.raises(AssertionError, match="names 2 entries of each sample"):
            model.attribute(vectors(), target)
    for target in (3, (0, 2), [(0, 2), (0, 0)]):
        with pytest.raises(IndexError, match="out of range"):
            model.attribute(vectors(), target)


@pytest.mark.parametrize(
    "change",
    [lambda y: y.mean(0, keepdim=True), lambda y: y[:1], lambda y: torch.cat([y, y])],
    ids=["mean", "one", "more"],
)
def test_an_output_with_other_rows_than_the_input(change: Callable[[Tensor], Tensor]) -> None:
    """The sum of the rows is explained: for a linear layer, the gradient of the sum times the input."""
    model, x = shaped(change), vectors().requires_grad_()
    (g,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    torch.testing.assert_close(LRP(model).attribute(x.detach(), 1), x.detach() * g, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "change", [lambda y: y[:, 0], lambda y: y[:, :1], lambda y: y[:, :1, None]], ids=["N", "N1", "N11"]
)
def test_no_target_where_there_is_one_output(change: Callable[[Tensor], Tensor]) -> None:
    model, x = shaped(change), vectors()
    close(LRP(model).attribute(x).sum(1) + model.a.bias[0].detach(), model(x).flatten().detach())


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (None, AssertionError, "more than one number per sample"),
        (3, IndexError, "out of range"),
        (-4, IndexError, "out of range"),
        ([0, 3], IndexError, "out of range"),
        ([0, 1, 2], AssertionError, "3 targets for a batch of 2"),
        ([0], AssertionError, "1 targets for a batch of 2"),
        ([], AssertionError, "0 targets"),
        (torch.tensor([0, 1, 2]), AssertionError, "3 targets"),
        (torch.tensor([[0, 1]]), AssertionError, "per sample"),
        (torch.tensor(1.0), AssertionError, "integers"),
        ((0, 1), AssertionError, "2 indices"),
        ("cat", AssertionError, "label"),
        (1.0, AssertionError, "int"),
        (True, AssertionError, "int"),
    ],
    ids=repr,
)
def test_wrong_targets_raise_what_captum_raises(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        LRP(two()).attribute(vectors(), target)
    assert isinstance(raised.value, relprop.errors.TargetError)


def test_outputs_that_cannot_be_explained() -> None:
    with pytest.raises(AssertionError, match="returned a tuple"):
        LRP(shaped(lambda y: (y, y))).attribute(vectors(), 1)
    with pytest.raises(IndexError, match="single number"):
        LRP(shaped(lambda y: y.sum())).attribute(vectors())
    with pytest.raises(AssertionError, match="more than one"):
        LRP(shaped(lambda y: y[:, :, None].expand(-1, -1, 2))).attribute(vectors())


@pytest.mark.parametrize("inputs", [[torch.ones(2, 6)], "x", None, (), (torch.ones(2, 6), 1)], ids=repr)
def test_wrong_inputs(inputs: Any) -> None:
    with pytest.raises(AssertionError, match="tensor or a tuple of tensors"):
        LRP(two()).attribute(inputs, 1)


# ---------------------------------------------------------------------------------------------------------- verbose


def test_verbose_says_what_ran_where(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = normalised()
    model[3].rule = GammaRule()
    LRP(model).attribute(torch.randn(2, 3, 8, 8), 1, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "Applied EpsilonRule(epsilon=1e-09) on layer 0 (conv2d)",
        "Applied GammaRule(gamma=0.25, set_bias_to_zero=False) on layer 3 (conv2d)",
        "Applied EpsilonRule(epsilon=1e-09) on layer 6 (adaptive_avg_pool2d)",
        "Applied EpsilonRule(epsilon=1e-09) on layer 9 (linear)",
    ]
    LRP(model).attribute(torch.randn(2, 3, 8, 8), 1)
    assert not capsys.readouterr().out


def test_verbose_names_no_operation_on_which_the_rule_does_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = Written(lambda m, x: m.f(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(3, 4, batch_first=True), f=nn.Linear(4, 2))
    model.lstm.rule = EpsilonRule(1e-3)
    LRP(model).attribute(torch.randn(2, 1, 3), 1, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Applied EpsilonRule(epsilon=1e-09) on layer f (linear)"
    assert all(line.startswith("Applied EpsilonRule(epsilon=0.001) on layer lstm") for line in lines[:-1])
    model.lstm.rule = GammaRule()
    LRP(model).attribute(torch.randn(2, 1, 3), 1, verbose=True)
    assert all("(linear)" in line for line in capsys.readouterr().out.splitlines())


# ----------------------------------------------------------------------------------------------------------- layers


def test_layer_forms() -> None:
    model, x = convolutional().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    one, delta = LayerLRP(model, model[3]).attribute(x, 1, None, True)
    assert one.shape == (2, 6, 4, 4) and delta.shape == (2,)
    close(delta, (model(x)[:, 1] - one.flatten(1).sum(1)).detach())
    for several in ([model[3], model[0]], (model[3], model[0])):
        found, deltas = LayerLRP(model, several).attribute(x, 1, None, True, False)
        assert isinstance(found, list) and isinstance(deltas, list)
        close(found[0], one)
        close(deltas[0], delta)
        assert found[1].shape == (2, 4, 8, 8)
    everything = LayerLRP(model, None)
    found = everything.attribute(x, 1)
    assert everything.layers == list(model)
    assert [tuple(value.shape) for value in found] == [tuple(model[: n + 1](x).shape) for n in range(len(model))]
    close(found[3], one)


def test_layer_inputs_are_the_outputs_before() -> None:
    """Activations, pools, and containers, too; the first layer's input is the model's."""
    model, x = convolutional().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    modules = list(model)
    at_input = LayerLRP(model, modules).attribute(x, 1, attribute_to_layer_input=True)
    at_output = LayerLRP(model, modules).attribute(x, 1)
    close(at_input[0], LRP(model).attribute(x, 1))
    for before, after in zip(at_output, at_input[1:], strict=False):
        close(before, after)
    wrapped = nn.Sequential(model[:4], model[4:])
    close(LayerLRP(wrapped, wrapped[0]).attribute(x, 1), at_output[3])
    score = LayerLRP(wrapped, wrapped).attribute(x, 1)
    close(score[:, 1], model(x)[:, 1].detach())


def test_several_inputs_of_a_layer_come_in_argument_order() -> None:
    """Each with all of its relevance, whoever else reads it: `x` and `a` go elsewhere, too."""

    def written(m: Any, x: Tensor) -> Tensor:
        a = m.a(x)
        return m.c(m.add(x, a, m.b(a)))

    modules = dict(a=nn.Linear(6, 6), b=nn.Linear(6, 6), add=Addition_Module(), c=nn.Linear(6, 3))
    model: Any = Written(written, **modules).double()
    x = vectors()
    a = model.a(x)
    b = model.b(a)
    r = torch.zeros(2, 3, dtype=torch.float64)
    r[:, 1] = model.c(x + a + b)[:, 1]
    share = layer(model.c, x + a + b, r) / (x + a + b)
    r_b = b * share
    r_a = a * share + layer(model.b, a, r_b)
    r_x = x * share + layer(model.a, x, r_a)
    found = LayerLRP(model, model.add).attribute(x, 1, None, False, True)
    close(found, tuple(part.detach() for part in (r_x, r_a, r_b)))


def test_a_layer_called_twice_answers_for_each_call() -> None:
    model: Any = Written(
        lambda m, x: m.b(m.relu(m.a(m.relu(x)))), a=nn.Linear(6, 6), b=nn.Linear(6, 3), relu=nn.ReLU()
    ).double()
    first, second = LayerLRP(model, model.relu).attribute(vectors(), 1)
    assert first.shape == second.shape == (2, 6)
    assert not torch.allclose(first, second)


def test_layers_that_are_not_there() -> None:
    model: Any = Written(chain, a=nn.Linear(6, 5), b=nn.Linear(5, 3), idle=nn.Linear(3, 3)).double()
    with pytest.raises(InputError, match=r"'idle' \(Linear\) was not called"):
        LayerLRP(model, model.idle).attribute(vectors(), 1)
    with pytest.raises(InputError, match="not part of the model"):
        LayerLRP(model, nn.Linear(6, 5))
    with pytest.raises(TypeError, match="must be a module"):
        LayerLRP(model, "a")
    everything = LayerLRP(model, None)
    assert len(everything.attribute(vectors(), 1)) == 2
    assert everything.layers == [model.a, model.b]


def test_embeddings_of_ids() -> None:
    """At the output of the embedding, and per id; there is no floating point tensor at its input."""
    model = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    ids = torch.randint(0, 9, (2, 4))
    rows = model[0](ids).detach()
    found = LayerLRP(model, model[0]).attribute(ids, 1)
    close(found, LRP(model[1:]).attribute(rows, 1))
    close(LRP(model).attribute(ids, 1), found.sum(2))
    with pytest.raises(InputError, match=r"'0' \(Embedding\).*took no floating point tensor"):
        LayerLRP(model, model[0]).attribute(ids, 1, attribute_to_layer_input=True)


def test_interpolate() -> None:
    assert LayerLRP.interpolate(torch.randn(2, 3, 4, 4), (8, 6)).shape == (2, 3, 8, 6)


# -------------------------------------------------------------------------------------------- nothing else is touched


@pytest.mark.parametrize("kind", [LRP, LayerLRP])
def test_model_and_inputs_are_untouched(kind: Any) -> None:
    model: Any = normalised()
    model[0].rule = GammaRule()
    x = torch.randn(2, 3, 8, 8)
    state = {name: (value.clone(), value.data_ptr(), value._version) for name, value in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    version, pointer, rule = x._version, x.data_ptr(), dict(vars(model[0].rule))
    lrp = kind(model) if kind is LRP else kind(model, model[3])
    lrp.attribute(x, 1, return_convergence_delta=True)
    with pytest.raises(IndexError):
        lrp.attribute(x, 7)
    assert not x.requires_grad and x.grad is None and (x._version, x.data_ptr()) == (version, pointer)
    for name, value in model.state_dict().items():
        before, place, written = state[name]
        assert torch.equal(value, before) and (value.data_ptr(), value._version) == (place, written)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    ] == hooks
    assert vars(model[0].rule) == rule
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_callers_without_gradients(context: Callable[[], Any]) -> None:
    model, x = two(), vectors()
    want = LRP(model).attribute(x, 1)
    with context():
        close(LRP(model).attribute(x.clone(), 1), want)
        close(LayerLRP(model, model.a).attribute(x.clone(), 1, attribute_to_layer_input=True), want)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ModelStateError, match=r"eval\(\)"):
        LRP(normalised().train()).attribute(torch.randn(2, 3, 8, 8), 1)
