"""One sample gives one map: alone, among others, in any order, in any portion."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import relprop
from networks import ResNet, convolutional, normalised

COMPOSITES: dict[str, relprop.Composite | str] = {
    name: name
    for name in (
        "auto",
        "zero",
        "epsilon",
        "epsilon_plus",
        "epsilon_plus_flat",
        "epsilon_alpha2_beta1",
        "epsilon_alpha2_beta1_flat",
        "deep_taylor",
        "gradient",
        "guided_backprop",
        "deconvnet",
        "excitation_backprop",
        "beta_smooth",
        "gamma_flat",
    )
} | {
    "epsilon_gamma_box": relprop.composites.epsilon_gamma_box(-3.0, 3.0),
    "epsilon, relative": relprop.Composite(
        {"linear": relprop.Epsilon(0.25, relative=True), "conv": relprop.Epsilon(0.25, relative=True)}
    ),
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutional": convolutional,
    "normalised": normalised,
    "resnet": ResNet,
}


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    # Kernels may sum in another order for another batch size; nothing else may differ.
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


@pytest.fixture
def images() -> torch.Tensor:
    """Samples of very different sizes, one of them non-negative and one black."""
    scale = torch.tensor([1.0, 1e-2, 30.0, 1.0, 0.0]).reshape(5, 1, 1, 1)
    x = torch.randn(5, 3, 16, 16) * scale
    x[3].abs_()
    return x.double()


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("network", NETWORKS)
def test_alone_and_among_others(network: str, composite: str, images: torch.Tensor) -> None:
    model = NETWORKS[network]().double()
    images = images if network == "resnet" else images[..., :8, :8]
    targets = [0, 1, 2, 3, 4]
    chosen = COMPOSITES[composite]
    together = relprop.attribute(model, images, targets, composite=chosen).values
    order = [3, 0, 4, 2, 1]
    shuffled = relprop.attribute(model, images[order], order, composite=chosen).values
    portions = relprop.attribute(model, images, targets, composite=chosen, batch_size=2).values
    close(shuffled, together[order])
    close(portions, together)
    for n, target in enumerate(targets):
        alone = relprop.attribute(model, images[n : n + 1], target, composite=chosen).values
        close(alone, together[n : n + 1])


def test_portions_carry_everything_along(images: torch.Tensor) -> None:
    """Targets, seeds and every field of the result are cut and joined with the inputs."""
    model = ResNet().double()
    arguments = {"target": [4, 3, 2, 1, 0], "composite": "epsilon_plus", "seed": torch.rand(5).double()}
    whole = relprop.attribute(model, images, layers=["layer1", "fc"], **arguments)
    cut = relprop.attribute(model, images, layers=["layer1", "fc"], batch_size=2, **arguments)
    for field in ("values", "output", "score", "residual"):
        close(getattr(cut, field), getattr(whole, field))
    assert whole.layers.keys() == cut.layers.keys()
    for path in whole.layers:
        close(cut.layers[path], whole.layers[path])


def test_indexing_gives_one_sample(images: torch.Tensor) -> None:
    model = ResNet().double()
    whole = relprop.attribute(model, images, [4, 3, 2, 1, 0], composite="epsilon_plus")
    alone = relprop.attribute(model, images[2:3], 2, composite="epsilon_plus")
    close(whole[2].values.reshape(alone.values.shape), alone.values)


def test_several_targets_are_several_calls(images: torch.Tensor) -> None:
    model = ResNet().double()
    together = relprop.attribute_each(model, images, [0, 3, [4, 3, 2, 1, 0]], composite="epsilon_plus_flat")
    for each, target in zip(together, [0, 3, [4, 3, 2, 1, 0]], strict=True):
        alone = relprop.attribute(model, images, target, composite="epsilon_plus_flat")
        close(each.values, alone.values)
        close(each.score, alone.score)


def test_the_size_of_a_score_changes_nothing_but_the_size(images: torch.Tensor) -> None:
    """A map at any scale: rules see structure, not numbers."""
    model = convolutional(bias=False).double()
    for composite in ("zero", "epsilon_plus_flat", "gamma_flat"):
        small, large = (
            relprop.attribute(model, scale * images[:3, :, :8, :8], 1, composite=composite, seed=1.0).values
            for scale in (1e2, 1e6)
        )
        # An epsilon of 1e-6 weighs less the larger the numbers are.
        torch.testing.assert_close(small, large, rtol=1e-2, atol=1e-5)


def test_both_sides_of_a_contrast_follow_their_samples(images: torch.Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 5)).double()
    wanted = relprop.Contrast([0, 1, 2, 0, 1], 2)
    R = relprop.attribute(model, images, wanted, labels=["a", "b", "c", "d", "e"])
    assert R[1].target == relprop.Contrast([1], 2) and R[3:].target == relprop.Contrast([0, 1], 2)
    assert "sample 1: b (1) rather than c (2)" in repr(R)
    alone = relprop.attribute(model, images[1:2], relprop.Contrast(1, 2))
    close(R[1].values, alone.values)
    assert [row.explained for row in R.rows()][1] == "sample 1: b (1) rather than c (2)"
