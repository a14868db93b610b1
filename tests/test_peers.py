"""Where definitions agree, so do the numbers of other libraries: zennit's composites and rules, captum's LRP.

What is left out, because the definitions differ:

- zennit on networks with batch norm (it leaves the norm's eps in the folded layer), and on average pools of
  nothing but dead units, where its stabiliser absorbs what a flat layer handed down.
- captum's GammaRule and Alpha1_Beta0_Rule, which clamp weights without regard to the sign of the input.
- captum on functional sums, reused modules and in-place activations, which its hooks do not see or refuse.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import convolutional

# What both add to every denominator, also where the definition has nothing: below what is compared.
STABILISER = 1e-12
LOW, HIGH = -3.0, 3.0

close = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-9)


def imported(name: str) -> Any:
    """A library that the suite can do without, its warnings its own."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:  # it was installed without what it needs
            pytest.skip(f"{name} needs {error.name}, which is not installed")


@pytest.fixture(scope="module")
def zennit() -> Iterator[Any]:
    """zennit imports torchvision, which fails on a build of torch not its own unless these are declared."""
    spec = importlib.util.find_spec("torchvision")
    library = None
    if spec is not None and spec.submodule_search_locations:
        try:
            for file in glob.glob(f"{spec.submodule_search_locations[0]}/_C*.so"):
                torch.ops.load_library(file)
        except (OSError, ImportError):
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    imported("zennit.composites")
    yield imported("zennit")
    del library  # its declarations last as long as it does


def of_zennit(composite: Any, model: nn.Module, x: Tensor, target: int) -> Tensor:
    """Relevance of a score: zennit's gradients are relevances, its start the score itself."""
    leaf = x.clone().requires_grad_()
    with composite.context(model) as modified:
        output = modified(leaf)
        start = torch.zeros_like(output)
        start[:, target] = output.detach()[:, target]
        (relevance,) = torch.autograd.grad(output, leaf, start)
    return relevance


def bounds(x: Tensor) -> dict[str, Tensor]:
    return {"low": torch.full_like(x[:1], LOW), "high": torch.full_like(x[:1], HIGH)}


COMPOSITES: dict[str, tuple[relprop.Composite, Callable[[Any, Tensor], Any]]] = {
    "epsilon_plus": (
        relprop.composites.epsilon_plus(),
        lambda z, x: z.EpsilonPlus(stabilizer=STABILISER),
    ),
    "epsilon_plus_flat": (
        relprop.composites.epsilon_plus_flat(),
        lambda z, x: z.EpsilonPlusFlat(stabilizer=STABILISER),
    ),
    "epsilon_alpha2_beta1": (
        relprop.composites.epsilon_alpha2_beta1(),
        lambda z, x: z.EpsilonAlpha2Beta1(stabilizer=STABILISER),
    ),
    "epsilon_alpha2_beta1_flat": (
        relprop.composites.epsilon_alpha2_beta1_flat(),
        lambda z, x: z.EpsilonAlpha2Beta1Flat(stabilizer=STABILISER),
    ),
    "epsilon_gamma_box": (
        relprop.composites.epsilon_gamma_box(LOW, HIGH),
        lambda z, x: z.EpsilonGammaBox(stabilizer=STABILISER, **bounds(x)),
    ),
    "excitation_backprop": (
        relprop.composites.excitation_backprop(),
        # Zhang 2016 has no bias in the denominator; zennit's default has.
        lambda z, x: z.ExcitationBackprop(stabilizer=STABILISER, zero_params="bias"),
    ),
}


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_zennit_composites(name: str, bias: bool, zennit: Any) -> None:
    ours, theirs = COMPOSITES[name]
    model, x = convolutional(bias).double(), torch.randn(2, 3, 8, 8).double().clamp(LOW, HIGH)
    expected = of_zennit(theirs(zennit.composites, x), model, x, 3)
    close(relprop.attribute(model, x, 3, composite=ours).values, expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (relprop.composites.guided_backprop(), "GuidedBackprop"),
        (relprop.composites.deconvnet(), "DeconvNet"),
        (relprop.composites.beta_smooth(), "BetaSmooth"),
    ],
    ids=["guided_backprop", "deconvnet", "beta_smooth"],
)
def test_zennit_gradient_methods(ours: relprop.Composite, theirs: str, zennit: Any) -> None:
    model, x = convolutional().double(), torch.randn(2, 3, 8, 8).double()
    leaf = x.clone().requires_grad_()
    with getattr(zennit.composites, theirs)().context(model) as modified:
        (expected,) = torch.autograd.grad(modified(leaf)[:, 3].sum(), leaf)
    close(relprop.attribute(model, x, 3, composite=ours, multiply_by_inputs=False).values, expected)


# zennit counts the bias among the inputs of w^2, the definition does not.
RULES: dict[str, tuple[relprop.rules.Rule, Callable[[Any], Any]]] = {
    "epsilon": (relprop.Epsilon(0.1), lambda z: z.Epsilon(0.1)),
    "gamma": (relprop.Gamma(0.4), lambda z: z.Gamma(0.4, stabilizer=STABILISER)),
    "z plus": (relprop.ZPlus(), lambda z: z.ZPlus(STABILISER)),
    "alpha 2 beta 1": (relprop.AlphaBeta(), lambda z: z.AlphaBeta(2, 1, stabilizer=STABILISER)),
    "w square": (relprop.WSquare(), lambda z: z.WSquare(STABILISER, zero_params="bias")),
    "flat": (relprop.Flat(), lambda z: z.Flat(STABILISER)),
    "z box": (
        relprop.ZBox(LOW, HIGH, epsilon=STABILISER),
        lambda z: z.ZBox(LOW, HIGH, stabilizer=STABILISER),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_zennit_rules(name: str, zennit: Any) -> None:
    """One rule on every layer of a network without average pools, inputs of both signs."""
    ours, theirs = RULES[name]
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    ).double()
    x = torch.randn(2, 3, 8, 8).double().clamp(LOW, HIGH)
    composite = zennit.composites.LayerMapComposite(
        [
            (zennit.types.Activation, zennit.rules.Pass()),
            (zennit.types.Linear, theirs(zennit.rules)),
        ]
    )
    expected = of_zennit(composite, model, x, 3)
    same = relprop.Composite({"conv": ours, "linear": ours})
    close(relprop.attribute(model, x, 3, composite=same).values, expected)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_captum_default(bias: bool) -> None:
    """Epsilon of 1e-9 on every layer, pooling included."""
    captum = imported("captum.attr")
    # captum has no rule for Flatten; a layer that reshapes is what it refuses.
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 5, 2, bias=bias),
    ).double()
    x = torch.randn(2, 3, 8, 8).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.LRP(model).attribute(x, target=(3, 0, 0)).detach()
    ours = relprop.Composite({"conv": relprop.Epsilon(1e-9)})
    # captum stabilises the pooling too, by 1e-9, where ours needs no stabiliser.
    found = relprop.attribute(model, x, (3, 0, 0), composite=ours).values
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_captum_on_linear_layers() -> None:
    captum = imported("captum.attr")
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(4, 6).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, delta = captum.LRP(model).attribute(x, target=1, return_convergence_delta=True)
    relevance = relprop.attribute(model, x, 1, composite=relprop.composites.epsilon(1e-9))
    close(relevance.values, expected.detach())
    close(relevance.residual, delta.detach())
