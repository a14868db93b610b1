"""`relprop.evaluate.attributor` where captum expects a method of its own: its metrics, noise tunnels, and calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, visualization
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import Tensor, nn

import relprop
from networks import convolutional, mlp
from relprop.errors import InputError, TargetError


@infidelity_perturb_func_decorator(False)
def removed(inputs: Tensor) -> Tensor:
    """Sets about half of the entries to 0: captum wants what is left."""
    return inputs * (torch.rand_like(inputs) < 0.5)


def linear() -> nn.Linear:
    return nn.Linear(6, 3, bias=False).double().eval()


def test_infidelity_by_captum_of_a_linear_model_is_0() -> None:
    """Captum multiplies the perturbation with the map, so the map is that of the modified gradient, relevance over input."""
    model, x = linear(), torch.randn(4, 6, dtype=torch.float64)
    maps = relprop.evaluate.attributor(model, "zero").attribute(x, target=1)

    def forward(ones: Tensor) -> Tensor:
        return model(x.repeat_interleave(len(ones) // 4, 0) * ones)

    def gone(ones: Tensor) -> tuple[Tensor, Tensor]:
        away = (torch.rand_like(ones) < 0.5).double()
        return away, ones - away

    found = infidelity(forward, gone, torch.ones_like(x), maps, target=1, n_perturb_samples=5)
    assert float(found.abs().max()) < 1e-10
    assert float(infidelity(forward, gone, torch.ones_like(x), 2 * maps, target=1, n_perturb_samples=5).max()) > 1e-3


def test_sensitivity_by_captum_of_a_linear_model_is_known() -> None:
    """`R = w x`: at a distance r in each entry the map has moved by at most `r |w|`."""
    model, x = linear(), torch.randn(4, 6, dtype=torch.float64)
    given = relprop.evaluate.attributor(model, "zero")
    found = sensitivity_max(given.attribute, x, perturb_radius=0.02, n_perturb_samples=200, target=2, norm_ord="fro")
    maps = given.attribute(x, target=2)
    bound = 0.02 * model.weight[2].detach().norm() / maps.norm(dim=1)
    assert bool((found <= bound + 1e-12).all()) and bool((found > 0.7 * bound).all())


@pytest.mark.parametrize("composite", ["auto", "zero", "epsilon_plus", "gamma_flat"])
def test_captums_metrics_take_any_composite(composite: str) -> None:
    model, x, y = convolutional(), torch.rand(3, 3, 8, 8), torch.tensor([0, 2, 1])
    given = relprop.evaluate.attributor(model, composite)
    maps = given.attribute(x, target=y)
    moved = sensitivity_max(given.attribute, x, n_perturb_samples=3, target=y)
    missed = infidelity(model, removed, x, maps, target=y, n_perturb_samples=3, normalize=True)
    assert moved.shape == missed.shape == (3,)
    assert bool(moved.isfinite().all()) and bool(missed.isfinite().all()) and float(moved.min()) > 0
    figure, _ = visualization.visualize_image_attr(maps[0].permute(1, 2, 0).numpy(), use_pyplot=False)
    assert figure is not None


def test_calls_in_captums_forms() -> None:
    model, x, y = convolutional(), torch.rand(3, 3, 8, 8), torch.tensor([0, 2, 1])
    given = relprop.evaluate.attributor(model, "epsilon_plus")
    wanted = relprop.attribute(model, x, [0, 2, 1], composite="epsilon_plus").values
    for maps in (
        given.attribute(x, y),
        given.attribute(inputs=x, target=y),
        given.attribute(x, target=[0, 2, 1]),
        given.attribute(x.clone().requires_grad_(), target=y),
    ):
        assert torch.equal(maps, wanted) and not maps.requires_grad
    (maps,) = given.attribute((x,), target=y)
    assert torch.equal(maps, wanted)
    theirs: Any = IntegratedGradients(model).attribute((x,), target=y)
    assert isinstance(theirs, tuple) and isinstance(given.attribute((x,), target=y), tuple)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return scale * (self.first(a) + self.second(b)).relu()


def test_several_inputs_come_back_as_captum_returns_them() -> None:
    model, a, b = Two().eval(), torch.randn(2, 4), torch.randn(2, 5)
    given = relprop.evaluate.attributor(model, "zero")
    maps = given.attribute((a, b), target=1, additional_forward_args=(2.0,))
    wanted = relprop.attribute(model, (a, b), 1, composite="zero", forward_args=(2.0,)).values
    assert isinstance(maps, tuple) and all(map(torch.equal, maps, wanted))
    assert all(map(torch.equal, given.attribute((a, b), target=1, additional_forward_args=2.0), wanted))


def test_what_captum_refuses_is_one_clear_error() -> None:
    given = relprop.evaluate.attributor(mlp(2, 6))
    with pytest.raises(TargetError):
        given.attribute(torch.randn(2, 6), target=17)
    with pytest.raises(InputError, match="n_steps"):
        given.attribute(torch.randn(2, 6), target=0, n_steps=5)
