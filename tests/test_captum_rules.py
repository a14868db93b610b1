"""Rules as attributes of modules: captum's, by their definitions, and users' own; defaults and the two tables."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import reference as ref
import relprop
from networks import Written, convolutional, mlp, settle
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
from relprop.errors import RuleError
from two_layers import close, expected, gamma, layer, two, vectors

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
        LRP(torch.relu)


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
        module.rule = rule
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


def test_a_rule_that_sets_parameters_of_a_parametrised_module() -> None:
    class Assigning(PropagationRule):
        def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
            assert type(module) is nn.Linear
            module.weight = nn.Parameter(module.weight.clamp(min=0))

    model, x = two(), vectors()
    parametrizations.weight_norm(model.a)
    model.a.rule = Assigning()
    definition = ref.weighted(lambda x, w, b, r: ref.epsilon(x, ref.positive(w), b, r, epsilon=1e-9))
    close(LRP(model).attribute(x, 1), expected(model, x, definition))


@pytest.mark.parametrize("on_norm", [None, EpsilonRule(), GammaRule(), Alpha1_Beta0_Rule()], ids=repr)
def test_a_batch_norm_is_merged_whatever_definition_it_names(on_norm: PropagationRule | None) -> None:
    model: Any = settle(
        Written(lambda m, x: m.n(m.a(x)).flatten(1), a=nn.Conv2d(2, 3, 3), n=nn.BatchNorm2d(3))
    ).double()
    model.a.rule, model.n.rule = GammaRule(), on_norm
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    y = model.n(model.a(x))
    r = torch.zeros_like(y)
    r.flatten(1)[:, 7] = y.flatten(1)[:, 7]
    close(LRP(model).attribute(x, 7), gamma(lambda t: model.n(model.a(t)), x, r).detach())


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
        PropagationRule()


# ------------------------------------------------------------------------------------------- tables and other layers


def test_tables_can_be_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = two(), vectors()
    monkeypatch.setitem(SUPPORTED_LAYERS_WITH_RULES, nn.Linear, partial(GammaRule, 0.25))
    model.b.rule = EpsilonRule()
    close(LRP(model).attribute(x, 1), expected(model, x, gamma))


def test_types_added_to_the_non_linear_pass_relevance_unchanged() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()
    x = vectors()
    a = model[:2](x)
    r = torch.zeros_like(model[2](a))
    r[:, 1] = model[2](a)[:, 1]
    SUPPORTED_NON_LINEAR_LAYERS.append(nn.Sigmoid)
    try:
        close(LRP(model).attribute(x, 1), layer(model[0], x, layer(model[2], a, r)).detach())
    finally:
        SUPPORTED_NON_LINEAR_LAYERS.remove(nn.Sigmoid)


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
