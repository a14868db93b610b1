"""`relprop.captum`: captum's calls and forms, rules that stay, and what captum refuses or gets wrong around them."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import reference as ref
import relprop
from networks import Written, convolutional, mlp, normalised, settle
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
    PropagationRule,
)
from relprop.errors import InputError, ModelStateError, RuleError

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
    assert {kind.__name__: rule.__name__ for kind, rule in SUPPORTED_LAYERS_WITH_RULES.items()} == named  # type: ignore[attr-defined]
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
    "change", [lambda y: y[:, 0], lambda y: y[:, :1], lambda y: y[:, :1, None]], ids=["N", "N1", "N11"]
)
def test_no_target_where_there_is_one_output(change: Callable[[Tensor], Tensor]) -> None:
    model, x = shaped(change), vectors()
    close(LRP(model).attribute(x).sum(1) + model.a.bias[0].detach(), model(x).flatten().detach())  # type: ignore[union-attr, operator, index]


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


# -------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize("rule", [3, GammaRule, relprop.Gamma(), "gamma"], ids=repr)
def test_what_is_no_rule_is_refused_with_the_path(rule: Any) -> None:
    model = nn.Sequential(two())
    model[0].a.rule = rule
    for make in (lambda: LRP(model), lambda: LayerLRP(model, None)):
        with pytest.raises(TypeError, match=r"module '0\.a'"):
            make()


def test_a_function_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"relprop\.attribute"):
        LRP(torch.relu)  # type: ignore[arg-type]


def test_rules_stay_and_act_on_every_call() -> None:
    model, x = two(), vectors()
    model.a.rule, model.b.rule = GammaRule(), None
    lrp = LRP(model)
    want = expected(model, x, gamma)
    for _ in range(3):
        close(lrp.attribute(x, 1), want)
    assert isinstance(model.a.rule, GammaRule) and model.b.rule is None
    model.a.rule.gamma = 1.0  # read anew
    close(lrp.attribute(x, 1), expected(model, x, ref.weighted(partial(ref.gamma, gamma=1.0))))
    del model.a.rule
    close(lrp.attribute(x, 1), expected(model, x))
    model.a.rule = EpsilonRule(0.1)
    close(lrp.attribute(x, 1), expected(model, x, ref.weighted(partial(ref.epsilon, epsilon=0.1))))


def test_rules_are_checked_again_on_every_call() -> None:
    model = two()
    lrp = LRP(model)
    model.a.rule = GammaRule
    with pytest.raises(TypeError, match="parentheses"):
        lrp.attribute(vectors(), 1)


DEFINITIONS: dict[str, tuple[PropagationRule, ref.Rule]] = {
    "epsilon": (EpsilonRule(0.3), partial(ref.epsilon, epsilon=0.3)),
    "zero": (EpsilonRule(0), ref.zero),
    "gamma": (GammaRule(0.7), partial(ref.gamma, gamma=0.7)),
    "gamma without bias": (GammaRule(0.7, True), ref.zero_bias(partial(ref.gamma, gamma=0.7))),
    "alpha 1 beta 0": (Alpha1_Beta0_Rule(), ref.z_plus),
    "alpha 1 beta 0 without bias": (Alpha1_Beta0_Rule(True), ref.zero_bias(ref.z_plus)),
}


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("signs", ["both", "positive"])
def test_rules_are_their_definitions(name: str, signs: str) -> None:
    """Biases of both signs, large ones among them."""
    model, x = two(), vectors(8) if signs == "both" else vectors(8).abs()
    model.a.bias.data *= 5
    model.a.rule, rule = DEFINITIONS[name]
    close(LRP(model).attribute(x, 1), expected(model, x, ref.weighted(rule)))


def test_identity() -> None:
    model, x = two(a=nn.Linear(6, 6), b=nn.Linear(6, 3)), vectors()
    model.a.rule = IdentityRule()
    close(LRP(model).attribute(x, 1), expected(model, x, ref.weighted(ref.passes)))


@pytest.mark.parametrize("module", [nn.Linear(6, 5), nn.Sequential(nn.MaxPool1d(2, 1))], ids=["linear", "pool"])
def test_identity_where_nothing_can_go_straight_through(module: nn.Module) -> None:
    model = nn.Sequential(module, nn.Linear(5, 3)).double()
    leaf: Any = module[0] if isinstance(module, nn.Sequential) else module
    leaf.rule = IdentityRule()
    with pytest.raises(RuleError, match=r"Pass\(\)"):
        LRP(model).attribute(vectors(), 1)


def single(weight: list[float], bias: float, rule: PropagationRule) -> Any:
    unit: Any = nn.Linear(2, 1).double()
    unit.weight.data[0], unit.bias.data[0] = torch.tensor(weight), bias
    unit.rule = rule
    return unit


@pytest.mark.parametrize(
    ("rule", "x", "weight", "bias", "relevance"),
    [
        (GammaRule(1.0), [1.0, 1.0], [2.0, -1.0], 1.0, [0.8, -0.2]),
        (GammaRule(1.0), [1.0, 1.0], [2.0, -1.0], -0.5, [1.6, -0.4]),
        (Alpha1_Beta0_Rule(), [1.0, 1.0], [2.0, 1.0], -2.0, [2 / 3, 1 / 3]),
        (Alpha1_Beta0_Rule(), [-1.0, 1.0], [-2.0, 1.0], -2.0, [2 / 3, 1 / 3]),
    ],
)
def test_worked_examples(
    rule: PropagationRule, x: list[float], weight: list[float], bias: float, relevance: list[float]
) -> None:
    """Those of the rules' documentation, per unit of output."""
    unit = single(weight, bias, rule)
    found = LRP(unit).attribute(torch.tensor([x], dtype=torch.float64), 0) / unit(torch.tensor([x]).double()).detach()
    close(found, torch.tensor([relevance], dtype=torch.float64), rtol=1e-9)


def test_worked_examples_of_captum() -> None:
    """What the documentation says that captum makes of them."""
    if importlib.util.find_spec("captum") is None:
        pytest.skip("captum is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attr = importlib.import_module("captum.attr")
        rules = importlib.import_module("captum.attr._utils.lrp_rules")
        for rule, x, weight, bias, relevance in (
            (rules.GammaRule(1.0), [1.0, 1.0], [2.0, -1.0], 1.0, [1.0, -0.25]),
            (rules.GammaRule(1.0), [1.0, 1.0], [2.0, -1.0], -0.5, [1.6, -0.4]),
            (rules.Alpha1_Beta0_Rule(), [1.0, 1.0], [2.0, 1.0], -2.0, [2.0, 1.0]),
            (rules.Alpha1_Beta0_Rule(), [-1.0, 1.0], [-2.0, 1.0], -2.0, [0.0, -1.0]),
        ):
            model = nn.Sequential(single(weight, bias, rule))
            inputs = torch.tensor([x], dtype=torch.float64)
            score = model(inputs).detach()
            found = attr.LRP(model).attribute(inputs, target=0).detach() / score
            torch.testing.assert_close(found, torch.tensor([relevance]).double(), rtol=1e-6, atol=1e-6)


def test_one_rule_object_for_many_modules() -> None:
    model, x = mlp(3, 6).double(), vectors()
    rule = GammaRule()
    for module in model:
        module.rule = rule  # type: ignore[assignment]
    found = LRP(model).attribute(x, 1)
    close(found, relprop.attribute(model, x, 1, composite=relprop.Composite({"linear": relprop.Gamma(0.25)})).values)


def test_a_containers_rule_is_for_its_layers() -> None:
    x = vectors()
    model: Any = nn.Sequential(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, 3)
    ).double()
    model[0].rule, model[0][2].rule = GammaRule(), EpsilonRule(0.2)
    apart = copy.deepcopy(model)
    del apart[0].rule
    apart[0][0].rule = GammaRule()
    close(LRP(model).attribute(x, 1), LRP(apart).attribute(x, 1))
    del apart[0][0].rule
    assert not torch.allclose(LRP(model).attribute(x, 1), LRP(apart).attribute(x, 1))


def test_a_container_without_weights_cannot_have_a_rule() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Linear(5, 3)).double()
    model[1].rule = GammaRule()
    with pytest.raises(RuleError, match=r"module '1'.*no layer with weights"):
        LRP(model).attribute(vectors(), 1)


def test_functional_layers_of_a_module_with_a_rule() -> None:
    class Written_Out(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 6))
            self.rule = GammaRule()

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight)

    model, x = two(a=Written_Out()), vectors()
    close(LRP(model).attribute(x, 1), expected(model, x, gamma))


@pytest.mark.parametrize("how", ["used twice", "tied", "parametrised", "pruned", "weight norm"])
def test_rules_on_modules_whose_weight_is_not_plain(how: str) -> None:
    def written(m: Any, x: Tensor) -> Tensor:
        return m.c(F.relu(m.b(F.relu(m.a(x)))))

    a = nn.Linear(6, 6)
    b = a if how == "used twice" else nn.Linear(6, 6)
    if how == "tied":
        b.weight = a.weight
    model: Any = Written(written, a=a, b=b, c=nn.Linear(6, 3)).double()
    if how == "parametrised":
        parametrizations.spectral_norm(model.a).eval()
    if how == "weight norm":
        parametrizations.weight_norm(model.a)
    if how == "pruned":
        prune.random_unstructured(model.a, "weight", 0.5)
        model.a(vectors())
    model.eval()
    x = vectors()
    first = model.a(x).relu()
    second = model.b(first).relu()
    r = torch.zeros(2, 3, dtype=torch.float64)
    r[:, 1] = model.c(second)[:, 1]
    r = layer(model.c, second, r)
    for rule in (GammaRule(), AsCaptumDoesIt()):
        model.a.rule = model.b.rule = rule
        definition = gamma if isinstance(rule, GammaRule) else ref.weighted(doubled)
        close(LRP(model).attribute(x, 1), definition(model.a, x, definition(model.b, first, r)).detach())


# ---------------------------------------------------------------------------------------------- rules of users' own


class AsCaptumDoesIt(PropagationRule):
    """Positive weights count twice, the bias three times."""

    STABILITY_FACTOR = 1e-3

    def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
        if hasattr(module, "weight"):
            module.weight.data = module.weight.data + module.weight.data.clamp(min=0)
        if hasattr(module, "bias") and module.bias is not None:
            module.bias.data *= 3


def doubled(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    return ref.epsilon(x, w + ref.positive(w), 3 * bias, r, epsilon=1e-3)


def test_a_rule_that_changes_weights() -> None:
    model, x = two(), vectors()
    before = copy.deepcopy(model.state_dict())
    model.a.rule = AsCaptumDoesIt()
    for _ in range(2):
        close(LRP(model).attribute(x, 1), expected(model, x, ref.weighted(doubled)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv2d(2, 4, 3, groups=2), lambda: nn.ConvTranspose2d(2, 4, 3, 2)], ids=["conv", "transposed"]
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_rule_that_changes_weights_of_convolutions(make: Callable[[], nn.Module], bias: bool) -> None:
    """Merged with the BatchNorm behind: the rule is given one layer."""
    conv: Any = make()
    if not bias:
        conv.bias = None
    model: Any = settle(Written(lambda m, x: m.n(m.a(x)).flatten(1), a=conv, n=nn.BatchNorm2d(4))).double()
    model.a.rule = AsCaptumDoesIt()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    y = model.n(model.a(x))
    r = torch.zeros_like(y)
    r.flatten(1)[:, 7] = y.flatten(1)[:, 7]
    close(LRP(model).attribute(x, 7), ref.weighted(doubled)(lambda t: model.n(model.a(t)), x, r).detach())


def test_a_rule_that_builds_on_the_librarys() -> None:
    class WithoutBias(GammaRule):
        def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
            super()._manipulate_weights(module, inputs, outputs)
            module.bias = None

    class Positive(Alpha1_Beta0_Rule):
        def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
            super()._manipulate_weights(module, inputs, outputs)

    model, x = two(), torch.rand(2, 6, dtype=torch.float64)
    model.a.rule = WithoutBias(0.5)
    definition = ref.zero_bias(lambda x, w, b, r: ref.epsilon(x, w + 0.5 * ref.positive(w), b, r, epsilon=1e-9))
    close(LRP(model).attribute(x, 1), expected(model, x, ref.weighted(definition)))
    model.a.rule = Positive(set_bias_to_zero=True)
    close(LRP(model).attribute(x, 1), expected(model, x, ref.weighted(ref.zero_bias(ref.z_plus))))


def test_a_rule_may_look_at_the_module_and_what_went_through() -> None:
    seen: list[Any] = []

    class Curious(PropagationRule):
        def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
            seen.append((isinstance(module, nn.Linear), module.in_features, inputs[0], outputs))

    model, x = two(), vectors()
    model.a.rule = Curious()
    close(LRP(model).attribute(x, 1), expected(model, x))
    linear, features, given, out = seen[0]
    assert linear and features == 6
    close(given, x)
    close(out, model.a(x).detach())


def test_a_rule_that_replaces_hooks_is_refused_with_instructions() -> None:
    class Hooked(EpsilonRule):
        def _create_backward_hook_input(self, inputs: Any) -> Any:
            return None

    model = two()
    model.a.rule = Hooked()
    with pytest.raises(TypeError, match=r"module 'a'.*_create_backward_hook_input.*relprop\.WeightedRule"):
        LRP(model)


def test_a_rule_that_changes_the_shape_is_refused() -> None:
    class Smaller(PropagationRule):
        def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
            module.weight = nn.Parameter(module.weight[:1])

    model = two()
    model.a.rule = Smaller()
    with pytest.raises(RuleError, match="another shape"):
        LRP(model).attribute(vectors(), 1)


def test_the_base_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        PropagationRule()  # type: ignore[abstract]


# ------------------------------------------------------------------------------------------- tables and other layers


def test_tables_can_be_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = two(), vectors()
    monkeypatch.setitem(SUPPORTED_LAYERS_WITH_RULES, nn.Linear, partial(GammaRule, 0.25))  # type: ignore[arg-type]
    model.b.rule = EpsilonRule()
    close(LRP(model).attribute(x, 1), expected(model, x, gamma))


def test_types_added_to_the_non_linear_pass_relevance_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()
    x = vectors()
    monkeypatch.setattr("relprop.captum.tables.SUPPORTED_NON_LINEAR_LAYERS", [*SUPPORTED_NON_LINEAR_LAYERS, nn.Sigmoid])
    a = model[:2](x)
    r = torch.zeros_like(model[2](a))
    r[:, 1] = model[2](a)[:, 1]
    close(LRP(model).attribute(x, 1), layer(model[0], x, layer(model[2], a, r)).detach())


def test_addition_module() -> None:
    a, b, c = (torch.randn(2, 6) for _ in range(3))
    add = Addition_Module()
    close(add(a, b), a + b)
    close(add(a, b, c), a + b + c)
    close(add(a, b[0], c), a + b[0] + c)
    with pytest.raises(TypeError, match="two or more"):
        add(a)


@pytest.mark.parametrize("count", [2, 3])
def test_epsilon_on_a_sum(count: int) -> None:
    """`R_i = x_i / (S + eps sgn S) R`, once, whatever the number of summands, and in place as well."""

    class InPlace(nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            out = tensors[0].clone()
            for tensor in tensors[1:]:
                out += tensor
            return out

    xs = tuple(torch.randn(2, 3, dtype=torch.float64) for _ in range(count))
    total = torch.stack(xs).sum(0)
    r = torch.zeros_like(total)
    r[:, 1] = total[:, 1]
    want = tuple(x * r / (total + 0.3 * total.sign()) for x in xs)
    for module in [Addition_Module(), InPlace()][: 2 if count == 2 else 1]:
        model: Any = Written(lambda m, *xs: m.add(*xs), add=module)
        model.add.rule = EpsilonRule(0.3)
        close(LRP(model).attribute(xs, 1), want)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 4)), (2, 6)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 3, 3), nn.ReLU(), nn.Conv3d(3, 3, 2)), (2, 4, 4, 4)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2, 2), nn.ReLU(), nn.Conv2d(3, 3, 4)), (2, 2, 2)),
    "norms": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ELU(), nn.Conv2d(4, 3, 2)), (2, 4, 4)),
    "flatten": (lambda: convolutional(), (3, 8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_captum_refuses(name: str) -> None:
    """By the engine's defaults, as `relprop.attribute` has them with epsilon on every layer."""
    make, shape = LAYERS[name]
    model = nn.Sequential(make(), nn.Flatten()).double().eval()
    x = torch.randn(2, *shape, dtype=torch.float64)
    want = relprop.attribute(model, x, 1, composite=relprop.composites.epsilon(1e-9)).values
    close(LRP(model).attribute(x, 1), want)


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
