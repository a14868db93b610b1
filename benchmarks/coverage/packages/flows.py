"""Densities and functions: normalising flows, whose score is a log density, networks of splines, Gaussian processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.architectures import Architecture

FEATURES = 4


class Density(nn.Module):
    """The log density that a flow gives to each sample."""

    def __init__(self, flow: nn.Module, read: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.flow, self.read = flow, read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.flow, x)


def _zuko(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import zuko

        flow = getattr(zuko.flows, name)(FEATURES, transforms=2, hidden_features=(8, 8))
        return Density(flow, lambda flow, x: flow().log_prob(x))

    return build


def _nflows() -> nn.Module:
    from nflows import distributions, flows, transforms

    steps = [transforms.MaskedAffineAutoregressiveTransform(FEATURES, 8), transforms.ReversePermutation(FEATURES)]
    flow = flows.Flow(transforms.CompositeTransform(steps), distributions.StandardNormal([FEATURES]))
    return Density(flow, lambda flow, x: flow.log_prob(x))


def _normflows() -> nn.Module:
    import normflows

    steps = []
    for _ in range(2):
        network = normflows.nets.MLP([FEATURES // 2, 8, FEATURES], init_zeros=False)
        steps += [normflows.flows.AffineCouplingBlock(network), normflows.flows.Permute(FEATURES, mode="swap")]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(FEATURES), steps)
    return Density(flow, lambda flow, x: flow.log_prob(x))


def _freia() -> nn.Module:
    from FrEIA import framework, modules

    flow = framework.SequenceINN(FEATURES)
    for _ in range(2):
        flow.append(
            modules.AllInOneBlock,
            subnet_constructor=lambda a, b: nn.Sequential(nn.Linear(a, 8), nn.ReLU(), nn.Linear(8, b)),
        )
    return Density(flow, lambda flow, x: flow(x)[0])


def _splines() -> nn.Module:
    from kan import KAN

    return KAN(width=[FEATURES, 5, 3], grid=3, k=3, auto_save=False, symbolic_enabled=False, save_act=False)


def _process() -> nn.Module:
    """The mean of a Gaussian process, given what it has seen."""
    import gpytorch

    class Process(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            generator = torch.Generator().manual_seed(0)
            seen = torch.randn(10, FEATURES, generator=generator)
            super().__init__(seen, seen.sum(1).sin(), gpytorch.likelihoods.GaussianLikelihood())
            self.mean, self.covariance = gpytorch.means.ZeroMean(), gpytorch.kernels.RBFKernel()

        def forward(self, x: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.covariance(x))

    return Density(Process(), lambda process, x: process(x).mean)


QUADRATIC = "the log density of a Gaussian holds squares and constants"
DENSITY = {"limit": QUADRATIC, "lively": False}


def density(name: str, package: str, build: Callable[[], nn.Module], **more: Any) -> Architecture:
    return Architecture(name, package, "densities", build, lambda: torch.randn(3, FEATURES), **(DENSITY | more))


ALL: list[Architecture] = [
    density("MAF", "zuko", _zuko("MAF")),
    density("NSF", "zuko", _zuko("NSF")),
    density("MaskedAffineAutoregressiveTransform", "nflows", _nflows),
    density("AffineCouplingBlock", "normflows", _normflows),
    density("AllInOneBlock", "FrEIA", _freia, limit=""),
    density("KAN", "kan", _splines, limit="splines are not 0 at 0"),
    density(
        "ExactGP", "gpytorch", _process, limit="its kernel is not 0 at 0", mixes="it is one distribution of all points"
    ),
]
