"""Quantus 0.6 on the same work: pixel flipping to the last bit, and the adapters in both directions."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from networks import convolutional
from relprop.evaluation import Flipping

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
    warnings.simplefilter("ignore")
    # Quantus imports zennit where it finds one, and that needs torchvision; nothing here is about either.
    found = importlib.util.find_spec
    patched.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "zennit" else found(name, *more))
    quantus = pytest.importorskip("quantus")

pytestmark = pytest.mark.filterwarnings("ignore")


def network(kind: str) -> nn.Module:
    torch.manual_seed(3)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    return convolutional()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("baseline", [0.0, 0.25])
@pytest.mark.parametrize("softmax", [False, True])
def test_pixel_flipping_is_that_of_quantus(kind: str, baseline: float, softmax: bool) -> None:
    model = network(kind)
    x = torch.rand(6, 12) if kind == "mlp" else torch.rand(6, 3, 8, 8)
    step = 1 if kind == "mlp" else 16
    y, maps = torch.tensor([0, 1, 2, 3, 0, 1]), torch.randn_like(x)
    # Quantus takes pictures or series, so a table goes in as series of one channel.
    given = x[:, None] if kind == "mlp" else x
    wrapped = nn.Sequential(nn.Flatten(), model).eval() if kind == "mlp" else model
    metric = quantus.PixelFlipping(
        features_in_step=step, abs=False, normalise=False, disable_warnings=True, perturb_baseline=baseline
    )
    theirs = metric(
        model=wrapped, x_batch=given.numpy(), y_batch=y.numpy(), a_batch=(maps[:, None] if kind == "mlp" else maps).numpy(),
        softmax=softmax, device="cpu", batch_size=6,
    )  # fmt: skip
    E = relprop.evaluate(
        model, x, y, [maps], metrics=Flipping(steps=x[0].numel() // step), units="entries", replace=baseline, free=(),
        of="probability" if softmax else "logit", batch_size=6,
    )  # fmt: skip
    ours = E.find("morf")[0].curve[0, :, 1:]
    theirs = torch.tensor(np.array(theirs), dtype=torch.float64)
    assert ours.shape == theirs.shape
    # Batches hold other rows, so kernels of float32 may sum in another order.
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=2e-6, atol=2e-7)


def test_pixel_flipping_to_the_last_bit() -> None:
    """In float64, rounded to float32, the order of sums cannot show."""

    class Double(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model.double()

        def forward(self, x: Any) -> Any:
            return self.model(x.double()).float()

    model, x = Double(convolutional()).eval(), torch.rand(6, 3, 8, 8)
    y, maps = torch.tensor([0, 1, 2, 3, 0, 1]), torch.randn_like(x)
    metric = quantus.PixelFlipping(
        features_in_step=16, abs=False, normalise=False, disable_warnings=True, perturb_baseline=0.5
    )
    theirs = metric(
        model=model,
        x_batch=x.numpy(),
        y_batch=y.numpy(),
        a_batch=maps.numpy(),
        softmax=False,
        device="cpu",
        batch_size=6,
    )
    E = relprop.evaluate(
        lambda rows: model(rows), x, y, [maps], metrics=Flipping(steps=12), units="entries", replace=0.5, free=()
    )
    assert torch.equal(E.find("morf")[0].curve[0, :, 1:].float(), torch.tensor(np.array(theirs)).float())


def test_a_composite_is_an_explain_func() -> None:
    model, x, y = convolutional(), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    explain = relprop.evaluate.as_quantus("zero")
    maps = explain(model, x.numpy(), y.numpy())
    np.testing.assert_array_equal(maps, relprop.attribute(model, x, y, composite="zero").values.numpy())
    metric = quantus.PixelFlipping(features_in_step=16, abs=False, normalise=False, disable_warnings=True)
    options = {"x_batch": x.numpy(), "y_batch": y.numpy(), "device": "cpu"}
    with_maps = metric(model=model, a_batch=maps, **options)
    with_function = metric(model=model, a_batch=None, explain_func=explain, **options)
    np.testing.assert_array_equal(np.array(with_maps), np.array(with_function))


def test_a_metric_of_quantus_is_a_metric_here() -> None:
    model, x, y = convolutional(), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    maps = torch.rand_like(x)
    metric = quantus.Sparseness(abs=True, normalise=False, disable_warnings=True)
    E = relprop.evaluate(model, x, y, [maps], free=(), metrics=[relprop.evaluate.from_quantus(metric, 1, device="cpu")])
    theirs = metric(model=model, x_batch=x.numpy(), y_batch=y.numpy(), a_batch=maps.numpy(), device="cpu")
    np.testing.assert_allclose(E["Sparseness"][0].numpy(), theirs, rtol=1e-6)
