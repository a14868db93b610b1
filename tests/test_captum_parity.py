"""Where captum implements the definitions, relprop's LRP and LayerLRP give the same numbers, to 1e-6.

Where it does not: test_captum_departures.py. Without captum these tests are passed over, but for the ResNets.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop.captum as ours
from networks import InplaceBasicBlock, TorchvisionResNet, Written, convolutional, mlp, normalised, settle

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    if importlib.util.find_spec("captum") is None:
        pytest.skip("captum is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {}
        for path in ("captum.attr", "captum.attr._utils.lrp_rules", "captum.attr._utils.custom_modules"):
            names |= vars(importlib.import_module(path))
    yield SimpleNamespace(**names)


def quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """captum's hooks warn about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def detached(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(detached(item) for item in value)
    return value.detach()


def same(
    theirs: Any,
    model: nn.Module,
    x: Any,
    target: Any,
    rules: Callable[[nn.Module, Any], None] = lambda model, of: None,
    layer: Callable[[nn.Module], Any] | None = None,
    **options: Any,
) -> None:
    """Both libraries on copies of one model, with the delta."""
    results = []
    for library in (theirs, ours):
        twin = copy.deepcopy(model).double().eval()
        rules(twin, library)
        lrp = library.LRP(twin) if layer is None else library.LayerLRP(twin, layer(twin))
        results.append(detached(quietly(lrp.attribute, x, target, return_convergence_delta=True, **options)))
    close(results[1], results[0])


def images(n: int = 2, size: int = 8) -> Tensor:
    return torch.randn(n, 3, size, size, dtype=torch.float64)


def unflattened() -> nn.Sequential:
    """`convolutional`, without the Flatten that captum refuses: (3, 8, 8) -> 5 classes."""
    return nn.Sequential(*list(convolutional())[:6], nn.Conv2d(6, 8, 2), nn.ReLU(), nn.Conv2d(8, 5, 1))


class Flat(nn.Module):
    """A network whose last two axes are of size 1, as classes."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


def grouped() -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 5, 2),
    )
    return Flat(body)


def pooled() -> nn.Module:
    return Flat(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2, 1), nn.AvgPool2d(3, 1, padding=1), nn.Conv2d(4, 5, 2),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )
    )  # fmt: skip


def tanh_and_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))


def one_relu() -> nn.Module:
    return Written(
        lambda m, x: m.c(m.relu(m.b(m.relu(m.a(x))))),
        a=nn.Linear(6, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 5), relu=nn.ReLU(),
    )  # fmt: skip


def sequence() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(4, 5))


VECTORS = {
    "mlp": partial(mlp, 3, 6),
    "tanh and dropout": tanh_and_dropout,
    "one relu": one_relu,
    "max pool 1d": sequence,
}
PICTURES: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Flat(unflattened()),
    "batch norm": lambda: Flat(nn.Sequential(*[m for m in normalised() if not isinstance(m, (nn.Flatten, nn.Linear))])),
    "grouped": grouped,
    "pools": pooled,
}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("target", [1, [0, 3], torch.tensor([2, -1])], ids=["int", "list", "tensor"])
def test_vectors(name: str, target: Any, theirs: Any) -> None:
    if isinstance(target, Tensor):
        target = target % 5
    same(theirs, VECTORS[name](), torch.randn(2, 6, dtype=torch.float64), target)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, theirs: Any) -> None:
    same(theirs, PICTURES[name](), images(), -1)


@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.3])
def test_epsilon_everywhere(epsilon: float, theirs: Any) -> None:
    """On pooling layers and batch norms, too; with epsilon 0 captum divides 0 by 0 at dead units, so none here."""

    def rules(model: nn.Module, of: Any) -> None:
        for module in model.modules():
            if next(module.children(), None) is None:
                module.rule = of.EpsilonRule(epsilon)

    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3)))
    same(theirs, Flat(model), images(), 2, rules)


def test_the_loop_of_captums_tutorial(theirs: Any) -> None:
    """Rules set on every module in turn, activations and pools included; biases where both rules mean the same."""
    body = unflattened()
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            module.bias.data.clamp_(max=0)

    def rules(model: Any, of: Any) -> None:
        for index, module in enumerate(model.body):
            module.rule = of.GammaRule() if index < 4 else of.EpsilonRule() if index < 7 else of.EpsilonRule(epsilon=0)

    same(theirs, Flat(body), images().abs(), 1, rules)


@pytest.mark.parametrize("bias", ["none", "negative", "set to zero"])
def test_gamma(bias: str, theirs: Any) -> None:
    """Inputs not negative, a relu behind: one definition."""

    def rules(model: Any, of: Any) -> None:
        model.a.rule = of.GammaRule(0.4, set_bias_to_zero=bias == "set to zero")
        model.b.rule = of.GammaRule(1.5, bias == "set to zero")

    model: Any = Written(
        lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))),
        **{name: nn.Linear(6, 6, bias != "none") for name in "abc"},
    )
    for module in model.children():
        if module.bias is not None:
            module.bias.data.abs_().neg_()
    same(theirs, model, torch.rand(3, 6, dtype=torch.float64), 1, rules)


@pytest.mark.parametrize("bias", ["none", "positive", "set to zero"])
def test_alpha1_beta0(bias: str, theirs: Any) -> None:
    def rules(model: Any, of: Any) -> None:
        model.a.rule = model.b.rule = of.Alpha1_Beta0_Rule(set_bias_to_zero=bias == "set to zero")

    model: Any = Written(
        lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))),
        **{name: nn.Linear(6, 6, bias != "none") for name in "abc"},
    )
    for module in model.children():
        if bias == "positive":
            module.bias.data.abs_()
    same(theirs, model, torch.rand(3, 6, dtype=torch.float64), 1, rules)


def test_identity_on_a_batch_norm(theirs: Any) -> None:
    def rules(model: Any, of: Any) -> None:
        model.body[1].rule = of.IdentityRule()

    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3)))
    same(theirs, Flat(model), images(), 2, rules)


def residual(of: Any) -> nn.Module:
    def written(m: Any, x: Tensor) -> Tensor:
        a = m.relu_a(m.a(x))
        return m.c(m.relu_b(m.add(a, m.b(a))))

    return Written(
        written, a=nn.Linear(6, 5), relu_a=nn.ReLU(), b=nn.Linear(5, 5), add=of.Addition_Module(), relu_b=nn.ReLU(),
        c=nn.Linear(5, 3),
    )  # fmt: skip


def both_residuals(theirs: Any) -> tuple[nn.Module, nn.Module]:
    found = []
    for of in (theirs, ours):
        torch.manual_seed(1)
        found.append(residual(of).double())
    return found[0], found[1]


def test_residual_by_addition_module(theirs: Any) -> None:
    """A sum of two branches that share no layer with weights: captum's module, and ours in its place."""

    def written(m: Any, x: Tensor) -> Tensor:
        return m.c(m.relu(m.add(m.a(x), m.b(x))))

    x = torch.randn(2, 6, dtype=torch.float64)
    results = []
    for of in (theirs, ours):
        torch.manual_seed(1)
        parts = dict(a=nn.Linear(6, 5), b=nn.Linear(6, 5), add=of.Addition_Module(), relu=nn.ReLU(), c=nn.Linear(5, 3))
        model = Written(written, **parts).double()
        model.add.rule = of.EpsilonRule(0.1)
        results.append(quietly(of.LRP(model).attribute, x, 1).detach())
    close(results[1], results[0])


def test_a_block_with_addition_module(theirs: Any) -> None:
    x = torch.randn(2, 6, dtype=torch.float64)
    them, us = both_residuals(theirs)
    close(ours.LRP(us).attribute(x, 1), quietly(theirs.LRP(them).attribute, x, 1).detach())
    # the input of b goes to the sum as well: all of its relevance, in both
    theirs_at_b = quietly(theirs.LayerLRP(them, them.b).attribute, x, 1, attribute_to_layer_input=True)
    close(ours.LayerLRP(us, us.b).attribute(x, 1, attribute_to_layer_input=True), theirs_at_b.detach())


def test_several_inputs_and_further_arguments(theirs: Any) -> None:
    def written(m: Any, x: Tensor, y: Tensor, names: Any, factor: float) -> Tensor:
        assert names is None
        return m.c(m.add(m.a(x), m.b(y))) if factor == 2.0 else x

    x, y = (torch.randn(2, n, dtype=torch.float64) for n in (6, 4))
    results = []
    for of in (theirs, ours):
        torch.manual_seed(1)
        parts = dict(a=nn.Linear(6, 5), b=nn.Linear(4, 5), add=of.Addition_Module(), c=nn.Linear(5, 3))
        model = Written(lambda m, *args: written(m, *args), **parts).double()
        found = quietly(of.LRP(model).attribute, (x, y), 1, (None, 2.0), True)
        results.append(detached(found))
    close(results[1], results[0])


@pytest.mark.parametrize("at_input", [False, True], ids=["output", "input"])
@pytest.mark.parametrize("chosen", ["one", "list"])
def test_layers(at_input: bool, chosen: str, theirs: Any) -> None:
    def rules(model: Any, of: Any) -> None:
        model.body[3].rule = of.EpsilonRule(0.2)

    def layer(model: Any) -> Any:
        return model.body[3] if chosen == "one" else [model.body[0], model.body[2], model.body[6]]

    same(theirs, Flat(unflattened()), images(), 1, rules, layer, attribute_to_layer_input=at_input)


def test_layer_with_two_inputs(theirs: Any) -> None:
    """captum answers in the order in which its hooks ran, the last argument first; ours in the order of arguments."""

    def written(m: Any, x: Tensor) -> Tensor:
        return m.c(m.add(m.a(x), m.b(x)))

    x = torch.randn(2, 6, dtype=torch.float64)
    results = []
    for of in (theirs, ours):
        torch.manual_seed(1)
        parts = dict(a=nn.Linear(6, 5), b=nn.Linear(6, 5), add=of.Addition_Module(), c=nn.Linear(5, 3))
        model = Written(written, **parts).double()
        found = of.LayerLRP(model, model.add).attribute
        results.append(detached(quietly(found, x, 1, None, False, True)))
    close(results[1], results[0][::-1])


@pytest.mark.parametrize("partition", [None, 2])
def test_noise_tunnel(partition: int | None, theirs: Any) -> None:
    model, x = tanh_and_dropout().double().eval(), torch.randn(3, 6, dtype=torch.float64)
    results = []
    for of in (theirs, ours):
        torch.manual_seed(2)
        tunnel = theirs.NoiseTunnel(of.LRP(model))
        found = quietly(
            tunnel.attribute, x, nt_samples=5, nt_samples_batch_size=partition, stdevs=0.1, target=[0, 1, 2],
            return_convergence_delta=True,
        )  # fmt: skip
        results.append(detached(found))
    close(results[1], results[0])


# ---------------------------------------------------------------------------------- ResNets in torchvision's layout


def absorbed_by_biases(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """What LRP-0 leaves to biases in a piecewise linear network: `sum b ds/db`, by plain autograd, per sample."""
    total = []
    for sample in x:
        biases, values = [], []
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                scale = module.weight / (module.running_var + module.eps).sqrt()
                biases.append(module.bias)
                values.append((module.bias - module.running_mean * scale).detach())
            elif getattr(module, "bias", None) is not None:
                biases.append(module.bias)
                values.append(module.bias.detach())
        slopes = torch.autograd.grad(model(sample[None])[0, target], biases)
        total.append(sum((b * slope).sum() for b, slope in zip(values, slopes, strict=True)))
    return torch.stack(total)


@pytest.mark.parametrize("depth", [18, 50, pytest.param(101, marks=pytest.mark.slow)])
def test_resnets(depth: int) -> None:
    """By the default rules: finite, LRP-0 but for the stabiliser, and what is missing is what biases absorbed."""
    model, x = TorchvisionResNet(depth).double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    relevance, delta = ours.LRP(model).attribute(x, target=3, return_convergence_delta=True)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)
    torch.testing.assert_close(relevance, x * slope, rtol=1e-5, atol=1e-6 * float((x * slope).abs().max()))
    absorbed = absorbed_by_biases(model, x, 3)
    torch.testing.assert_close(delta, absorbed, rtol=1e-5, atol=1e-6 * float(absorbed.abs().max()))


@pytest.mark.parametrize("depth", [18, 50, pytest.param(101, marks=pytest.mark.slow)])
def test_resnets_with_gamma_everywhere(depth: int) -> None:
    """Where there is no bias, as here, nothing is missing; and single precision is enough."""
    model: Any = TorchvisionResNet(depth).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data = module.running_mean * module.weight.data / (module.running_var + module.eps).sqrt()
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.rule = ours.GammaRule()
    model.fc.bias.data.zero_()
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        x = torch.randn(2, 3, 32, 32, dtype=dtype)
        relevance, delta = ours.LRP(model.to(dtype)).attribute(x, target=3, return_convergence_delta=True)
        assert bool(relevance.isfinite().all())
        assert float(delta.abs().max()) < tolerance * float(relevance.abs().flatten(1).sum(1).max())


def test_captum_on_a_resnet_is_not_finite_or_far_off(theirs: Any) -> None:
    """The reason for the tests above: a block as torchvision writes it, without in-place operations."""
    block: Any = settle(InplaceBasicBlock(3, 3, 3, 1)).double()
    block.relu.inplace = False
    model = Flat(nn.Sequential(block, nn.Conv2d(3, 5, 8))).double()
    model.body[1].bias.data.zero_()
    x = images()
    found = quietly(theirs.LRP(model).attribute, x, 1).detach()
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    close(ours.LRP(model).attribute(x, 1), (x * slope).detach())
    off = (found - x * slope).abs().max() / (x * slope).abs().max()
    assert not bool(off < 0.1)
