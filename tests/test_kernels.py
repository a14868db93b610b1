"""How many kernels an explanation starts, and how often it waits for the device, counted on a CPU.

The counts do not depend on the machine. A count that shrinks by a tenth is written down anew, so that it cannot grow back
unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchmarks.kernels import NETWORKS, built, counted, gradient
from torch import Tensor, nn

import relprop
from relprop.operations import normalisation

MOST = {
    ("ResNet-50", "zero"): 256, ("ResNet-50", "epsilon"): 507, ("ResNet-50", "gamma_flat"): 755,
    ("ResNet-50", "epsilon_plus"): 652,
    ("EfficientNet-B0", "zero"): 581, ("EfficientNet-B0", "epsilon"): 934, ("EfficientNet-B0", "gamma_flat"): 1665,
    ("EfficientNet-B0", "epsilon_plus"): 1582,
    ("MobileNet-v2", "zero"): 352, ("MobileNet-v2", "epsilon"): 615, ("MobileNet-v2", "gamma_flat"): 932,
    ("MobileNet-v2", "epsilon_plus"): 827,
    ("DenseNet-121", "zero"): 1107, ("DenseNet-121", "epsilon"): 1529, ("DenseNet-121", "gamma_flat"): 2081,
    ("DenseNet-121", "epsilon_plus"): 1773,
    ("ViT-S", "zero"): 239, ("ViT-S", "attnlrp"): 239, ("ViT-S", "attnlrp_gamma"): 839,
    ("decoder, 8 layers", "zero"): 462, ("decoder, 8 layers", "attnlrp"): 462,
    ("decoder, 8 layers", "attnlrp_gamma"): 1089, ("decoder, 8 layers", "cp_lrp"): 342,
}  # fmt: skip
GRADIENT = {
    "ResNet-50": 243, "EfficientNet-B0": 407, "MobileNet-v2": 234, "DenseNet-121": 1094, "ViT-S": 152,
    "decoder, 8 layers": 571,
}  # fmt: skip


def test_each_network_and_composite_of_the_table_is_counted() -> None:
    assert {(name, one) for name, (_, composites) in NETWORKS.items() for one in composites} == set(MOST)


@pytest.mark.parametrize(("network", "composite"), MOST)
def test_an_explanation_starts_no_more_kernels_than_it_did(network: str, composite: str) -> None:
    model, x = built(network)
    found = counted(lambda: relprop.attribute(model, x, 3, composite=composite))
    most = MOST[network, composite]
    assert 0.9 * most < found.kernels.total() <= most, found.kernels
    assert found.waits.total() <= 1, found.waits


@pytest.mark.parametrize("network", GRADIENT)
def test_the_gradient_is_counted_the_same_way(network: str) -> None:
    model, x = built(network)
    found = counted(lambda: gradient(model, x))
    assert found.kernels.total() == GRADIENT[network]
    assert not found.waits


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_every_way_to_wait_is_counted(read: Callable[[Tensor], object]) -> None:
    assert counted(lambda: read(torch.ones(2, 3))).waits.total() == 1


def test_a_kernel_and_a_wait_more_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = built("ViT-S")
    zeros = normalisation._zeros
    monkeypatch.setattr(normalisation, "_zeros", lambda like: zeros(like) + float(like.amin()) * 0)
    found = counted(lambda: relprop.attribute(model, x, 3, composite="attnlrp"))
    assert found.waits.total() > 1
    assert found.kernels.total() > MOST["ViT-S", "attnlrp"]


def test_several_targets_take_one_read() -> None:
    model, x = built("MobileNet-v2")
    found = counted(lambda: relprop.attribute_each(model, x, [1, 2, 3], composite="gamma_flat"))
    assert found.waits.total() == 1


@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma"])
def test_a_ledger_takes_one_read_for_all_its_entries(composite: str) -> None:
    model, x = built("MobileNet-v2")
    found = counted(lambda: relprop.attribute(model, x, 3, composite=composite, ledger=True))
    few = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    less = counted(lambda: relprop.attribute(few, torch.randn(1, 4), 3, composite=composite, ledger=True))
    assert found.waits.total() - less.waits.total() <= 2  # one for each cause of the ledger


class Broken(nn.Module):
    """A model whose output, or whose relevance, is not finite."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y / 0 if self.how == "output" else y


class Endless(relprop.rules.WeightedRule):
    """A rule without a stabiliser, which it needs."""

    def propagate(self, layer: Any, g: Tensor) -> Tensor:
        return layer.transpose(g) / 0


def test_what_is_not_finite_is_refused_at_the_end_with_the_same_words() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(relprop.errors.InputError, match="inputs holds NaN or infinite values"):
        relprop.attribute(Broken(""), x * torch.nan, 1)
    with pytest.raises(
        relprop.errors.NonFiniteError, match="they first appear in the output of the model's own forward"
    ):
        relprop.attribute(Broken("output"), x, 1)
    with pytest.raises(relprop.errors.NonFiniteError, match="the relevance of inputs holds NaN or infinite values"):
        relprop.attribute(Broken(""), x, 1, composite=relprop.Composite({"linear": Endless()}))


def test_inputs_that_are_not_finite_are_named_though_the_model_fails_on_them() -> None:
    def model(x: Tensor) -> Tensor:
        if bool(x.isnan().any()):
            raise ValueError("no")
        return x.sum(1)

    with pytest.raises(relprop.errors.InputError, match="inputs holds NaN"):
        relprop.attribute(model, torch.full((1, 3), torch.nan))


INPLACE: dict[str, Any] = {
    "silu": nn.SiLU, "hardswish": nn.Hardswish, "mish": nn.Mish, "elu": nn.ELU, "selu": nn.SELU, "relu6": nn.ReLU6,
    "hardtanh": partial(nn.Hardtanh, 0.0, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", INPLACE)
@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma", "epsilon_plus"])
def test_an_activation_in_place_takes_one_copy(name: str, composite: str) -> None:
    def network(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        act = INPLACE[name]
        parts = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), act(inplace=inplace), nn.Conv2d(3, 3, 3), act(inplace=inplace)
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(48, 4)).eval()

    x = torch.randn(2, 2, 8, 8)
    beside, within = (network(inplace) for inplace in (False, True))
    results = [relprop.attribute(m, x, 1, composite=composite) for m in (beside, within)]
    assert torch.equal(results[0].values, results[1].values)
    if name in ("relu6", "hardtanh") and composite == "gamma":
        return  # beside, a CPU looks whether all relevance comes through the cap
    counts = [counted(lambda m=m: relprop.attribute(m, x, 1, composite=composite)).kernels for m in (beside, within)]
    assert counts[1]["clone"] - counts[0]["clone"] == 2  # as in torch's own gradient
    assert counts[1].total() - counts[0].total() == 2
    assert not counts[1]["copy_"]


def test_a_value_that_is_read_after_the_write_is_that_of_its_time() -> None:
    """The numbers before a write stay what other operations read; a view of the written tensor reads the new ones."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.one(x)
            before, view = h.sigmoid(), h.view(-1, 2, 2)
            F.silu(h, inplace=True)
            return self.two(h * before + view.flatten(1))

    class Beside(Twice):
        def forward(self, x: Tensor) -> Tensor:
            h = self.one(x)
            y = F.silu(h)
            return self.two(y * h.sigmoid() + y.view(-1, 2, 2).flatten(1))

    torch.manual_seed(0)
    one, other = Twice().double(), Beside().double()
    other.load_state_dict(one.state_dict())
    x = torch.randn(3, 3, dtype=torch.float64)
    for composite in ("zero", "epsilon", "gamma"):
        a, b = (relprop.attribute(m, x, 1, composite=composite, ledger=True) for m in (one, other))
        torch.testing.assert_close(a.values, b.values, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(sum(a.ledger.values()), a.residual, rtol=1e-9, atol=1e-12)


def test_frozen_norms_save_no_activation() -> None:
    """A BatchNorm with frozen statistics is a factor for each channel: its way back needs neither input nor output."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    saved: list[tuple[int, ...]] = []

    def keep(t: Tensor) -> Tensor:
        saved.append(tuple(t.shape))
        return t

    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), relprop.propagate("zero", model=model):
        model(x)
    assert saved.count((1, 4, 4, 4)) == 1  # what SiLU was given
