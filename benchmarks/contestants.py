"""Who is measured: the plain gradient, relprop's composites, and the other implementations of LRP.

The others are optional. For all of them: `pip install --no-deps captum==0.9.0 zennit==0.5.1 autolrp==0.2.0`.
Each contestant gets the model that it needs from `prepare`, which is never measured, and is used as its own
documentation shows. Everyone gets frozen parameters, so that nobody pays for gradients of weights.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks import networks

Attribution = Callable[[nn.Module, Tensor, Tensor], Tensor]
YARDSTICK = "gradient"


@dataclass(frozen=True)
class Contestant:
    """A way to attribute, and what relprop promises for it (ratios to the yardstick)."""

    name: str
    run: Attribution
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model
    goal_time: float | None = None
    goal_memory: float | None = None

    @property
    def package(self) -> str:
        return self.name.split(" ")[0]


def everyone() -> dict[str, Contestant]:
    """All contestants whose package is installed, the yardstick first."""
    found = [Contestant(YARDSTICK, gradient)]
    for package, contestants in (
        ("relprop", relprop_composites),
        ("relprop.captum", drop_in_rules),
        ("captum", captum_rules),
        ("zennit", zennit_composites),
        ("autolrp", autolrp_configurations),
    ):
        if find_spec(package) is not None:
            found += contestants()
    return {contestant.name: contestant for contestant in found}


def score(output: Tensor, target: Tensor) -> Tensor:
    return output.gather(1, target[:, None])[:, 0]


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """The yardstick: one forward and one gradient with respect to the input."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(score(model(x), target).sum(), x)[0]


# relprop


def relprop_composites() -> list[Contestant]:
    from relprop import composites

    box = composites.epsilon_gamma_box(networks.LOW, networks.HIGH)
    goals = {
        "zero": ("zero", 1.1, 1.1),
        "epsilon": ("epsilon", 1.1, 1.1),
        "epsilon_plus": ("epsilon_plus", 1.8, 1.5),
        "epsilon_gamma_box": (box, 2.2, 1.6),
        "epsilon_alpha2_beta1_flat": ("epsilon_alpha2_beta1_flat", 2.5, 1.6),
        "auto": ("auto", None, None),
    }
    return [
        Contestant(f"relprop {name}", partial(relprop_attribute, composite), goal_time=time, goal_memory=memory)
        for name, (composite, time, memory) in goals.items()
    ]


def relprop_attribute(composite: object, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    import relprop

    return relprop.attribute(model, x, target, composite=composite).values


# captum, and relprop in its place


def drop_in_rules() -> list[Contestant]:
    """Goals are relative to captum: half its time, 0.4 of its extra memory."""
    return [
        Contestant("relprop.captum default", partial(lrp_attribute, "relprop.captum")),
        Contestant("relprop.captum gamma", partial(gamma_attribute, "relprop.captum", "relprop.captum"), copy.deepcopy),
    ]


def captum_rules() -> list[Contestant]:
    gamma = partial(gamma_attribute, "captum.attr", "captum.attr._utils.lrp_rules")
    return [
        Contestant("captum default", partial(lrp_attribute, "captum.attr"), captum_model),
        Contestant("captum gamma", gamma, captum_model),
    ]


def captum_model(model: nn.Module) -> nn.Module:
    """A copy, since captum leaves a model changed when it fails, without in-place relus, which it refuses."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def lrp_attribute(library: str, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return import_module(library).LRP(model).attribute(x, target)


def gamma_attribute(library: str, rules: str, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """The rules are set for each call: captum deletes them when it is done, and would go on with its default."""
    gamma = import_module(rules).GammaRule
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.rule = gamma()
    return lrp_attribute(library, model, x, target)


# zennit


def zennit_composites() -> list[Contestant]:
    names = ("Epsilon", "EpsilonPlus", "EpsilonGammaBox", "EpsilonPlusFlat", "EpsilonAlpha2Beta1Flat")
    return [Contestant(f"zennit {name}", partial(zennit_attribute, name), copy.deepcopy) for name in names]


def import_zennit() -> None:
    """Zennit asks torchvision for two classes; empty ones do, also where a torchvision cannot be imported."""
    if "zennit" in sys.modules:
        return
    names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.modules |= {name: ModuleType(name) for name in names}
    for block in ("Bottleneck", "BasicBlock"):
        setattr(sys.modules[names[-1]], block, type(block, (), {}))
    try:
        import zennit.torchvision  # noqa: F401
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def zennit_attribute(name: str, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    import_zennit()
    from zennit import composites, rules, types
    from zennit.attribution import Gradient
    from zennit.canonizers import AttributeCanonizer, SequentialMergeBatchNorm

    options: dict[str, object] = {"canonizers": [SequentialMergeBatchNorm(), AttributeCanonizer(visible_sum)]}
    if name == "Epsilon":  # the one that is not a class there; "Linear" includes convolutions
        weighted = [(types.Linear, rules.Epsilon())]
        composite = composites.LayerMapComposite(composites.layer_map_base() + weighted, **options)
    else:
        if name == "EpsilonGammaBox":
            options |= {"low": networks.LOW, "high": networks.HIGH}
        composite = getattr(composites, name)(**options)
    rows = torch.arange(len(x), device=x.device)

    def seed(output: Tensor) -> Tensor:
        """The relevance of the output: its score, and 0 for the other classes."""
        relevance = torch.zeros_like(output)
        relevance[rows, target] = score(output, target)
        return relevance

    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, seed)[1]


def visible_sum(name: str, module: nn.Module) -> dict[str, object] | None:
    """As zennit's canonizer for torchvision's ResNets: the `+=` becomes a module, and modules have rules."""
    if not isinstance(module, (networks.Bottleneck, networks.MBConv)) or not getattr(module, "skip", True):
        return None
    from zennit.layer import Sum

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        total = self.canonizer_sum(torch.stack(self.branches(x), dim=-1))
        return self.relu(total) if isinstance(self, networks.Bottleneck) else total

    return {"forward": forward.__get__(module), "canonizer_sum": Sum()}


# autolrp


def autolrp_configurations() -> list[Contestant]:
    return [
        Contestant("autolrp default", partial(autolrp_attribute, "LRPConfig"), copy.deepcopy),
        Contestant("autolrp composite", partial(autolrp_attribute, "composite"), copy.deepcopy),
        Contestant("autolrp alpha2_beta1", partial(autolrp_attribute, "epsilon_alpha2_beta1"), copy.deepcopy),
    ]


def autolrp_attribute(preset: str, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    import autolrp

    config = autolrp.LRPConfig() if preset == "LRPConfig" else getattr(autolrp.LRPConfig, preset)()
    wrapped = autolrp.tensor(x.detach())
    score(model(wrapped), target).sum().lrp(config=config)
    return wrapped.relevance.detach()
